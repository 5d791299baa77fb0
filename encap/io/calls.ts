/**
 * The system calls of the user-space path. Memory is given by address, as a number: the caller owns it, keeps it
 * referenced, and knows that it does not move (memory-map.ts). Results are the kernel's, -1 and `lastErrno()` for a
 * failure: nothing here throws, for most of it is called once a batch of packets.
 */
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

export const open: (path: string, flags: number) => number = libc.func('int open(const char *, int)');
export const ioctl: (fd: number, request: number, argument: Uint8Array) => number = libc.func(
  'int ioctl(int, unsigned long, uint8_t *)',
);
/** The same for requests that take a number itself. */
export const ioctlValue: (fd: number, request: number, argument: number) => number = libc.func(
  'int ioctl(int, unsigned long, unsigned long)',
);
export const read: (fd: number, address: number, lengthBytes: number) => number = libc.func(
  'intptr_t read(int, uintptr_t, uintptr_t)',
);
export const write: (fd: number, address: number, lengthBytes: number) => number = libc.func(
  'intptr_t write(int, uintptr_t, uintptr_t)',
);
export const writev: (fd: number, iovecs: number, count: number) => number = libc.func(
  'intptr_t writev(int, uintptr_t, int)',
);
export const sendmmsg: (fd: number, messages: number, count: number, flags: number) => number = libc.func(
  'int sendmmsg(int, uintptr_t, unsigned int, int)',
);
export const recvmmsg: (
  fd: number,
  messages: number,
  count: number,
  flags: number,
  timeout: number,
) => number = libc.func('int recvmmsg(int, uintptr_t, unsigned int, int, uintptr_t)');
export const poll: (entries: number, count: number, timeoutMs: number) => number = libc.func(
  'int poll(uintptr_t, unsigned long, int)',
);
export const yieldProcessor: () => number = libc.func('int sched_yield()');
export const getsockopt: (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: Uint8Array,
) => number = libc.func('int getsockopt(int, int, int, uint8_t *, uint8_t *)');
export const interfaceIndex: (name: string) => number = libc.func(
  'unsigned int if_nametoindex(const char *)',
);

/** pidfd_open(2), pidfd_getfd(2) and pidfd_send_signal(2): one number on every architecture; not all in glibc. */
export const systemCall: (number: number, a: number, b: number, c: number, d: number) => number = libc.func(
  'long syscall(long, long, long, long, long)',
);
export const SYS_PIDFD_SEND_SIGNAL = 424;
export const SYS_PIDFD_OPEN = 434;
export const SYS_PIDFD_GETFD = 438;

export const lastErrno = (): number => koffi.errno();

/** Where the bytes of a buffer are. It must not be one of the small ones that V8 keeps on its own heap and moves. */
export const addressOf = (bytes: Uint8Array): number => Number(koffi.address(bytes));

export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const MSG_DONTWAIT = 0x40;
export const POLLIN = 1;
export const POLLOUT = 4;

// Errors by number: x86-64's and ARM64's are the same.
export const EPERM = 1;
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EBUSY = 16;
export const EINVAL = 22;
export const EBADFD = 77;
export const EMSGSIZE = 90;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENETDOWN = 100;
export const ENETUNREACH = 101;
export const ENOBUFS = 105;
export const EHOSTUNREACH = 113;
