/**
 * The probe: the underlay is checked, not assumed.
 *
 * A room of its own in overlay/, for it is neither a wish (desired/) nor a kernel object (kernel/) nor the loop
 * that joins them (reconcile/): it finds out a fact of the network outside of this machine, over minutes, and
 * hands it to the reconciler as one number a path. Nothing else of the daemon waits for it or needs it.
 *
 *     reconciler: peers' addresses, source, full size --> UnderlayProbe --> Prober (when, which answer)
 *                   ^                                         |                  |
 *                   '------ a path's MTU, where smaller ------'           PathProbe (what it means), one a path
 *
 * A path is from this node's underlay address to a peer's public one; several leases may share it. Everything
 * here costs O(1) a change and, while all is well, one packet a path and interval.
 */
import { type Address, FAMILIES, type Family } from '../../store/address.ts';
import type { Clock, Sleep } from '../../store/backoff.ts';
import type { Random } from '../../store/subnet-choice.ts';
import type { WantedOverlay } from '../desired/overlay.ts';
import { fullSizeBytes } from '../desired/path-mtu.ts';
import { type EchoSocket, type EchoSocketEvents, EchoUnavailableError } from '../kernel/echo-socket.ts';
import type { Log } from '../ops/log.ts';
import type { PathsReport } from '../ops/recorder.ts';
import { isReduced, PathLog } from './path-log.ts';
import { type ProbeCounts, type ProbedPath, Prober } from './prober.ts';

export interface UnderlayProbeOptions {
  readonly intervalMs: number;
  readonly log: Log;
  readonly clock: Clock;
  readonly sleep: Sleep;
  readonly random: Random;
  readonly randomBytes: (count: number) => Uint8Array;
  /** @throws EchoUnavailableError */
  readonly openSocket: (family: Family, events: EchoSocketEvents) => EchoSocket;
  /** Tells how large packets to a peer may be; undefined: as large as the data path makes them. */
  readonly pathMtu: (family: Family, remote: Address, mtuBytes: number | undefined) => void;
}

export class UnderlayProbe {
  readonly #options: UnderlayProbeOptions;
  readonly #prober: Prober;
  readonly #pathLog: PathLog;
  readonly #sockets: { [F in Family]?: EchoSocket | undefined } = {};
  readonly #lacks: { [F in Family]?: string | undefined } = {};
  readonly #known: Readonly<Record<Family, Map<Address, ProbedPath>>> = { ipv4: new Map(), ipv6: new Map() };
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;
  #followed: WantedOverlay | undefined;

  constructor(options: UnderlayProbeOptions) {
    this.#options = options;
    this.#pathLog = new PathLog(options.log);
    this.#prober = new Prober({
      ...options,
      send: (packet, destination, failed) => {
        const socket = this.#sockets[destination.includes(':') ? 'ipv6' : 'ipv4'];
        if (socket === undefined) failed('there is no socket');
        else socket.send(packet, destination, failed);
      },
      changed: (path) => this.#changed(path),
    });
    this.#running = this.#prober.run(this.#ending.signal);
  }

  /** What this node's overlay is now. Opens the sockets that it needs. */
  follow(wanted: WantedOverlay): void {
    if (this.#ending.signal.aborted) return;
    const lost = FAMILIES.some((family) => this.#isWanted(wanted, family) && !this.#hasTried(family));
    if (wanted === this.#followed && !lost) return;
    this.#followed = wanted;
    for (const family of FAMILIES) {
      const source = wanted.underlay.localAddress[family];
      if (source === undefined || !this.#isWanted(wanted, family)) {
        this.#prober.setOrigin(family, undefined);
        this.#close(family);
      } else if (this.#open(family)) {
        this.#prober.setOrigin(family, { source, fullBytes: fullSizeBytes(wanted, family) });
      }
    }
  }

  /** How often a path that is well is asked, from its next check on. */
  setInterval(intervalMs: number): void {
    this.#prober.setInterval(intervalMs);
  }

  /** A peer's public address came or went. */
  peerTouched(family: Family, remote: Address, present: boolean): void {
    if (present) {
      this.#prober.add(family, remote);
      return;
    }
    this.#prober.remove(family, remote);
    if (isReduced(this.#known[family].get(remote))) this.#options.pathMtu(family, remote, undefined);
    this.#known[family].delete(remote);
  }

  path(family: Family, remote: Address): ProbedPath | undefined {
    return this.#sockets[family] === undefined ? undefined : this.#prober.path(family, remote);
  }

  /** In one family at least. */
  get running(): boolean {
    return FAMILIES.some((family) => this.#sockets[family] !== undefined);
  }

  /** Why nothing is probed, or not in every family. */
  get lacks(): string | undefined {
    return [...new Set(FAMILIES.flatMap((family) => this.#lacks[family] ?? []))].join('; ') || undefined;
  }

  get counts(): ProbeCounts {
    return this.#prober.counts;
  }

  summary(family: Family): PathsReport {
    const count = { reachable: 0, unreachable: 0, unknown: 0, filtered: 0, reduced: 0 };
    const roundTripsMs: number[] = [];
    for (const path of this.#prober.paths()) {
      if (path.family !== family) continue;
      if (path.reachable === undefined) count.unknown++;
      else if (!path.reachable) count.unreachable++;
      else if (path.filtered) count.filtered++;
      else count.reachable++;
      if (path.reachable === true && isReduced(path)) count.reduced++;
      if (path.roundTripMs !== undefined) roundTripsMs.push(path.roundTripMs);
    }
    return { ...count, roundTripsMs: roundTripsMs.sort((a, b) => a - b) };
  }

  /** The routes keep the MTU that they have. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#running;
    for (const family of FAMILIES) this.#close(family);
    this.#pathLog.close();
  }

  #isWanted(wanted: WantedOverlay, family: Family): boolean {
    return wanted.families.includes(family) && wanted.underlay.localAddress[family] !== undefined;
  }

  #hasTried(family: Family): boolean {
    return this.#sockets[family] !== undefined || this.#lacks[family] !== undefined;
  }

  #open(family: Family): boolean {
    if (this.#sockets[family] !== undefined) return true;
    if (this.#lacks[family] !== undefined) return false;
    const { openSocket, log } = this.#options;
    try {
      const socket: EchoSocket = openSocket(family, {
        received: (bytes, source) => this.#prober.received(family, bytes, source),
        closed: () => {
          if (this.#sockets[family] === socket) this.#sockets[family] = undefined;
        },
      });
      this.#sockets[family] = socket;
      return true;
    } catch (error) {
      if (!(error instanceof EchoUnavailableError)) throw error;
      const known = this.lacks;
      this.#lacks[family] = error.message;
      if (this.lacks !== known) log.warn('the underlay is not probed', { error });
      return false;
    }
  }

  #close(family: Family): void {
    const socket = this.#sockets[family];
    this.#sockets[family] = undefined;
    socket?.close();
  }

  #changed(path: ProbedPath): void {
    const { family, remote } = path;
    const before = this.#known[family].get(remote);
    this.#known[family].set(remote, path);
    this.#pathLog.changed(before, path);
    const [was, is] = [before, path].map((found) => (isReduced(found) ? found?.mtuBytes : undefined));
    if (was !== is) this.#options.pathMtu(family, remote, is);
  }
}
