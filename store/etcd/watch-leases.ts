/**
 * The watch of everything below the prefix, by these facts about etcd:
 *
 * - `header.revision` of a response with events can be ahead of them while a watcher catches up (etcd sends
 *   at most 1,000 revisions a time). The resume point is therefore the last event's own revision, never the
 *   header's. Events of one revision are never split over responses, except into fragments, which we put
 *   together.
 * - A response without events (progress) says that everything up to its header's revision has been sent.
 * - A watch from a revision that does not exist yet is silently kept until it does. So the revision is read
 *   first, by a quorum: if it is lower than what we have seen, the store was rewound.
 * - A watch from a compacted revision is created and then cancelled with `compact_revision`.
 * - An expired token makes a watch look forbidden: the read before it renews the token.
 */
import type { IEvent, IWatchRequest, IWatchResponse } from 'etcd3';
import { HistoryLostError, StoreAccessError, StoreUnavailableError } from '../errors.ts';
import { isMalformed, leaseName } from '../lease-codec.ts';
import type { LeaseChange, NetworkRecord, Revision, WatchBatch } from '../lease-store.ts';
import type { EtcdClient } from './etcd-client.ts';
import { type EtcdKeys, networkRecord } from './etcd-keys.ts';
import type { EtcdStream } from './etcd-stream.ts';

export interface WatchOptions {
  readonly after: Revision;
  /** Of the cluster that `after` is from, if it is known. */
  readonly clusterId: string | undefined;
  /** How long etcd may take to confirm the watch. */
  readonly createTimeoutMs: number;
}

type WatchMessages = [IWatchRequest, IWatchResponse];

/** @throws HistoryLostError, StoreUnavailableError, StoreAccessError */
export async function* watchLeases(
  client: EtcdClient,
  keys: EtcdKeys,
  options: WatchOptions,
  signal: AbortSignal,
): AsyncGenerator<WatchBatch, void> {
  await requireHistory(client, keys, options, signal);
  const stream = await client.stream('Watch.watch', signal);
  try {
    stream.write({
      create_request: {
        ...keys.all,
        start_revision: String(Number(options.after) + 1),
        progress_notify: true,
        fragment: true,
      },
    });
    yield* batches(stream, keys, options);
  } finally {
    stream.cancel();
  }
}

async function requireHistory(
  client: EtcdClient,
  keys: EtcdKeys,
  { after, clusterId }: WatchOptions,
  signal: AbortSignal,
): Promise<void> {
  const { header } = await client.read('KV.range', { key: keys.config, keys_only: true }, signal);
  if (Number(header.revision) < Number(after)) {
    throw new HistoryLostError(`etcd is at revision ${header.revision}, before our ${after}`, 'rewound');
  }
  if (clusterId !== undefined && header.cluster_id !== clusterId) {
    throw new HistoryLostError('the endpoints are another etcd cluster now', 'rewound');
  }
}

async function* batches(
  stream: EtcdStream<WatchMessages>,
  keys: EtcdKeys,
  options: WatchOptions,
): AsyncGenerator<WatchBatch, void> {
  let revision = options.after;
  let pending = new PendingBatch(keys);
  let late = false;
  const confirmation = setTimeout(() => {
    late = true;
    stream.cancel();
  }, options.createTimeoutMs);
  try {
    for await (const response of stream.responses()) {
      if (response.canceled) throw cancelled(response);
      if (response.created) {
        clearTimeout(confirmation);
        yield { revision, changes: [] };
        continue;
      }
      for (const event of response.events) pending.add(event);
      if (response.fragment) continue;
      // Progress of a member that lags behind may be older than what we know.
      const reached = pending.revision ?? response.header.revision;
      if (Number(reached) > Number(revision)) revision = reached;
      const batch = pending.take(revision);
      pending = new PendingBatch(keys);
      yield batch;
    }
  } catch (error) {
    if (late) throw new StoreUnavailableError('etcd: watch: not confirmed in time', { cause: error });
    throw error;
  } finally {
    clearTimeout(confirmation);
  }
}

/** The events of one response, or of its fragments. Decoded as they come: hostile values do not pile up. */
class PendingBatch {
  readonly #keys: EtcdKeys;
  readonly #changes: LeaseChange[] = [];
  #network: NetworkRecord | null | undefined;
  revision: Revision | undefined;

  constructor(keys: EtcdKeys) {
    this.#keys = keys;
  }

  add(event: IEvent): void {
    this.revision = event.kv.mod_revision;
    const deleted = event.type === 'Delete';
    if (event.kv.key.equals(this.#keys.config)) {
      this.#network = deleted ? null : networkRecord(event.kv.value);
      return;
    }
    const key = this.#keys.leaseKey(event.kv.key);
    if (key === undefined) return;
    if (deleted) {
      this.#changes.push({ type: 'delete', key: leaseName(key) });
      return;
    }
    const { decoded } = this.#keys.stored(event.kv);
    this.#changes.push(
      isMalformed(decoded) ? { type: 'malformed', malformed: decoded } : { type: 'put', lease: decoded },
    );
  }

  take(revision: Revision): WatchBatch {
    const network = this.#network === undefined ? {} : { network: this.#network };
    return { revision, changes: this.#changes, ...network };
  }
}

function cancelled(response: IWatchResponse): Error {
  if (Number(response.compact_revision) > 0) {
    return new HistoryLostError(
      `etcd has compacted its history up to ${response.compact_revision}`,
      'compacted',
    );
  }
  const reason = response.cancel_reason;
  if (/permission denied|auth/.test(reason)) {
    return new StoreAccessError(`etcd: watch: ${reason}; the user needs to read all keys below the prefix`);
  }
  return new StoreUnavailableError(`etcd: watch: cancelled: ${reason}`);
}
