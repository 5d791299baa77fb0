/** A service manager's end of sd_notify(3): a unix datagram socket, and what came in by it. */
import { rm } from 'node:fs/promises';
import { bind, checked, close, MSG_DONTWAIT, recv, socket } from '../../overlay/kernel/libc.ts';
import { until } from '../../overlay/lab/wait.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const DEADLINE_MS = 20_000;

export class NotifyListener {
  /** As NOTIFY_SOCKET has it: a path, or an abstract name after `@`. */
  readonly name: string;
  readonly #fd: number;
  readonly #received: string[] = [];

  constructor(name: string) {
    this.name = name;
    this.#fd = checked('socket', socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0));
    const address = Buffer.from(name.startsWith('@') ? `xx\0${name.slice(1)}` : `xx${name}\0`);
    address.writeUInt16LE(AF_UNIX);
    checked(`bind ${name}`, bind(this.#fd, address, address.length));
  }

  /** Every assignment that has come, in order. */
  get received(): readonly string[] {
    const buffer = Buffer.alloc(8192);
    for (;;) {
      const length = recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT);
      if (length < 0) return this.#received;
      this.#received.push(...buffer.toString('utf8', 0, length).split('\n'));
    }
  }

  /** How many of this kind have come: `WATCHDOG=`. */
  count(prefix: string): number {
    return this.received.filter((line) => line.startsWith(prefix)).length;
  }

  /** Resolves with the first that matches, from the `from`th on. */
  async until(pattern: RegExp, from = 0): Promise<string> {
    try {
      return await until(() => this.received.slice(from).find((line) => pattern.test(line)), {
        what: `the daemon to say ${pattern}`,
        deadlineMs: DEADLINE_MS,
      });
    } catch (error) {
      if (error instanceof Error) error.message += `; it said:\n  ${this.received.join('\n  ')}`;
      throw error;
    }
  }

  async close(): Promise<void> {
    close(this.#fd);
    if (!this.name.startsWith('@')) await rm(this.name, { force: true });
  }
}
