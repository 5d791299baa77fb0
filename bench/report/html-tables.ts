/** The numbers behind the plots: every round of every result, and what it says against the baseline. */
import { digits, formatChange, scaleFor } from './format.ts';
import { roundsOf } from './html-figures.ts';
import { type Html, html } from './html-text.ts';
import {
  changeText,
  DIRECTION_SIGNS,
  DIRECTION_WORDS,
  placeText,
  seriesTitle,
  VERDICT_CLASSES,
} from './html-words.ts';
import type { Quantity, Result } from './schema.ts';
import type { ReportView } from './view.ts';

/** One table a quantity, its parts' behind it; folded on a screen, open on paper. */
export function numbers(view: ReportView, quantities: readonly Quantity[]): Html {
  const all = quantities.flatMap((quantity) => [
    quantity,
    ...view.parts(quantity).map((part) => part.quantity),
  ]);
  return html`${all.map(
    (
      quantity,
    ) => html`<details class="numbers"><summary>${quantity.title}</summary>${table(view, quantity)}</details>
`,
  )}`;
}

function table(view: ReportView, quantity: Quantity): Html {
  const results = view.results(quantity);
  const { factor, unit } = scaleFor(
    results.map(({ max }) => max),
    quantity.unit,
  );
  const number = (value: number): string => digits(value * factor);
  const ways = results.some(({ direction }) => direction !== undefined);
  const { axis } = quantity;
  const compared = results.some((result) => view.difference(result) !== undefined);
  const row = (result: Result): Html =>
    html`<tr><th scope="row">${view.title(result.contestant)}</th>${
      ways &&
      html`<td>${result.direction && html`<abbr title="${DIRECTION_WORDS[result.direction]}">${DIRECTION_SIGNS[result.direction]}</abbr>`}</td>`
    }${axis && html`<td class="n">${result.at === undefined ? '' : placeText(result.at, axis.unit)}</td>`}<td class="n"><strong>${number(result.median)}</strong></td><td class="n">${number(result.interval.low)} to ${number(result.interval.high)}<span class="level"> (${Number((100 * result.interval.level).toFixed(1))} %)</span></td><td class="rounds">${rounds(result, number)}</td>${
      compared && html`<td class="change">${comparison(view, quantity, result)}</td>`
    }</tr>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${quantity.title}"><table>
<thead><tr><th scope="col">what</th>${ways && html`<th scope="col">way</th>`}${axis && html`<th scope="col" class="n">${axis.title}</th>`}<th scope="col" class="n">median${unit === '' ? '' : `, ${unit}`}</th><th scope="col" class="n">interval of the median</th><th scope="col">rounds</th>${compared && html`<th scope="col">against the baseline</th>`}</tr></thead>
<tbody>${results.map(row)}</tbody></table></div>`;
}

/** The median of the rounds' ratios (or differences), and its interval. */
function comparison(view: ReportView, quantity: Quantity, result: Result): Html | undefined {
  const difference = view.difference(result);
  if (difference === undefined) return undefined;
  const { interval, verdict } = difference;
  const range = [interval.low, interval.high].map((end) => formatChange(end, quantity)).join(' to ');
  return html`<span class="${VERDICT_CLASSES[verdict]}">${changeText(difference, quantity)}</span> <span class="level">(${range})</span>`;
}

function rounds(result: Result, number: (value: number) => string): Html {
  const given = new Map(roundsOf(result).map((each) => [each.round, each]));
  return html`${result.rounds.map((_, round) => {
    const each = given.get(round);
    if (each === undefined)
      return html`<span class="none" title="round ${round + 1} gave no value">-</span> `;
    return each.outlier
      ? html`<mark title="round ${round + 1}: an outlier">${number(each.value)}</mark> `
      : html`<span>${number(each.value)}</span> `;
  })}`;
}

/** Sentences on what cannot be told apart. Undefined where everything can. */
export function unseen(view: ReportView, quantities: readonly Quantity[]): Html | undefined {
  const lines = quantities.flatMap((quantity) => {
    const ways = new Set(view.results(quantity).map(({ direction }) => direction)).size;
    return view.results(quantity).flatMap((result) => {
      const difference = view.difference(result);
      return difference?.verdict === 'unseen'
        ? [
            html`<li><b>${seriesTitle(quantity, ways > 1 ? result : { at: result.at })}</b>: ${difference.statement}</li>`,
          ]
        : [];
    });
  });
  if (lines.length === 0) return undefined;
  const list = html`<ul>${lines}</ul>`;
  return html`<aside class="unseen"><h3>No difference can be seen here</h3>${
    lines.length <= FEW_LINES
      ? list
      : html`<details><summary>${lines.length} comparisons in which the noise is larger than the difference</summary>${list}</details>`
  }</aside>`;
}

const FEW_LINES = 6;

/** The rows of a table of two columns. Undefined values are left out. */
export const facts = (rows: readonly (readonly [string, Html | string | undefined])[]): Html =>
  html`<table class="facts"><tbody>${rows.map(([name, value]) =>
    value === undefined ? undefined : html`<tr><th scope="row">${name}</th><td>${value}</td></tr>`,
  )}</tbody></table>`;
