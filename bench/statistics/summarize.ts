/** From the rounds' values to what a report says of them. Pure. */
import { median, NoValuesError, quantile } from '../harness/statistics.ts';
import { formatChange } from '../report/format.ts';
import type { Contestant, Difference, Direction, Quantity, Result } from '../report/schema.ts';
import { medianInterval, outliers } from './order.ts';

/** One series of values: of a contestant, a quantity, a direction and a place on the quantity's axis. */
export interface Series {
  readonly contestant: string;
  readonly quantity: string;
  readonly direction?: Direction | undefined;
  readonly at?: number | undefined;
}

/** The same text for the same series, whosever object it is. */
export const seriesKey = ({ contestant, quantity, direction, at }: Series): string =>
  [contestant, quantity, direction ?? '', at ?? ''].join('|');

/** @param rounds a value a round, null where a round gave none @throws NoValuesError when none gave any */
export function summarize(
  series: Series,
  rounds: readonly (number | null)[],
  distribution?: Result['distribution'],
): Result {
  const values = rounds.filter((value) => value !== null);
  // Outliers are named by their round, which is not their place where a round gave nothing.
  const places = rounds.flatMap((value, round) => (value === null ? [] : [round]));
  return {
    contestant: series.contestant,
    quantity: series.quantity,
    ...(series.direction !== undefined && { direction: series.direction }),
    ...(series.at !== undefined && { at: series.at }),
    rounds: [...rounds],
    median: median(values),
    min: quantile(values, 0),
    max: quantile(values, 1),
    interval: medianInterval(values),
    outliers: outliers(values).map((place) => places[place] ?? place),
    ...(distribution !== undefined && { distribution }),
  };
}

/**
 * A result against the baseline's, round by round: both of a round had the same machine. Undefined when no
 * round has both.
 */
export function compareRounds(
  result: Result,
  baseline: Result,
  quantity: Quantity,
  contestants: readonly Contestant[],
): Difference | undefined {
  const changes = result.rounds.flatMap((value, round) => {
    const other = baseline.rounds[round];
    if (value === null || other === null || other === undefined) return [];
    // Nothing is so many times as much as nothing.
    if (quantity.compareBy === 'ratio' && !(other > 0)) return [];
    if (quantity.compareBy === 'difference') return [value - other];
    return other > 0 ? [value / other] : [];
  });
  if (changes.length === 0) return undefined;
  const interval = medianInterval(changes);
  const verdict = judge(interval, quantity);
  const middle = median(changes);
  const title = (id: string) => contestants.find((each) => each.id === id)?.title ?? id;
  const change = formatChange(middle, quantity);
  const range = `${formatChange(interval.low, quantity)} to ${formatChange(interval.high, quantity)}`;
  return {
    contestant: result.contestant,
    baseline: baseline.contestant,
    quantity: quantity.id,
    ...(result.direction !== undefined && { direction: result.direction }),
    ...(result.at !== undefined && { at: result.at }),
    median: middle,
    interval,
    verdict,
    statement: tooFew(interval)
      ? `${title(result.contestant)}: ${changes.length === 1 ? 'one round is' : `${changes.length} rounds are`} too few to tell it from ${title(baseline.contestant)} (${range})`
      : verdict === 'unseen'
        ? `${title(result.contestant)}: no difference can be seen here from ${title(baseline.contestant)} (${range} in ${changes.length} rounds)`
        : `${title(result.contestant)}: ${change} against ${title(baseline.contestant)} (${range} in ${changes.length} rounds)`,
  };
}

/** Fewer rounds than this cannot tell a difference from chance at all: two of two agree half of the time. */
export const LEAST_LEVEL = 0.85;

const tooFew = ({ level }: Result['interval']): boolean => level < LEAST_LEVEL;

/** Better or worse only when the whole interval is on one side of "the same". */
export function judge(
  interval: Result['interval'],
  { better, compareBy }: Pick<Quantity, 'better' | 'compareBy'>,
): Difference['verdict'] {
  const same = compareBy === 'ratio' ? 1 : 0;
  if (tooFew(interval)) return 'unseen';
  if (interval.low <= same && same <= interval.high) return 'unseen';
  return interval.low > same === (better === 'more') ? 'better' : 'worse';
}

/** Every result against the baseline's of the same quantity, direction and place. */
export function differencesFrom(
  baseline: string | null,
  results: readonly Result[],
  quantities: readonly Quantity[],
  contestants: readonly Contestant[],
): Difference[] {
  if (baseline === null) return [];
  const byKey = new Map(results.map((result) => [seriesKey(result), result]));
  const found: Difference[] = [];
  for (const result of results) {
    if (result.contestant === baseline) continue;
    const other = byKey.get(seriesKey({ ...result, contestant: baseline }));
    const quantity = quantities.find(({ id }) => id === result.quantity);
    if (other === undefined || quantity === undefined) continue;
    const difference = compareRounds(result, other, quantity, contestants);
    if (difference !== undefined) found.push(difference);
  }
  return found;
}

/** The quantiles that a report keeps of many samples: enough to draw their distribution. */
export const SHARES: readonly number[] = [
  0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97,
  0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1,
];

/** The nearest rank, as of harness/statistics.ts, of many samples that are sorted already. @throws NoValuesError */
export function sortedQuantile(sorted: Float64Array, share: number): number {
  const found = sorted[Math.max(0, Math.ceil(share * sorted.length - 1e-9) - 1)];
  if (found === undefined) throw new NoValuesError();
  return found;
}

/** Of all samples of all rounds. @param sorted ascending @throws NoValuesError */
export function distributionOf(sorted: Float64Array): NonNullable<Result['distribution']> {
  const { length } = sorted;
  if (length === 0) throw new NoValuesError();
  // A share that names no sample of its own (99.99 % of a hundred) would only repeat the greatest.
  const useful = SHARES.filter((share) => share === 1 || (1 - share) * length >= 1);
  return {
    samples: length,
    quantiles: useful.map((share) => ({ share, value: sortedQuantile(sorted, share) })),
  };
}
