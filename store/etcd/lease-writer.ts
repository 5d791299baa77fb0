/**
 * Writes of one lease to etcd. Each is a transaction guarded by the revision that was read (or by the key's
 * absence), and each that loses its answer is looked up before anything is written again: our key carries our
 * own etcd lease, whose number we chose, so it is known at sight.
 */
import type { PerFamily, Subnet } from '../address.ts';
import { FAMILIES, subnetsOverlap } from '../address.ts';
import type { Clock } from '../backoff.ts';
import { StoreUnavailableError } from '../errors.ts';
import type { Lease, LeaseAttributes } from '../lease.ts';
import { decodeLeaseKey, encodeLease, encodeLeaseKey } from '../lease-codec.ts';
import type { HeldLease } from '../lease-store.ts';
import type { Random } from '../subnet-choice.ts';
import { LostAnswerError, RefusedCallError } from './call-errors.ts';
import type { EtcdClient } from './etcd-client.ts';
import { type Comparison, type EtcdKeys, endOfPrefix, type StoredLease } from './etcd-keys.ts';

export interface LeaseWriterOptions {
  readonly client: Pick<EtcdClient, 'read' | 'write' | 'stream'>;
  readonly keys: EtcdKeys;
  readonly random: Random;
  readonly now: Clock;
}

/** What a lease is to be: its attributes, and how long it lives without a renewal. */
export interface WantedLease {
  readonly attributes: LeaseAttributes;
  readonly ttlMs: number;
}

/** An etcd lease that lives, with its time to live in seconds. */
export interface EtcdLease {
  readonly id: string;
  readonly ttlSeconds: number;
}

/** The revision at which the subnets were free, and whether a failure tells all that was created since. */
export interface Looked {
  readonly since: string;
  readonly learn: boolean;
}

export type CreateOutcome =
  | { readonly held: HeldLease }
  /** Keys that are taken now, ours first; all of them that were created before `since`, if they were asked for. */
  | { readonly taken: readonly string[]; readonly since: string };

/** How often a lost answer is looked up before the store counts as away. */
const LOOKUPS = 3;

export class LeaseWriter {
  readonly #options: LeaseWriterOptions;

  constructor(options: LeaseWriterOptions) {
    this.#options = options;
  }

  /**
   * The number of a new etcd lease: 62 random bits, never zero. It is ours to choose, so that whatever becomes
   * of a grant, we know what to ask for again, and what to revoke.
   */
  newEtcdLeaseId(): string {
    const { random } = this.#options;
    const bits = (n: number) => BigInt(Math.floor(random() * 2 ** n));
    return String((bits(31) << 31n) | bits(31) | 1n);
  }

  async grant(id: string, ttlMs: number, signal: AbortSignal): Promise<EtcdLease> {
    const { client } = this.#options;
    const request = { ID: id, TTL: String(Math.max(1, Math.ceil(ttlMs / 1000))) };
    for (let tries = 1; ; tries++) {
      try {
        const { TTL } = await client.write('Lease.leaseGrant', request, signal);
        return { id, ttlSeconds: Number(TTL) };
      } catch (error) {
        if (error instanceof RefusedCallError && error.reason === 'lease-exists') {
          return { id, ttlSeconds: Number(request.TTL) };
        }
        if (!(error instanceof LostAnswerError) || tries > LOOKUPS) throw error;
      }
    }
  }

  /** Ends an etcd lease and the key on it, as far as etcd can be reached: else it ends by itself. */
  async revoke(id: string, signal: AbortSignal): Promise<void> {
    await this.#options.client.write('Lease.leaseRevoke', { ID: id }, signal).catch(() => undefined);
  }

  /** Keeps an etcd lease alive, once. Undefined: etcd does not know it (any more). */
  async keepAlive(id: string, timeoutMs: number, signal: AbortSignal): Promise<EtcdLease | undefined> {
    const stream = await this.#options.client.stream('Lease.leaseKeepAlive', signal);
    let late = false;
    const deadline = setTimeout(() => {
      late = true;
      stream.cancel();
    }, timeoutMs);
    try {
      stream.write({ ID: id });
      for await (const { TTL } of stream.responses()) {
        return Number(TTL) > 0 ? { id, ttlSeconds: Number(TTL) } : undefined;
      }
      signal.throwIfAborted();
      throw new StoreUnavailableError('etcd: keep-alive: no answer');
    } catch (error) {
      if (late) throw new StoreUnavailableError('etcd: keep-alive: no answer in time', { cause: error });
      throw error;
    } finally {
      clearTimeout(deadline);
      stream.cancel();
    }
  }

  async read(leaseKey: string, signal: AbortSignal): Promise<StoredLease | undefined> {
    const { client, keys } = this.#options;
    const { kvs } = await client.read('KV.range', { key: keys.lease(leaseKey) }, signal);
    return kvs[0] && keys.stored(kvs[0]);
  }

  /**
   * Creates a lease unless its key is there, or its IPv4 subnet under the key of two families, or its IPv6
   * subnet under any key that was created since we looked.
   */
  async create(
    subnets: PerFamily<Subnet>,
    wanted: WantedLease,
    etcdLease: EtcdLease,
    { since, learn }: Looked,
    signal: AbortSignal,
  ): Promise<CreateOutcome> {
    const { client, keys } = this.#options;
    const leaseKey = encodeLeaseKey(subnets);
    const key = keys.lease(leaseKey);
    const createdSince = {
      request_range: { ...keys.leases, keys_only: true, min_create_revision: String(Number(since) + 1) },
    };
    const request = {
      compare: absent(keys, subnets),
      success: [
        { request_put: { key, value: Buffer.from(encodeLease(wanted.attributes)), lease: etcdLease.id } },
        // An IPv6 subnet is the end of its key, where no comparison of ranges reaches it.
        ...(subnets.ipv6 === undefined ? [] : [createdSince]),
      ],
      failure: learn ? [createdSince] : [],
    };
    let lost: LostAnswerError | undefined;
    for (let tries = 0; tries <= LOOKUPS; tries++) {
      let refused = false;
      try {
        const { succeeded, header, responses } = await client.write('KV.txn', request, signal);
        const created = responses
          .flatMap(({ response_range: range }) => range?.kvs ?? [])
          .flatMap((kv) => keys.leaseKey(kv.key) ?? [])
          .filter((other) => other !== leaseKey);
        if (succeeded && !created.some((other) => overlaps(subnets, other))) {
          return { held: this.#held(leaseKey, subnets, wanted, etcdLease, header.revision) };
        }
        if (succeeded) {
          // They were first: exactly one of two that overlap sees the other.
          await this.#undo(leaseKey, header.revision, signal);
          return { taken: created, since: header.revision };
        }
        // What is in our way may be our own: an earlier write whose answer was lost.
        if (lost === undefined) {
          return { taken: [leaseKey, ...created], since: learn ? header.revision : since };
        }
        refused = true;
      } catch (error) {
        if (!(error instanceof LostAnswerError)) throw error;
        lost = error;
      }
      const stored = await this.read(leaseKey, signal);
      if (stored !== undefined && stored.etcdLease !== etcdLease.id) return { taken: [leaseKey], since };
      if (stored !== undefined && subnets.ipv6 === undefined) {
        return { held: this.#held(leaseKey, subnets, wanted, etcdLease, stored.modRevision) };
      }
      if (stored !== undefined) {
        // What was created before it was not told either: take it back and look again.
        await this.#undo(leaseKey, stored.modRevision, signal);
        return { taken: [leaseKey], since };
      }
      if (refused) return { taken: [leaseKey], since };
      // Not there: it may still arrive, so the same key is tried again, never another.
    }
    throw lost ?? new StoreUnavailableError('etcd: create: no answer');
  }

  /**
   * Writes over a lease that was read, if it is still the same. Undefined: it is not, and was not touched.
   * @throws LostAnswerError when it may have been written all the same
   */
  async rewrite(
    stored: StoredLease,
    lease: Lease,
    wanted: WantedLease,
    etcdLease: EtcdLease | undefined,
    signal: AbortSignal,
  ): Promise<HeldLease | undefined> {
    const { client, keys } = this.#options;
    const key = keys.lease(lease.key);
    const value = Buffer.from(encodeLease(wanted.attributes, stored.value));
    const isWritten = (found: StoredLease) => found.etcdLease === etcdLease?.id && found.value.equals(value);
    const held = (revision: string) => this.#held(lease.key, lease.subnets, wanted, etcdLease, revision);
    if (isWritten(stored)) return held(stored.modRevision);
    const request = {
      compare: [unchanged(key, stored.modRevision)],
      success: [{ request_put: { key, value, lease: etcdLease?.id ?? '0' } }],
    };
    for (let tries = 0; ; tries++) {
      try {
        const { succeeded, header } = await client.write('KV.txn', request, signal);
        if (succeeded) return held(header.revision);
        if (tries === 0) return undefined;
      } catch (error) {
        if (!(error instanceof LostAnswerError) || tries === LOOKUPS) throw error;
      }
      // An answer was lost: see what is there. If nothing is, the same again, for it may still arrive.
      const found = await this.read(lease.key, signal);
      if (found === undefined) return undefined;
      if (isWritten(found)) return held(found.modRevision);
      if (found.modRevision !== stored.modRevision) return undefined;
    }
  }

  /** Deletes a lease that was read, if it is still the same. False: it is not, or the answer was lost. */
  async deleteAt(leaseKey: string, modRevision: string, signal: AbortSignal): Promise<boolean> {
    const { client, keys } = this.#options;
    const key = keys.lease(leaseKey);
    const request = {
      compare: [unchanged(key, modRevision)],
      success: [{ request_delete_range: { key } }],
    };
    try {
      return (await client.write('KV.txn', request, signal)).succeeded;
    } catch (error) {
      if (error instanceof LostAnswerError) return false;
      throw error;
    }
  }

  /** Fails rather than leaving a second key on our etcd lease, which then is revoked with all its keys. */
  async #undo(leaseKey: string, modRevision: string, signal: AbortSignal): Promise<void> {
    if (await this.deleteAt(leaseKey, modRevision, signal)) return;
    throw new StoreUnavailableError(
      `etcd: lease ${leaseKey}, which overlaps another, could not be taken back`,
    );
  }

  #held(
    key: string,
    subnets: PerFamily<Subnet>,
    wanted: WantedLease,
    etcdLease: EtcdLease | undefined,
    revision: string,
  ): HeldLease {
    const lease: Lease = { key, subnets, attributes: wanted.attributes };
    if (etcdLease === undefined) return { lease, revision, ttlMs: 0 };
    const expiresAt = this.#options.now() + etcdLease.ttlSeconds * 1000;
    return { lease, revision, ttlMs: wanted.ttlMs, expiresAt, handle: etcdLease.id };
  }
}

const unchanged = (key: Buffer, modRevision: string): Comparison => ({
  key,
  target: 'Mod',
  result: 'Equal',
  mod_revision: modRevision,
});

/** Nothing under this key; nor, with IPv4, under any that begins with the same IPv4 subnet. */
function absent(keys: EtcdKeys, subnets: PerFamily<Subnet>): Comparison[] {
  const isZero = { target: 'Create', result: 'Equal', create_revision: '0' } as const;
  const own: Comparison = { key: keys.lease(encodeLeaseKey(subnets)), ...isZero };
  if (subnets.ipv4 === undefined) return [own];
  const ipv4 = keys.lease(encodeLeaseKey({ ipv4: subnets.ipv4 }));
  return [own, { key: ipv4, range_end: endOfPrefix(ipv4.toString()), ...isZero }];
}

function overlaps(subnets: PerFamily<Subnet>, otherKey: string): boolean {
  const other = decodeLeaseKey(otherKey);
  return FAMILIES.some((family) => {
    const [a, b] = [subnets[family], other?.[family]];
    return a !== undefined && b !== undefined && subnetsOverlap(a, b);
  });
}
