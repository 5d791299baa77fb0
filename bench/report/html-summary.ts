/** The top of the page: what was found, in one table and one picture. */
import { drawForest, type ForestRow } from '../plots/forest.ts';
import { digits, formatChange, type Scale, scaleFor } from './format.ts';
import { type Figure, figureHtml } from './html-figures.ts';
import { type Html, html } from './html-text.ts';
import { changeText, seriesTitle, VERDICT_CLASSES } from './html-words.ts';
import { GROUPS, type Quantity, type Result } from './schema.ts';
import type { ReportView } from './view.ts';

interface Headline {
  readonly quantity: Quantity;
  /** Where on its axis; absent: it has none. */
  readonly at?: number | undefined;
}

/** The first of each group; those that are swept over an axis only where nothing else was measured. */
export function headlines(view: ReportView): Headline[] {
  const plain = GROUPS.flatMap((group) => {
    const found = view.quantities(group).filter(({ axis }) => axis === undefined);
    return group === 'own' ? found : found.slice(0, 1);
  });
  if (plain.length > 0) return plain.map((quantity) => ({ quantity }));
  return view.quantities().map((quantity) => ({
    quantity,
    at: Math.max(...view.results(quantity).flatMap(({ at }) => at ?? [])),
  }));
}

/** More columns than this do not fit a page. */
const MOST_COLUMNS = 6;

const resultOf = (view: ReportView, { quantity, at }: Headline, contestant: string): Result | undefined =>
  view
    .results(quantity)
    .find((each) => each.contestant === contestant && each.direction !== 'reverse' && each.at === at);

/** Contestants down, headlines across; on a phone a card a contestant. Undefined: nothing was measured. */
export function scoreboard(view: ReportView): Html | undefined {
  const columns = headlines(view).slice(0, MOST_COLUMNS);
  const rows = view.report.contestants.filter(({ id }) =>
    columns.some((each) => resultOf(view, each, id) !== undefined),
  );
  if (rows.length === 0) return undefined;
  const overheads = view.report.overheads.length > 0;
  const { baseline } = view.report;
  return html`<table class="board"><caption>Medians of ${view.report.plannedRounds} rounds${baseline === null ? '' : html`, and how they differ from <b>${view.title(baseline)}</b>; <span class="faint">none seen</span>: the noise is larger than the difference`}.</caption>
<thead><tr><th scope="col">path</th>${columns.map((each) => html`<th scope="col">${unitTitle(view, each)}</th>`)}${overheads && html`<th scope="col">Bytes added to a packet</th>`}</tr></thead>
<tbody>${rows.map(
    ({ id, title }) =>
      html`<tr><th scope="row">${title}</th>${columns.map((each) => cell(view, each, id))}${
        overheads && bytesCell(view.overhead(id)?.computedBytes)
      }</tr>`,
  )}</tbody></table>`;
}

const bytesCell = (bytes: number | undefined): Html =>
  bytes === undefined
    ? html`<td class="none">-</td>`
    : html`<td data-label="Bytes added to a packet"><span class="value">${bytes}</span></td>`;

const columnTitle = ({ quantity, at }: Headline): string => seriesTitle(quantity, { at });

/** One prefix a column. */
const scaleOf = (view: ReportView, { quantity, at }: Headline): Scale =>
  scaleFor(
    view.results(quantity).flatMap((each) => (each.at === at ? each.median : [])),
    quantity.unit,
  );

function unitTitle(view: ReportView, headline: Headline): string {
  const { unit } = scaleOf(view, headline);
  return unit === '' ? columnTitle(headline) : `${columnTitle(headline)}, ${unit}`;
}

function cell(view: ReportView, headline: Headline, contestant: string): Html {
  const result = resultOf(view, headline, contestant);
  const label = unitTitle(view, headline);
  if (result === undefined) return html`<td class="none">-</td>`;
  const difference = view.difference(result);
  const change =
    difference &&
    html` <span class="change ${VERDICT_CLASSES[difference.verdict]}">${changeText(difference, headline.quantity)}</span>`;
  const value = digits(result.median * scaleOf(view, headline).factor);
  return html`<td data-label="${label}"><span class="value">${value}</span>${change}</td>`;
}

/** Ratios against the baseline, with their intervals. Undefined: there is nothing to compare. */
export function comparison(view: ReportView): Html | undefined {
  const { baseline } = view.report;
  if (baseline === null) return undefined;
  const rows = headlines(view).flatMap((headline) => forestRows(view, headline));
  if (rows.length === 0) return undefined;
  const figure: Figure = {
    title: `Against ${view.title(baseline)}`,
    note: 'Each point is the median of the rounds’ ratios, the whiskers its interval; the axis is logarithmic. Grey: the interval holds “the same”, so no difference can be seen here.',
    description: rows
      .map(({ heading, label, text }) => `${heading === undefined ? '' : `${heading}. `}${label}: ${text}.`)
      .join(' '),
    draw: (widthPx) => drawForest(rows, widthPx),
    compact: false,
  };
  return figureHtml(figure, 'against');
}

function forestRows(view: ReportView, headline: Headline): ForestRow[] {
  const { quantity } = headline;
  if (quantity.compareBy !== 'ratio') return [];
  const rows = view.report.contestants.flatMap(({ id, title }) => {
    const result = resultOf(view, headline, id);
    const difference = result && view.difference(result);
    if (difference === undefined || difference.interval.low <= 0) return [];
    const { median, interval, verdict } = difference;
    const text = verdict === 'unseen' ? 'none seen' : formatChange(median, quantity).replace('-', '\u2212');
    return [{ label: title, median, low: interval.low, high: interval.high, verdict, text }];
  });
  const wish = quantity.better === 'more' ? 'more is better' : 'less is better';
  return rows.map((row, place) =>
    place === 0 ? { ...row, heading: columnTitle(headline), headingNote: wish } : row,
  );
}
