/**
 * Requests that the kernel takes long to answer: removing a link waits for an RCU grace period, about 20 ms.
 * The send, in which all of that waiting happens, runs on a thread of Node's pool; the event loop goes on.
 * One batch at a time is under way on a socket; the socket's owner sees to that.
 */
import koffi from 'koffi';
import { SystemCallError } from './libc.ts';
import { MessageWriter, messages, type NetlinkRequest, NLM_F_ACK, NLMSG_ERROR } from './netlink-message.ts';
import { type BatchFailure, NetlinkError, type NetlinkSocket } from './netlink-socket.ts';

const send = koffi.load('libc.so.6').func('intptr_t send(int, const uint8_t *, uintptr_t, int)');

const EAGAIN = 11;
/** Away from the sequence numbers that the socket itself counts up from 1; each batch goes on. */
const FIRST_SEQUENCE = 0x80000000;
let nextSequence = FIRST_SEQUENCE;

/**
 * Carries a small batch out in order, each request whether or not the ones before it succeeded.
 * @returns the failures, in order @throws SystemCallError when the batch could not be sent
 */
export async function executeSlowly(
  netlink: NetlinkSocket,
  requests: readonly NetlinkRequest[],
  doing: (index: number) => string,
): Promise<BatchFailure[]> {
  const writer = new MessageWriter();
  if (nextSequence + requests.length > 0xffffffff) nextSequence = FIRST_SEQUENCE;
  const firstSequence = nextSequence;
  nextSequence += requests.length;
  for (const [i, request] of requests.entries()) writer.message(request, NLM_F_ACK, firstSequence + i);
  await sendOnThread(netlink.fd, writer.bytes);
  const failures: BatchFailure[] = [];
  let answered = 0;
  while (answered < requests.length) {
    const datagram = netlink.receive();
    if (datagram === undefined) {
      throw new NetlinkError(EAGAIN, 'the answer ended early', doing(answered));
    }
    for (const { type, sequence, body } of messages(datagram)) {
      const index = sequence - firstSequence;
      if (type !== NLMSG_ERROR || index < 0 || index >= requests.length) continue;
      answered++;
      const errno = -body.readInt32LE(0);
      if (errno !== 0) failures.push({ index, error: new NetlinkError(errno, undefined, doing(index)) });
    }
  }
  return failures;
}

/** The errno of a failed call on a pool thread is lost on the way here; EIO stands for it. */
const EIO = 5;

function sendOnThread(fd: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    send.async(fd, bytes, bytes.length, 0, (error: Error | null, sent: number) => {
      if (error !== null) reject(error);
      else if (sent < 0) reject(new SystemCallError('netlink send', EIO));
      else resolve();
    });
  });
}
