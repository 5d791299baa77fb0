/** What a page says of quantities, directions and places, in one way everywhere. Pure. */
import { digits, formatChange, formatValue, scaleFor } from './format.ts';
import type { Difference, Quantity, Result, Unit } from './schema.ts';

export const DIRECTION_SIGNS = { forward: '→', reverse: '←' } as const;
export const DIRECTION_WORDS = { forward: 'first node to second', reverse: 'second node to first' } as const;

/** Which way is better, and what the axis counts. */
export function axisNote({ better }: Quantity, unit: string): string {
  const wish = better === 'more' ? 'more is better' : 'less is better';
  return unit === '' ? wish : `in ${unit}, ${wish}`;
}

/** A place on an axis: `1500 bytes`, `500 Mbit/s`, `10,000`. */
export function placeText(at: number, unit: Unit): string {
  if (unit === 'count') return at.toLocaleString('en-US');
  return unit === 'bytes' ? `${at} bytes` : formatValue(at, unit);
}

/** The same without its unit, for an axis that names it. */
export function placeTick(at: number, unit: Unit, all: readonly number[]): string {
  if (unit === 'bytes') return String(at);
  return unit === 'count'
    ? at.toLocaleString('en-US')
    : String(Number(digits(at * scaleFor(all, unit).factor)));
}

/** `TCP, 1 stream →, at 1500 bytes` */
export function seriesTitle(quantity: Quantity, { direction, at }: Pick<Result, 'direction' | 'at'>): string {
  const way = direction === undefined ? '' : ` ${DIRECTION_SIGNS[direction]}`;
  const place =
    at === undefined || quantity.axis === undefined ? '' : ` at ${placeText(at, quantity.axis.unit)}`;
  return `${quantity.title}${way}${place}`;
}

/** A difference in a few characters: `-41 %`, or `none seen`. */
export const changeText = (difference: Difference, quantity: Quantity): string =>
  difference.verdict === 'unseen'
    ? 'none seen'
    : formatChange(difference.median, quantity).replace('-', '\u2212');

export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The style sheet's classes for a comparison. */
export const VERDICT_CLASSES = { better: 'good', worse: 'bad', unseen: 'faint' } as const;
