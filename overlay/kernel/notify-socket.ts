/**
 * The unix datagram socket on which a service manager hears from its services (sd_notify(3)). Node has streams
 * only, so it is opened and written here; the destination is named with each datagram, so that a manager that
 * was restarted is reached again.
 */
import koffi from 'koffi';
import { checked, close, errnoName, lastErrno, MSG_DONTWAIT, SystemCallError, socket } from './libc.ts';

const sendto: (
  fd: number,
  data: Buffer,
  length: number,
  flags: number,
  to: Buffer,
  toLength: number,
) => number = koffi
  .load('libc.so.6')
  .func('intptr_t sendto(int, const uint8_t *, uintptr_t, int, const uint8_t *, uint32_t)');

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const MSG_NOSIGNAL = 0x4000;
/** sockaddr_un: two bytes of family, then this many of name. */
const NAME_BYTES = 108;

/** What says that the manager's queue is full just now. */
const BUSY: readonly string[] = ['EAGAIN', 'EWOULDBLOCK', 'ENOBUFS'];

/** NOTIFY_SOCKET names a kind of socket that we do not know, or has too long a name. */
export class NotifyAddressError extends Error {
  override readonly name = 'NotifyAddressError';
  readonly code = 'VTEPD_NOTIFY_ADDRESS';
}

export class NotifySocket implements Disposable {
  readonly #fd: number;
  readonly #address: Buffer;
  #open = true;

  private constructor(fd: number, address: Buffer) {
    this.#fd = fd;
    this.#address = address;
  }

  /**
   * @param name a path, or an abstract name with `@` for the zero byte
   * @throws NotifyAddressError, SystemCallError
   */
  static open(name: string): NotifySocket {
    const address = socketAddress(name);
    return new NotifySocket(checked('socket', socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)), address);
  }

  /**
   * Sends one datagram, without waiting.
   * @returns false when the manager's queue is full: send it again later
   * @throws SystemCallError: ENOENT or ECONNREFUSED where nobody listens
   */
  send(text: string): boolean {
    const data = Buffer.from(text);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (sendto(this.#fd, data, data.length, flags, this.#address, this.#address.length) >= 0) return true;
    const errno = lastErrno();
    if (BUSY.includes(errnoName(errno))) return false;
    throw new SystemCallError('sendto the service manager', errno);
  }

  [Symbol.dispose](): void {
    if (this.#open) close(this.#fd);
    this.#open = false;
  }
}

/** unix(7): a path ends with a zero byte; an abstract name begins with one, and its length is what counts. */
function socketAddress(name: string): Buffer {
  const isAbstract = name.startsWith('@');
  if (!isAbstract && !name.startsWith('/')) {
    throw new NotifyAddressError(
      `NOTIFY_SOCKET is "${name}": only a path, or an abstract name after "@", can be used`,
    );
  }
  const bytes = Buffer.from(isAbstract ? `\0${name.slice(1)}` : `${name}\0`);
  if (bytes.length > NAME_BYTES) {
    throw new NotifyAddressError(`NOTIFY_SOCKET is longer than the ${NAME_BYTES} bytes of a socket's name`);
  }
  const family = Buffer.alloc(2);
  family.writeUInt16LE(AF_UNIX);
  return Buffer.concat([family, bytes]);
}
