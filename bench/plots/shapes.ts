/** The drawings inside a row: bars, intervals, rounds. Pixels in, ECharts' shapes out. Pure. */
import { INK, PAPER } from './canvas.ts';
import type { Shape } from './rows.ts';

export const bar = (
  from: number,
  to: number,
  y: number,
  heightPx: number,
  fill: string,
  opacity = 1,
): Shape => ({
  type: 'rect',
  shape: { x: Math.min(from, to), y: y - heightPx / 2, width: Math.abs(to - from), height: heightPx },
  style: { fill, opacity },
});

/** From low to high, with ends that are seen where the two are one. */
export const interval = (low: number, high: number, y: number, colour: string): Shape => ({
  type: 'path',
  shape: { pathData: `M${low} ${y}H${high}M${low} ${y - 4}V${y + 4}M${high} ${y - 4}V${y + 4}` },
  style: { stroke: colour, lineWidth: 1.5, fill: 'none' },
});

export const tick = (x: number, y: number, heightPx: number, colour = INK): Shape => ({
  type: 'line',
  shape: { x1: x, y1: y - heightPx / 2, x2: x, y2: y + heightPx / 2 },
  style: { stroke: colour, lineWidth: 2 },
});

/** One round. An outlier is a hollow diamond: in its place, and seen. */
export const dot = (x: number, y: number, colour: string, outlier: boolean): Shape =>
  outlier
    ? {
        type: 'polygon',
        shape: {
          points: [
            [x, y - 5.5],
            [x + 5.5, y],
            [x, y + 5.5],
            [x - 5.5, y],
          ],
        },
        style: { fill: PAPER, stroke: colour, lineWidth: 2 },
      }
    : {
        type: 'circle',
        shape: { cx: x, cy: y, r: 3 },
        style: { fill: colour, stroke: PAPER, lineWidth: 0.75 },
      };
