/**
 * A netlink socket, bound to the network namespace it was opened in. The kernel answers a request within
 * the send, so nothing here waits: send, then read until there is no more.
 *
 * Cost: what counts is system calls, 0.4 µs each with the way through koffi, beside the kernel's own work.
 * So a batch is many messages in one send, without an acknowledgement each: only failures answer, and the
 * last message's acknowledgement says that the batch has been read to its end.
 */
import {
  AF_NETLINK,
  bind,
  checked,
  close,
  errnoName,
  getsockname,
  lastErrno,
  MSG_DONTWAIT,
  MSG_TRUNC,
  recv,
  SOCK_RAW_CLOEXEC,
  send,
  setsockopt,
  socket,
} from './libc.ts';
import {
  attributes,
  HEADER_BYTES,
  MessageWriter,
  messages,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_OVERRUN,
  readText,
} from './netlink-message.ts';

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const NLMSGERR_ATTR_MSG = 1;

const EAGAIN = 11;
const EINTR = 4;
const ENOBUFS = 105;

/** One send carries at most this much: some 1,500 route messages, 3 ms of the kernel's time. */
const BATCH_BYTES = 64 * 1024;
const SEND_BUFFER_BYTES = 1024 * 1024;
const RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024;
/** A dump that changed under our hands is read again this often before the caller hears of it. */
const DUMP_ATTEMPTS = 5;

/** The kernel refused a request. `code` is the errno's name, the message has the kernel's own words. */
export class NetlinkError extends Error {
  override readonly name = 'NetlinkError';
  readonly code: string;
  readonly errno: number;
  constructor(errno: number, detail: string | undefined, doing: string) {
    super(`${doing}: ${errnoName(errno)}${detail === undefined ? '' : ` (${detail})`}`);
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

/** The table changed while it was read, again and again; the answer would be neither old nor new. */
export class DumpInterruptedError extends Error {
  override readonly name = 'DumpInterruptedError';
  readonly code = 'VTEPD_DUMP_INTERRUPTED';
  readonly retryable = true;
}

export interface BatchFailure {
  /** The place of the request in the batch. */
  readonly index: number;
  readonly error: NetlinkError;
}

export interface NetlinkSocketOptions {
  readonly protocol?: number;
  /** Multicast groups to join. */
  readonly groups?: readonly number[];
}

export class NetlinkSocket implements Disposable {
  readonly fd: number;
  readonly portId: number;
  readonly #writer = new MessageWriter();
  readonly #datagram: Buffer;
  #sequence = 0;
  #closed = false;

  /** Takes over a descriptor, which close() closes: one of our own, or one opened in another namespace. */
  constructor(fd: number) {
    this.fd = fd;
    // The kernel fills at most 32 KiB of a dump a read; an error carries at most the request it answers.
    this.#datagram = Buffer.alloc(64 * 1024);
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) {
      // Before kernel 4.20 the strict check is unknown: filters are then applied by the readers alone.
      this.#setOption(SOL_NETLINK, option, 1);
    }
    this.portId = this.#boundPort();
  }

  /** @throws SystemCallError */
  static open(options: NetlinkSocketOptions = {}): NetlinkSocket {
    const fd = checked(
      'socket(AF_NETLINK)',
      socket(AF_NETLINK, SOCK_RAW_CLOEXEC, options.protocol ?? NETLINK_ROUTE),
    );
    try {
      const address = Buffer.alloc(12);
      address.writeUInt16LE(AF_NETLINK, 0);
      checked('bind(AF_NETLINK)', bind(fd, address, address.length));
      const netlink = new NetlinkSocket(fd);
      netlink.#setOption(SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES);
      netlink.#setOption(SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES);
      for (const group of options.groups ?? []) {
        checked(
          `join netlink group ${group}`,
          netlink.#setOption(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group),
        );
      }
      return netlink;
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /** Carries one request out. @throws NetlinkError */
  request(request: NetlinkRequest, doing: string): void {
    const failure = this.execute([request], () => doing)[0];
    if (failure !== undefined) throw failure.error;
  }

  /**
   * Carries requests out in order, each whether or not the ones before it succeeded.
   * @returns the failures, in order
   */
  execute(requests: readonly NetlinkRequest[], doing: (index: number) => string): BatchFailure[] {
    const failures: BatchFailure[] = [];
    let next = 0;
    while (next < requests.length) {
      const first = next;
      const firstSequence = this.#sequence + 1;
      this.#writer.reset();
      while (next < requests.length && (next === first || this.#writer.length < BATCH_BYTES)) {
        const request = requests[next++] as NetlinkRequest;
        const last = next === requests.length || this.#writer.length + 512 >= BATCH_BYTES;
        this.#writer.message(request, last ? NLM_F_ACK : 0, this.#nextSequence());
        if (last) break;
      }
      this.#send();
      for (const { sequence, error, detail } of this.#acknowledgements(firstSequence, this.#sequence)) {
        const index = first + sequence - firstSequence;
        if (error !== 0) failures.push({ index, error: new NetlinkError(error, detail, doing(index)) });
      }
    }
    return failures;
  }

  /**
   * Reads a whole table. `decode` gets each message, and may return undefined for one that is not wanted.
   * @throws NetlinkError, DumpInterruptedError
   */
  dump<T>(request: NetlinkRequest, decode: (message: NetlinkMessage) => T | undefined, doing: string): T[] {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      const found = this.#tryDump(request, decode, doing);
      if (found !== undefined) return found;
    }
    throw new DumpInterruptedError(`${doing}: the table kept changing while it was read`);
  }

  #tryDump<T>(
    request: NetlinkRequest,
    decode: (message: NetlinkMessage) => T | undefined,
    doing: string,
  ): T[] | undefined {
    const sequence = this.#nextSequence();
    this.#writer.reset();
    this.#writer.message(request, NLM_F_DUMP, sequence);
    this.#send();
    const found: T[] = [];
    let interrupted = false;
    for (;;) {
      const datagram = this.receive();
      if (datagram === undefined) throw new NetlinkError(EAGAIN, 'the answer ended early', doing);
      for (const message of messages(datagram)) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
          const error = message.body.length >= 4 ? -message.body.readInt32LE(0) : 0;
          if (error === EINTR) return undefined;
          if (error !== 0) throw new NetlinkError(error, errorDetail(message), doing);
          return interrupted ? undefined : found;
        }
        if (message.type === NLMSG_OVERRUN) interrupted = true;
        const item = decode(message);
        if (item !== undefined) found.push(item);
      }
    }
  }

  /** Asks for one object. @returns undefined when there is none (ENODEV, ENOENT). @throws NetlinkError */
  get<T>(
    request: NetlinkRequest,
    decode: (message: NetlinkMessage) => T | undefined,
    doing: string,
  ): T | undefined {
    const sequence = this.#nextSequence();
    this.#writer.reset();
    this.#writer.message(request, NLM_F_ACK, sequence);
    this.#send();
    let found: T | undefined;
    for (;;) {
      const datagram = this.receive();
      if (datagram === undefined) throw new NetlinkError(EAGAIN, 'no answer', doing);
      for (const message of messages(datagram)) {
        if (message.sequence !== sequence) continue;
        if (message.type !== NLMSG_ERROR) {
          found = decode(message) ?? found;
          continue;
        }
        const code = errnoName(-message.body.readInt32LE(0));
        if (code === 'ENODEV' || code === 'ENOENT') return undefined;
        if (message.body.readInt32LE(0) !== 0) {
          throw new NetlinkError(-message.body.readInt32LE(0), errorDetail(message), doing);
        }
        return found;
      }
    }
  }

  /**
   * The next datagram, valid until the next call on this socket; undefined when there is none.
   * @throws NetlinkError with code ENOBUFS when messages were lost
   */
  receive(): Buffer | undefined {
    const length = recv(this.fd, this.#datagram, this.#datagram.length, MSG_DONTWAIT | MSG_TRUNC);
    if (length >= 0) {
      if (length > this.#datagram.length)
        throw new NetlinkError(ENOBUFS, 'datagram cut short', 'netlink receive');
      return this.#datagram.subarray(0, length);
    }
    const errno = lastErrno();
    if (errno === EAGAIN) return undefined;
    throw new NetlinkError(errno, undefined, 'netlink receive');
  }

  /**
   * Sends messages that only work together (a netfilter batch). `write` gives the sequence number of the
   * one that asked for the acknowledgement. @throws NetlinkError, the first one
   */
  transact(write: (writer: MessageWriter, sequence: () => number) => number, doing: string): void {
    this.#writer.reset();
    const firstSequence = this.#sequence + 1;
    const lastSequence = write(this.#writer, () => this.#nextSequence());
    this.#send();
    let failure: NetlinkError | undefined;
    for (const { error, detail } of this.#acknowledgements(firstSequence, lastSequence)) {
      if (error !== 0) failure ??= new NetlinkError(error, detail, doing);
    }
    if (failure !== undefined) throw failure;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence;
  }

  #send(): void {
    checked('netlink send', send(this.fd, this.#writer.bytes, this.#writer.length, 0));
  }

  /** What the kernel answered to a batch; it ends with the answer to the last message. */
  *#acknowledgements(
    firstSequence: number,
    lastSequence: number,
  ): Generator<{ sequence: number; error: number; detail: string | undefined }> {
    for (;;) {
      const datagram = this.receive();
      if (datagram === undefined) return;
      for (const message of messages(datagram)) {
        if (message.type !== NLMSG_ERROR || message.sequence < firstSequence) continue;
        yield {
          sequence: message.sequence,
          error: -message.body.readInt32LE(0),
          detail: errorDetail(message),
        };
        if (message.sequence === lastSequence) return;
      }
    }
  }

  #setOption(level: number, option: number, value: number): number {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return setsockopt(this.fd, level, option, bytes, bytes.length);
  }

  #boundPort(): number {
    const address = Buffer.alloc(12);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(address.length);
    checked('getsockname(AF_NETLINK)', getsockname(this.fd, address, length));
    return address.readUInt32LE(4);
  }
}

/** The kernel's own words about an error (NETLINK_EXT_ACK), where it has some. */
function errorDetail(message: NetlinkMessage): string | undefined {
  if ((message.flags & NLM_F_ACK_TLVS) === 0 || message.body.length < 4 + HEADER_BYTES) return undefined;
  const requestLength = message.body.readUInt32LE(4);
  const start = (message.flags & NLM_F_CAPPED) !== 0 ? 4 + HEADER_BYTES : 4 + ((requestLength + 3) & ~3);
  return readText(attributes(message.body, start)[NLMSGERR_ATTR_MSG]);
}
