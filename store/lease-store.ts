/**
 * The one interface to where leases live. Three implementations, one conformance suite
 * (test/store/conformance.ts): what is written here is what that suite checks.
 *
 * Rules for every method: it takes an AbortSignal that reaches every wait inside it (an abort rejects with
 * the signal's reason); it makes one attempt within a bounded time and throws a StoreError whose `retryable`
 * says whether trying again can help (waiting, backing off and retrying are the caller's: follow.ts and
 * overlay/leases); it never retries a write whose answer was lost without reading back first.
 */
import type { PerFamily, Subnet } from './address.ts';
import type { Lease, LeaseAttributes, MalformedLease, NetworkConfig } from './lease.ts';

export type StoreKind = 'etcd' | 'kubernetes' | 'embedded';

/** A point in the store's history: opaque text, compared only by the store's own `compareRevisions`. */
export type Revision = string;

/** What a node remembers of the lease it held, so that it gets the same one again. */
export interface RememberedLease {
  readonly subnets: PerFamily<Subnet>;
  /** As last written by this node: a lease that carries other attributes has been taken by another. */
  readonly attributes: LeaseAttributes;
}

export interface ClaimRequest {
  readonly network: NetworkConfig;
  readonly attributes: LeaseAttributes;
  readonly remembered?: RememberedLease | undefined;
  /** Time to live of an expiring lease, in milliseconds. A reservation has none and keeps none. */
  readonly ttlMs: number;
}

/** This node's own lease, with what the store needs to keep it. */
export interface HeldLease {
  readonly lease: Lease;
  /** The revision at which it was last written: the guard of every later write. */
  readonly revision: Revision;
  readonly ttlMs: number;
  /** Wall-clock milliseconds; absent for a reservation. For people; renewals are timed on the monotonic clock. */
  readonly expiresAt?: number | undefined;
  /** The store's own handle (an etcd lease id); nobody else looks inside. */
  readonly handle?: string | undefined;
}

/** Everything the store holds, at one revision. */
export interface LeaseSnapshot {
  readonly revision: Revision;
  readonly leases: ReadonlyMap<string, Lease>;
  readonly malformed: readonly MalformedLease[];
  /** Absent: there is none. */
  readonly network?: NetworkRecord | undefined;
}

/** The network configuration, or why the stored one cannot be used. */
export type NetworkRecord = { readonly config: NetworkConfig } | { readonly fault: Error };

export type LeaseChange =
  | { readonly type: 'put'; readonly lease: Lease }
  | { readonly type: 'malformed'; readonly malformed: MalformedLease }
  | { readonly type: 'delete'; readonly key: string };

/**
 * What brings a view from the batch before to `revision`; a revision's changes are never split over two
 * batches. Without changes it is a sign of life: nothing is undelivered up to its revision. The first batch of
 * a watch comes as soon as the watch stands, be it empty.
 */
export interface WatchBatch {
  readonly revision: Revision;
  readonly changes: readonly LeaseChange[];
  /** The network configuration was written (a record) or removed (null). */
  readonly network?: NetworkRecord | null | undefined;
}

export interface LeaseStore {
  readonly kind: StoreKind;
  /** How often it is worth listing although the watch says nothing is amiss; absent: as often as usual. */
  readonly relistIntervalMs?: number | undefined;

  /** The cluster's network configuration; undefined while there is none. @throws NetworkConfigError */
  networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined>;

  /**
   * Reserves a subnet for this node: the remembered one (or the one that carries our public address) while
   * it is still ours, else a random free one; atomic against every other claimant.
   * @throws NoFreeSubnetError, PublicAddressConflictError, StoreError
   */
  claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease>;

  /**
   * Keeps the lease alive and, where they differ, rewrites its attributes, in a transaction guarded by the
   * revision that was read. A lease that expired or was deleted, and whose subnets are still free, is made
   * again with the same subnets: its node never notices.
   * @throws LeaseLostError `taken` when another node has it, or a part of its subnets, now; `expired` when it
   * was a reservation and its operator has deleted it. Nothing is written then: claim again
   */
  renew(held: HeldLease, attributes: LeaseAttributes, signal: AbortSignal): Promise<HeldLease>;

  /** Gives the lease back if it is still ours (a reservation stays); else does nothing. */
  release(held: HeldLease, signal: AbortSignal): Promise<void>;

  /**
   * Pods of this node work from now on: tells those who wait for it, in a store that has such (on Kubernetes the
   * Node's condition, which keeps pods away until then). It stays told, whatever becomes of the entry.
   */
  announceReady?(signal: AbortSignal): Promise<void>;

  snapshot(signal: AbortSignal): Promise<LeaseSnapshot>;

  /**
   * The changes after a revision, in order, until the signal aborts (then it returns) or the stream fails.
   * @throws HistoryLostError when changes after that revision cannot all be delivered: take a snapshot
   */
  watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch>;

  /** Negative, zero or positive, as for sorting. */
  compareRevisions(a: Revision, b: Revision): number;

  /**
   * This node's addresses changed: connections that were made from an old one hang until somebody notices.
   * They are ended; what is under way on them fails, and the next call connects anew.
   */
  reconnect(): void;

  /** Ends whatever is open. Calls under way fail. */
  close(): Promise<void>;
}
