/**
 * When which path is asked, and which answer belongs to which question. The clock, sleeping, randomness and
 * the sockets are its maker's; what an outcome means is path-probe.ts's.
 *
 * Cost: a path that is well takes one packet an interval; 10,000 of them at 30 seconds are 333 packets a
 * second. Whatever happens, a turn sends PACKETS_A_TURN packets at most and turns are TURN_MS apart, so that
 * the loss of the whole underlay makes no storm either.
 */
import type { Address, Family } from '../../store/address.ts';
import type { Clock, Sleep } from '../../store/backoff.ts';
import type { Random } from '../../store/subnet-choice.ts';
import { DueQueue } from './due-queue.ts';
import { echoRequest, readEchoReply, TOKEN_BYTES } from './echo-packet.ts';
import { type Attempt, type PathFindings, PathProbe } from './path-probe.ts';

/** What every path of a family carries: RFC 8200 for IPv6; IPv4's smallest in use, which hosts must take whole. */
const MIN_BYTES: Readonly<Record<Family, number>> = { ipv4: 576, ipv6: 1280 };

/** An answer that takes longer is none. Paths around the world take 0.3 s. */
const ANSWER_TIMEOUT_MS = 1500;
/** Once one packet of an attempt is answered, so much and one round trip more is waited for the other. */
const GRACE_MS = 100;
/** Between attempts while a question is open: apart enough that one burst of loss does not take all. */
const SOON_MS = 200;
/** Regular checks are spread by this part of the interval, so that they never march in step. */
const SPREAD = 0.1;
const TURN_MS = 10;
const PACKETS_A_TURN = 30;
/** The first check of a new path comes within so much for each path there is: a few at once, thousands in turn. */
const FIRST_CHECK_MS_A_PATH = 3;
/**
 * When all paths become narrow at once, few are searched byte by byte, and the others then in a handful of
 * packets by what was found: so many at a time without a hint, and with one.
 */
const SEARCHES_WITHOUT_HINT = 50;
const SEARCHES_WITH_HINT = 1000;
const LONGEST_SLEEP_MS = 60_000;
/** Of the smoothed round trip: TCP's (RFC 6298). */
const ROUND_TRIP_GAIN = 1 / 8;

export interface ProberOptions {
  readonly intervalMs: number;
  /** Monotonic. */
  readonly clock: Clock;
  readonly sleep: Sleep;
  readonly random: Random;
  /** Random bytes that nobody can foresee. */
  readonly randomBytes: (count: number) => Uint8Array;
  /** Hands a packet to the network; one that cannot be sent counts as lost, and why is told to `failed`. */
  readonly send: (packet: Buffer, destination: Address, failed: (reason: string) => void) => void;
  /** A path's reachability or MTU is another than before. */
  readonly changed: (path: ProbedPath) => void;
}

export interface ProbedPath extends PathFindings {
  readonly family: Family;
  readonly remote: Address;
  /** Smoothed; undefined while there is no answer. */
  readonly roundTripMs: number | undefined;
  /** The largest packet that the data path sends. */
  readonly fullBytes: number;
  /** Why the last packets could not be sent. */
  readonly sendFailure: string | undefined;
}

export interface ProbeCounts {
  readonly sent: number;
  readonly answered: number;
  /** Replies with our identifier that answer no request under way: late, or forged. */
  readonly unmatched: number;
}

/** Where a family's packets come from, and how large they get. */
export interface Origin {
  readonly source: Address;
  readonly fullBytes: number;
}

interface Sent {
  readonly path: Path;
  readonly token: Uint8Array;
  readonly sizeBytes: number;
  readonly sentAt: number;
  readonly isReference: boolean;
}

/** An attempt under way. */
interface Asked {
  readonly attempt: Attempt;
  readonly sequences: readonly number[];
  passed: boolean;
  referencePassed: boolean;
}

class Path {
  readonly family: Family;
  readonly remote: Address;
  readonly probe: PathProbe;
  isNew = true;
  asked: Asked | undefined;
  /** When something has to be done: the next attempt, or the end of the one under way. */
  dueAt = Number.POSITIVE_INFINITY;
  roundTripMs: number | undefined;
  sendFailure: string | undefined;

  constructor(family: Family, remote: Address, fullBytes: number) {
    this.family = family;
    this.remote = remote;
    this.probe = new PathProbe(MIN_BYTES[family], fullBytes);
  }
}

export class Prober {
  readonly #options: ProberOptions;
  readonly #identifier: number;
  readonly #paths: Readonly<Record<Family, Map<Address, Path>>> = { ipv4: new Map(), ipv6: new Map() };
  readonly #origins: { [F in Family]?: Origin | undefined } = {};
  /** An entry whose time is not its path's any more is void. */
  readonly #due = new DueQueue<Path>();
  readonly #sent = new Map<number, Sent>();
  /** What was last found on any path of the family: a narrow link is seldom one path's alone. */
  readonly #hints: { [F in Family]?: number } = {};
  /** Paths that are being searched, and those that wait for their turn to be. */
  readonly #searching = new Set<Path>();
  readonly #waiting = new Set<Path>();
  readonly #counts = { sent: 0, answered: 0, unmatched: 0 };
  #intervalMs: number;
  #sequence = 0;
  #wake = new AbortController();
  /** What becomes due before this ends the sleep. */
  #sleepsUntil = Number.NEGATIVE_INFINITY;
  #lastTurnAt = Number.NEGATIVE_INFINITY;

  constructor(options: ProberOptions) {
    this.#options = options;
    this.#intervalMs = options.intervalMs;
    const [high = 0, low = 0] = options.randomBytes(2);
    this.#identifier = (high << 8) | low;
  }

  /** Checks that are planned already come within the new interval. */
  setInterval(intervalMs: number): void {
    this.#intervalMs = intervalMs;
    const latestAt = this.#options.clock() + intervalMs;
    for (const paths of Object.values(this.#paths)) {
      for (const path of paths.values()) {
        if (path.asked === undefined && path.dueAt > latestAt && Number.isFinite(path.dueAt)) {
          this.#at(path, latestAt - this.#options.random() * intervalMs);
        }
      }
    }
  }

  /** @param origin undefined: the family is not carried, or cannot be probed */
  setOrigin(family: Family, origin: Origin | undefined): void {
    const before = this.#origins[family];
    if (before?.source === origin?.source && before?.fullBytes === origin?.fullBytes) return;
    this.#origins[family] = origin;
    for (const path of this.#paths[family].values()) {
      this.#forget(path);
      this.#leaveSearch(path);
      if (origin !== undefined) path.probe.setFull(origin.fullBytes);
      this.#firstCheck(path);
    }
  }

  add(family: Family, remote: Address): void {
    const paths = this.#paths[family];
    if (paths.has(remote)) return;
    const path = new Path(family, remote, this.#origins[family]?.fullBytes ?? MIN_BYTES[family]);
    paths.set(remote, path);
    this.#firstCheck(path);
  }

  remove(family: Family, remote: Address): void {
    const path = this.#paths[family].get(remote);
    if (path === undefined) return;
    this.#paths[family].delete(remote);
    this.#forget(path);
    this.#leaveSearch(path);
  }

  path(family: Family, remote: Address): ProbedPath | undefined {
    const path = this.#paths[family].get(remote);
    return path === undefined ? undefined : viewOf(path);
  }

  *paths(): Iterable<ProbedPath> {
    for (const paths of Object.values(this.#paths)) for (const path of paths.values()) yield viewOf(path);
  }

  get counts(): ProbeCounts {
    return { ...this.#counts };
  }

  /** Asks until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const end = () => this.#wake.abort();
    signal.addEventListener('abort', end, { once: true });
    try {
      while (!signal.aborted) {
        const now = this.#options.clock();
        const waitMs = this.#turn(now);
        this.#sleepsUntil = now + waitMs;
        await this.#options.sleep(waitMs, this.#wake.signal).catch(() => {});
        this.#sleepsUntil = Number.NEGATIVE_INFINITY;
        if (this.#wake.signal.aborted) this.#wake = new AbortController();
      }
    } finally {
      signal.removeEventListener('abort', end);
    }
  }

  /** A packet that a raw socket of the family received. */
  received(family: Family, bytes: Uint8Array, source: Address): void {
    const reply = readEchoReply(family, bytes);
    if (reply?.identifier !== this.#identifier) return;
    const sent = this.#sent.get(reply.sequence);
    if (
      sent?.path.family !== family ||
      sent.path.remote !== source ||
      sent.sizeBytes !== reply.sizeBytes ||
      !sent.token.every((byte, at) => byte === reply.token[at])
    ) {
      this.#counts.unmatched++;
      return;
    }
    this.#counts.answered++;
    this.#sent.delete(reply.sequence);
    this.#answered(sent);
  }

  #answered({ path, isReference, sentAt }: Sent): void {
    const { asked } = path;
    if (asked === undefined) return;
    const now = this.#options.clock();
    const roundTripMs = now - sentAt;
    path.roundTripMs =
      path.roundTripMs === undefined
        ? roundTripMs
        : path.roundTripMs + ROUND_TRIP_GAIN * (roundTripMs - path.roundTripMs);
    path.sendFailure = undefined;
    if (isReference) asked.referencePassed = true;
    else asked.passed = true;
    if (asked.sequences.every((sequence) => !this.#sent.has(sequence))) this.#conclude(path, asked);
    else this.#at(path, Math.min(path.dueAt, now + GRACE_MS + roundTripMs));
  }

  /** Does what is due. @returns how long to sleep then */
  #turn(now: number): number {
    const restMs = this.#lastTurnAt + TURN_MS - now;
    if (restMs > 0) return restMs;
    this.#lastTurnAt = now;
    const until = this.#counts.sent + PACKETS_A_TURN;
    for (;;) {
      const { firstAt } = this.#due;
      if (firstAt === undefined) return LONGEST_SLEEP_MS;
      if (firstAt > now) return Math.min(Math.max(firstAt - now, TURN_MS), LONGEST_SLEEP_MS);
      if (this.#counts.sent >= until) return TURN_MS;
      const path = this.#due.take()?.item;
      // Moved or removed since it was queued.
      if (path?.dueAt !== firstAt) continue;
      if (path.asked === undefined) this.#ask(path, now);
      else this.#conclude(path, path.asked);
    }
  }

  #ask(path: Path, now: number): void {
    const origin = this.#origins[path.family];
    if (origin === undefined || !this.#maySearch(path)) return;
    const attempt = path.probe.attempt(this.#hints[path.family]);
    const sequences = [this.#send(path, origin.source, attempt.sizeBytes, false)];
    if (attempt.referenceBytes !== undefined) {
      sequences.push(this.#send(path, origin.source, attempt.referenceBytes, true));
    }
    path.asked = { attempt, sequences, passed: false, referencePassed: false };
    this.#at(path, now + ANSWER_TIMEOUT_MS);
  }

  #send(path: Path, source: Address, sizeBytes: number, isReference: boolean): number {
    const { clock, randomBytes, send } = this.#options;
    this.#sequence = (this.#sequence + 1) & 0xffff;
    const sequence = this.#sequence;
    const token = randomBytes(TOKEN_BYTES);
    this.#sent.set(sequence, { path, token, sizeBytes, sentAt: clock(), isReference });
    this.#counts.sent++;
    const { remote: destination } = path;
    const identifier = this.#identifier;
    const packet = echoRequest({ source, destination, identifier, sequence, token, sizeBytes });
    send(packet, destination, (reason) => {
      path.sendFailure = reason;
    });
    return sequence;
  }

  #conclude(path: Path, asked: Asked): void {
    const { random, clock, changed } = this.#options;
    this.#forget(path);
    const before = path.probe.findings;
    const pace = path.probe.conclude(asked.attempt, asked);
    const after = path.probe.findings;
    if (after.reachable === false) path.roundTripMs = undefined;
    const { mtuBytes } = after;
    if (mtuBytes !== before.mtuBytes && mtuBytes !== undefined && mtuBytes < path.probe.fullBytes) {
      this.#hints[path.family] = mtuBytes;
    }
    if (!path.probe.isSearching) this.#leaveSearch(path);
    this.#at(path, clock() + (pace === 'soon' ? SOON_MS * (0.5 + random()) : this.#restMs(path)));
    if (
      after.reachable !== before.reachable ||
      after.mtuBytes !== before.mtuBytes ||
      after.filtered !== before.filtered
    ) {
      changed(viewOf(path));
    }
  }

  /** Until the next regular check. The first such rest is of any length: paths that were added together part. */
  #restMs(path: Path): number {
    const { random } = this.#options;
    const part = path.isNew ? random() : 1 - SPREAD + 2 * SPREAD * random();
    path.isNew = false;
    return this.#intervalMs * part;
  }

  /** What is under way with a path is not waited for any longer. */
  #forget(path: Path): void {
    for (const sequence of path.asked?.sequences ?? []) this.#sent.delete(sequence);
    path.asked = undefined;
    path.dueAt = Number.POSITIVE_INFINITY;
  }

  /** Whether a path may be asked now; one that may not waits until another has ended its search. */
  #maySearch(path: Path): boolean {
    if (!path.probe.isSearching || this.#searching.has(path)) return true;
    if (this.#searching.size >= this.#searchesAtOnce(path.family)) {
      this.#waiting.add(path);
      return false;
    }
    this.#searching.add(path);
    return true;
  }

  #leaveSearch(path: Path): void {
    this.#waiting.delete(path);
    if (!this.#searching.delete(path)) return;
    const now = this.#options.clock();
    for (const next of this.#waiting) {
      if (this.#searching.size >= this.#searchesAtOnce(next.family)) return;
      this.#waiting.delete(next);
      this.#searching.add(next);
      this.#at(next, now);
    }
  }

  #searchesAtOnce(family: Family): number {
    return this.#hints[family] === undefined ? SEARCHES_WITHOUT_HINT : SEARCHES_WITH_HINT;
  }

  #firstCheck(path: Path): void {
    if (this.#origins[path.family] === undefined) return;
    const { random, clock } = this.#options;
    const count = this.#paths.ipv4.size + this.#paths.ipv6.size;
    this.#at(path, clock() + random() * Math.min(this.#intervalMs, FIRST_CHECK_MS_A_PATH * count));
  }

  #at(path: Path, dueAt: number): void {
    if (path.dueAt === dueAt) return;
    path.dueAt = dueAt;
    this.#due.add(dueAt, path);
    if (dueAt < this.#sleepsUntil) this.#wake.abort();
  }
}

function viewOf({ family, remote, roundTripMs, sendFailure, probe }: Path): ProbedPath {
  return { family, remote, roundTripMs, sendFailure, fullBytes: probe.fullBytes, ...probe.findings };
}
