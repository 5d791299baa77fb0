/**
 * How far each contestant is from the baseline, as a ratio on a logarithmic axis: the median of the rounds,
 * the interval around it, and whether a difference can be seen at all.
 */
import { MUTED } from './canvas.ts';
import { drawRows, type Row } from './rows.ts';
import { bar, dot, interval } from './shapes.ts';
import { ratioTicks } from './ticks.ts';

export interface ForestRow {
  readonly heading?: string | undefined;
  readonly headingNote?: string | undefined;
  readonly label: string;
  /** All above 0. */
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly verdict: 'better' | 'worse' | 'unseen';
  readonly text: string;
}

const VERDICT_COLOURS = { better: 'var(--good)', worse: 'var(--bad)', unseen: MUTED } as const;

/** @returns an `<svg>` element */
export function drawForest(rows: readonly ForestRow[], widthPx: number): string {
  const [least, most] = [
    Math.min(1, ...rows.map(({ low }) => low)),
    Math.max(1, ...rows.map(({ high }) => high)),
  ];
  const ticks = ratioTicks(least, most, widthPx);
  const [min, max] = [ticks.at(0)?.value ?? -1, ticks.at(-1)?.value ?? 1];
  return drawRows(rows.map(rowOf), { min, max, ticks, origin: 0 }, widthPx);
}

function rowOf({ median, low, high, verdict, ...row }: ForestRow): Row {
  const colour = VERDICT_COLOURS[verdict];
  return {
    ...row,
    faint: verdict === 'unseen',
    shapes: ({ x, y }) => {
      const at = (ratio: number): number => x(Math.log2(ratio));
      return [
        ...(verdict === 'unseen' ? [] : [bar(x(0), at(median), y, 3, colour, 0.4)]),
        interval(at(low), at(high), y, colour),
        dot(at(median), y, colour, false),
      ];
    },
  };
}
