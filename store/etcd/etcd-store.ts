/**
 * The LeaseStore on etcd v3, in flannel's schema: nodes of flannel and of vtepd can share the prefix.
 *
 * An etcd lease is a clean-up device here, not a lock: it may outlive its time after an election and die early
 * after a stall. What decides is the key's content and revision, in a transaction, every time.
 */

import type { PerFamily, Subnet } from '../address.ts';
import { type Clock, delay } from '../backoff.ts';
import { StoreUnavailableError } from '../errors.ts';
import type { Lease, LeaseAttributes, MalformedLease, NetworkConfig } from '../lease.ts';
import { decodeLeaseKey, isMalformed } from '../lease-codec.ts';
import { type ClaimGround, isStillHeld, planClaim, planRenewal, requireFree } from '../lease-ownership.ts';
import type {
  ClaimRequest,
  HeldLease,
  LeaseSnapshot,
  LeaseStore,
  Revision,
  WatchBatch,
} from '../lease-store.ts';
import type { Random, SubnetPool } from '../subnet-choice.ts';
import { parseEndpoint } from './endpoint.ts';
import { EtcdClient } from './etcd-client.ts';
import { EtcdKeys, networkRecord, type StoredLease } from './etcd-keys.ts';
import { type EtcdLease, LeaseWriter, type WantedLease } from './lease-writer.ts';
import { type EtcdContent, readLeases } from './read-leases.ts';
import { watchLeases } from './watch-leases.ts';

export interface EtcdStoreOptions {
  /** `https://etcd-1:2379`, in the order in which they are tried at first. */
  readonly endpoints: readonly string[];
  /** `/coreos.com/network` */
  readonly prefix: string;
  readonly random: Random;
  /** Wall-clock milliseconds, to say when a lease expires. */
  readonly now: Clock;
  /** PEM; for `https` endpoints. Without it, the system's authorities. */
  readonly ca?: Buffer | undefined;
  readonly certificate?: Buffer | undefined;
  readonly key?: Buffer | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** How long one call to one endpoint may take. */
  readonly callTimeoutMs?: number | undefined;
  readonly keepaliveMs?: number | undefined;
  /** How many leases one message carries. */
  readonly pageSize?: number | undefined;
}

/** etcd answers in milliseconds; its own request timeout (an election under way) is 7 s. */
const CALL_TIMEOUT_MS = 3000;
/** The server refuses less than 5 s; so a dead one is found in 15. */
const KEEPALIVE_MS = 10_000;
/** 125 KB: etcd reads one page while another is decoded. */
const PAGE_SIZE = 500;
/** How often a lease that changes under our hands is looked at again before we wait. */
const REPLANS = 10;
/** How long closing waits for etcd leases of failed claims to be revoked. */
const REVOKE_TIMEOUT_MS = 1000;

/** Opens no connection yet: a store that is away is found by the first call. @throws EndpointError */
export function openEtcdStore(options: EtcdStoreOptions): LeaseStore {
  return new EtcdStore(options);
}

class EtcdStore implements LeaseStore {
  readonly kind = 'etcd';
  readonly #options: EtcdStoreOptions;
  readonly #callTimeoutMs: number;
  readonly #client: EtcdClient;
  readonly #keys: EtcdKeys;
  readonly #writer: LeaseWriter;
  readonly #revoking = new Set<Promise<void>>();
  #clusterId: string | undefined;

  constructor(options: EtcdStoreOptions) {
    this.#options = options;
    const { ca, certificate, key, username, password, random, now } = options;
    this.#callTimeoutMs = options.callTimeoutMs ?? CALL_TIMEOUT_MS;
    this.#keys = new EtcdKeys(options.prefix);
    this.#client = new EtcdClient({
      endpoints: options.endpoints.map(parseEndpoint),
      ...{ ca, certificate, key, username, password },
      callTimeoutMs: this.#callTimeoutMs,
      keepaliveMs: options.keepaliveMs ?? KEEPALIVE_MS,
    });
    this.#writer = new LeaseWriter({ client: this.#client, keys: this.#keys, random, now });
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined> {
    const { kvs } = await this.#client.read('KV.range', { key: this.#keys.config }, signal);
    const record = kvs[0] && networkRecord(kvs[0].value);
    if (record !== undefined && 'fault' in record) throw record.fault;
    return record?.config;
  }

  async claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    for (let tries = 0; tries < REPLANS; tries++) {
      const content = await this.#read(signal);
      const ground = groundOf(content);
      const plan = planClaim(request, ground);
      if (plan.type === 'create') {
        return await this.#create(plan.first, plan.pool, request, content.revision, signal);
      }
      const stored = content.leases.find(({ decoded }) => decoded === plan.lease);
      const held = stored && (await this.#take(stored, plan.lease, request, signal));
      if (held !== undefined) return held;
    }
    throw new StoreUnavailableError('etcd: our lease is rewritten again and again by somebody else');
  }

  async renew(held: HeldLease, attributes: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    const { lease } = held;
    const wanted = { attributes, ttlMs: held.ttlMs };
    for (let tries = 0; tries < REPLANS; tries++) {
      const stored = await this.#writer.read(lease.key, signal);
      const plan = planRenewal(held, attributes, currentOf(stored));
      const renewed =
        stored === undefined || plan === 'recreate'
          ? await this.#recreate(held, wanted, signal)
          : await this.#take(stored, lease, wanted, signal);
      if (renewed !== undefined) return renewed;
    }
    throw new StoreUnavailableError(`etcd: lease ${lease.key} is rewritten again and again by somebody else`);
  }

  async release(held: HeldLease, signal: AbortSignal): Promise<void> {
    for (let tries = 0; tries < REPLANS; tries++) {
      const stored = await this.#writer.read(held.lease.key, signal);
      if (stored?.etcdLease === undefined || !isStillHeld(held, currentOf(stored))) return;
      if (await this.#writer.deleteAt(held.lease.key, stored.modRevision, signal)) {
        await this.#writer.revoke(stored.etcdLease, signal);
        return;
      }
    }
    throw new StoreUnavailableError(`etcd: lease ${held.lease.key} could not be released`);
  }

  async snapshot(signal: AbortSignal): Promise<LeaseSnapshot> {
    const content = await this.#read(signal);
    const leases = new Map<string, Lease>();
    const malformed: MalformedLease[] = [];
    for (const { decoded } of content.leases) {
      if (isMalformed(decoded)) malformed.push(decoded);
      else leases.set(decoded.key, decoded);
    }
    return { revision: content.revision, leases, malformed, network: content.network };
  }

  async *watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch> {
    if (signal.aborted) return;
    const options = { after, clusterId: this.#clusterId, createTimeoutMs: this.#callTimeoutMs };
    try {
      yield* watchLeases(this.#client, this.#keys, options, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  compareRevisions(a: Revision, b: Revision): number {
    return Number(a) - Number(b);
  }

  reconnect(): void {
    this.#client.reconnect();
  }

  async close(): Promise<void> {
    await Promise.all(this.#revoking);
    this.#client.close();
  }

  async #read(signal: AbortSignal): Promise<EtcdContent> {
    const content = await readLeases(this.#client, this.#keys, this.#options.pageSize ?? PAGE_SIZE, signal);
    this.#clusterId = content.clusterId;
    return content;
  }

  /**
   * Tries the first choice, then random ones. The leases are read once, however many nodes claim in the same
   * second: one conflict is chance and costs another try, from the second on etcd tells what was created since.
   */
  async #create(
    first: PerFamily<Subnet> | undefined,
    pool: SubnetPool,
    wanted: WantedLease,
    revision: string,
    signal: AbortSignal,
  ): Promise<HeldLease> {
    const { random } = this.#options;
    let subnets = first ?? pool.choose(random);
    return this.#onNewEtcdLease(wanted.ttlMs, signal, async (etcdLease) => {
      for (let looked = { since: revision, learn: false }; ; ) {
        const outcome = await this.#writer.create(subnets, wanted, etcdLease, looked, signal);
        if ('held' in outcome) return outcome.held;
        for (const key of outcome.taken) pool.take(decodeLeaseKey(key) ?? {});
        pool.take(subnets);
        looked = { since: outcome.since, learn: true };
        subnets = pool.choose(random);
      }
    });
  }

  /** The same subnets again, after the lease was gone. Undefined: somebody was faster, look again. */
  async #recreate(held: HeldLease, wanted: WantedLease, signal: AbortSignal): Promise<HeldLease | undefined> {
    const content = await this.#read(signal);
    const present = content.leases.some(({ decoded }) => decoded.key === held.lease.key);
    if (present) return undefined;
    requireFree(held, groundOf(content));
    return this.#onNewEtcdLease(wanted.ttlMs, signal, async (etcdLease) => {
      const looked = { since: content.revision, learn: false };
      const outcome = await this.#writer.create(held.lease.subnets, wanted, etcdLease, looked, signal);
      return 'held' in outcome ? outcome.held : undefined;
    });
  }

  /**
   * Keeps a stored lease that is ours alive and makes it what is wanted. Its etcd lease is kept if it lives
   * long enough; a reservation has none and gets none. Undefined: it changed, look again.
   */
  async #take(
    stored: StoredLease,
    lease: Lease,
    wanted: WantedLease,
    signal: AbortSignal,
  ): Promise<HeldLease | undefined> {
    if (stored.etcdLease === undefined) return this.#writer.rewrite(stored, lease, wanted, undefined, signal);
    const alive = await this.#writer.keepAlive(stored.etcdLease, this.#callTimeoutMs, signal);
    if (alive !== undefined && alive.ttlSeconds * 1000 >= wanted.ttlMs) {
      return this.#writer.rewrite(stored, lease, wanted, alive, signal);
    }
    const etcdLease = await this.#grant(wanted.ttlMs, signal);
    // If this fails, the key may be on the new etcd lease all the same: revoking that would delete it.
    const held = await this.#writer.rewrite(stored, lease, wanted, etcdLease, signal);
    if (held === undefined) this.#revokeLater(etcdLease.id);
    return held;
  }

  async #grant(ttlMs: number, signal: AbortSignal): Promise<EtcdLease> {
    const id = this.#writer.newEtcdLeaseId();
    try {
      return await this.#writer.grant(id, ttlMs, signal);
    } catch (error) {
      this.#revokeLater(id);
      throw error;
    }
  }

  /** Grants an etcd lease to create a key on, and revokes it, with the key, if that comes to nothing. */
  async #onNewEtcdLease<T extends HeldLease | undefined>(
    ttlMs: number,
    signal: AbortSignal,
    create: (etcdLease: EtcdLease) => Promise<T>,
  ): Promise<T> {
    const etcdLease = await this.#grant(ttlMs, signal);
    let held: T | undefined;
    try {
      held = await create(etcdLease);
      return held;
    } finally {
      if (held === undefined) this.#revokeLater(etcdLease.id);
    }
  }

  /** Not within the call that failed, nor under its signal; closing waits for it. */
  #revokeLater(id: string): void {
    const abort = new AbortController();
    const revoking = Promise.race([
      this.#writer.revoke(id, abort.signal),
      delay(REVOKE_TIMEOUT_MS, abort.signal),
    ])
      .catch(() => undefined)
      .finally(() => {
        abort.abort();
        this.#revoking.delete(revoking);
      });
    this.#revoking.add(revoking);
  }
}

function groundOf(content: EtcdContent): ClaimGround {
  const leases = new Map<string, Lease>();
  const malformedKeys: string[] = [];
  const reservations = new Set<string>();
  for (const { decoded, etcdLease } of content.leases) {
    if (isMalformed(decoded)) malformedKeys.push(decoded.key);
    else leases.set(decoded.key, decoded);
    if (etcdLease === undefined) reservations.add(decoded.key);
  }
  return { leases, malformedKeys, isReservation: (key) => reservations.has(key) };
}

function currentOf(stored: StoredLease | undefined): Lease | 'malformed' | undefined {
  if (stored === undefined) return undefined;
  return isMalformed(stored.decoded) ? 'malformed' : stored.decoded;
}
