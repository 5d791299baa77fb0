/** Remembers, counts and tells what had to be put right. */
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';

/** Of one pass's repairs, this many are named. */
const NAMED = 5;

export interface RepairedObject {
  /** `route`, `link`, `nft`, ...: what metrics count by. */
  readonly kind: string;
  /** In words: `route 10.244.5.0/24 nhid 7`. */
  readonly what: string;
}

/** What was put right last. */
export interface Repair {
  /** Wall-clock milliseconds. */
  readonly at: number;
  readonly count: number;
  /** The first few, in words. */
  readonly objects: readonly string[];
}

export class RepairLog {
  readonly #log: Log;
  readonly #metrics: Pick<Metrics, 'repair'>;
  #noted: RepairedObject[] = [];
  #count = 0;
  #last: Repair | undefined;

  constructor(log: Log, metrics: Pick<Metrics, 'repair'>) {
    this.#log = log;
    this.#metrics = metrics;
  }

  /** Since the start. */
  get count(): number {
    return this.#count;
  }

  get last(): Repair | undefined {
    return this.#last;
  }

  note(repaired: readonly RepairedObject[]): void {
    for (const object of repaired) this.#noted.push(object);
  }

  /** Tells what was noted since the last time. */
  report(): void {
    const repaired = this.#noted;
    if (repaired.length === 0) return;
    this.#noted = [];
    const objects = repaired.slice(0, NAMED).map(({ what }) => what);
    this.#count += repaired.length;
    this.#last = { at: Date.now(), count: repaired.length, objects };
    const counts = new Map<string, number>();
    for (const { kind } of repaired) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    for (const [kind, count] of counts) this.#metrics.repair(kind, count);
    this.#log.warn('put right what was not as it should be', {
      count: repaired.length,
      objects: objects.join(', '),
    });
  }
}
