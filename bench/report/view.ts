/** A report as a page reads it: looked up by quantity, contestant, place. Pure. */
import { seriesKey } from '../statistics/summarize.ts';
import type { BenchReport, Contestant, Difference, Group, Overhead, Quantity, Result } from './schema.ts';

export interface Part {
  readonly part: string;
  readonly quantity: Quantity;
}

export class ReportView {
  readonly report: BenchReport;
  readonly #results: ReadonlyMap<string, readonly Result[]>;
  readonly #differences: ReadonlyMap<string, Difference>;
  readonly #slots: ReadonlyMap<string, number>;

  constructor(report: BenchReport) {
    this.report = report;
    this.#slots = new Map(report.contestants.map(({ id }, slot) => [id, slot]));
    const inOrder = report.results
      .filter(({ contestant }) => this.#slots.has(contestant))
      .toSorted((a, b) => this.slot(a.contestant) - this.slot(b.contestant));
    this.#results = grouped(inOrder);
    this.#differences = new Map(report.differences.map((each) => [seriesKey(each), each]));
  }

  /** Those that were measured: of a group, or all; the parts of another are not among them. */
  quantities(group?: Group): Quantity[] {
    return this.report.quantities.filter(
      (each) =>
        (group === undefined || each.group === group) &&
        each.partOf === undefined &&
        this.results(each).length > 0,
    );
  }

  /** In the contestants' order. */
  results({ id }: Quantity): readonly Result[] {
    return this.#results.get(id) ?? [];
  }

  parts({ id }: Quantity): Part[] {
    return this.report.quantities.flatMap((quantity) =>
      quantity.partOf?.quantity === id && this.results(quantity).length > 0
        ? [{ part: quantity.partOf.part, quantity }]
        : [],
    );
  }

  /** The same contestant's, direction's and place's result of another quantity. */
  sameOf(quantity: Quantity, { contestant, direction, at }: Result): Result | undefined {
    return this.results(quantity).find(
      (each) => each.contestant === contestant && each.direction === direction && each.at === at,
    );
  }

  /** Against the baseline; absent for the baseline itself. */
  difference(result: Result): Difference | undefined {
    return this.#differences.get(seriesKey(result));
  }

  /** The contestant's place in the report, from 0: its colour and its symbol. */
  slot(contestant: string): number {
    return this.#slots.get(contestant) ?? 0;
  }

  contestant(id: string): Contestant | undefined {
    return this.report.contestants[this.#slots.get(id) ?? -1];
  }

  title(id: string): string {
    return this.contestant(id)?.title ?? id;
  }

  overhead(contestant: string): Overhead | undefined {
    return this.report.overheads.find((each) => each.contestant === contestant);
  }
}

function grouped(results: readonly Result[]): Map<string, Result[]> {
  const groups = new Map<string, Result[]>();
  for (const result of results) {
    const group = groups.get(result.quantity);
    if (group === undefined) groups.set(result.quantity, [result]);
    else group.push(result);
  }
  return groups;
}
