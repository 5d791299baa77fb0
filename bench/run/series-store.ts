/** Values as they are measured: a value a round for each series, samples beside them. */
import type { Quantity, Result } from '../report/schema.ts';
import { distributionOf, type Series, seriesKey, summarize } from '../statistics/summarize.ts';

/** Of all samples of a series at most so many are kept: 64 MiB for a hundred series would be no service. */
const MOST_SAMPLES = 200_000;

interface Kept {
  readonly series: Series;
  readonly rounds: (number | null)[];
  readonly samples: Float64Array[];
}

export class SeriesStore {
  private readonly kept = new Map<string, Kept>();

  /** @param round from 0 */
  add(series: Series, round: number, value: number | null, samples?: Float64Array): void {
    const key = seriesKey(series);
    const kept = this.kept.get(key) ?? { series, rounds: [], samples: [] };
    this.kept.set(key, kept);
    while (kept.rounds.length < round) kept.rounds.push(null);
    kept.rounds[round] = value;
    if (samples !== undefined) kept.samples.push(samples);
  }

  /** In the order of the quantities and contestants; a series that no round gave a value has none. */
  results(quantities: readonly Quantity[], contestants: readonly string[]): Result[] {
    const order = quantities.map(({ id }) => id);
    const placed = [...this.kept.values()].filter(({ rounds }) => rounds.some((value) => value !== null));
    placed.sort(
      ({ series: a }, { series: b }) =>
        order.indexOf(a.quantity) - order.indexOf(b.quantity) ||
        (a.direction ?? '').localeCompare(b.direction ?? '') ||
        (a.at ?? 0) - (b.at ?? 0) ||
        contestants.indexOf(a.contestant) - contestants.indexOf(b.contestant),
    );
    return placed.map(({ series, rounds, samples }) => {
      const distribution = samples.length > 0 ? distributionOf(pooled(samples)) : undefined;
      return summarize(series, rounds, distribution);
    });
  }

  get isEmpty(): boolean {
    return this.kept.size === 0;
  }
}

/** All samples, ascending; of too many, every n-th of the ascending ones of each round, and all extremes. */
function pooled(rounds: readonly Float64Array[]): Float64Array {
  const count = rounds.reduce((sum, { length }) => sum + length, 0);
  const step = Math.ceil(count / MOST_SAMPLES);
  const all = new Float64Array(rounds.reduce((sum, { length }) => sum + Math.ceil(length / step), 0));
  let at = 0;
  for (const samples of rounds) {
    for (let i = samples.length - 1; i >= 0; i -= step) all[at++] = samples[i] ?? 0;
  }
  return all.sort();
}
