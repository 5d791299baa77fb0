/**
 * A plot of rows on one common axis: a name, a drawing, a value in words. On a desk they stand in three
 * columns; on a phone the words stand above the drawing, which then has the whole width.
 */
import { draw, FAINT_TEXT, FONT_PX, GRID, HALO, INK, MUTED, NARROW_PX, TEXT } from './canvas.ts';

/** A piece of a drawing in pixels, as ECharts' custom series takes it. */
export type Shape = Readonly<Record<string, unknown>>;

export interface Place {
  /** The pixel of a value on the common axis. */
  readonly x: (value: number) => number;
  /** The middle of the row's drawing. */
  readonly y: number;
}

export interface Row {
  /** Absent: it belongs to the row above it, and stands close to it. */
  readonly label?: string | undefined;
  /** Over the row, to the left: what the rows from here on are about. */
  readonly heading?: string | undefined;
  /** Behind the heading where there is room. */
  readonly headingNote?: string | undefined;
  readonly text: string;
  /** Beside the text: how it compares. */
  readonly note?: string | undefined;
  /** The note, or else the text, is about something that cannot be seen. */
  readonly faint?: boolean;
  /** Instead of both on a phone, where the words of rows that belong together stand in one line. */
  readonly narrowText?: string | undefined;
  readonly shapes: (place: Place) => readonly Shape[];
}

export interface Tick {
  readonly value: number;
  readonly text: string;
}

export interface RowsAxis {
  readonly min: number;
  readonly max: number;
  readonly ticks: readonly Tick[];
  /** What its numbers count; absent where their words say so. */
  readonly unit?: string | undefined;
  /** Drawn stronger than the grid. */
  readonly origin?: number | undefined;
}

const LABEL_PX = 214;
const TEXT_PX = 150;
/** From the text's left end to the note's. */
const NOTE_PX = 66;
const AXIS_PX = 22;
/** Of a line for the axis' unit, on a phone. */
const UNIT_PX = 17;
/** Between the axis and the words above a drawing, on a phone. */
const INSET_PX = 5;
const EDGE_PX = 14;
const CHARACTER_PX = FONT_PX * 0.54;
const STRONG_CHARACTER_PX = FONT_PX * 0.62;

interface Layout {
  readonly narrow: boolean;
  readonly left: number;
  readonly right: number;
}

interface Placed {
  readonly row: Row;
  readonly headingY: number;
  readonly labelY: number;
  readonly y: number;
}

/** @param widthPx WIDE_PX or NARROW_PX @returns an `<svg>` element */
export function drawRows(rows: readonly Row[], axis: RowsAxis, widthPx: number): string {
  const narrow = widthPx <= NARROW_PX;
  const layout: Layout = {
    narrow,
    left: narrow ? EDGE_PX : LABEL_PX,
    right: narrow ? EDGE_PX : TEXT_PX,
  };
  const { placed, heightPx } = place(rows, narrow);
  const texts = new Map(axis.ticks.map(({ value, text }) => [value, text]));
  const values = [...texts.keys()];
  const { unit = '' } = axis;
  const axisPx = AXIS_PX + (narrow && unit !== '' ? UNIT_PX : 0);
  return draw(
    {
      grid: { left: layout.left, right: layout.right, top: 0, bottom: axisPx, outerBoundsMode: 'none' },
      xAxis: {
        type: 'value',
        min: axis.min,
        max: axis.max,
        axisLine: { show: false },
        axisTick: { show: false, customValues: values },
        axisLabel: {
          ...FAINT_TEXT,
          customValues: values,
          formatter: (value: number) => texts.get(value) ?? '',
          hideOverlap: true,
        },
        splitLine: { show: false },
      },
      yAxis: { type: 'value', min: 0, max: heightPx, inverse: true, show: false },
      series: [
        {
          type: 'custom',
          silent: true,
          clip: false,
          data: [[axis.min, 0]],
          renderItem: (_: unknown, api: Coordinates) => {
            const x = (value: number): number => api.coord([value, 0])[0];
            const lines = values.map((value) => gridLine(x(value), heightPx, value === axis.origin));
            return {
              type: 'group',
              children: [
                ...lines,
                ...placed.flatMap((each) => rowShapes(each, layout, widthPx, x)),
                ...(unit === '' ? [] : [unitText(unit, layout, widthPx, heightPx)]),
              ],
            };
          },
        },
      ],
    },
    { widthPx, heightPx: heightPx + axisPx },
  );
}

/** Beside the axis' numbers, among the names; on a phone below them. */
const unitText = (unit: string, { narrow, left, right }: Layout, widthPx: number, heightPx: number): Shape =>
  narrow
    ? text(unit, widthPx - right, heightPx + AXIS_PX + UNIT_PX / 2 - 1, 'right', false, true)
    : text(unit, left - 12, heightPx + AXIS_PX / 2 + 3, 'right', false, true);

/** What this file uses of ECharts' interface for custom drawings. */
interface Coordinates {
  readonly coord: (value: readonly [number, number]) => [number, number];
}

function place(rows: readonly Row[], narrow: boolean): { placed: Placed[]; heightPx: number } {
  const placed: Placed[] = [];
  let y = 4;
  for (const row of rows) {
    let headingY = 0;
    if (row.heading !== undefined) {
      if (placed.length > 0) y += 10;
      headingY = y + 9;
      y += 24;
    }
    const ownLine = narrow && (row.label !== undefined || wordsOf(row) !== '');
    const above = ownLine ? 25 : row.label === undefined ? 0 : 5;
    const height = narrow ? 17 : 21;
    placed.push({
      row,
      headingY,
      labelY: narrow ? y + 16 : y + above + height / 2,
      y: y + above + height / 2,
    });
    y += above + height;
  }
  return { placed, heightPx: y + 4 };
}

function rowShapes({ row, headingY, labelY, y }: Placed, layout: Layout, widthPx: number, x: Place['x']) {
  const { narrow, left, right } = layout;
  const shapes: Shape[] = [];
  if (row.heading !== undefined) shapes.push(text(headingOf(row, widthPx), 0, headingY, 'left', true));
  const words = wordsOf(row);
  if (row.label !== undefined) {
    const room = narrow ? widthPx - 2 * (EDGE_PX + INSET_PX) - CHARACTER_PX * (words.length + 2) : left - 12;
    const label = shortened(row.label, Math.floor(room / CHARACTER_PX));
    shapes.push(
      narrow ? text(label, left + INSET_PX, labelY, 'left') : text(label, left - 12, labelY, 'right'),
    );
  }
  const { note, faint } = row;
  const textAt = widthPx - right + (narrow ? -INSET_PX : 12);
  if (narrow) shapes.push(text(words, textAt, labelY, 'right', false, note === undefined && faint));
  else {
    shapes.push(text(row.text, textAt, labelY, 'left', false, note === undefined && faint));
    if (note !== undefined) shapes.push(text(note, textAt + NOTE_PX, labelY, 'left', false, faint));
  }
  return [...shapes, ...row.shapes({ x, y })];
}

function headingOf({ heading = '', headingNote }: Row, widthPx: number): string {
  const room = Math.floor(widthPx / STRONG_CHARACTER_PX);
  const whole = headingNote === undefined ? heading : `${heading} (${headingNote})`;
  return whole.length <= room ? whole : shortened(heading, room);
}

/** All words of a row in one line, for a phone. */
const wordsOf = ({ text, note, narrowText }: Row): string =>
  narrowText ?? (note === undefined ? text : `${text}\u2003${note}`);

const shortened = (label: string, most: number): string =>
  label.length <= most ? label : `${label.slice(0, Math.max(1, most - 1)).trimEnd()}…`;

const text = (
  words: string,
  x: number,
  y: number,
  align: 'left' | 'right',
  strong = false,
  faint = false,
): Shape => ({
  type: 'text',
  style: {
    ...TEXT,
    ...HALO,
    text: words,
    x,
    y,
    textAlign: align,
    textVerticalAlign: 'middle',
    fill: faint ? MUTED : INK,
    ...(strong && { fontWeight: 600 }),
  },
});

const gridLine = (x: number, heightPx: number, strong: boolean): Shape => ({
  type: 'line',
  shape: { x1: x, y1: 0, x2: x, y2: heightPx },
  style: { stroke: strong ? MUTED : GRID, lineWidth: 1 },
});
