/**
 * The arithmetic of the benchmarks: pure. The machines are small and shared, so what is compared is measured
 * in turns within one run, medians stand beside the whole spread, and what counts is the ratio.
 */

/** Few values, one a round: all of them are kept. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly values: readonly number[];
}

/** Many values. */
export interface Distribution {
  readonly count: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** No values to compute with: the measurement gave none. */
export class NoValuesError extends Error {
  override readonly name = 'NoValuesError';
  readonly code = 'VTEPD_BENCH_NO_VALUES';
  constructor() {
    super('nothing was measured');
  }
}

/** The middle value, or the mean of the two in the middle. @throws NoValuesError */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) throw new NoValuesError();
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

/** 0.07 * 100 is a little more than 7. */
const ROUNDING = 1e-9;

/**
 * The smallest of the values that at least this share of them does not exceed (nearest rank): always one
 * that was measured. @param share from 0, the least value, to 1, the greatest @throws NoValuesError
 */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const found = sorted[Math.max(0, Math.ceil(share * sorted.length - ROUNDING) - 1)];
  if (found === undefined) throw new NoValuesError();
  return found;
}

/** @throws NoValuesError */
export const spread = (values: readonly number[]): Spread => ({
  median: rounded(median(values)),
  min: rounded(quantile(values, 0)),
  max: rounded(quantile(values, 1)),
  values: values.map(rounded),
});

/** @throws NoValuesError */
export function distribution(values: readonly number[]): Distribution {
  const at = (share: number): number => rounded(quantile(values, share));
  return {
    count: values.length,
    min: at(0),
    p50: rounded(median(values)),
    p90: at(0.9),
    p99: at(0.99),
    max: at(1),
  };
}

/**
 * How many times as much the first is as the second, round by round: both of a round had the same machine.
 * @throws NoValuesError; RangeError unless there is one of each a round
 */
export function pairedRatio(ours: readonly number[], theirs: readonly number[]): Spread {
  if (ours.length !== theirs.length) throw new RangeError('a ratio needs both sides of every round');
  return spread(ours.map((value, round) => value / (theirs[round] ?? Number.NaN)));
}

/** Who is measured in which order: every round has all of them, and each round another begins. */
export const inTurns = <T>(contestants: readonly T[], round: number): T[] =>
  contestants.map((_, place) => contestants[(place + round) % contestants.length] as T);

/** Four significant digits: more would pretend. */
export const rounded = (value: number): number =>
  Number.isFinite(value) ? Number(value.toPrecision(4)) : value;

/** A Prometheus histogram's buckets: upper bound to cumulative count. */
export type Buckets = ReadonlyMap<number, number>;

/** The buckets of a histogram without labels, from Prometheus' text format. */
export function readBuckets(text: string, name: string): Buckets {
  const buckets = new Map<number, number>();
  for (const [, bound, count] of text.matchAll(
    new RegExp(`^${name}_bucket\\{le="([^"]+)"\\} (\\d+)`, 'gm'),
  )) {
    buckets.set(bound === '+Inf' ? Number.POSITIVE_INFINITY : Number(bound), Number(count));
  }
  return buckets;
}

/** What was counted between two readings. */
export const bucketsSince = (before: Buckets, after: Buckets): Buckets =>
  new Map(Array.from(after, ([bound, count]) => [bound, count - (before.get(bound) ?? 0)]));

/** The bound below which this share of the observations lies: all that a histogram knows. @throws NoValuesError */
export function bucketQuantile(buckets: Buckets, share: number): number {
  const sorted = [...buckets].toSorted(([a], [b]) => a - b);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (total === 0) throw new NoValuesError();
  return sorted.find(([, count]) => count >= share * total)?.[0] ?? Number.POSITIVE_INFINITY;
}
