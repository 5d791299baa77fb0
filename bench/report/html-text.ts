/**
 * HTML as a type of its own: what is a string is text and gets escaped, what is `Html` was made here. So
 * nothing of a report (host names, versions, messages of programs) can become markup. Pure.
 */
import { printable } from '../../overlay/ops/redact.ts';

/** Markup that is safe to put into a page as it stands. */
export class Html {
  readonly markup: string;
  constructor(markup: string) {
    this.markup = markup;
  }
}

export type Content = Html | string | number | false | undefined | readonly Content[];

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Fit for an element's text and for an attribute in quotes. */
export const escapeText = (text: string): string =>
  printable(text).replace(/[&<>"']/g, (character) => ESCAPES[character] ?? character);

/** Tag of a template: the template's own text is markup, each value is content. Undefined and false are nothing. */
export function html(literals: TemplateStringsArray, ...values: readonly Content[]): Html {
  let markup = literals[0] ?? '';
  for (const [at, value] of values.entries()) markup += markupOf(value) + (literals[at + 1] ?? '');
  return new Html(markup);
}

function markupOf(content: Content): string {
  if (content === undefined || content === false) return '';
  if (content instanceof Html) return content.markup;
  if (typeof content === 'object') return content.map(markupOf).join('');
  return escapeText(String(content));
}
