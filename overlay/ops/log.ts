/**
 * The daemon's log: one line an event, to stderr, as text for people or JSON for machines.
 *
 * There is one vocabulary of fields (LogFields), so that a line can be searched for whatever wrote it.
 * Text from peers, runtimes and the kernel ends up here: it is made printable, so that nobody can forge a
 * line, and secrets are replaced before anything is formatted. Nothing per packet is ever logged.
 */
import winston from 'winston';
import { printable, type Redactor, redactor } from './redact.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What a line can say beside its message. Use these names; add one only for what none of them means. */
export interface LogFields {
  /** The node's own name. */
  readonly node?: string | undefined;
  /** Another node: its public address, or its lease's key where there is no address. */
  readonly peer?: string | undefined;
  readonly subnet?: string | undefined;
  /** A network interface. */
  readonly device?: string | undefined;
  readonly address?: string | undefined;
  readonly mac?: string | undefined;
  /** A pod interface: container id and interface name. */
  readonly attachment?: string | undefined;
  /** Kubernetes' name of a pod: `namespace/name`. */
  readonly pod?: string | undefined;
  /** The store's kind or one of its endpoints. */
  readonly store?: string | undefined;
  readonly revision?: string | undefined;
  readonly key?: string | undefined;
  readonly path?: string | undefined;
  readonly verb?: string | undefined;
  readonly count?: number | undefined;
  readonly reason?: string | undefined;
  readonly durationMs?: number | undefined;
  /** Anything thrown: its message and code are printed, its stack only at level debug. */
  readonly error?: unknown;
  readonly [other: string]: unknown;
}

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** The same log with these fields on every line. */
  child(fields: LogFields): Log;
}

/** A log together with the stream that it writes to; whoever opened it closes it. */
export interface OpenLog extends Log {
  /** Resolves when every line is written. Nothing may be logged afterwards. */
  close(): Promise<void>;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Values that must not appear in any line. */
  readonly secrets?: readonly string[] | undefined;
  /** Standard error unless told otherwise. */
  readonly stream?: NodeJS.WritableStream | undefined;
  /** The time that stands on a line; the system's clock unless told otherwise. */
  readonly now?: (() => Date) | undefined;
}

/** What a line is made of. */
export interface LogEntry {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

export function openLog(options: LogOptions): OpenLog {
  const now = options.now ?? (() => new Date());
  const render = options.format === 'json' ? jsonLine : textLine;
  const context: RenderContext = {
    redact: redactor(options.secrets ?? []),
    stacks: options.level === 'debug',
  };
  const logger = winston.createLogger({
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    level: options.level,
    format: winston.format.printf((line) => String(line.message)),
    transports: [new winston.transports.Stream({ stream: options.stream ?? process.stderr, eol: '\n' })],
  });
  const minimum = LOG_LEVELS.indexOf(options.level);
  const log = logOver((entry) => {
    if (LOG_LEVELS.indexOf(entry.level) < minimum) return;
    logger.log(entry.level, render(entry, now(), context));
  });
  const close = () =>
    new Promise<void>((resolve) => {
      logger.once('finish', () => resolve());
      logger.end();
    });
  return { ...log, close };
}

/** A log that hands every entry, of any level, to a function. */
export function logOver(write: (entry: LogEntry) => void, inherited: LogFields = {}): Log {
  const at = (level: LogLevel) => (message: string, fields?: LogFields) =>
    write({ level, message, fields: fields === undefined ? inherited : { ...inherited, ...fields } });
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (fields) => logOver(write, { ...inherited, ...fields }),
  };
}

/** Says nothing. */
export const silentLog: Log = logOver(() => {});

export interface RecordingLog extends Log {
  readonly entries: readonly LogEntry[];
}

/** Keeps what it is told, for tests. */
export function recordingLog(): RecordingLog {
  const entries: LogEntry[] = [];
  return { ...logOver((entry) => entries.push(entry)), entries };
}

interface RenderContext {
  readonly redact: Redactor;
  readonly stacks: boolean;
}

/** `2026-01-31T12:00:00.000Z info  message key=value key="two words"` */
function textLine(entry: LogEntry, time: Date, context: RenderContext): string {
  let line = `${time.toISOString()} ${entry.level.padEnd(5)} ${printable(context.redact(entry.message))}`;
  for (const [key, value] of Object.entries(plainFields(entry.fields, context))) {
    line += ` ${key}=${textValue(value)}`;
  }
  return line;
}

function jsonLine(entry: LogEntry, time: Date, context: RenderContext): string {
  const head = { time: time.toISOString(), level: entry.level, message: context.redact(entry.message) };
  // The head comes last as well, so that no field can pass for it.
  return JSON.stringify({ ...head, ...plainFields(entry.fields, context), ...head });
}

type PlainValue = string | number | boolean | null;

function plainFields(fields: LogFields, context: RenderContext): Record<string, PlainValue> {
  const plain: Record<string, PlainValue> = {};
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    if (value instanceof Error) Object.assign(plain, errorFields(key, value, context));
    else plain[key] = plainValue(value, context.redact);
  }
  return plain;
}

function plainValue(value: unknown, redact: Redactor): PlainValue {
  if (value === null || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isInteger(value) ? value : Math.round(value * 1000) / 1000;
  if (typeof value === 'string') return redact(value);
  if (typeof value === 'bigint') return value.toString();
  return redact(objectText(value));
}

function objectText(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value); // a circle, or a bigint inside
  }
}

function errorFields(
  key: string,
  error: Error,
  { redact, stacks }: RenderContext,
): Record<string, PlainValue> {
  const fields: Record<string, PlainValue> = { [key]: redact(messageWithCauses(error)) };
  const code: unknown = 'code' in error ? error.code : undefined;
  if (typeof code === 'string' || typeof code === 'number') fields.code = code;
  if (stacks && error.stack !== undefined) fields.stack = redact(error.stack);
  return fields;
}

/** How deep causes are followed: deeper ones repeat what was said. */
const MAX_CAUSES = 3;

/** The error's message, followed by those of its causes that it does not already quote. */
export function messageWithCauses(error: unknown): string {
  let text = messageOf(error);
  let cause = error instanceof Error ? error.cause : undefined;
  for (let depth = 0; cause instanceof Error && depth < MAX_CAUSES; depth++, cause = cause.cause) {
    if (!text.includes(messageOf(cause))) text += `: ${messageOf(cause)}`;
  }
  return text;
}

/** An AggregateError of Node's own (every address of a host refused, say) has an empty message. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.message === '' && error instanceof AggregateError) {
    return [...new Set(error.errors.map(messageOf))].join('; ');
  }
  return error.message === '' ? error.name : error.message;
}

const BARE_TEXT = /^[^\s"=\\]+$/;

function textValue(value: PlainValue): string {
  if (typeof value !== 'string') return String(value);
  const clean = printable(value);
  return BARE_TEXT.test(clean) ? clean : `"${clean.replaceAll('"', '\\"')}"`;
}
