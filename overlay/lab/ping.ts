/**
 * Echo requests from inside a namespace, counted (busybox's ping: in one package with no dependencies).
 *
 * The first answer is always waited for before what follows is counted. All requests of one ping are one
 * "connection" to the kernel's connection tracking, which drops, of several that open one at once, all but the
 * first (`insert_failed` in /proc/net/stat/nf_conntrack; of UDP it keeps them all). A node whose processor was
 * busy for a moment hands them on in one go, and the network has lost nothing that anything but a ping misses.
 */
import type { Address } from '../../store/address.ts';
import { type Child, type Exit, start, stop } from './command.ts';
import { inside, runInside } from './namespace.ts';
import { until } from './wait.ts';

export interface PingReport {
  readonly sent: number;
  readonly received: number;
  readonly lost: number;
  /** Which ones, by their place from 0; absent where only the count is known. */
  readonly lostPlaces?: readonly number[] | undefined;
  /** Round trips in milliseconds; absent when nothing came back. */
  readonly roundTripMs?: { readonly min: number; readonly mean: number; readonly max: number } | undefined;
}

export interface PingOptions {
  readonly count: number;
  /** For the last answers; 1,000 unless told. */
  readonly patienceMs?: number | undefined;
  /** Sends out of this interface, whatever the routes say. */
  readonly device?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The next request goes out when the one before is answered, or after this. */
const UNANSWERED_MS = 500;

/** Sends `count` echo requests, one after the other, and reports. No answer is a report, not an error. @throws CommandError */
export async function ping(namespace: string, to: Address, options: PingOptions): Promise<PingReport> {
  const { count, patienceMs = 1000, device, signal } = options;
  const result = await runInside(
    namespace,
    [
      ...['busybox', 'ping', '-A', '-c', `${count}`, '-i', `${UNANSWERED_MS / 1000}`],
      ...['-W', `${Math.ceil(patienceMs / 1000)}`, ...(device === undefined ? [] : ['-I', device]), to],
    ],
    { signal, tolerant: true, timeoutMs: count * UNANSWERED_MS + patienceMs + 30_000 },
  );
  // Status 1 is "no answer"; without a route busybox reports nothing at all.
  const report = parseReport(result.stdout);
  if (report === undefined) return { sent: count, received: 0, lost: count };
  // It ends with the answer that makes them `count`, whatever it has sent by then: what is lost was passed over by one.
  const answered = answeredPlaces(result.stdout);
  const sent = Math.max(count, ...Array.from(answered, (place) => place + 1));
  return { ...report, sent, received: answered.size, lost: sent - answered.size };
}

/** Threads that carry packets in user space may wait this long for a processor on a busy machine. */
const ON_THE_WAY_MS = 100;

/** A ping that runs while something else is done. */
export class RunningPing {
  /** How it ended; never rejects. */
  readonly exited: Promise<Exit>;
  private readonly child: Child;
  private readonly closed: Promise<void>;
  private readonly intervalMs: number;
  private output = '';
  private lines = 0;

  private constructor(child: Child, intervalMs: number) {
    this.child = child;
    this.intervalMs = intervalMs;
    this.exited = child.exited;
    this.closed = this.collect(child.process.stdout);
  }

  /** One request every `intervalMs` until `stop`. The owner stops it, whatever happens. */
  static async start(namespace: string, to: Address, intervalMs = 10): Promise<RunningPing> {
    const command = ['busybox', 'ping', '-i', `${intervalMs / 1000}`, to];
    return new RunningPing(
      await start(...inside(namespace, command), { stdio: ['ignore', 'pipe', 'ignore'] }),
      intervalMs,
    );
  }

  /** How many answers came until now. */
  get answered(): number {
    return Math.max(0, this.lines - 1);
  }

  /** @throws DeadlineError */
  async untilAnswered(count: number, deadlineMs = 10_000): Promise<void> {
    await until(() => this.answered >= count, { what: `${count} answers to a ping`, deadlineMs });
  }

  /**
   * Ends it and reports. A request is lost when a later one was answered, or when it went unanswered for
   * ON_THE_WAY_MS: of the last ones, the answers may still have been on their way. Those that were sent
   * while the first one's answer was on its way are not (see above).
   */
  async stop(): Promise<PingReport> {
    await stop(this.child, 'SIGINT');
    await this.closed;
    const report = parseReport(this.output);
    if (report === undefined) throw new Error(`ping printed no statistics: ${this.output.slice(-500)}`);
    const answered = answeredPlaces(this.output);
    const lostPlaces: number[] = [];
    // Sequence numbers have 16 bits: of a longer run, its beginning is not looked at.
    const onTheWay: number[] = [];
    const opening = openingPlaces(this.output, this.intervalMs);
    for (let place = Math.max(0, report.sent - 65_536); place < report.sent; place++) {
      if (place > opening.first && place <= opening.last && !answered.has(place)) continue;
      if (answered.has(place % 65_536)) lostPlaces.push(...onTheWay.splice(0));
      else onTheWay.push(place);
    }
    const lastCount = Math.max(1, Math.floor(ON_THE_WAY_MS / this.intervalMs));
    lostPlaces.push(...onTheWay.slice(0, -lastCount));
    return { ...report, lost: lostPlaces.length, lostPlaces };
  }

  private async collect(stream: NodeJS.ReadableStream | null): Promise<void> {
    if (stream === null) return;
    for await (const chunk of stream) {
      const text = String(chunk);
      this.output += text;
      // A heading, then a line an answer.
      this.lines += text.split('\n').length - 1;
    }
  }
}

/** Sequence numbers of answers. */
const answeredPlaces = (output: string): Set<number> =>
  new Set(Array.from(output.matchAll(/ seq=(\d+) /g), ([, place]) => Number(place)));

/** The request that was answered first, and the last one that was sent before its answer came. */
function openingPlaces(
  output: string,
  intervalMs: number,
): { readonly first: number; readonly last: number } {
  const [, place, tookMs] = / seq=(\d+) .*time=([\d.]+) ms/.exec(output) ?? [];
  const first = Number(place ?? 0);
  return { first, last: first + Math.ceil(Number(tookMs ?? 0) / intervalMs) };
}

function parseReport(output: string): PingReport | undefined {
  const counts = /(\d+) packets transmitted, (\d+) packets received/.exec(output);
  if (counts === null) return undefined;
  const [sent, received] = [Number(counts[1]), Number(counts[2])];
  const times = /= ([\d.]+)\/([\d.]+)\/([\d.]+) ms/.exec(output);
  return {
    sent,
    received,
    lost: Math.max(0, sent - received),
    roundTripMs:
      times === null ? undefined : { min: Number(times[1]), mean: Number(times[2]), max: Number(times[3]) },
  };
}
