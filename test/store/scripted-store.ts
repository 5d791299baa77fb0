/** A LeaseStore whose every answer the test decides, and a clock that only the test moves. */
import type { Sleep } from '../../store/backoff.ts';
import type { LeaseSnapshot, LeaseStore, Revision, WatchBatch } from '../../store/lease-store.ts';

type Answer<T> = { readonly value: T } | { readonly error: Error };

/** Answers given ahead of the questions, or questions that wait for an answer. */
class Answers<T> {
  readonly #given: Answer<T>[] = [];
  readonly #asked: ((answer: Answer<T>) => void)[] = [];

  give(answer: Answer<T>): void {
    const asked = this.#asked.shift();
    if (asked === undefined) this.#given.push(answer);
    else asked(answer);
  }

  async next(signal: AbortSignal): Promise<T> {
    const answer = this.#given.shift() ?? (await this.#wait(signal));
    if ('error' in answer) throw answer.error;
    return answer.value;
  }

  #wait(signal: AbortSignal): Promise<Answer<T>> {
    return new Promise((resolve, reject) => {
      const asked = (answer: Answer<T>) => {
        signal.removeEventListener('abort', abort);
        resolve(answer);
      };
      const abort = () => {
        this.#asked.splice(this.#asked.indexOf(asked), 1);
        reject(signal.reason);
      };
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      signal.addEventListener('abort', abort, { once: true });
      this.#asked.push(asked);
    });
  }
}

const END: unique symbol = Symbol('end of stream');

export class ScriptedStore implements LeaseStore {
  readonly kind = 'embedded';
  readonly #snapshots = new Answers<LeaseSnapshot>();
  readonly #batches = new Answers<WatchBatch | typeof END>();
  /** What was asked, in order: `list`, `watch after 7`, `watch ended`. */
  readonly asked: string[] = [];

  reconnect(): void {}

  giveSnapshot(snapshot: LeaseSnapshot | Error): void {
    this.#snapshots.give(snapshot instanceof Error ? { error: snapshot } : { value: snapshot });
  }

  giveBatch(batch: WatchBatch | Error | 'end'): void {
    this.#batches.give(batch instanceof Error ? { error: batch } : { value: batch === 'end' ? END : batch });
  }

  snapshot(signal: AbortSignal): Promise<LeaseSnapshot> {
    this.asked.push('list');
    return this.#snapshots.next(signal);
  }

  async *watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch> {
    this.asked.push(`watch after ${after}`);
    try {
      while (!signal.aborted) {
        const batch = await this.#nextBatch(signal);
        if (batch === END) return;
        yield batch;
      }
    } finally {
      this.asked.push('watch ended');
    }
  }

  async #nextBatch(signal: AbortSignal): Promise<WatchBatch | typeof END> {
    try {
      return await this.#batches.next(signal);
    } catch (error) {
      if (signal.aborted) return END;
      throw error;
    }
  }

  compareRevisions(a: Revision, b: Revision): number {
    return Number(a) - Number(b);
  }

  networkConfig = unused;
  claim = unused;
  renew = unused;
  release = unused;
  async close(): Promise<void> {}
}

async function unused(): Promise<never> {
  throw new Error('following reads; it calls nothing else');
}

/** Time that stands still until `advance`. */
export class ManualTime {
  nowMs = 1000;
  #sleepers: { readonly atMs: number; readonly wake: () => void }[] = [];

  readonly clock = (): number => this.nowMs;

  readonly sleep: Sleep = (ms, signal) =>
    new Promise((resolve, reject) => {
      const sleeper = { atMs: this.nowMs + ms, wake: resolve };
      this.#sleepers.push(sleeper);
      const abort = () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(signal.reason);
      };
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
    });

  /** When whoever sleeps will wake, in milliseconds from now. */
  get sleepingMs(): number[] {
    return this.#sleepers.map((sleeper) => sleeper.atMs - this.nowMs);
  }

  advance(ms: number): void {
    this.nowMs += ms;
    const due = this.#sleepers.filter((sleeper) => sleeper.atMs <= this.nowMs);
    this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.atMs > this.nowMs);
    for (const sleeper of due) sleeper.wake();
  }
}

/** Lets every promise that can settle without time or an answer settle. */
export const settle = (): Promise<void> =>
  new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
