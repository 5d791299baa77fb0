/**
 * The tunnel's threads: started, steered, started again when one dies, stopped. The table, the sockets and the device's
 * queues are not theirs, so a new thread goes on where the dead one stopped; what waits in the queues is not lost.
 */
import { writeSync } from 'node:fs';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Log } from '../../overlay/ops/log.ts';
import { TunnelError } from '../tunnel-types.ts';
import { FAIL, MESSAGES, STOP, type WorkerChange, type WorkerReport, type WorkerStart } from './shared.ts';

/** A thread that dies again and again within this time has a fault that starting it does not cure. */
const DEATHS_WITHIN_MS = 10_000;
const DEATHS = 5;
/** The first restart is at once; later ones wait longer and longer, so that a fault costs little processor time. */
const RESTART_STEP_MS = 100;

/** Threads need little memory of V8's: nothing is allocated while packets go. */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 32, stackSizeMb: 1 };

const PROGRAM = new URL(`./worker${extname(import.meta.url)}`, import.meta.url);

const ONE = Buffer.alloc(8);
ONE.writeBigUInt64LE(1n);

export interface WorkersParts {
  readonly count: number;
  readonly steering: Int32Array;
  /** The eventfd of each. */
  readonly wakes: readonly number[];
  /** What a thread is to be started with, as things are now. */
  readonly startOf: (index: number) => WorkerStart;
  readonly log: Log;
  readonly onFault: (fault: TunnelError) => void;
  readonly now: () => number;
}

export class Workers {
  readonly #parts: WorkersParts;
  readonly #threads: (Worker | undefined)[];
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #exits = new Set<Promise<void>>();
  /** Times of deaths, the last few. */
  #deaths: number[] = [];
  #restarts = 0;
  #isStopping = false;
  #changes = 0;
  /** Changes that not every thread has taken up: who is missing, and what then. */
  readonly #pending = new Map<number, { readonly missing: Set<number>; readonly done: () => void }>();
  /** The process ends and joins its threads: they are to hear of it. */
  readonly #atExit = (): void => this.#tellToStop();

  constructor(parts: WorkersParts) {
    this.#parts = parts;
    this.#threads = Array.from({ length: parts.count }, () => undefined);
    process.on('exit', this.#atExit);
    for (let index = 0; index < parts.count; index++) this.#start(index);
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** Hands a change to some threads. Those that are started from now on have it from `startOf`. */
  change(change: Omit<WorkerChange, 'number'>, to = (_index: number) => true, done = () => {}): void {
    const number = ++this.#changes;
    const missing = new Set<number>();
    for (const [index, thread] of this.#threads.entries()) {
      if (thread === undefined || !to(index)) continue;
      thread.postMessage({ ...change, number } satisfies WorkerChange);
      missing.add(index);
    }
    if (missing.size === 0) {
      done();
      return;
    }
    this.#pending.set(number, { missing, done });
    Atomics.add(this.#parts.steering, MESSAGES, 1);
    for (const index of missing) this.#wake(index);
  }

  /** For tests: this thread throws. */
  fail(index: number): void {
    Atomics.store(this.#parts.steering, FAIL + index, 1);
    this.#wake(index);
  }

  /** Resolves when no thread uses anything of ours any more. */
  async stop(): Promise<void> {
    process.off('exit', this.#atExit);
    this.#tellToStop();
    for (const timer of this.#timers) clearTimeout(timer);
    await Promise.all(this.#exits);
    for (const { done } of this.#pending.values()) done();
    this.#pending.clear();
  }

  #tellToStop(): void {
    this.#isStopping = true;
    Atomics.store(this.#parts.steering, STOP, 1);
    for (let index = 0; index < this.#parts.count; index++) this.#wake(index);
  }

  #wake(index: number): void {
    writeSync(this.#parts.wakes[index] ?? -1, ONE);
  }

  #start(index: number): void {
    const start = this.#parts.startOf(index);
    const thread = new Worker(PROGRAM, { workerData: start, resourceLimits: RESOURCE_LIMITS });
    this.#threads[index] = thread;
    let cause: unknown;
    thread.on('message', (report: WorkerReport) => this.#report(index, report));
    thread.on('error', (error) => {
      cause = error;
    });
    const exit = new Promise<void>((resolve) => {
      thread.once('exit', () => {
        this.#exits.delete(exit);
        this.#threads[index] = undefined;
        for (const number of this.#pending.keys()) this.#took(index, number);
        resolve();
        if (!this.#isStopping) this.#died(index, cause);
      });
    });
    this.#exits.add(exit);
  }

  #report(index: number, report: WorkerReport): void {
    if (report.kind === 'took') {
      this.#took(index, report.number);
      return;
    }
    if (this.#isStopping) return;
    this.#tellToStop();
    this.#parts.onFault(
      new TunnelError('VTEPD_TUNNEL_DEVICE_GONE', 'the TAP device was taken away while it was in use'),
    );
  }

  #took(index: number, number: number): void {
    const pending = this.#pending.get(number);
    if (pending === undefined) return;
    pending.missing.delete(index);
    if (pending.missing.size > 0) return;
    this.#pending.delete(number);
    pending.done();
  }

  #died(index: number, cause: unknown): void {
    const now = this.#parts.now();
    this.#deaths = [...this.#deaths.filter((at) => now - at < DEATHS_WITHIN_MS), now];
    if (this.#deaths.length >= DEATHS) {
      this.#tellToStop();
      const why = cause instanceof Error ? cause.message : 'they end without saying why';
      this.#parts.onFault(
        new TunnelError('VTEPD_TUNNEL_WORKERS', `the threads of the data path keep dying: ${why}`, { cause }),
      );
      return;
    }
    this.#restarts++;
    this.#parts.log.warn('a thread of the data path died and is started again', {
      count: this.#restarts,
      error: cause,
    });
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer);
        if (!this.#isStopping) this.#start(index);
      },
      (this.#deaths.length - 1) * RESTART_STEP_MS,
    );
    this.#timers.add(timer);
  }
}
