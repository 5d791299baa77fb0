/**
 * What a service manager (systemd, `Type=notify`) is told about this daemon: sd_notify(3), sd_watchdog_enabled(3).
 *
 *     starting --pods work: READY=1--> running --RELOADING=1--> reloading --READY=1--> running
 *        |                                |                                               |
 *        '----------------------------- STOPPING=1 ------------------------------------> stopping
 *
 * A store that is away may keep us starting for hours, which is no reason to be killed: each beat asks for more
 * time (EXTEND_TIMEOUT_USEC), so that a start ends by the manager's limit only when we no longer beat. Once
 * running, WATCHDOG=1 says the same. Both stop when the event loop stands still (no timer fires) or when the
 * daemon knows that it no longer makes progress. Readiness that is lost again has no word in the protocol but
 * STATUS=, which is sent when readiness changes, and with a beat where only its words changed.
 *
 * Level-triggered: what could not be sent is still owed, and sent with the next look.
 */
import type { Readiness } from '../desired/pods.ts';
import { type Log, messageWithCauses } from './log.ts';
import { printable } from './redact.ts';

/** What the manager told us in the environment. */
export interface ServiceEnvironment {
  /** NOTIFY_SOCKET */
  readonly socketName: string;
  /** WATCHDOG_USEC in milliseconds; absent: no watchdog, or not for this process. */
  readonly watchdogMs?: number | undefined;
}

export interface NotifierOptions {
  readonly watchdogMs?: number | undefined;
  /** One datagram. @returns false: the queue is full. @throws where nobody listens */
  readonly send: (message: string) => boolean;
  readonly readiness: () => Readiness;
  /** Why the daemon should be restarted; undefined while it makes progress. */
  readonly stall: () => string | undefined;
  /** What else the status says while ready: `10.244.1.0/24, 3 peers`. */
  readonly summary: () => string;
  /** CLOCK_MONOTONIC, in microseconds. */
  readonly monotonicMicros: () => bigint;
  readonly log: Log;
}

/** Between two beats where no watchdog asks for more. */
const BEAT_MS = 5000;
/** Asked for with each beat of a long start: a busy machine delays a timer by seconds, not by as much. */
const EXTENSION_MS = 60_000;
/** Several of them within the extension, and for a status that is not hours old. */
const LONGEST_BEAT_MS = EXTENSION_MS / 4;
/** The status is one line that people read in a terminal. */
const MAX_STATUS_CHARACTERS = 300;

/** Undefined: no service manager listens. */
export function readServiceEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  pid: number,
): ServiceEnvironment | undefined {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = environment;
  if (!NOTIFY_SOCKET) return undefined;
  const isForUs = !WATCHDOG_PID || WATCHDOG_PID === String(pid);
  const watchdogMs =
    isForUs && /^[1-9]\d*$/.test(WATCHDOG_USEC ?? '') ? Number(WATCHDOG_USEC) / 1000 : undefined;
  return { socketName: NOTIFY_SOCKET, watchdogMs };
}

export class ServiceNotifier {
  readonly #options: NotifierOptions;
  readonly #beat: NodeJS.Timeout;
  #phase: 'starting' | 'reloading' | 'reloaded' | 'running' | 'stopping' = 'starting';
  #status: string | undefined;
  #wasReady = false;
  #failure: string | undefined;

  constructor(options: NotifierOptions) {
    this.#options = options;
    // Half of the watchdog's time, as sd_watchdog_enabled(3) has it.
    const beatMs = options.watchdogMs === undefined ? BEAT_MS : options.watchdogMs / 2;
    this.#beat = setInterval(() => this.#onBeat(), Math.min(beatMs, LONGEST_BEAT_MS));
    this.#onBeat();
  }

  /** Readiness may have changed. */
  look(): void {
    if (this.#phase === 'stopping') return;
    const readiness = this.#options.readiness();
    const isReady = readiness.ready;
    if (this.#phase === 'starting' && isReady) {
      const status = this.#statusOf(readiness);
      if (!this.#send('READY=1', `STATUS=${status}`)) return;
      this.#phase = 'running';
      this.#status = status;
    }
    if (this.#phase === 'reloaded' && this.#send('READY=1')) this.#phase = 'running';
    if (isReady !== this.#wasReady) this.#tellStatus(readiness);
    this.#wasReady = isReady;
  }

  /** Between this and `reloaded` a running service counts as reloading. */
  reloading(): void {
    // A manager that is still waiting for the first READY=1 would take the reload's for it.
    if (this.#phase !== 'running' && this.#phase !== 'reloaded') return;
    const microseconds = this.#options.monotonicMicros();
    if (this.#send('RELOADING=1', `MONOTONIC_USEC=${microseconds}`)) this.#phase = 'reloading';
  }

  reloaded(): void {
    if (this.#phase !== 'reloading') return;
    this.#phase = 'reloaded';
    this.look();
  }

  stopping(): void {
    if (this.#phase === 'stopping') return;
    this.#phase = 'stopping';
    clearInterval(this.#beat);
    this.#send('STOPPING=1', 'STATUS=Stopping; the data path stays.');
  }

  close(): void {
    clearInterval(this.#beat);
  }

  #onBeat(): void {
    this.look();
    const stall = this.#options.stall();
    if (stall !== undefined) {
      // No sign of life from here on: the manager ends us when its time is up.
      this.#tell(`Stalled: ${stall}`);
      return;
    }
    this.#tellStatus(this.#options.readiness());
    if (this.#phase === 'starting') this.#send(`EXTEND_TIMEOUT_USEC=${EXTENSION_MS * 1000}`);
    if (this.#options.watchdogMs !== undefined) this.#send('WATCHDOG=1');
  }

  #tellStatus(readiness: Readiness): void {
    this.#tell(this.#statusOf(readiness));
  }

  #tell(status: string): void {
    if (status !== this.#status && this.#send(`STATUS=${status}`)) this.#status = status;
  }

  #statusOf(readiness: Readiness): string {
    const text = readiness.ready ? `Ready: ${this.#options.summary()}` : `Not ready: ${readiness.reason}`;
    const line = printable(text);
    return line.length <= MAX_STATUS_CHARACTERS ? line : `${line.slice(0, MAX_STATUS_CHARACTERS - 3)}...`;
  }

  /** The manager's absence is said once; the daemon does its work without it. */
  #send(...assignments: readonly string[]): boolean {
    try {
      const isSent = this.#options.send(assignments.join('\n'));
      if (isSent) this.#failure = undefined;
      return isSent;
    } catch (error) {
      const failure = messageWithCauses(error);
      if (failure !== this.#failure) {
        this.#options.log.warn('the service manager cannot be told how it goes', { error });
      }
      this.#failure = failure;
      return false;
    }
  }
}
