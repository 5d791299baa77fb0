/**
 * The LeaseStore on a directory of this machine, for several daemons at once: a demo, a lab, one host.
 *
 * Claims, renewals and releases are transactions, so no two can meet. Watching is the reader's business: the
 * revision is polled. Nobody serves the store, so leases that ran out are removed by whoever sees them: a
 * watcher when the earliest expiry it knows of is over, a claim and a snapshot before they read.
 */
import { type Clock, delay, type Sleep } from '../backoff.ts';
import { HistoryLostError, isStoreError, NetworkConfigError, StoreUnavailableError } from '../errors.ts';
import type { Lease, LeaseAttributes, MalformedLease, NetworkConfig } from '../lease.ts';
import { decodeLease, encodeLease, encodeLeaseKey, isMalformed, leaseName } from '../lease-codec.ts';
import {
  type ClaimGround,
  type CurrentLease,
  isStillHeld,
  planClaim,
  planRenewal,
  requireFree,
} from '../lease-ownership.ts';
import type {
  ClaimRequest,
  HeldLease,
  LeaseChange,
  LeaseSnapshot,
  LeaseStore,
  NetworkRecord,
  Revision,
  WatchBatch,
} from '../lease-store.ts';
import { parseNetworkConfig } from '../network-config.ts';
import type { Random } from '../subnet-choice.ts';
import { EmbeddedDatabase } from './database.ts';

export interface EmbeddedStoreOptions {
  /** A directory; made if it is not there. */
  readonly path: string;
  /** Wall-clock milliseconds: what expiry is measured by, since all processes must agree on it. */
  readonly now: Clock;
  readonly random: Random;
  readonly sleep?: Sleep | undefined;
  /** A change is seen after half of this on average. Looking costs 2 microseconds. */
  readonly pollIntervalMs?: number | undefined;
  /** How many changes a watch can be behind before it must list again. */
  readonly historyLength?: number | undefined;
}

export interface EmbeddedStore extends LeaseStore {
  /** Stores the network configuration (flannel's JSON). False: there is one and `ifAbsent` was asked. */
  setNetworkConfig(text: string, options?: { readonly ifAbsent?: boolean }): Promise<boolean>;
}

const POLL_INTERVAL_MS = 10;
const HISTORY_LENGTH = 10_000;
/** A renewal may have made an expiry earlier without a change to see: so often all of them are looked at. */
const LOOK_FOR_EXPIRED_MS = 10_000;
const CONFIG_KEY = 'config';
const LEASES = 'subnets/';

/** Opens the store. @throws StoreUnavailableError naming the path */
export function openEmbeddedStore(options: EmbeddedStoreOptions): EmbeddedStore {
  return new LmdbStore(options);
}

class LmdbStore implements EmbeddedStore {
  readonly kind = 'embedded';
  readonly #options: EmbeddedStoreOptions;
  readonly #database: EmbeddedDatabase;
  readonly #closing = new AbortController();

  constructor(options: EmbeddedStoreOptions) {
    this.#options = options;
    try {
      this.#database = new EmbeddedDatabase(options.path, options.historyLength ?? HISTORY_LENGTH);
    } catch (error) {
      const remedy = 'the directory must be writable and on a local file system (--embedded-path)';
      throw this.#failure('cannot be opened', error, remedy);
    }
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined> {
    return this.#attempt(signal, () => {
      const record = this.#networkRecord();
      if (record !== undefined && 'fault' in record) throw record.fault;
      return record?.config;
    });
  }

  async claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    return this.#attempt(signal, () =>
      this.#database.write(() => {
        this.#removeExpired();
        const plan = planClaim(request, this.#ground());
        if (plan.type === 'adopt') return this.#hold(plan.lease.key, plan.lease.subnets, request);
        const subnets = plan.first ?? plan.pool.choose(this.#options.random);
        return this.#hold(encodeLeaseKey(subnets), subnets, request);
      }),
    );
  }

  async renew(held: HeldLease, attributes: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    const { key, subnets } = held.lease;
    return this.#attempt(signal, () =>
      this.#database.write(() => {
        // Our own lease, though its time is over, is ours until somebody removes it.
        if (planRenewal(held, attributes, this.#current(key)) === 'recreate') {
          this.#removeExpired();
          requireFree(held, this.#ground());
        }
        return this.#hold(key, subnets, { attributes, ttlMs: held.ttlMs });
      }),
    );
  }

  async release(held: HeldLease, signal: AbortSignal): Promise<void> {
    const key = LEASES + held.lease.key;
    return this.#attempt(signal, () =>
      this.#database.write(() => {
        const expires = this.#database.expiresAt(key) !== undefined;
        if (expires && isStillHeld(held, this.#current(held.lease.key))) this.#database.remove(key);
      }),
    );
  }

  async snapshot(signal: AbortSignal): Promise<LeaseSnapshot> {
    return this.#attempt(signal, () => {
      this.#removeExpiredIfAny();
      const leases = new Map<string, Lease>();
      const malformed: MalformedLease[] = [];
      for (const decoded of this.#leases()) {
        if (isMalformed(decoded)) malformed.push(decoded);
        else leases.set(decoded.key, decoded);
      }
      const revision = String(this.#database.revision());
      return { revision, leases, malformed, network: this.#networkRecord() };
    });
  }

  async *watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch> {
    const { sleep = delay, pollIntervalMs = POLL_INTERVAL_MS } = this.#options;
    const ended = AbortSignal.any([signal, this.#closing.signal]);
    let [resumePoint, first, lookForExpiredAtMs] = [Number(after), true, 0];
    while (!signal.aborted) {
      const batch = await this.#attempt(signal, () => {
        if (this.#options.now() >= lookForExpiredAtMs) lookForExpiredAtMs = this.#removeExpiredIfAny();
        return this.#changesAfter(resumePoint, first);
      });
      if (batch !== undefined) {
        for (const change of batch.changes) {
          const expiresAt =
            change.type === 'put' ? this.#database.expiresAt(LEASES + change.lease.key) : undefined;
          lookForExpiredAtMs = Math.min(lookForExpiredAtMs, expiresAt ?? lookForExpiredAtMs);
        }
        yield batch;
        [resumePoint, first] = [Number(batch.revision), false];
      }
      await sleep(pollIntervalMs, ended).catch(() => undefined);
    }
  }

  compareRevisions(a: Revision, b: Revision): number {
    return Number(a) - Number(b);
  }

  /** There is no connection. */
  reconnect(): void {}

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await this.#database.close();
  }

  async setNetworkConfig(text: string, options: { readonly ifAbsent?: boolean } = {}): Promise<boolean> {
    parseNetworkConfig(text);
    return this.#attempt(this.#closing.signal, () =>
      this.#database.write(() => {
        if (options.ifAbsent === true && this.#database.get(CONFIG_KEY) !== undefined) return false;
        this.#database.put(CONFIG_KEY, text);
        return true;
      }),
    );
  }

  /** Writes what differs, within a transaction. A reservation (stored, without an expiry) stays one. */
  #hold(
    key: string,
    subnets: Lease['subnets'],
    wanted: Pick<ClaimRequest, 'attributes' | 'ttlMs'>,
  ): HeldLease {
    const path = LEASES + key;
    const before = this.#database.get(path);
    const isReservation = before !== undefined && this.#database.expiresAt(path) === undefined;
    const text = encodeLease(wanted.attributes, before?.text);
    const revision = before?.text === text ? before.revision : this.#database.put(path, text);
    const lease: Lease = { key, subnets, attributes: wanted.attributes };
    if (isReservation) return { lease, revision: String(revision), ttlMs: 0 };
    const expiresAt = this.#options.now() + wanted.ttlMs;
    this.#database.setExpiry(path, expiresAt);
    return { lease, revision: String(revision), ttlMs: wanted.ttlMs, expiresAt };
  }

  #current(key: string): CurrentLease {
    const stored = this.#database.get(LEASES + key);
    if (stored === undefined) return undefined;
    const decoded = decodeLease(key, stored.text);
    return isMalformed(decoded) ? 'malformed' : decoded;
  }

  #ground(): ClaimGround {
    const leases = new Map<string, Lease>();
    const malformedKeys: string[] = [];
    for (const decoded of this.#leases()) {
      if (isMalformed(decoded)) malformedKeys.push(decoded.key);
      else leases.set(decoded.key, decoded);
    }
    const isReservation = (key: string) => this.#database.expiresAt(LEASES + key) === undefined;
    return { leases, malformedKeys, isReservation };
  }

  *#leases(): Generator<Lease | MalformedLease> {
    for (const [path, { text }] of this.#database.entries(LEASES))
      yield decodeLease(path.slice(LEASES.length), text);
  }

  #networkRecord(): NetworkRecord | undefined {
    const stored = this.#database.get(CONFIG_KEY);
    if (stored === undefined) return undefined;
    try {
      return { config: parseNetworkConfig(stored.text) };
    } catch (error) {
      if (error instanceof NetworkConfigError) return { fault: error };
      throw error;
    }
  }

  /** What changed after a revision, each key once and as it is now; undefined: nothing. */
  #changesAfter(after: number, evenIfNothing: boolean): WatchBatch | undefined {
    const revision = this.#database.revision();
    if (revision < after) {
      throw new HistoryLostError(`the store is at revision ${revision}, before our ${after}`, 'rewound');
    }
    if (revision === after) return evenIfNothing ? { revision: String(revision), changes: [] } : undefined;
    const keys = this.#database.changedSince(after);
    if (keys === undefined) {
      throw new HistoryLostError(`the store no longer knows what changed after ${after}`, 'compacted');
    }
    const changes: LeaseChange[] = [];
    for (const path of keys)
      if (path.startsWith(LEASES)) changes.push(this.#changeOf(path.slice(LEASES.length)));
    const network = keys.has(CONFIG_KEY) ? { network: this.#networkRecord() ?? null } : {};
    return { revision: String(revision), changes, ...network };
  }

  #changeOf(key: string): LeaseChange {
    const stored = this.#database.get(LEASES + key);
    if (stored === undefined) return { type: 'delete', key: leaseName(key) };
    const decoded = decodeLease(key, stored.text);
    return isMalformed(decoded) ? { type: 'malformed', malformed: decoded } : { type: 'put', lease: decoded };
  }

  /** Looks before it locks. Returns when to look again: when the next lease that we know of expires. */
  #removeExpiredIfAny(): number {
    const now = this.#options.now();
    let next = now + LOOK_FOR_EXPIRED_MS;
    for (const [, expiresAt] of this.#database.expiries()) next = Math.min(next, expiresAt);
    if (next > now) return next;
    this.#database.write(() => this.#removeExpired());
    return now;
  }

  #removeExpired(): void {
    const now = this.#options.now();
    const expired = [...this.#database.expiries()].filter(([, expiresAt]) => expiresAt <= now);
    for (const [key] of expired) this.#database.remove(key);
  }

  /** One look at the newest state; whatever LMDB throws becomes a StoreUnavailableError. */
  async #attempt<T>(signal: AbortSignal, action: () => T): Promise<T> {
    if (this.#closing.signal.aborted) throw new StoreUnavailableError('the embedded store is closed');
    signal.throwIfAborted();
    try {
      this.#database.refresh();
      return action();
    } catch (error) {
      if (isStoreError(error)) throw error;
      throw this.#failure('failed', error, 'is the disk full?');
    }
  }

  #failure(what: string, error: unknown, remedy: string): StoreUnavailableError {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `embedded store ${this.#options.path} ${what}: ${reason}; ${remedy}`;
    return new StoreUnavailableError(message, { cause: error });
  }
}
