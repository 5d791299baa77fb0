/**
 * What the daemon's rooms log through. There is one vocabulary of fields (LogFields), so that a line can be
 * searched for whatever wrote it. Nothing per packet is ever logged. Where the lines go: open-log.ts.
 */

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ['text', 'json', 'journal'] as const;
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

/** What a line is made of. */
export interface LogEntry {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
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

/** How deep causes are followed: deeper ones repeat what was said. */
const MAX_CAUSES = 3;

/** gRPC writes `14 UNAVAILABLE: ` before what it has to say. */
const GRPC_STATUS = /^\d+ [A-Z_]+: /;

/** The error's message, followed by those of its causes that it does not already quote. */
export function messageWithCauses(error: unknown): string {
  let text = messageOf(error);
  let cause = error instanceof Error ? error.cause : undefined;
  for (let depth = 0; cause instanceof Error && depth < MAX_CAUSES; depth++, cause = cause.cause) {
    const message = messageOf(cause).replace(GRPC_STATUS, '').trim();
    if (!text.includes(message)) text += `: ${message}`;
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
