/** What changed between two reports, with the noise of both taken into account. Pure. */

import { shift } from '../statistics/order.ts';
import { judge, LEAST_LEVEL } from '../statistics/summarize.ts';
import { formatChange, formatValue } from './format.ts';
import { noiseOf } from './noise.ts';
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
  /** Worse, as the runs' baseline is, and no worse against that: it was the machine. */
  readonly withBaseline: boolean;
  /** Worse by more than the threshold, neither by chance nor with the baseline. */
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
  const earlier = new Map(before.results.map((result) => [keyOf(result), result]));
  const later = new Map(after.results.map((result) => [keyOf(result), result]));
  const matched = new Set<string>();
  const { baseline } = before;
  for (const result of before.results) {
    const quantity = before.quantities.find(({ id }) => id === result.quantity);
    const key = keyOf(result);
    matched.add(key);
    // Its parts add up to it: they say where a change is, not that there is one.
    if (quantity === undefined || quantity.partOf !== undefined) continue;
    const other = later.get(key);
    if (other === undefined) {
      unmatched.push(`${nameOf(result, quantity, before)}: only before`);
      continue;
    }
    const pair: Pair = { before: result, after: other };
    let baselines: Pair | undefined;
    if (baseline !== null && baseline === after.baseline && baseline !== result.contestant) {
      const ofBaseline = keyOf({ ...result, contestant: baseline });
      const [was, is] = [earlier.get(ofBaseline), later.get(ofBaseline)];
      if (was !== undefined && is !== undefined) baselines = { before: was, after: is };
    }
    changes.push(changeOf(pair, baselines, quantity, before, thresholdPercent));
  }
  for (const [key, result] of later) {
    if (matched.has(key)) continue;
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

const titleOf = ({ contestants }: BenchReport, id: string): string =>
  contestants.find((each) => each.id === id)?.title ?? id;

function nameOf({ contestant, direction, at }: Result, quantity: Quantity, report: BenchReport): string {
  const parts = [quantity.title];
  if (at !== undefined) parts.push(`at ${formatValue(at, quantity.axis?.unit ?? 'count')}`);
  if (direction === 'reverse') parts.push('back');
  parts.push(titleOf(report, contestant));
  return parts.join(', ');
}

interface Pair {
  readonly before: Result;
  readonly after: Result;
}

interface Shift {
  readonly median: number;
  readonly interval: Interval;
  readonly verdict: Change['verdict'];
  /** How its values were compared. */
  readonly judged: Quantity;
}

/** How far the values of two runs lie apart. */
function shiftOf(earlier: readonly number[], later: readonly number[], quantity: Quantity): Shift {
  // A ratio needs something to divide by: where there was nothing, what is subtracted has to do.
  const isRatio = quantity.compareBy === 'ratio' && [...earlier, ...later].every((value) => value > 0);
  const judged: Quantity = { ...quantity, compareBy: isRatio ? 'ratio' : 'difference' };
  const { median, interval } = shift(earlier, later, (a, b) => (isRatio ? b / a : b - a));
  return { median, interval, verdict: judge(interval, judged), judged };
}

const rangeOf = ({ interval, judged }: Shift): string =>
  `${formatChange(interval.low, judged)} to ${formatChange(interval.high, judged)}`;

/** @param baselines the same of what others of both runs are compared with; undefined: there is no such thing */
function changeOf(
  { before, after }: Pair,
  baselines: Pair | undefined,
  quantity: Quantity,
  report: BenchReport,
  thresholdPercent: number,
): Change {
  const found = shiftOf(valuesOf(before), valuesOf(after), quantity);
  const { median, interval, verdict, judged } = found;
  const worseBy = quantity.better === 'more' ? -1 : 1;
  const past =
    judged.compareBy === 'ratio'
      ? worseBy * (median - 1) * 100 > thresholdPercent
      : quantity.unit === '%'
        ? worseBy * median > thresholdPercent
        : worseBy * median > (thresholdPercent / 100) * Math.abs(before.median);
  const against =
    verdict === 'worse' && baselines !== undefined
      ? unlessWorseAgainst(baselines, { before, after }, quantity)
      : undefined;
  const values = `${formatValue(before.median, quantity.unit)} -> ${formatValue(after.median, quantity.unit)}`;
  const said =
    interval.level < LEAST_LEVEL
      ? `too few rounds to tell a change from chance (${rangeOf(found)})`
      : verdict === 'unseen'
        ? `no change can be seen (${rangeOf(found)})`
        : `${formatChange(median, judged)} (${rangeOf(found)})`;
  const excuse =
    against === undefined
      ? ''
      : `; ${titleOf(report, report.baseline ?? '')} became worse too, and against it no change for the worse can be seen (${rangeOf(against)})`;
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
    withBaseline: against !== undefined,
    regression: verdict === 'worse' && past && against === undefined,
    statement: `${nameOf(before, quantity, report)}: ${values}: ${said}${excuse}`,
  };
}

/**
 * Between two runs a machine may become slower as a whole. Undefined unless the baseline is worse as well; then what
 * became of the values against the baseline's of the same round, or undefined when they are worse by that too.
 */
function unlessWorseAgainst(baselines: Pair, { before, after }: Pair, quantity: Quantity): Shift | undefined {
  const drift = shiftOf(valuesOf(baselines.before), valuesOf(baselines.after), quantity);
  if (drift.verdict !== 'worse') return undefined;
  const [earlier, later] = [
    roundsAgainst(before, baselines.before, quantity),
    roundsAgainst(after, baselines.after, quantity),
  ];
  if (earlier.length === 0 || later.length === 0) return undefined;
  const against = shiftOf(earlier, later, quantity);
  return against.verdict === 'worse' ? undefined : against;
}

/** Round by round: both of a round had the same machine. */
const roundsAgainst = (result: Result, baseline: Result, { compareBy }: Quantity): number[] =>
  result.rounds.flatMap((value, round) => {
    const other = baseline.rounds[round];
    if (value === null || other === null || other === undefined) return [];
    if (compareBy === 'difference') return [value - other];
    return other > 0 ? [value / other] : [];
  });

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
  for (const [name, { complete, machine }] of [
    ['the first', before],
    ['the second', after],
  ] as const) {
    if (!complete) found.push(`${name} was interrupted`);
    for (const text of noiseOf(machine)) found.push(`during ${name}, ${text}`);
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
  const others = of('worse').filter(({ regression }) => !regression);
  const statementsOf = (found: readonly Change[]) => found.map(({ statement }) => statement);
  block('Worse, within the threshold', statementsOf(others.filter(({ withBaseline }) => !withBaseline)));
  block(
    'Worse, but no more than the baseline',
    statementsOf(others.filter(({ withBaseline }) => withBaseline)),
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
  const caution =
    expectedByChance === 0
      ? 'These are too few rounds to tell a change from chance: five in each report do.'
      : `By chance alone, on a machine that did the same in both runs, about ${expectedByChance.toFixed(1)} would look changed.`;
  blocks.push(
    `${changes.length} compared, ${seen} changed, ${regressions} worse by more than ${thresholdPercent} %. ${caution}`,
  );
  return `${blocks.join('\n\n')}\n`;
}
