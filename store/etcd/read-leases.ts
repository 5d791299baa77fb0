/**
 * Everything below the prefix at one revision. The first page comes with the network configuration in one
 * transaction, which fixes the revision; the other pages are read at it. If it is compacted while pages are
 * read, the reading starts again; pages whose message is too large for gRPC are asked for in halves.
 */
import type { IKeyValue, IRangeResponse } from 'etcd3';
import { StoreUnavailableError } from '../errors.ts';
import type { NetworkRecord } from '../lease-store.ts';
import { RefusedCallError } from './call-errors.ts';
import type { EtcdClient } from './etcd-client.ts';
import { afterKey, type EtcdKeys, networkRecord, type StoredLease } from './etcd-keys.ts';

export interface EtcdContent {
  readonly revision: string;
  readonly clusterId: string;
  readonly network: NetworkRecord | undefined;
  /** By full key, undecoded keys and all. */
  readonly leases: readonly StoredLease[];
}

/** Compaction by the minute is far apart from pages by the millisecond; more than once is no accident. */
const COMPACTED_TRIES = 5;

/** @throws StoreUnavailableError, StoreAccessError */
export async function readLeases(
  client: Pick<EtcdClient, 'read'>,
  keys: EtcdKeys,
  pageSize: number,
  signal: AbortSignal,
): Promise<EtcdContent> {
  for (let tries = 1; ; tries++) {
    try {
      return await readOnce(client, keys, pageSize, signal);
    } catch (error) {
      if (!(error instanceof RefusedCallError && error.reason === 'compacted')) throw error;
      if (tries === COMPACTED_TRIES) {
        throw new StoreUnavailableError('etcd compacts faster than its leases can be read', { cause: error });
      }
    }
  }
}

async function readOnce(
  client: Pick<EtcdClient, 'read'>,
  keys: EtcdKeys,
  pageSize: number,
  signal: AbortSignal,
): Promise<EtcdContent> {
  const pages = new PageSize(pageSize);
  const first = await pages.read((limit) =>
    client.read(
      'KV.txn',
      {
        success: [{ request_range: { key: keys.config } }, { request_range: { ...keys.leases, limit } }],
      },
      signal,
    ),
  );
  const { revision, cluster_id: clusterId } = first.header;
  const [config, page] = first.responses.map((response) => response.response_range);
  const leases: StoredLease[] = [];
  const nextPage = (last: IKeyValue | undefined): Promise<IRangeResponse> | undefined =>
    last &&
    pages.read((limit) =>
      client.read('KV.range', { ...keys.leases, key: afterKey(last.key), revision, limit }, signal),
    );
  let current: IRangeResponse | undefined = page;
  while (current !== undefined) {
    // etcd reads the next page while we decode this one.
    const next = current.more ? nextPage(current.kvs.at(-1)) : undefined;
    for (const kv of current.kvs) leases.push(keys.stored(kv));
    current = await next;
  }
  const stored = config?.kvs[0]?.value;
  return { revision, clusterId, network: stored && networkRecord(stored), leases };
}

class PageSize {
  #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  async read<T>(request: (limit: number) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await request(this.#limit);
      } catch (error) {
        const tooLarge = error instanceof RefusedCallError && error.reason === 'too-large';
        if (!tooLarge || this.#limit === 1) throw error;
        this.#limit = Math.ceil(this.#limit / 2);
      }
    }
  }
}
