/**
 * Values over an axis (packet size, MTU, rate, share of the samples): a line a contestant through its
 * medians, the interval of each as a bar, outliers as hollow diamonds.
 */
import { draw, FAINT_TEXT, GRID, MUTED, NARROW_PX } from './canvas.ts';
import { markOf } from './marks.ts';
import type { Tick } from './rows.ts';
import { dot } from './shapes.ts';
import { linearTicks } from './ticks.ts';

export interface LinePoint {
  /** On the plot's axis: see `positions`. */
  readonly x: number;
  readonly y: number;
  readonly low?: number | undefined;
  readonly high?: number | undefined;
  readonly outliers?: readonly number[] | undefined;
}

export interface Line {
  /** The contestant's place in the report: its mark. */
  readonly slot: number;
  readonly points: readonly LinePoint[];
  /** Many points: the line alone. */
  readonly bare?: boolean;
}

export interface LinePlot {
  readonly lines: readonly Line[];
  readonly xTicks: readonly Tick[];
  /** Logarithmic: no value may be 0 or less. */
  readonly logarithmic: boolean;
  readonly yText?: (value: number) => string;
  /** What the axes count, with the unit; the one over the upper end of its axis, the other below. */
  readonly yName: string;
  readonly xName: string;
}

const LEFT_PX = { wide: 66, narrow: 56 } as const;
const NAME_PX = 17;

/** @returns an `<svg>` element */
export function drawLines(plot: LinePlot, widthPx: number): string {
  const narrow = widthPx <= NARROW_PX;
  const xs = plot.xTicks.map(({ value }) => value);
  const all = plot.lines.flatMap(({ points }) => points);
  const room = xs.length > 1 ? ((xs.at(-1) ?? 1) - (xs[0] ?? 0)) * 0.04 : 0.5;
  const xTexts = new Map(plot.xTicks.map(({ value, text }) => [value, text]));
  const [minX, maxX] = [Math.min(...xs, ...all.map(({ x }) => x)), Math.max(...xs, ...all.map(({ x }) => x))];
  return draw(
    {
      grid: {
        left: narrow ? LEFT_PX.narrow : LEFT_PX.wide,
        right: narrow ? 12 : 20,
        top: 10 + NAME_PX,
        bottom: 26 + NAME_PX,
        outerBoundsMode: 'none',
      },
      xAxis: {
        ...name(plot.xName, 'middle', 'center', 27),
        type: 'value',
        min: minX - room,
        max: maxX + room,
        axisLine: { lineStyle: { color: MUTED }, onZero: false },
        axisTick: { customValues: xs, lineStyle: { color: MUTED } },
        axisLabel: {
          ...FAINT_TEXT,
          customValues: xs,
          formatter: (value: number) => xTexts.get(value) ?? '',
          hideOverlap: true,
        },
        splitLine: { show: false },
      },
      yAxis: yAxis(plot, all, narrow),
      series: plot.lines.flatMap((line) => [curve(line), details(line)]),
    },
    { widthPx, heightPx: (narrow ? 250 : 320) + 2 * NAME_PX },
  );
}

const name = (text: string, place: 'middle' | 'end', align: string, gapPx: number, shiftPx = 0): object => ({
  name: text,
  nameLocation: place,
  nameGap: gapPx,
  nameTextStyle: { ...FAINT_TEXT, align, padding: [0, 0, 0, shiftPx] },
});

function yAxis(
  { logarithmic, yText, yName }: LinePlot,
  points: readonly LinePoint[],
  narrow: boolean,
): object {
  const common = {
    // Its text begins where the labels do.
    ...name(yName, 'end', 'left', 12, narrow ? -LEFT_PX.narrow : -LEFT_PX.wide),
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: GRID } },
    axisLabel: { ...FAINT_TEXT, ...(yText !== undefined && { formatter: yText }) },
  };
  if (logarithmic) {
    const values = points.flatMap(({ y, low = y, high = y }) => [y, low, high]).filter((value) => value > 0);
    const [min, max] = [
      10 ** Math.floor(Math.log10(Math.min(...values)) + 1e-9),
      10 ** Math.ceil(Math.log10(Math.max(...values)) - 1e-9),
    ];
    return {
      ...common,
      type: 'log',
      min,
      max: max > min ? max : 10 * min,
      minorSplitLine: { show: true, lineStyle: { color: GRID, opacity: 0.45 } },
      minorTick: { splitNumber: 9 },
    };
  }
  const values = points.flatMap(({ y, low = y, high = y, outliers = [] }) => [y, low, high, ...outliers]);
  const ticks = linearTicks(
    Math.min(0, ...values),
    Math.max(0, ...values),
    narrow ? NARROW_PX : 2 * NARROW_PX,
  );
  const places = ticks.map(({ value }) => value);
  const texts = new Map(ticks.map(({ value, text }) => [value, text]));
  return {
    ...common,
    type: 'value',
    min: places[0],
    max: places.at(-1),
    axisTick: { show: false, customValues: places },
    axisLabel: {
      ...FAINT_TEXT,
      customValues: places,
      formatter: (value: number) => yText?.(value) ?? texts.get(value) ?? '',
    },
  };
}

function curve({ slot, points, bare }: Line): object {
  const { colour, symbol, dashed } = markOf(slot);
  return {
    type: 'line',
    silent: true,
    clip: false,
    data: points.map(({ x, y }) => [x, y]),
    symbol: bare === true ? 'none' : symbol,
    symbolSize: symbol === 'circle' || symbol === 'rect' ? 7 : 9,
    showSymbol: true,
    itemStyle: { color: colour },
    lineStyle: { color: colour, width: 2, type: dashed ? [6, 4] : 'solid' },
  };
}

/** What this file uses of ECharts' interface for custom drawings. */
interface Coordinates {
  readonly coord: (value: readonly [number, number]) => [number, number];
}

function details({ slot, points }: Line): object {
  const { colour } = markOf(slot);
  return {
    type: 'custom',
    silent: true,
    clip: false,
    data: points.map(({ x, y }) => [x, y]),
    renderItem: ({ dataIndex }: { readonly dataIndex: number }, api: Coordinates) => {
      const point = points[dataIndex];
      if (point === undefined) return undefined;
      const at = (value: number): number => api.coord([point.x, value])[1];
      const [x] = api.coord([point.x, point.y]);
      const { low, high, outliers = [] } = point;
      const children = outliers.map((value) => dot(x, at(value), colour, true));
      if (low !== undefined && high !== undefined) {
        const [top, bottom] = [at(high), at(low)];
        const pathData = `M${x} ${top}V${bottom}M${x - 4} ${top}H${x + 4}M${x - 4} ${bottom}H${x + 4}`;
        children.unshift({
          type: 'path',
          shape: { pathData },
          style: { stroke: colour, lineWidth: 1.25, fill: 'none' },
        });
      }
      return { type: 'group', children };
    },
  };
}
