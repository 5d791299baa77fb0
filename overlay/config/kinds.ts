/**
 * The kinds of value that an option can have: how each is written, checked and shown.
 *
 * A value arrives as text from a flag, the environment and the file alike (a YAML scalar counts as it is
 * written), so an option means the same wherever it stands. Each kind is a zod schema from text to a precise
 * type; its messages say what is wrong and never repeat the value: the loader adds it where it may be shown.
 */
import { resolve } from 'node:path';
import { z } from 'zod/v3';
import { type Address, type Family, familyOf, isUnicast, tryAddress } from '../../store/address.ts';
import { REDACTED } from '../ops/redact.ts';
import { Secret } from './secret.ts';

export interface Kind<T> {
  /** Stands for the value in help: `DURATION`. Empty: a switch, on when it is named without a value. */
  readonly placeholder: string;
  readonly schema: z.ZodType<T, z.ZodTypeDef, string>;
  /** The value as it may be shown, in errors as well, among others of its list: absent, as it is written. */
  readonly show?: (text: string, list: readonly string[]) => string;
  /** The JSON Schema of the value in the configuration file. */
  readonly json: JsonSchema;
}

export interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly pattern?: string;
  readonly items?: JsonSchema;
}

type Checked<T> = { readonly value: T } | { readonly problem: string };
const problem = (text: string) => ({ problem: text });

function fromText<T>(check: (text: string) => Checked<T>): z.ZodType<T, z.ZodTypeDef, string> {
  return z.string().transform((text, context) => {
    const checked = check(text);
    if ('value' in checked) return checked.value;
    context.addIssue({ code: 'custom', message: checked.problem });
    return z.NEVER;
  });
}

export const switchKind: Kind<boolean> = {
  placeholder: '',
  schema: fromText((text) =>
    text === 'true' || text === 'false' ? { value: text === 'true' } : problem('must be true or false'),
  ),
  json: { type: 'boolean' },
};

export function choice<const T extends string>(
  values: readonly T[],
  absent: Record<string, string> = {},
): Kind<T> {
  return {
    placeholder: values.join('|'),
    schema: fromText((text) => {
      const value = values.find((each) => each === text);
      if (value !== undefined) return { value };
      const reason = Object.hasOwn(absent, text) ? absent[text] : undefined;
      return problem(reason ?? `must be one of ${values.join(', ')}`);
    }),
    json: { enum: values },
  };
}

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DURATION = /^(\d+(\.\d+)?(ms|s|m|h|d))+$/;

export interface DurationBounds {
  readonly minMs: number;
  readonly maxMs: number;
  /** What a plain number counts in; absent: a plain number is refused. */
  readonly plainUnitMs?: number;
}

/** `24h`, `1h30m`, `500ms`: a whole number of milliseconds. */
export function duration(bounds: DurationBounds): Kind<number> {
  const { minMs, maxMs, plainUnitMs } = bounds;
  return {
    placeholder: plainUnitMs === undefined ? 'DURATION' : 'MINUTES',
    schema: fromText((text) => {
      const valueMs = durationMs(text, plainUnitMs);
      if (valueMs === undefined) return problem('must be a time with its unit, such as 30s, 10m or 24h');
      if (valueMs < minMs || valueMs > maxMs) {
        return problem(`must be between ${formatDuration(minMs)} and ${formatDuration(maxMs)}`);
      }
      return { value: valueMs };
    }),
    json:
      plainUnitMs === undefined
        ? { type: 'string', pattern: DURATION.source }
        : { type: ['string', 'integer'] },
  };
}

function durationMs(text: string, plainUnitMs: number | undefined): number | undefined {
  if (plainUnitMs !== undefined && /^\d{1,9}$/.test(text)) return Number(text) * plainUnitMs;
  if (text.length > 40 || !DURATION.test(text)) return undefined;
  let sumMs = 0;
  for (const [, count, , unit] of text.matchAll(/(\d+(\.\d+)?)(ms|[smhd])/g)) {
    sumMs += Number(count) * (UNITS_MS[unit ?? ''] ?? Number.NaN);
  }
  return Number.isFinite(sumMs) ? Math.round(sumMs) : undefined;
}

/** The largest unit that divides it: 5400000 -> `90m`. */
export function formatDuration(valueMs: number): string {
  const [unit, sizeMs] = Object.entries(UNITS_MS)
    .reverse()
    .find(([, size]) => valueMs >= size && valueMs % size === 0) ?? ['ms', 1];
  return `${valueMs / sizeMs}${unit}`;
}

/** An absolute path; a relative one counts from the working directory. */
export const path: Kind<string> = {
  placeholder: 'PATH',
  schema: fromText((text) => {
    if (text === '' || text.includes('\0')) return problem('must be a path');
    return { value: resolve(text) };
  }),
  json: { type: 'string' },
};

export function matching(pattern: RegExp, placeholder: string, mistake: string): Kind<string> {
  return {
    placeholder,
    schema: fromText((text) => (pattern.test(text) ? { value: text } : problem(mistake))),
    json: { type: 'string', pattern: pattern.source },
  };
}

/** Any text but none. */
export const word: Kind<string> = matching(/^.+$/su, 'NAME', 'must not be empty');

export const secret: Kind<Secret> = {
  placeholder: 'SECRET',
  schema: fromText((text) => (text === '' ? problem('must not be empty') : { value: new Secret(text) })),
  show: () => REDACTED,
  json: { type: 'string' },
};

/**
 * Linux takes any 15 bytes without a slash, a colon or a space (dev_valid_name); of the devices that we
 * make, we want names that need no quoting anywhere.
 */
const deviceOf = (longest: number): Kind<string> =>
  matching(
    new RegExp(`^(?!\\.{1,2}$)[A-Za-z0-9_.-]{1,${longest}}$`),
    'DEVICE',
    `must be an interface name: 1 to ${longest} letters, digits, "_", "." or "-"`,
  );

export const deviceKind: Kind<string> = deviceOf(15);
/** The IPv6 device's name has one character more. `<VNI>` at its end stands for the network's. */
export const vxlanDeviceKind: Kind<string> = matching(
  /^(?!\.{1,2}$)([A-Za-z0-9_.-]{1,14}|[A-Za-z0-9_.-]{1,8}<VNI>)$/,
  'DEVICE',
  'must be an interface name: 1 to 14 letters, digits, "_", "." or "-", or at most 8 and <VNI> behind them',
);

/** An interface, by its name or by an address that it has. */
export const interfaceOrAddress: Kind<string> = {
  placeholder: 'DEVICE|ADDRESS',
  schema: fromText((text) => {
    if (tryAddress(text) !== undefined) return { value: tryAddress(text) ?? text };
    const isName = /^(?!\.{1,2}$)[^\s/:]{1,15}$/u.test(text) && Buffer.byteLength(text) <= 15;
    return isName ? { value: text } : problem('must be an interface name (at most 15 bytes) or an address');
  }),
  json: { type: 'string' },
};

export const regex: Kind<RegExp> = {
  placeholder: 'REGEX',
  schema: fromText((text) => {
    if (text === '') return problem('must not be empty: it would match every interface');
    try {
      return { value: new RegExp(text, 'u') };
    } catch (error) {
      const reason = error instanceof SyntaxError ? error.message.replace(/^.*: /, '') : String(error);
      return problem(`is not a JavaScript regular expression: ${reason}`);
    }
  }),
  json: { type: 'string' },
};

/** A unicast address; of one family, where that is asked for. */
export function addressKind(family?: Family): Kind<Address> {
  const wanted = family === undefined ? 'an IPv4 or IPv6' : family === 'ipv4' ? 'an IPv4' : 'an IPv6';
  return {
    placeholder: 'ADDRESS',
    schema: fromText((text) => {
      const value = tryAddress(text);
      if (value === undefined || (family !== undefined && familyOf(value) !== family)) {
        return problem(`must be ${wanted} address`);
      }
      return isUnicast(value) ? { value } : problem('must be an address that a host can have');
    }),
    json: { type: 'string' },
  };
}
