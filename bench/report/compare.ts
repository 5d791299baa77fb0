/** What changed between two reports, with the noise of both taken into account. Pure. */

import { shift } from '../statistics/order.ts';
import { judge, LEAST_LEVEL } from '../statistics/summarize.ts';
import { formatChange, formatValue } from './format.ts';
import type { BenchReport, Interval, Quantity, Result } from './schema.ts';

export interface Change {
  readonly contestant: string;
  readonly quantity: string;
  readonly direction?: Result['direction'];
  readonly at?: number | undefined;
  readonly before: number;
  readonly after: number;
  /** After divided by before, or less it (the quantity's `compareBy`): the median over all pairs of rounds. */
  readonly change: number;
  readonly interval: Interval;
  readonly verdict: 'better' | 'worse' | 'unseen';
  /** Worse by more than the threshold, and not by chance. */
  readonly regression: boolean;
  /** A line for people. */
  readonly statement: string;
}

export interface Comparison {
  readonly changes: readonly Change[];
  readonly regressions: number;
  /** In one report only: what cannot be compared. */
  readonly unmatched: readonly string[];
  /** Why the two may not be comparable: another machine, another kernel, an interrupted run. */
  readonly warnings: readonly string[];
  /** Of changes that are called better or worse, so many are to be expected when nothing changed at all. */
  readonly expectedByChance: number;
}

/** Percent and percentage points. @param thresholdPercent 0 or more */
export function compareReports(
  before: BenchReport,
  after: BenchReport,
  thresholdPercent: number,
): Comparison {
  const changes: Change[] = [];
  const unmatched: string[] = [];
  const later = new Map(after.results.map((result) => [keyOf(result), result]));
  for (const result of before.results) {
    const quantity = before.quantities.find(({ id }) => id === result.quantity);
    const other = later.get(keyOf(result));
    later.delete(keyOf(result));
    if (quantity === undefined) continue;
    // Its parts add up to it: they say where a change is, not that there is one.
    if (quantity.partOf !== undefined) continue;
    if (other === undefined) unmatched.push(`${nameOf(result, quantity, before)}: only before`);
    else changes.push(changeOf(result, other, quantity, before, thresholdPercent));
  }
  for (const result of later.values()) {
    const quantity = after.quantities.find(({ id }) => id === result.quantity);
    if (quantity === undefined || quantity.partOf !== undefined) continue;
    unmatched.push(`${nameOf(result, quantity, after)}: only after`);
  }
  return {
    changes,
    regressions: changes.filter(({ regression }) => regression).length,
    unmatched,
    warnings: warningsOf(before, after),
    expectedByChance: changes.reduce((sum, { interval }) => sum + falseAlarms(interval), 0),
  };
}

/** Of what is never called different, none. */
const falseAlarms = ({ level }: Interval): number => (level < LEAST_LEVEL ? 0 : 1 - level);

const keyOf = ({ contestant, quantity, direction, at }: Result): string =>
  JSON.stringify([contestant, quantity, direction, at]);

function nameOf(
  { contestant, direction, at }: Result,
  quantity: Quantity,
  { contestants }: BenchReport,
): string {
  const parts = [quantity.title];
  if (at !== undefined) parts.push(`at ${formatValue(at, quantity.axis?.unit ?? 'count')}`);
  if (direction === 'reverse') parts.push('back');
  parts.push(contestants.find(({ id }) => id === contestant)?.title ?? contestant);
  return parts.join(', ');
}

function changeOf(
  before: Result,
  after: Result,
  quantity: Quantity,
  report: BenchReport,
  thresholdPercent: number,
): Change {
  const [earlier, later] = [valuesOf(before), valuesOf(after)];
  // A ratio needs something to divide by: where there was nothing, what is subtracted has to do.
  const isRatio = quantity.compareBy === 'ratio' && [...earlier, ...later].every((value) => value > 0);
  const judged: Quantity = { ...quantity, compareBy: isRatio ? 'ratio' : 'difference' };
  const { median, interval } = shift(earlier, later, (a, b) => (isRatio ? b / a : b - a));
  const verdict = judge(interval, judged);
  const worseBy = quantity.better === 'more' ? -1 : 1;
  const past = isRatio
    ? worseBy * (median - 1) * 100 > thresholdPercent
    : quantity.unit === '%'
      ? worseBy * median > thresholdPercent
      : worseBy * median > (thresholdPercent / 100) * Math.abs(before.median);
  const change = formatChange(median, judged);
  const range = `${formatChange(interval.low, judged)} to ${formatChange(interval.high, judged)}`;
  const values = `${formatValue(before.median, quantity.unit)} -> ${formatValue(after.median, quantity.unit)}`;
  const said = verdict === 'unseen' ? `no change can be seen (${range})` : `${change} (${range})`;
  return {
    contestant: before.contestant,
    quantity: quantity.id,
    direction: before.direction,
    at: before.at,
    before: before.median,
    after: after.median,
    change: median,
    interval,
    verdict,
    regression: verdict === 'worse' && past,
    statement: `${nameOf(before, quantity, report)}: ${values}: ${said}`,
  };
}

const valuesOf = ({ rounds }: Result): number[] => rounds.filter((value) => value !== null);

function warningsOf(before: BenchReport, after: BenchReport): string[] {
  const found: string[] = [];
  if (before.bench !== after.bench)
    found.push(`they are of different benchmarks: ${before.bench} and ${after.bench}`);
  const facts = ['cpu', 'cores', 'kernel', 'node', 'governor', 'tcpCongestionControl'] as const;
  for (const fact of facts) {
    const [was, is] = [before.machine[fact], after.machine[fact]];
    if (was !== is) found.push(`${fact} differs: ${was} and ${is}`);
  }
  for (const [program, version] of Object.entries(before.machine.programs)) {
    const other = after.machine.programs[program];
    if (program !== 'vtepd' && other !== undefined && other !== version) {
      found.push(`${program} differs: ${version} and ${other}`);
    }
  }
  for (const [name, { complete }] of [
    ['the first', before],
    ['the second', after],
  ] as const) {
    if (!complete) found.push(`${name} was interrupted`);
  }
  if (before.quick !== after.quick) found.push('one of them is of --quick');
  return found;
}

/** For a terminal: what changed first, the worst before the rest. */
export function printComparison(comparison: Comparison, thresholdPercent: number): string {
  const { changes, regressions, unmatched, warnings, expectedByChance } = comparison;
  const of = (verdict: Change['verdict']) => changes.filter((change) => change.verdict === verdict);
  const blocks: string[] = [];
  const block = (title: string, lines: readonly string[]): void => {
    if (lines.length > 0) blocks.push([`${title}:`, ...lines.map((line) => `  ${line}`)].join('\n'));
  };
  block('Beware', warnings);
  block(
    `Worse by more than ${thresholdPercent} %`,
    changes.filter(({ regression }) => regression).map(({ statement }) => statement),
  );
  block(
    'Worse, within the threshold',
    of('worse')
      .filter(({ regression }) => !regression)
      .map(({ statement }) => statement),
  );
  block(
    'Better',
    of('better').map(({ statement }) => statement),
  );
  block(
    'No change can be seen',
    of('unseen').map(({ statement }) => statement),
  );
  block('Cannot be compared', unmatched);
  const seen = changes.length - of('unseen').length;
  blocks.push(
    `${changes.length} compared, ${seen} changed, ${regressions} worse by more than ${thresholdPercent} %. By chance alone, about ${expectedByChance.toFixed(1)} would look changed.`,
  );
  return `${blocks.join('\n\n')}\n`;
}
