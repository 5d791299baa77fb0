/**
 * The daemon's log as it is written: one line an event, to stderr, as text for people, as JSON for machines, or
 * as text for systemd's journal, which has times of its own and reads a line's priority from its beginning
 * (sd-daemon(3)).
 *
 * Text from peers, runtimes and the kernel ends up here: it is made printable, so that nobody can forge a
 * line, and secrets are replaced before anything is formatted.
 */
import winston from 'winston';
import {
  LOG_LEVELS,
  type Log,
  type LogEntry,
  type LogFields,
  type LogFormat,
  type LogLevel,
  logOver,
  messageWithCauses,
} from './log.ts';
import { printable, type Redactor, redactor } from './redact.ts';

/** A log together with the stream that it writes to; whoever opened it closes it. */
export interface OpenLog extends Log {
  /** From the next line on. */
  configure(options: Pick<LogOptions, 'level' | 'format'>): void;
  /** This value is replaced from the next line on, with those that are already. */
  hide(secret: string): void;
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

export function openLog(options: LogOptions): OpenLog {
  const now = options.now ?? (() => new Date());
  const secrets = new Set(options.secrets);
  let { level, format } = options;
  let redact = redactor([...secrets]);
  const logger = winston.createLogger({
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    level: 'debug',
    format: winston.format.printf((line) => String(line.message)),
    transports: [new winston.transports.Stream({ stream: options.stream ?? process.stderr, eol: '\n' })],
  });
  const log = logOver((entry) => {
    if (LOG_LEVELS.indexOf(entry.level) < LOG_LEVELS.indexOf(level)) return;
    const render = RENDERERS[format];
    logger.log(entry.level, render(entry, now(), { redact, stacks: level === 'debug' }));
  });
  const configure: OpenLog['configure'] = (changed) => {
    ({ level, format } = changed);
  };
  const hide = (secret: string): void => {
    secrets.add(secret);
    redact = redactor([...secrets]);
  };
  const close = () =>
    new Promise<void>((resolve) => {
      logger.once('finish', () => resolve());
      logger.end();
    });
  return { ...log, configure, hide, close };
}

interface RenderContext {
  readonly redact: Redactor;
  readonly stacks: boolean;
}

type Renderer = (entry: LogEntry, time: Date, context: RenderContext) => string;

/** `2026-01-31T12:00:00.000Z info  message key=value key="two words"` */
const textLine: Renderer = (entry, time, context) =>
  `${time.toISOString()} ${entry.level.padEnd(5)} ${messageAndFields(entry, context)}`;

/** syslog(3)'s numbers. */
const PRIORITIES: Readonly<Record<LogLevel, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

/** `<6>message key=value key="two words"` */
const journalLine: Renderer = (entry, _time, context) =>
  `<${PRIORITIES[entry.level]}>${messageAndFields(entry, context)}`;

function messageAndFields(entry: LogEntry, context: RenderContext): string {
  let line = printable(context.redact(entry.message));
  for (const [key, value] of Object.entries(plainFields(entry.fields, context))) {
    line += ` ${key}=${textValue(value)}`;
  }
  return line;
}

const jsonLine: Renderer = (entry, time, context) => {
  const head = { time: time.toISOString(), level: entry.level, message: context.redact(entry.message) };
  // The head comes last as well, so that no field can pass for it.
  return JSON.stringify({ ...head, ...plainFields(entry.fields, context), ...head });
};

const RENDERERS: Readonly<Record<LogFormat, Renderer>> = {
  text: textLine,
  json: jsonLine,
  journal: journalLine,
};

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

const BARE_TEXT = /^[^\s"=\\]+$/;

function textValue(value: PlainValue): string {
  if (typeof value !== 'string') return String(value);
  const clean = printable(value);
  return BARE_TEXT.test(clean) ? clean : `"${clean.replaceAll('"', '\\"')}"`;
}
