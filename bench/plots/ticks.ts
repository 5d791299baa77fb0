/** Where an axis is labelled. Pure. */
import { NARROW_PX } from './canvas.ts';
import type { Tick } from './rows.ts';

/** Steps of 1, 2, 2.5 or 5 times a power of ten: what people count in. */
const STEPS = [1, 2, 2.5, 5, 10] as const;

const wishedTicks = (widthPx: number): number => (widthPx <= NARROW_PX ? 4 : 6);

/** From at most the least to at least the most; always two or more. */
export function linearTicks(least: number, most: number, widthPx: number): Tick[] {
  const range = most - least > 0 ? most - least : 1;
  const rough = range / wishedTicks(widthPx);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (STEPS.find((each) => each * power >= rough * (1 - 1e-9)) ?? 10);
  const from = Math.floor(least / step + 1e-9);
  const to = Math.ceil((least + range) / step - 1e-9);
  return Array.from({ length: to - from + 1 }, (_, place) => {
    const value = (from + place) * step;
    const exact = Number(value.toPrecision(12));
    return { value: exact, text: plain(exact) };
  });
}

/** Powers of two around 1, in words: halves and doubles are what a ratio is read in. */
export function ratioTicks(least: number, most: number, widthPx: number): Tick[] {
  const [from, to] = [Math.min(-1, Math.floor(Math.log2(least))), Math.max(1, Math.ceil(Math.log2(most)))];
  const step = Math.max(1, Math.ceil((to - from) / (wishedTicks(widthPx) + 1)));
  const [first, last] = [Math.floor(from / step), Math.ceil(to / step)];
  return Array.from({ length: last - first + 1 }, (_, place) => {
    const power = (first + place) * step;
    const text = power === 0 ? 'same' : power < 0 ? `÷ ${2 ** -power}` : `× ${2 ** power}`;
    return { value: power, text };
  });
}

/** `1000000`, `0.25`, `1e+12` only where it must be. */
export const plain = (value: number): string =>
  Math.abs(value) >= 10_000 && Math.abs(value) < 1e15 ? value.toLocaleString('en-US') : String(value);
