/** The plots of a report: which figures a group of quantities has, and what each shows. */
import { type BarRow, drawBars } from '../plots/bars.ts';
import { NARROW_PX, WIDE_PX } from '../plots/canvas.ts';
import { drawLines, type LinePlot } from '../plots/lines.ts';
import { markOf, partSwatch, swatch } from '../plots/marks.ts';
import { digits, formatValue, scaleFor } from './format.ts';
import { Html, html } from './html-text.ts';
import {
  axisNote,
  capital,
  changeText,
  DIRECTION_SIGNS,
  DIRECTION_WORDS,
  placeText,
  placeTick,
} from './html-words.ts';
import type { Direction, Quantity, Result, Unit } from './schema.ts';
import type { ReportView } from './view.ts';

export interface Figure {
  readonly title: string;
  /** Unit, which way is better, how to read it. */
  readonly note: string;
  /** Of its own, for parts of a whole. */
  readonly legend?: Html | undefined;
  /** The contestants that are lines in it: see contestantLegend. */
  readonly lines?: readonly string[] | undefined;
  /** The figure in words, for who does not see it. */
  readonly description: string;
  /** An `<svg>` of this width. */
  readonly draw: (widthPx: number) => string;
  /** Two of them stand side by side. */
  readonly compact: boolean;
}

/** More figures than this in a group are drawn small, two in a line. */
const LARGE_FIGURES = 2;

/** The figures of some quantities, in their order. */
export function figuresOf(view: ReportView, quantities: readonly Quantity[]): Figure[] {
  const plain = quantities.filter(({ axis }) => axis === undefined);
  const sampled = plain.filter((each) =>
    view.results(each).some(({ distribution }) => distribution !== undefined),
  );
  const each = (of: readonly Quantity[], make: Maker) =>
    of.flatMap((quantity) => directionsOf(view, quantity).map((way) => () => make(view, quantity, way)));
  const makers = [
    ...each(sampled, quantiles),
    ...plain.map((quantity) => () => bars(view, quantity)),
    ...each(
      quantities.filter(({ axis }) => axis !== undefined),
      sweep,
    ),
  ];
  const compact = makers.length > LARGE_FIGURES;
  return makers.map((make) => ({ ...make(), compact }));
}

type Maker = (view: ReportView, quantity: Quantity, way: Direction | undefined) => Undecided;
type Undecided = Omit<Figure, 'compact'>;

const directionsOf = (view: ReportView, quantity: Quantity): (Direction | undefined)[] => [
  ...new Set(view.results(quantity).map(({ direction }) => direction)),
];

const wayTitle = (title: string, ways: readonly unknown[], way: Direction | undefined): string =>
  way === undefined || ways.length < 2 ? title : `${title}\u00a0${DIRECTION_SIGNS[way]}`;

function bars(view: ReportView, quantity: Quantity): Undecided {
  const results = view.results(quantity);
  const parts = view.parts(quantity);
  // By the medians: one outlier is no reason to write them all with leading zeros.
  const { factor, unit } = scaleFor(
    results.map(({ median }) => median),
    quantity.unit,
  );
  const ways = directionsOf(view, quantity);
  const rows = results.map((result, place): BarRow => {
    const { contestant } = result;
    const follows = results[place - 1]?.contestant === contestant;
    const of = (each: Result): string =>
      `${digits(each.median * factor)}${each.direction === undefined || ways.length < 2 ? '' : ` ${DIRECTION_SIGNS[each.direction]}`}`;
    const both = results.filter((each) => each.contestant === contestant);
    const difference = view.difference(result);
    const found = parts.map(({ quantity: part }) => view.sameOf(part, result)?.median ?? 0);
    return {
      label: follows ? undefined : view.title(contestant),
      colour: markOf(view.slot(contestant)).colour,
      median: result.median * factor,
      low: result.interval.low * factor,
      high: result.interval.high * factor,
      rounds: roundsOf(result).map(({ value, outlier }) => ({ value: value * factor, outlier })),
      parts: found.length === 0 ? undefined : found.map((value) => value * factor),
      text: of(result),
      note: difference && (difference.verdict === 'unseen' ? '≈' : changeText(difference, quantity)),
      faint: difference?.verdict === 'unseen',
      narrowText: both.length < 2 ? undefined : follows ? '' : both.map(of).join('\u2003'),
    };
  });
  const many =
    new Set(results.map(({ rounds }) => rounds.length)).size > 0 &&
    results.some(({ rounds }) => rounds.length > 1);
  const reading =
    parts.length > 0
      ? 'Bar: median, in its parts; whiskers: interval of the whole.'
      : many
        ? 'Bar: median; whiskers: its interval; dots: rounds.'
        : '';
  return {
    title: quantity.title,
    note: [`${capital(axisNote(quantity, unit))}.`, reading, wayNote(ways), outlierNote(results)]
      .filter((text) => text !== '')
      .join(' '),
    legend: parts.length === 0 ? undefined : partLegend(view, quantity),
    description: describe(view, quantity, results),
    draw: (widthPx) => drawBars(rows, unit, widthPx),
  };
}

const wayNote = (ways: readonly unknown[]): string =>
  ways.length < 2
    ? ''
    : `${DIRECTION_SIGNS.forward}\u00a0${DIRECTION_WORDS.forward}, ${DIRECTION_SIGNS.reverse}\u00a0back.`;

const outlierNote = (results: readonly Result[]): string =>
  results.some(({ outliers }) => outliers.length > 0) ? '◇\u00a0is an outlier, counted like the others.' : '';

const partLegend = (view: ReportView, quantity: Quantity): Html =>
  html`${view
    .parts(quantity)
    .map(
      ({ part, quantity: { title } }, place) =>
        html`<li>${new Html(partSwatch(place))} ${title.startsWith(quantity.title) ? title.slice(quantity.title.length).replace(/^[,\s]+/, '') : part}</li>`,
    )}`;

/** The rounds that gave a value. */
export const roundsOf = ({
  rounds,
  outliers,
}: Result): { value: number; outlier: boolean; round: number }[] =>
  rounds.flatMap((value, round) =>
    value === null ? [] : [{ value, outlier: outliers.includes(round), round }],
  );

/** Places further apart than this are drawn on a logarithmic axis. */
const FEW_PLACES = 3;
/** Values further apart than this are drawn on a logarithmic axis. */
const WIDE_RANGE = 60;

function sweep(view: ReportView, quantity: Quantity, way: Direction | undefined): Undecided {
  const results = view.results(quantity).filter(({ direction, at }) => direction === way && at !== undefined);
  const axis = quantity.axis ?? { title: '', unit: 'count' };
  const places = [...new Set(results.flatMap(({ at }) => at ?? []))].sort((a, b) => a - b);
  const even = places.length <= FEW_PLACES || places.some((at) => at <= 0);
  const x = (at: number): number => (even ? places.indexOf(at) : Math.log10(at));
  const { factor, unit } = scaleFor(
    results.flatMap(({ max }) => max),
    quantity.unit,
  );
  const positive = results.every(({ min }) => min > 0);
  const spread = Math.max(...results.map(({ max }) => max)) / Math.min(...results.map(({ min }) => min));
  const logarithmic = positive && spread > WIDE_RANGE;
  const axisUnit =
    axis.unit === 'bytes' ? 'bytes' : axis.unit === 'count' ? '' : scaleFor(places, axis.unit).unit;
  const plot: LinePlot = {
    logarithmic,
    yName: unit,
    xName: `${axis.title}${axisUnit === '' ? '' : `, ${axisUnit}`}`,
    xTicks: places.map((at) => ({ value: x(at), text: placeTick(at, axis.unit, places) })),
    lines: linesOf(view, results, (result) => ({
      x: x(result.at ?? 0),
      y: result.median * factor,
      ...(result.rounds.length > 1 && {
        low: result.interval.low * factor,
        high: result.interval.high * factor,
      }),
      outliers: roundsOf(result).flatMap(({ value, outlier }) => (outlier ? [value * factor] : [])),
    })),
  };
  const scale = logarithmic ? 'Logarithmic.' : '';
  const whiskers = results.some(({ rounds }) => rounds.length > 1) ? 'Whiskers: interval of the median.' : '';
  return {
    title: wayTitle(quantity.title, directionsOf(view, quantity), way),
    note: [`${capital(axisNote(quantity, unit))}.`, scale, whiskers, outlierNote(results)]
      .filter((text) => text !== '')
      .join(' '),
    lines: results.map(({ contestant }) => contestant),
    description: describe(view, quantity, results),
    draw: (widthPx) => drawLines(plot, widthPx),
  };
}

/** Shares that the axis of a distribution names, of those that it reaches. */
const NAMED_SHARES = [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];

/** A share's place: each nine is as long as the one before, for what matters is at the end. */
const ninesOf = (share: number): number => -Math.log10(1 - share);

function quantiles(view: ReportView, quantity: Quantity, way: Direction | undefined): Undecided {
  const results = view
    .results(quantity)
    .filter(({ direction, distribution }) => direction === way && distribution !== undefined);
  const all = results.flatMap(({ distribution }) => distribution?.quantiles.map(({ value }) => value) ?? []);
  const logarithmic = all.some((value) => value > 0);
  const lines = linesOf(view, results, (result) => result).map(({ slot, points }) => ({
    slot,
    bare: true,
    points: points.flatMap(({ distribution }) =>
      (distribution?.quantiles ?? []).flatMap(({ share, value }) =>
        logarithmic && value <= 0
          ? []
          : [
              {
                x: share >= 1 ? Math.log10(Math.max(2, distribution?.samples ?? 2)) : ninesOf(share),
                y: value,
              },
            ],
      ),
    ),
  }));
  const furthest = Math.max(...lines.flatMap(({ points }) => points.map(({ x }) => x)));
  const named = NAMED_SHARES.filter((share) => ninesOf(share) <= furthest + 1e-9);
  const samples = results.map(({ distribution }) => distribution?.samples ?? 0);
  return {
    title: wayTitle(`${distributionTitle(quantity)}`, directionsOf(view, quantity), way),
    note: `Logarithmic, less is better. Of at least ${Math.min(...samples).toLocaleString('en-US')} samples each.`,
    lines: results.map(({ contestant }) => contestant),
    description: results
      .map(({ contestant, distribution }) => {
        const at = [0.5, 0.99, 0.999].flatMap((share) => {
          const found = distribution?.quantiles.find((each) => each.share === share);
          return found === undefined
            ? []
            : [`${100 * share} % within ${formatValue(found.value, quantity.unit)}`];
        });
        return `${view.title(contestant)}: ${at.join(', ')}.`;
      })
      .join(' '),
    draw: (widthPx) =>
      drawLines(
        {
          logarithmic,
          lines,
          yName: 'time',
          xName: 'share that took no longer',
          yText: (value) => tickText(value, quantity.unit),
          xTicks: named.map((share) => ({
            value: ninesOf(share),
            text: share === 0 ? '0' : `${Number((100 * share).toFixed(3))} %`,
          })),
        },
        widthPx,
      ),
  };
}

/** `100 µs` */
function tickText(value: number, of: Unit): string {
  const { factor, unit } = scaleFor([value], of);
  return `${Number(digits(value * factor))} ${unit}`.trimEnd();
}

/** `Round trip, half of them` is one point of the distribution of `Round trip`. */
const distributionTitle = ({ title }: Quantity): string => `${title.replace(/,[^,]*$/, '')}: distribution`;

function linesOf<T>(view: ReportView, results: readonly Result[], point: (result: Result) => T) {
  const ids = [...new Set(results.map(({ contestant }) => contestant))];
  return ids.map((id) => ({
    slot: view.slot(id),
    points: results
      .filter(({ contestant }) => contestant === id)
      .toSorted((a, b) => (a.at ?? 0) - (b.at ?? 0))
      .map(point),
  }));
}

/** One legend for all of them, in the contestants' order. Undefined: none has lines. */
export function contestantLegend(view: ReportView, figures: readonly Figure[]): Html | undefined {
  const drawn = new Set(figures.flatMap(({ lines = [] }) => lines));
  if (drawn.size === 0) return undefined;
  const items = view.report.contestants
    .filter(({ id }) => drawn.has(id))
    .map(({ id, title }) => html`<li>${new Html(swatch(markOf(view.slot(id))))} ${title}</li>`);
  return html`<ul class="legend">${items}</ul>`;
}

const describe = (view: ReportView, quantity: Quantity, results: readonly Result[]): string =>
  results
    .map((result) => {
      const way = result.direction === undefined ? '' : `, ${DIRECTION_WORDS[result.direction]}`;
      const place =
        result.at === undefined || quantity.axis === undefined
          ? ''
          : ` at ${placeText(result.at, quantity.axis.unit)}`;
      return `${view.title(result.contestant)}${way}${place}: ${formatValue(result.median, quantity.unit)}.`;
    })
    .join(' ');

/** The figure as markup: both sizes where there is room for both. @param id unique in the page */
export function figureHtml(
  { title, note, legend, description, draw, compact }: Figure,
  figureId: string,
): Html {
  const plot = (widthPx: number, name: string): Html => {
    const id = `${figureId}-${name}`;
    const words = html`<title id="${id}-t">${title}</title><desc id="${id}-d">${description}</desc>`;
    const svg = draw(widthPx).replace(
      /^<svg([^>]*)>/,
      (_, attributes: string) =>
        `<svg${attributes} role="img" aria-labelledby="${id}-t" aria-describedby="${id}-d">${words.markup}`,
    );
    return html`<div class="plot ${name}">${new Html(svg)}</div>`;
  };
  return html`<figure class="${compact ? 'compact' : 'large'}">
<figcaption><h3>${title}</h3><p>${note}</p></figcaption>
${legend && html`<ul class="legend">${legend}</ul>`}
${compact ? plot(NARROW_PX, 'both') : html`${plot(WIDE_PX, 'wide')}${plot(NARROW_PX, 'narrow')}`}
</figure>
`;
}
