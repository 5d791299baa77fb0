/**
 * The C library functions that Node has no door to, called through koffi. Descriptors are plain numbers
 * here; the classes that own and close them are netlink-socket.ts, wake.ts and namespace.ts.
 *
 * A Buffer is passed by address, without a copy: it must stay referenced until the call returns, which for
 * the `Async` variants is when their promise settles.
 */
import { constants } from 'node:os';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

export const AF_NETLINK = 16;
export const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
export const MSG_DONTWAIT = 0x40;
export const MSG_TRUNC = 0x20;
export const POLLIN = 1;

export const socket: (domain: number, type: number, protocol: number) => number =
  libc.func('int socket(int, int, int)');
export const bind: (fd: number, address: Buffer, length: number) => number = libc.func(
  'int bind(int, const uint8_t *, uint32_t)',
);
export const connect: (fd: number, address: Uint8Array, length: number) => number = libc.func(
  'int connect(int, const uint8_t *, uint32_t)',
);
export const getsockname: (fd: number, address: Buffer, length: Buffer) => number = libc.func(
  'int getsockname(int, uint8_t *, uint8_t *)',
);
export const setsockopt: (fd: number, level: number, name: number, value: Buffer, length: number) => number =
  libc.func('int setsockopt(int, int, int, const uint8_t *, uint32_t)');
export const send: (fd: number, data: Buffer, length: number, flags: number) => number = libc.func(
  'intptr_t send(int, const uint8_t *, uintptr_t, int)',
);
export const recv: (fd: number, data: Buffer, length: number, flags: number) => number = libc.func(
  'intptr_t recv(int, uint8_t *, uintptr_t, int)',
);
export const close: (fd: number) => number = libc.func('int close(int)');
export const eventfd: (initial: number, flags: number) => number = libc.func('int eventfd(uint32_t, int)');
export const setns: (fd: number, type: number) => number = libc.func('int setns(int, int)');
export const unshare: (flags: number) => number = libc.func('int unshare(int)');

const pollFunction = libc.func('int poll(uint8_t *, uintptr_t, int)');

/**
 * poll(2) on a thread of Node's pool, which it holds until a descriptor is readable or the time is up.
 * @returns one flag a descriptor: it has something to read (or an error to report)
 */
export async function pollReadable(fds: readonly number[], timeoutMs: number): Promise<boolean[]> {
  const entries = Buffer.alloc(8 * fds.length);
  for (const [i, fd] of fds.entries()) {
    entries.writeInt32LE(fd, 8 * i);
    entries.writeInt16LE(POLLIN, 8 * i + 4);
  }
  await new Promise<void>((resolve, reject) => {
    pollFunction.async(entries, fds.length, timeoutMs, (error: Error | null) =>
      error === null ? resolve() : reject(error),
    );
  });
  return fds.map((_, i) => entries.readInt16LE(8 * i + 6) !== 0);
}

const ERRNO_NAMES = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) {
  if (!ERRNO_NAMES.has(value)) ERRNO_NAMES.set(value, name);
}
ERRNO_NAMES.set(constants.errno.EAGAIN, 'EAGAIN');

/** The name of an error number: `ENODEV`; `errno 517` for one that POSIX does not know. */
export const errnoName = (errno: number): string => ERRNO_NAMES.get(errno) ?? `errno ${errno}`;

/** A system call failed. `code` is the errno's name. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';
  readonly code: string;
  readonly errno: number;
  constructor(call: string, errno: number) {
    super(`${call}: ${errnoName(errno)}`);
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

/** Passes a non-negative result on. @throws SystemCallError for a negative one */
export function checked(call: string, result: number): number {
  if (result < 0) throw new SystemCallError(call, koffi.errno());
  return result;
}

export const lastErrno = (): number => koffi.errno();
