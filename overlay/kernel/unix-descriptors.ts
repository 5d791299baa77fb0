/**
 * File descriptors that come along with bytes on a unix socket (SCM_RIGHTS; unix(7), cmsg(3)). Node reads
 * sockets with read(2), which drops them; so the first bytes of such a connection are read here.
 *
 *      msghdr (64-bit)                          cmsghdr
 *      0  name           8  name length         0  length, header included
 *     16  iovec *       24  iovec count         8  level
 *     32  control *     40  control length     12  type
 *     48  flags                                16  the descriptors, 4 bytes each
 */
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { lastErrno, MSG_DONTWAIT, SystemCallError } from './libc.ts';

const recvmsg: (fd: number, message: Buffer, flags: number) => number = koffi
  .load('libc.so.6')
  .func('intptr_t recvmsg(int, uint8_t *, int)');

const EAGAIN = 11;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x08;
const MSG_CMSG_CLOEXEC = 0x40000000;

const MESSAGE_BYTES = 56;
const CONTROL_HEADER_BYTES = 16;
/** More than anybody should send; what does not fit the kernel closes, and says so. */
const MAX_DESCRIPTORS = 8;

/** Bytes that came first on a connection, and the descriptors that came with them, which the caller owns. */
export interface ReceivedWithDescriptors {
  readonly bytes: Buffer;
  readonly descriptors: readonly number[];
}

const data = Buffer.alloc(64 * 1024);
const control = Buffer.alloc(CONTROL_HEADER_BYTES + 4 * MAX_DESCRIPTORS);
const vector = Buffer.alloc(16);
const message = Buffer.alloc(MESSAGE_BYTES);
vector.writeBigUInt64LE(koffi.address(data), 0);
vector.writeBigUInt64LE(BigInt(data.length), 8);

/**
 * recvmsg(2), without waiting. Undefined: nothing has come yet. No bytes: the other side has closed.
 * @throws SystemCallError; also EMSGSIZE when more descriptors came than anybody should send (all closed)
 */
export function receiveWithDescriptors(fd: number): ReceivedWithDescriptors | undefined {
  message.fill(0);
  message.writeBigUInt64LE(koffi.address(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(koffi.address(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  const length = recvmsg(fd, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0) {
    const errno = lastErrno();
    if (errno === EAGAIN) return undefined;
    throw new SystemCallError('recvmsg', errno);
  }
  const descriptors = readDescriptors(Number(message.readBigUInt64LE(40)));
  if ((message.readInt32LE(48) & MSG_CTRUNC) !== 0) {
    for (const descriptor of descriptors) closeSync(descriptor);
    throw new SystemCallError('recvmsg: too many descriptors', 90);
  }
  return { bytes: Buffer.from(data.subarray(0, length)), descriptors };
}

function readDescriptors(controlLength: number): number[] {
  const descriptors: number[] = [];
  let start = 0;
  while (start + CONTROL_HEADER_BYTES <= controlLength) {
    const length = Number(control.readBigUInt64LE(start));
    if (length < CONTROL_HEADER_BYTES) break;
    if (control.readInt32LE(start + 8) === SOL_SOCKET && control.readInt32LE(start + 12) === SCM_RIGHTS) {
      for (let at = start + CONTROL_HEADER_BYTES; at + 4 <= start + length; at += 4) {
        descriptors.push(control.readInt32LE(at));
      }
    }
    start += (length + 7) & ~7;
  }
  return descriptors;
}
