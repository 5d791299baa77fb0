/** Raw sockets in a namespace: a wire's end that sends any frame and sees all that come, and UDP senders. */
import koffi from 'koffi';
import {
  bind,
  checked,
  close,
  lastErrno,
  MSG_DONTWAIT,
  recv,
  send,
  setsockopt,
  socket,
} from '../../../overlay/kernel/libc.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { AF_INET, AF_INET6, socketAddress } from '../../../overlay/kernel/socket-address.ts';
import { namespacePath } from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { type Address, familyOf } from '../../../store/address.ts';

const AF_PACKET = 17;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const ETH_P_ALL = 3;
const SOL_SOCKET = 1;
const SO_MARK = 36;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;

/** Generous: on a busy machine the softirq may be late, and only a failing test waits this long. */
const DEADLINE_MS = 5000;

const libc = koffi.load('libc.so.6');
const indexOf: (name: string) => number = libc.func('unsigned int if_nametoindex(const char *)');
const sendto: (
  fd: number,
  data: Buffer,
  length: number,
  flags: number,
  to: Buffer,
  toLength: number,
) => number = libc.func('intptr_t sendto(int, const uint8_t *, uintptr_t, int, const uint8_t *, uint32_t)');

/** An interface with a raw socket on it (`tcpdump` and `nping` in one). */
export class Wire implements Disposable {
  readonly #fd: number;
  readonly #name: string;
  readonly #frames: Buffer[] = [];

  constructor(namespace: string, name: string) {
    this.#name = `${name} in ${namespace}`;
    this.#fd = inNamespace(namespacePath(namespace), () => {
      const fd = checked('socket(AF_PACKET)', socket(AF_PACKET, SOCK_RAW_CLOEXEC, ETH_P_ALL << 8));
      const address = Buffer.alloc(20);
      address.writeUInt16LE(AF_PACKET, 0);
      address.writeUInt16BE(ETH_P_ALL, 2);
      address.writeInt32LE(indexOf(name), 4);
      checked(`bind to ${name}`, bind(fd, address, address.length));
      return fd;
    });
    const on = Buffer.from([1, 0, 0, 0]);
    checked(
      'PACKET_IGNORE_OUTGOING',
      setsockopt(this.#fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, on, on.length),
    );
  }

  send(...frames: readonly Buffer[]): void {
    for (const frame of frames) checked(`send to ${this.#name}`, send(this.#fd, frame, frame.length, 0));
  }

  /** All frames that came since the start. */
  received(): readonly Buffer[] {
    const buffer = Buffer.alloc(65_536);
    for (;;) {
      const length = recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT);
      if (length < 0) return this.#frames;
      this.#frames.push(Buffer.from(buffer.subarray(0, length)));
    }
  }

  find(marker: string): Buffer | undefined {
    return this.received().find((frame) => frame.includes(marker));
  }

  /** The frame that holds the marker, once it is here. */
  expect(marker: string): Promise<Buffer> {
    return until(() => this.find(marker), {
      what: `"${marker}" on ${this.#name}`,
      deadlineMs: DEADLINE_MS,
      everyMs: 1,
    });
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}

export interface UdpOptions {
  readonly source?: Address;
  readonly mark?: number;
}

/** Sends one datagram as a process in the namespace would. @returns 0, or the errno of sendto */
export function sendUdp(
  namespace: string,
  to: Address,
  port: number,
  payload: Buffer,
  { source, mark }: UdpOptions = {},
): number {
  return inNamespace(namespacePath(namespace), () => {
    const family = familyOf(to) === 'ipv4' ? AF_INET : AF_INET6;
    const fd = checked('socket(AF_INET)', socket(family, SOCK_DGRAM_CLOEXEC, 0));
    try {
      if (mark !== undefined) {
        const value = Buffer.alloc(4);
        value.writeUInt32LE(mark);
        checked('SO_MARK', setsockopt(fd, SOL_SOCKET, SO_MARK, value, value.length));
      }
      if (source !== undefined) {
        const from = socketAddress(source, 0);
        checked(`bind to ${source}`, bind(fd, from, from.length));
      }
      const address = socketAddress(to, port);
      const sent = sendto(fd, payload, payload.length, 0, address, address.length);
      return sent < 0 ? lastErrno() : 0;
    } finally {
      close(fd);
    }
  });
}
