/**
 * What one of the project's own benchmarks measured, as it measures it: whatever was recorded before an
 * interruption is in its report. Quantities and contestants are in the order in which they first came.
 */
import type { Contestant, Difference, Direction, Quantity, Result, Unit } from '../report/schema.ts';
import { differencesFrom, sortedQuantile } from '../statistics/summarize.ts';
import { SeriesStore } from './series-store.ts';

export interface OwnQuantity {
  /** Unique in the benchmark; `ready`. */
  readonly id: string;
  /** `from its start to ready` */
  readonly title: string;
  readonly unit: Unit;
  /** `less` unless told. */
  readonly better?: Quantity['better'];
  /** `difference` for what may be 0; `ratio` unless told. */
  readonly compareBy?: Quantity['compareBy'];
  readonly axis?: Quantity['axis'];
}

export interface Place {
  /** From 0. */
  readonly round: number;
  /** On the quantity's axis. */
  readonly at?: number | undefined;
  readonly direction?: Direction | undefined;
}

export interface Findings {
  readonly contestants: Contestant[];
  readonly quantities: Quantity[];
  readonly results: Result[];
  readonly differences: Difference[];
}

export class Recorder {
  private readonly store = new SeriesStore();
  private readonly quantities = new Map<string, Quantity>();
  private readonly contestants = new Map<string, Contestant>();

  /** What the contestant is; without it, its name says so. */
  describe(id: string, about: string): void {
    this.contestants.set(id, { id, title: id, about });
  }

  /** One value of a round, in the quantity's unit. */
  record(contestant: string, quantity: OwnQuantity, { round, at, direction }: Place, value: number): void {
    this.know(contestant, quantity);
    this.store.add({ contestant, quantity: quantity.id, direction, at }, round, value);
  }

  /**
   * Many samples of a round: half of them and 99 of 100 are at most what the round's values are; all of them
   * together are the distribution.
   */
  recordSamples(
    contestant: string,
    quantity: OwnQuantity,
    { round, at, direction }: Place,
    samples: readonly number[],
  ): void {
    const sorted = Float64Array.from(samples).sort();
    for (const [share, name, suffix] of QUANTILES) {
      const one = { ...quantity, id: `${quantity.id}.${suffix}`, title: `${quantity.title}, ${name}` };
      this.know(contestant, one);
      const series = { contestant, quantity: one.id, direction, at };
      this.store.add(series, round, sortedQuantile(sorted, share), share === 0.5 ? sorted : undefined);
    }
  }

  get isEmpty(): boolean {
    return this.store.isEmpty;
  }

  /** @param baseline what the others are compared with; null, or one that was not measured: nothing is */
  findings(baseline: string | null): Findings {
    const quantities = [...this.quantities.values()];
    const contestants = [...this.contestants.values()];
    const results = this.store.results(
      quantities,
      contestants.map(({ id }) => id),
    );
    const differences = differencesFrom(baseline, results, quantities, contestants);
    return { contestants, quantities, results, differences };
  }

  private know(contestant: string, { better = 'less', compareBy = 'ratio', ...quantity }: OwnQuantity): void {
    if (!this.contestants.has(contestant)) {
      this.contestants.set(contestant, { id: contestant, title: contestant, about: '' });
    }
    if (this.quantities.has(quantity.id)) return;
    this.quantities.set(quantity.id, { ...quantity, group: 'own', better, compareBy });
  }
}

const QUANTILES = [
  [0.5, 'half of them', 'p50'],
  [0.99, '99 of 100', 'p99'],
] as const;
