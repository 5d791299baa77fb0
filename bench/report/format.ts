/** Values of a report for people: a prefix that fits, three significant digits. Pure. */
import type { Quantity, Unit } from './schema.ts';

const LARGE = ['', 'k', 'M', 'G', 'T'] as const;
const SMALL = ['', 'm', 'µ', 'n'] as const;

/** Units that take a prefix of a thousand or of a thousandth. */
const LARGE_UNITS: ReadonlySet<Unit> = new Set(['bit/s', 'packets/s', 'connections/s', 'messages/s']);
const SMALL_UNITS: ReadonlySet<Unit> = new Set(['s', 's/Gbit', 's/packet']);

export interface Scale {
  /** Multiply a value by this to get one in `unit`. */
  readonly factor: number;
  /** With its prefix: `Gbit/s`. */
  readonly unit: string;
}

/** The prefix that suits the greatest of some values: one for a whole column or axis. */
export function scaleFor(values: readonly number[], unit: Unit): Scale {
  const most = Math.max(0, ...values.map(Math.abs).filter(Number.isFinite));
  if (most > 0 && LARGE_UNITS.has(unit)) {
    const power = Math.min(LARGE.length - 1, Math.max(0, Math.floor(Math.log10(most) / 3 + 1e-9)));
    return { factor: 1000 ** -power, unit: prefixed(LARGE[power] ?? '', unit) };
  }
  if (most > 0 && SMALL_UNITS.has(unit)) {
    const power = Math.min(SMALL.length - 1, Math.max(0, Math.ceil(-Math.log10(most) / 3 - 1e-9)));
    return { factor: 1000 ** power, unit: prefixed(SMALL[power] ?? '', unit) };
  }
  return { factor: 1, unit: unit === 'count' ? '' : unit === 'times' ? '×' : unit };
}

/** `kpackets/s` reads badly. */
const prefixed = (prefix: string, unit: Unit): string =>
  prefix !== '' && /^[a-z]{5,}/.test(unit) ? `${THOUSANDS[prefix] ?? prefix}${unit}` : `${prefix}${unit}`;

const THOUSANDS: Readonly<Record<string, string>> = { k: 'thousand ', M: 'million ', G: 'billion ' };

/** Three significant digits, without an exponent: `1234`, `12.3`, `0.0123`. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value === 0) return '0';
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)) + 1e-9));
  return value.toFixed(Math.min(decimals, 9));
}

/** `9.41 Gbit/s` */
export function formatValue(value: number, unit: Unit): string {
  const scale = scaleFor([value], unit);
  return `${digits(value * scale.factor)} ${scale.unit}`.trimEnd();
}

/** How a difference reads: `+3.2 %`, `-41 %`, `2.6 ×`, or `+0.4 %` points where values are subtracted. */
export function formatChange(change: number, quantity: Pick<Quantity, 'compareBy' | 'unit'>): string {
  if (quantity.compareBy === 'difference') {
    const sign = change < 0 ? '-' : '+';
    return `${sign}${formatValue(Math.abs(change), quantity.unit)}${quantity.unit === '%' ? ' points' : ''}`;
  }
  if (!Number.isFinite(change)) return '-';
  if (change >= 2) return `${digits(change)} ×`;
  const percent = (change - 1) * 100;
  return `${percent < 0 ? '-' : '+'}${digits(Math.abs(percent))} %`;
}
