/** A report for a terminal: a block a quantity, a line a contestant. Pure. */
import { LEAST_LEVEL } from '../statistics/summarize.ts';
import { digits, formatChange, formatValue, scaleFor } from './format.ts';
import type { BenchReport, Difference, Overhead, Quantity, Result } from './schema.ts';

export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
}

/** Of the column of names: as wide as the longest, within reason. */
const MOST_NAME_WIDTH = 52;
const CELL_WIDTH = 12;

/** The whole report, with a newline at its end. */
export function printReport(report: BenchReport, paint: Paint): string {
  const blocks = [head(report, paint)];
  for (const quantity of report.quantities) {
    if (quantity.partOf !== undefined) continue;
    const results = report.results.filter((result) => result.quantity === quantity.id);
    if (results.length === 0) continue;
    if (quantity.axis !== undefined) blocks.push(...sweeps(report, quantity, results, paint));
    else blocks.push(...plain(report, quantity, results, paint));
  }
  if (report.overheads.length > 0) blocks.push(overheads(report, paint));
  if (report.aims.length > 0) blocks.push(aims(report, paint));
  const skipped = report.contestants.filter((each) => each.skipped !== undefined);
  if (skipped.length > 0) {
    const lines = skipped.map(({ title, skipped: why }) => `  ${title}: ${why}`);
    blocks.push([paint.bold('Not measured'), ...lines].join('\n'));
  }
  if (report.problems.length > 0) {
    blocks.push([paint.bold('Worth knowing'), ...report.problems.map((text) => `  ${text}`)].join('\n'));
  }
  return `${blocks.join('\n\n')}\n`;
}

function head(report: BenchReport, paint: Paint): string {
  const { machine } = report;
  const lines = [
    paint.bold(report.title),
    `  ${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, vtepd ${report.vtepd}, Node ${machine.node}`,
    `  ${report.plannedRounds === 1 ? '1 round' : `${report.plannedRounds} rounds`} in ${digits(report.durationS)} s${levelText(report)}`,
  ];
  if (!report.complete) lines.push(paint.bad('  It was interrupted: this is what had been measured.'));
  return lines.join('\n');
}

/** All results of a run have as many rounds, but for those that failed in one. */
function levelText({ results }: BenchReport): string {
  const [first] = results;
  if (first === undefined || first.interval.level === 0) return '';
  return `; [low .. high]: where a median lies with a probability of ${(first.interval.level * 100).toFixed(0)} %`;
}

const titleOf = ({ contestants }: BenchReport, id: string): string =>
  contestants.find((each) => each.id === id)?.title ?? id;

/** A name in its column. */
function named(report: BenchReport, text: string): string {
  const longest = Math.max(...report.contestants.map(({ title }) => title.length));
  const width = Math.min(MOST_NAME_WIDTH, longest);
  return `${text.length > width ? `${text.slice(0, width - 1)}…` : text.padEnd(width)}  `;
}

const DIRECTION_TEXT = { forward: 'there', reverse: 'back' } as const;

function heading(quantity: Quantity, more: readonly string[], unit: string): string {
  const parts = [quantity.title, ...more].join(', ');
  const better = quantity.better === 'more' ? 'more is better' : 'less is better';
  return `${parts} (${unit === '' ? better : `${unit}, ${better}`})`;
}

/** One block for each direction. */
function plain(report: BenchReport, quantity: Quantity, results: readonly Result[], paint: Paint): string[] {
  const parts = report.quantities.filter((each) => each.partOf?.quantity === quantity.id);
  return directionsOf(results).map((direction) => {
    const these = results.filter((result) => result.direction === direction);
    // By the medians: one outlier is no reason to write them all with leading zeros.
    const scale = scaleFor(
      these.map(({ median }) => median),
      quantity.unit,
    );
    const cell = (value: number): string => digits(value * scale.factor);
    const more = directionWords(results, direction);
    const lines = these.map((result) => {
      // One round has no interval.
      const { low, high, level } = result.interval;
      const range = level === 0 ? '' : `[${cell(low)} .. ${cell(high)}]`;
      const outside = result.outliers.length > 0 ? [paint.dim(outliersText(result, cell))] : [];
      const shares = parts.flatMap((part) => partText(report, part, result, cell));
      const split = shares.length > 0 ? [paint.dim(shares.join(', '))] : [];
      const change = changeText(report, quantity, result, paint);
      const facts = [...(change === '' ? [] : [change]), ...split, ...outside].join('; ');
      return `  ${named(report, titleOf(report, result.contestant))}${cell(result.median).padStart(8)}  ${range.padEnd(20)} ${facts}`.trimEnd();
    });
    return [paint.bold(heading(quantity, more, scale.unit)), ...lines].join('\n');
  });
}

/** Said only where there are two. */
const directionWords = (results: readonly Result[], direction: Result['direction']): string[] =>
  direction !== undefined && directionsOf(results).length > 1 ? [DIRECTION_TEXT[direction]] : [];

const directionsOf = (results: readonly Result[]): Result['direction'][] => [
  ...new Set(results.map(({ direction }) => direction)),
];

const outliersText = ({ outliers, rounds }: Result, cell: (value: number) => string): string =>
  `outlier${outliers.length > 1 ? 's' : ''}: ${outliers.map((round) => cell(rounds[round] ?? 0)).join(', ')}`;

function partText(
  report: BenchReport,
  part: Quantity,
  whole: Result,
  cell: (value: number) => string,
): string[] {
  const found = report.results.find(
    ({ contestant, quantity, direction, at }) =>
      contestant === whole.contestant &&
      quantity === part.id &&
      direction === whole.direction &&
      at === whole.at,
  );
  return found === undefined ? [] : [`${part.partOf?.part} ${cell(found.median)}`];
}

function differenceOf(report: BenchReport, result: Result): Difference | undefined {
  return report.differences.find(
    ({ contestant, quantity, direction, at }) =>
      contestant === result.contestant &&
      quantity === result.quantity &&
      direction === result.direction &&
      at === result.at,
  );
}

function changeText(report: BenchReport, quantity: Quantity, result: Result, paint: Paint): string {
  const difference = differenceOf(report, result);
  if (difference === undefined) return '';
  const change = formatChange(difference.median, quantity);
  if (difference.verdict === 'unseen') {
    return paint.dim(
      difference.interval.level < LEAST_LEVEL
        ? `(${change}: too few rounds)`
        : 'no difference can be seen here',
    );
  }
  return (difference.verdict === 'better' ? paint.good : paint.bad)(change);
}

/** A column a place of the axis; ≈ where no difference from the baseline can be seen. */
function sweeps(report: BenchReport, quantity: Quantity, results: readonly Result[], paint: Paint): string[] {
  return directionsOf(results).map((direction) => {
    const these = results.filter((result) => result.direction === direction);
    const places = [...new Set(these.map(({ at }) => at ?? 0))].sort((a, b) => a - b);
    const scale = scaleFor(
      these.map(({ median }) => median),
      quantity.unit,
    );
    const axis = quantity.axis?.title ?? '';
    const columns = places.map((at) => placeText(at, quantity).padStart(CELL_WIDTH)).join('');
    const ids = [...new Set(these.map(({ contestant }) => contestant))];
    const lines = ids.map((id) => {
      const cells = places.map((at) => {
        const result = these.find((each) => each.contestant === id && each.at === at);
        if (result === undefined) return paint.dim('·'.padStart(CELL_WIDTH));
        const unseen = differenceOf(report, result)?.verdict === 'unseen';
        return `${unseen ? '≈' : ''}${digits(result.median * scale.factor)}`.padStart(CELL_WIDTH);
      });
      return `  ${named(report, titleOf(report, id))}${cells.join('')}`;
    });
    const title = paint.bold(heading(quantity, directionWords(results, direction), scale.unit));
    return [title, paint.dim(`  ${named(report, axis)}${columns}`), ...lines].join('\n');
  });
}

const placeText = (at: number, { axis }: Quantity): string =>
  axis === undefined || axis.unit === 'bytes' || axis.unit === 'count' ? `${at}` : formatValue(at, axis.unit);

function overheads(report: BenchReport, paint: Paint): string {
  const lines = report.overheads.map((overhead) =>
    overheadLine(named(report, titleOf(report, overhead.contestant)), overhead, paint),
  );
  const title = paint.bold('Bytes that a path adds to a pod’s packet, computed and captured');
  return [title, ...lines].join('\n');
}

function overheadLine(title: string, overhead: Overhead, paint: Paint): string {
  const { computedBytes, captured, innerMtuBytes, layers, efficiency } = overhead;
  const added = layers.filter(({ role }) => role === 'added').map(({ name, bytes }) => `${name} ${bytes}`);
  const seen =
    captured === undefined
      ? paint.dim('not captured')
      : captured.agrees
        ? paint.good(`captured ${captured.overheadBytes}`)
        : paint.bad(`captured ${captured.overheadBytes}: not what was computed`);
  const what = added.length > 0 ? ` = ${added.join(' + ')}` : '';
  return `  ${title}${`${computedBytes}`.padStart(4)}  ${seen}; MTU ${innerMtuBytes}, ${(efficiency * 100).toFixed(1)} % of a wire’s time is payload${paint.dim(what)}`;
}

function aims(report: BenchReport, paint: Paint): string {
  const lines = report.aims.map(({ what, atMost, measured, met }) => {
    const mark = met ? paint.good('met   ') : paint.bad('MISSED');
    return `  ${mark} ${what}: ${digits(measured)}, at most ${atMost}`;
  });
  return [paint.bold('Aims'), ...lines].join('\n');
}
