/** A store's lab as the conformance suite wants it, and what all store tests say and wait with. */
import { setMaxListeners } from 'node:events';
import { parseAddress, parseMac } from '../../store/address.ts';
import type { LeaseAttributes } from '../../store/lease.ts';
import type { HeldLease, LeaseStore, RememberedLease, WatchBatch } from '../../store/lease-store.ts';

export interface StoreLab {
  /** Another client of the same store, as another node would have. The lab closes it. */
  open(): Promise<LeaseStore>;
  /** Writes an entry without an expiry: `config`, or `subnets/<key>`. */
  put(key: string, text: string): Promise<void>;
  remove(key: string): Promise<void>;
  get(key: string): Promise<string | undefined>;
  /** Makes the lease under `subnets/<key>` run out as if its time were over. */
  expire(key: string): Promise<void>;
  /** Whether `subnets/<key>` will run out by itself. */
  expires(key: string): Promise<boolean>;
  /** Makes the store forget its history up to now. */
  forgetHistory(): Promise<void>;
  /** Closes all clients and removes the store. */
  close(): Promise<void>;
}

/** Claims are random, from 10.244.100.0 on: what tests write by hand lies below, and never meets them. */
export const NETWORK = '{"Network":"10.244.0.0/16","SubnetMin":"10.244.100.0","Backend":{"Type":"vxlan"}}';
export const TTL_MS = 60_000;
/** Aborts nothing, and many may listen to it. */
export const never = new AbortController().signal;
setMaxListeners(0, never);

/** A node's attributes, by number. */
export const node = (n: number, mac = n): LeaseAttributes => ({
  publicAddress: { ipv4: parseAddress(`192.0.${2 + (n >> 8)}.${n & 255}`) },
  backend: 'vxlan',
  vtep: { ipv4: { vni: 1, mac: parseMac(`02:00:00:00:${hex(mac >> 8)}:${hex(mac & 255)}`) } },
});
const hex = (n: number) => n.toString(16).padStart(2, '0');

export const remembered = (held: HeldLease): RememberedLease => ({
  subnets: held.lease.subnets,
  attributes: held.lease.attributes,
});

export async function failure(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it should have failed');
}

/** Waits until something is so. Fails after a deadline, with what was seen last. */
export async function until<T>(
  look: () => T | Promise<T>,
  isSo: (seen: T) => boolean,
  deadlineMs = 15_000,
): Promise<T> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (isSo(seen)) return seen;
    if (performance.now() > deadline) throw new Error(`still ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Reads a watch until `enough`, then ends it. Fails after a deadline. */
export async function watchUntil(
  store: LeaseStore,
  after: string,
  enough: (batches: readonly WatchBatch[]) => boolean,
  whenStanding: () => Promise<void> = async () => undefined,
): Promise<WatchBatch[]> {
  const abort = new AbortController();
  const deadline = setTimeout(() => abort.abort(), 20_000);
  const batches: WatchBatch[] = [];
  try {
    for await (const batch of store.watch(after, abort.signal)) {
      batches.push(batch);
      if (batches.length === 1) await whenStanding();
      if (enough(batches)) abort.abort();
    }
  } finally {
    clearTimeout(deadline);
  }
  if (!enough(batches)) throw new Error(`the watch told no more than ${JSON.stringify(batches)}`);
  return batches;
}

/** The changes of batches in a line each. */
export const told = (batches: readonly WatchBatch[]): string[] =>
  batches.flatMap((batch) => [
    ...batch.changes.map((change) => {
      if (change.type === 'put') return `+${change.lease.key} ${change.lease.attributes.publicAddress.ipv4}`;
      return change.type === 'delete' ? `-${change.key}` : `!${change.malformed.key}`;
    }),
    ...(batch.network === undefined ? [] : [networkWord(batch.network)]),
  ]);
function networkWord(network: NonNullable<WatchBatch['network']> | null): string {
  if (network === null) return 'no network';
  return 'fault' in network ? 'network fault' : 'network';
}
