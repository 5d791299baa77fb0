/**
 * Values of contestants side by side: a bar from zero to the median, the interval that holds the median, and
 * every round as a dot. Or a whole made of parts, each a piece of the bar.
 */
import { INK } from './canvas.ts';
import { partColour } from './marks.ts';
import { drawRows, type Row } from './rows.ts';
import { bar, dot, interval, tick } from './shapes.ts';
import { linearTicks } from './ticks.ts';

export interface BarRow {
  /** Absent: the same contestant's other direction. */
  readonly label?: string | undefined;
  readonly heading?: string | undefined;
  readonly colour: string;
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly rounds: readonly { readonly value: number; readonly outlier: boolean }[];
  /** In the order in which they are stacked; absent: the bar is one. */
  readonly parts?: readonly number[] | undefined;
  readonly text: string;
  /** Against the baseline. */
  readonly note?: string | undefined;
  readonly faint?: boolean;
  readonly narrowText?: string | undefined;
}

const BAR_PX = 15;

/** All values in the axis' unit, which it names. @returns an `<svg>` element */
export function drawBars(rows: readonly BarRow[], unit: string, widthPx: number): string {
  const most = Math.max(
    0,
    ...rows.flatMap(({ high, median, rounds }) => [high, median, ...rounds.map((r) => r.value)]),
  );
  const least = Math.min(0, ...rows.flatMap(({ low, rounds }) => [low, ...rounds.map((r) => r.value)]));
  const ticks = linearTicks(least, most, widthPx);
  const [first, last] = [ticks.at(0)?.value ?? 0, ticks.at(-1)?.value ?? 1];
  return drawRows(
    rows.map(rowOf),
    { min: Math.min(least, first), max: Math.max(most, last), ticks, unit, origin: 0 },
    widthPx,
  );
}

function rowOf(row: BarRow): Row {
  const { label, heading, text, note, faint, narrowText } = row;
  return {
    label,
    heading,
    text,
    note,
    faint: faint === true,
    narrowText,
    shapes: ({ x, y }) => {
      const rounds = row.rounds.map(({ value, outlier }) => dot(x(value), y, row.colour, outlier));
      return row.parts === undefined
        ? [
            bar(x(0), x(row.median), y, BAR_PX, row.colour, 0.32),
            interval(x(row.low), x(row.high), y, row.colour),
            tick(x(row.median), y, BAR_PX),
            ...rounds,
          ]
        : [...stack(row.parts, x, y), interval(x(row.low), x(row.high), y, INK)];
    },
  };
}

function stack(parts: readonly number[], x: (value: number) => number, y: number) {
  let from = 0;
  return parts.map((part, place) => {
    const piece = bar(x(from), x(from + part), y, BAR_PX, partColour(place));
    from += part;
    return piece;
  });
}
