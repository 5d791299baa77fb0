/**
 * When passes are made: one at a time, soon after something was marked, at an interval, and after a backoff when
 * one failed. What is marked while one runs is taken up by the next.
 */
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import { allMarks, type Marks, noMarks } from './marks.ts';

export interface PassLoopOptions {
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'pass'>;
  readonly resyncIntervalMs: number;
  /** Makes things as they should be. What it throws is logged, and it is called again with the same marks. */
  readonly pass: (marks: Marks) => Promise<void>;
  /** After every pass, when those who waited for it have been told. */
  readonly onPass: () => void;
}

const FIRST_RETRY_MS = 20;
const LAST_RETRY_MS = 5000;

export class PassLoop {
  readonly #options: PassLoopOptions;
  #marks: Marks = noMarks();
  #waiting: { readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];
  /** Something is marked, and no pass has taken it up. */
  #due = false;
  #running: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = FIRST_RETRY_MS;
  #resync: NodeJS.Timeout;
  #closed = false;
  #passes = 0;
  /** That of the pass under way; monotonic milliseconds. */
  #startedAt: number | undefined;
  #lastPassAt: number | undefined;
  #failure: Error | undefined;

  constructor(options: PassLoopOptions) {
    this.#options = options;
    this.#resync = this.#resyncEvery(options.resyncIntervalMs);
  }

  setResyncInterval(intervalMs: number): void {
    clearInterval(this.#resync);
    if (!this.#closed) this.#resync = this.#resyncEvery(intervalMs);
  }

  #resyncEvery(intervalMs: number): NodeJS.Timeout {
    return setInterval(() => this.lookAgain('periodic'), intervalMs);
  }

  /** The next pass looks at this too; whether one is to come is for `schedule` to say. */
  mark(marks: Partial<Marks>): void {
    this.#marks = { ...this.#marks, ...marks };
  }

  /** The next pass, which comes soon, looks at everything, trusting nothing that was seen before. */
  lookAgain(trigger: Marks['trigger']): void {
    this.mark({ devices: true, entries: true, firewall: true, trigger });
    this.schedule();
  }

  schedule(): void {
    if (this.#due || this.#closed) return;
    this.#due = true;
    // While a pass runs, its end takes up what is due.
    if (this.#running === undefined) setImmediate(() => this.#start());
  }

  /** Another pass is to come. */
  get isDue(): boolean {
    return this.#due;
  }

  /** Resolves after the next pass that succeeds, rejects when it fails. */
  settled(): Promise<void> {
    if (this.#closed) return Promise.reject(new Error('the daemon is stopping'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.schedule();
    });
  }

  /** Of the last pass. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  get passes(): number {
    return this.#passes;
  }

  /** When one succeeded last; wall-clock milliseconds. */
  get lastPassAt(): number | undefined {
    return this.#lastPassAt;
  }

  /** How long the pass under way has been at it, in milliseconds; undefined between passes. */
  get runningMs(): number | undefined {
    return this.#startedAt === undefined ? undefined : performance.now() - this.#startedAt;
  }

  /** Ends after the pass under way. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#resync);
    clearTimeout(this.#retry);
    await this.#running;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('the daemon is stopping'));
  }

  #start(): void {
    if (this.#running !== undefined || this.#closed || !this.#due) return;
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      if (this.#due) setImmediate(() => this.#start());
    });
  }

  /** One pass, and what follows from how it went. */
  async #run(): Promise<void> {
    const { pass, metrics, onPass } = this.#options;
    this.#due = false;
    clearTimeout(this.#retry);
    const marks = this.#marks;
    this.#marks = noMarks();
    const waiting = this.#waiting.splice(0);
    const startedAt = performance.now();
    this.#startedAt = startedAt;
    let failure: Error | undefined;
    try {
      await pass(marks);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      this.#marks = { ...allMarks(this.#marks, marks), trigger: 'retry' };
    }
    this.#startedAt = undefined;
    const durationMs = performance.now() - startedAt;
    metrics.pass({ trigger: marks.trigger, durationMs, failed: failure !== undefined });
    this.#passes++;
    this.#conclude(failure);
    for (const { resolve, reject } of waiting) failure === undefined ? resolve() : reject(failure);
    onPass();
  }

  #conclude(failure: Error | undefined): void {
    const { log } = this.#options;
    if (failure === undefined) {
      if (this.#failure !== undefined) log.info('the network is as it should be again');
      this.#failure = undefined;
      this.#retryMs = FIRST_RETRY_MS;
      this.#lastPassAt = Date.now();
      return;
    }
    if (this.#failure?.message !== failure.message) {
      log.error('the network cannot be made as it should be; trying again', { error: failure });
    }
    this.#failure = failure;
    if (!this.#closed) this.#retry = setTimeout(() => this.schedule(), this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
  }
}
