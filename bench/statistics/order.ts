/**
 * Statistics of few rounds without assumptions about how values are distributed, which nobody knows on a
 * shared machine: order statistics. Pure.
 */
import { NoValuesError, quantile } from '../harness/statistics.ts';

export interface Interval {
  readonly low: number;
  readonly high: number;
  /** The probability that it holds what it is an interval of. */
  readonly level: number;
}

/** What is aimed at; fewer than six values cannot reach it, and say what they reach. */
const LEVEL = 0.95;

/** How many ways there are to choose k of n. */
export function choose(n: number, k: number): number {
  let ways = 1;
  for (let i = 1; i <= Math.min(k, n - k); i++) ways = (ways * (n - i + 1)) / i;
  return k < 0 || k > n ? 0 : Math.round(ways);
}

/**
 * The interval of the median: from the k-th smallest value to the k-th largest, the narrowest whose level is
 * at least 0.95, else the whole spread. Each value is below the true median with probability 1/2, so at most
 * k - 1 of n are with probability sum(choose(n, i), i < k) / 2^n, and the same above: exact, whatever the
 * distribution (David and Nagaraja, Order Statistics, 7.1). Five values: their spread, 0.9375.
 * @throws NoValuesError
 */
export function medianInterval(values: readonly number[]): Interval {
  const sorted = values.toSorted((a, b) => a - b);
  const n = sorted.length;
  let outside = 0;
  let found: Interval | undefined;
  for (let k = 1; k <= Math.ceil(n / 2); k++) {
    outside += choose(n, k - 1) / 2 ** n;
    const level = 1 - 2 * outside;
    if (found !== undefined && level < LEVEL) break;
    found = { low: sorted[k - 1] ?? 0, high: sorted[n - k] ?? 0, level: Math.max(0, level) };
  }
  if (found === undefined) throw new NoValuesError();
  return found;
}

/** Outside of Tukey's fences: 1.5 interquartile ranges beyond the quartiles. Places in `values`, from 0. */
export function outliers(values: readonly number[]): number[] {
  if (values.length < 4) return [];
  const [lower, upper] = [quartile(values, 0.25), quartile(values, 0.75)];
  const reach = 1.5 * (upper - lower);
  return values.flatMap((value, place) => (value < lower - reach || value > upper + reach ? [place] : []));
}

/** Interpolated between the two nearest ranks (type 7 of Hyndman and Fan): few values have few ranks. */
function quartile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? Number.NaN;
  return below + (above - below) * (place - Math.floor(place));
}

/**
 * How far two groups of values that were not measured in pairs lie apart: the median of `of(a, b)` over all
 * pairs (Hodges and Lehmann), and the interval that the exact distribution of the Mann-Whitney U gives for
 * it. `of` is a difference, or a ratio of positive values. @throws NoValuesError
 */
export function shift(
  before: readonly number[],
  after: readonly number[],
  of: (before: number, after: number) => number,
): { readonly median: number; readonly interval: Interval } {
  const pairs = before.flatMap((a) => after.map((b) => of(a, b))).sort((a, b) => a - b);
  const [m, n] = [before.length, after.length];
  if (pairs.length === 0) throw new NoValuesError();
  const ways = mannWhitneyWays(m, n);
  const all = choose(m + n, m);
  let outside = 0;
  let interval: Interval | undefined;
  for (let u = 0; u < Math.ceil(pairs.length / 2); u++) {
    outside += (ways[u] ?? 0) / all;
    const level = 1 - 2 * outside;
    if (interval !== undefined && level < LEVEL) break;
    const high = pairs[pairs.length - 1 - u] ?? 0;
    interval = { low: pairs[u] ?? 0, high, level: Math.max(0, level) };
  }
  const middle =
    (quantile(pairs, 0.5) +
      -quantile(
        pairs.map((value) => -value),
        0.5,
      )) /
    2;
  return { median: middle, interval: interval ?? { low: middle, high: middle, level: 0 } };
}

/**
 * In how many of the orders of m and n values U is 0, 1, ..., m*n: counts(m, n)[u] =
 * counts(m-1, n)[u-n] + counts(m, n-1)[u], by which value is the largest (Mann and Whitney, 1947).
 */
export function mannWhitneyWays(m: number, n: number): number[] {
  const known = new Map<string, number[]>();
  const counts = (i: number, j: number): number[] => {
    if (i === 0 || j === 0) return [1];
    const key = `${i} ${j}`;
    const already = known.get(key);
    if (already !== undefined) return already;
    const [fewer, others] = [counts(i - 1, j), counts(i, j - 1)];
    const made = Array.from({ length: i * j + 1 }, (_, u) => (fewer[u - j] ?? 0) + (others[u] ?? 0));
    known.set(key, made);
    return made;
  };
  return counts(m, n);
}
