/**
 * How one contestant is told from another in every plot of a page: a colour, a symbol and a line's pattern,
 * so that nothing hangs on the colour alone. Pure.
 */

/** The page defines `--c0` to `--c7` for light, dark and paper (report/html-style.ts). */
export const COLOURS = 8;
/** Parts of a whole (`--p0` to `--p3`) have colours of their own. */
export const PART_COLOURS = 4;

export interface Mark {
  readonly colour: string;
  /** ECharts' word for it. */
  readonly symbol: 'circle' | 'rect' | 'triangle' | 'diamond';
  readonly dashed: boolean;
}

const SYMBOLS = ['circle', 'rect', 'triangle', 'diamond'] as const;

/** The mark of the contestant at this place of the report; past the eighth, colours come again. */
export const markOf = (slot: number): Mark => ({
  colour: `var(--c${slot % COLOURS})`,
  symbol: SYMBOLS[slot % SYMBOLS.length] ?? 'circle',
  dashed: Math.floor(slot / SYMBOLS.length) % 2 === 1,
});

export const partColour = (part: number): string => `var(--p${part % PART_COLOURS})`;

/** The same symbols in a legend, in a square of 12. */
const OUTLINES: Readonly<Record<Mark['symbol'], string>> = {
  circle: 'M2 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z',
  rect: 'M2 2h8v8h-8Z',
  triangle: 'M6 1.5L10.8 10H1.2Z',
  diamond: 'M6 1L10.5 6L6 11L1.5 6Z',
};

/** A legend's `<svg>`: a piece of the line with its symbol. */
export function swatch({ colour, symbol, dashed }: Mark): string {
  const dash = dashed ? ' stroke-dasharray="4 3"' : '';
  return (
    '<svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">' +
    `<path d="M0 6H28" stroke="${colour}" stroke-width="2"${dash}/>` +
    `<path transform="translate(8 0)" d="${OUTLINES[symbol]}" fill="${colour}"/></svg>`
  );
}

export const partSwatch = (part: number): string =>
  `<svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true"><path d="M0 0h12v12h-12Z" fill="${partColour(part)}"/></svg>`;
