/** The keys below the prefix, and what a key holds. */
import type { ICompare, IKeyValue } from 'etcd3';
import { NetworkConfigError } from '../errors.ts';
import type { Lease, MalformedLease } from '../lease.ts';
import { decodeLease } from '../lease-codec.ts';
import type { NetworkRecord } from '../lease-store.ts';
import { parseNetworkConfig } from '../network-config.ts';

/** A lease's key as etcd holds it. */
export interface StoredLease {
  readonly decoded: Lease | MalformedLease;
  readonly value: Buffer;
  readonly modRevision: string;
  /** The etcd lease that ends it; absent: a reservation. */
  readonly etcdLease: string | undefined;
}

/** etcd3's type has not got the end of a compared range, which etcd knows since 3.3. */
export type Comparison = ICompare & { readonly range_end?: Buffer };

export class EtcdKeys {
  /** Of everything: the configuration and the leases. */
  readonly all: { readonly key: Buffer; readonly range_end: Buffer };
  readonly leases: { readonly key: Buffer; readonly range_end: Buffer };
  readonly config: Buffer;
  readonly #leasePrefix: string;

  /** @param prefix such as `/coreos.com/network` */
  constructor(prefix: string) {
    const base = `${prefix.replace(/\/+$/, '')}/`;
    this.#leasePrefix = `${base}subnets/`;
    this.config = Buffer.from(`${base}config`);
    this.all = { key: Buffer.from(base), range_end: endOfPrefix(base) };
    this.leases = { key: Buffer.from(this.#leasePrefix), range_end: endOfPrefix(this.#leasePrefix) };
  }

  lease(leaseKey: string): Buffer {
    return Buffer.from(this.#leasePrefix + leaseKey);
  }

  /** The lease's own key of a full one; undefined: it is not below `subnets/`. */
  leaseKey(key: Buffer): string | undefined {
    const text = key.toString();
    return text.startsWith(this.#leasePrefix) ? text.slice(this.#leasePrefix.length) : undefined;
  }

  stored(kv: IKeyValue): StoredLease {
    return {
      decoded: decodeLease(this.leaseKey(kv.key) ?? '', kv.value),
      value: kv.value,
      modRevision: kv.mod_revision,
      etcdLease: kv.lease === '0' ? undefined : kv.lease,
    };
  }
}

/** The first key after all that begin with the prefix (which ends in ASCII). */
export function endOfPrefix(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end[end.length - 1] ?? 0) + 1;
  return end;
}

/** The first key after this one. */
export const afterKey = (key: Buffer): Buffer => Buffer.concat([key, Buffer.from([0])]);

export function networkRecord(value: Buffer): NetworkRecord {
  try {
    return { config: parseNetworkConfig(value) };
  } catch (error) {
    if (error instanceof NetworkConfigError) return { fault: error };
    throw error;
  }
}
