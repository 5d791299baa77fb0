/**
 * What the kernel announces in a node's namespace, seen and timed by this process: a witness beside the
 * daemon, with a socket of its own. Its stamps are taken when the event loop gets the message, so they are
 * late rather than early.
 */
import { KernelMonitor } from '../../overlay/kernel/monitor.ts';
import { inNamespace } from '../../overlay/kernel/namespace.ts';
import type { NetlinkMessage } from '../../overlay/kernel/netlink-message.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import { DeadlineError } from '../../overlay/lab/wait.ts';
import { monotonicMs } from './machine.ts';

/** Waiting for an announcement longer than this means that it does not come. */
const DEADLINE_MS = 60_000;

type Matches = (message: NetlinkMessage) => boolean;

interface Waiting {
  readonly matches: Matches;
  readonly resolve: (atMs: number) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** Announcements were lost while one was waited for: it may have been among them. */
export class AnnouncementsLostError extends Error {
  override readonly name = 'AnnouncementsLostError';
  readonly code = 'VTEPD_BENCH_ANNOUNCEMENTS_LOST';
}

export class KernelWatch implements AsyncDisposable {
  readonly #monitor: KernelMonitor;
  readonly #waiting = new Set<Waiting>();

  private constructor(namespace: string) {
    const look = (message: NetlinkMessage): void => this.#look(message);
    const listener = {
      routing: look,
      netfilter: look,
      lost: () => this.#failAll(new AnnouncementsLostError('announcements of the kernel were lost')),
    };
    this.#monitor = inNamespace(namespacePath(namespace), () => new KernelMonitor(listener));
  }

  /** @param namespace a name as `ip netns` knows it */
  static open(namespace: string): KernelWatch {
    return new KernelWatch(namespace);
  }

  /**
   * When the first announcement from now on that matches came; monotonic milliseconds of monotonicMs().
   * `matches` may count: it sees every announcement once. @throws DeadlineError, AnnouncementsLostError
   */
  next(what: string, matches: Matches, deadlineMs = DEADLINE_MS): Promise<number> {
    return new Promise<number>((resolve, reject) => {
      const late = (): void => {
        this.#waiting.delete(entry);
        reject(new DeadlineError(`waited ${deadlineMs} ms for the kernel to announce ${what}, in vain`));
      };
      const entry: Waiting = { matches, resolve, reject, timer: setTimeout(late, deadlineMs) };
      this.#waiting.add(entry);
    });
  }

  /** Whoever waits still, waits for ever. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { timer } of this.#waiting) clearTimeout(timer);
    this.#waiting.clear();
    await this.#monitor.close();
  }

  #failAll(error: Error): void {
    for (const { timer, reject } of this.#waiting) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
  }

  #look(message: NetlinkMessage): void {
    const at = monotonicMs();
    for (const waiting of this.#waiting) {
      if (!waiting.matches(message)) continue;
      this.#waiting.delete(waiting);
      clearTimeout(waiting.timer);
      waiting.resolve(at);
    }
  }
}
