/** What a worker counts, in memory that the main thread reads whenever it is asked: each number has one writer. */
import {
  BATCH_BOUNDS,
  type DirectionStats,
  RECEIVE_DROPS,
  type ReceiveDrop,
  SEND_DROPS,
  type SendDrop,
} from '../tunnel-types.ts';

const PACKETS = 0;
const BYTES = 1;
const BATCHES = 2;
const DROPS = BATCHES + BATCH_BOUNDS.length + 1;

export const SEND_DROP_NAMES = Object.keys(SEND_DROPS);
export const RECEIVE_DROP_NAMES = Object.keys(RECEIVE_DROPS);

/** A reason's place among its direction's; for constants, not for the fast path. */
export const sendDrop = (reason: SendDrop): number => SEND_DROP_NAMES.indexOf(reason);
export const receiveDrop = (reason: ReceiveDrop): number => RECEIVE_DROP_NAMES.indexOf(reason);

export const COUNTER_NUMBERS = DROPS + Math.max(SEND_DROP_NAMES.length, RECEIVE_DROP_NAMES.length);

export class Counters {
  readonly #numbers: Float64Array;

  constructor(numbers: Float64Array) {
    this.#numbers = numbers;
  }

  carried(packets: number, bytes: number): void {
    this.#add(PACKETS, packets);
    this.#add(BYTES, bytes);
  }

  /** One system call carried so many packets. */
  batch(packets: number): void {
    // 1, 2, 3-4, 5-8, ...: BATCH_BOUNDS are powers of two.
    this.#add(BATCHES + Math.min(BATCH_BOUNDS.length, 32 - Math.clz32(packets - 1)), 1);
  }

  /** @param reason its place among the direction's reasons */
  drop(reason: number, packets = 1): void {
    this.#add(DROPS + reason, packets);
  }

  #add(at: number, by: number): void {
    this.#numbers[at] = (this.#numbers[at] ?? 0) + by;
  }
}

/** The sum of several workers' counters of one direction. */
export function directionStats(workers: readonly Float64Array[], reasons: readonly string[]): DirectionStats {
  const total = (at: number): number => workers.reduce((sum, numbers) => sum + (numbers[at] ?? 0), 0);
  return {
    packets: total(PACKETS),
    bytes: total(BYTES),
    batches: Array.from({ length: BATCH_BOUNDS.length + 1 }, (_, i) => total(BATCHES + i)),
    drops: Object.fromEntries(reasons.map((reason, i) => [reason, total(DROPS + i)])),
  };
}
