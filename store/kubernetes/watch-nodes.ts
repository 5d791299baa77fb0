/**
 * The watch of all Nodes, by these facts about the Kubernetes API (docs: "Kubernetes API Concepts"):
 *
 * - A watch is one HTTP response without an end: a JSON object a line, `{"type": ..., "object": ...}`. Its head
 *   comes at once. Events come in the order of their resource versions; a deletion's object is the Node as it was
 *   last, with the deletion's own version.
 * - The server ends a watch after `timeoutSeconds`, and whenever it likes: then it is made anew from the last
 *   version, and nothing was lost.
 * - A BOOKMARK, about once a minute where one was asked for, has nothing but a version: everything up to it has
 *   been sent. So a watch that sends nothing for longer is not alive, or its server sends no bookmarks: either
 *   way it is made anew.
 * - Resource versions are those of the cluster's etcd, and count for all kinds of objects. A watch from a version
 *   that does not exist yet is silently kept until it does: so the server is asked first how far it is. If that
 *   is less than what we have seen, the cluster was restored from a backup.
 * - A watch from a version before the server's history is answered by 410, as the answer or as an ERROR event.
 */
import type { Clock } from '../backoff.ts';
import { HistoryLostError, StoreUnavailableError } from '../errors.ts';
import type { Revision } from '../lease-store.ts';
import type { Random } from '../subnet-choice.ts';
import { eventError, isExpired } from './api-errors.ts';
import { fields, type NodeObject, readNode } from './node-object.ts';
import type { NodesApi } from './nodes-api.ts';
import type { ApiResponse } from './transport.ts';

export interface WatchNodesOptions {
  readonly api: NodesApi;
  readonly server: string;
  readonly after: Revision;
  readonly random: Random;
  readonly clock: Clock;
  /** How long a watch may say nothing before it is made anew, in milliseconds. */
  readonly silenceMs: number;
}

export interface NodeChange {
  readonly node: NodeObject;
  readonly isDeleted: boolean;
}

/** What brings what is known to `revision`; without changes it is a sign of life. */
export interface NodeBatch {
  readonly revision: Revision;
  readonly changes: readonly NodeChange[];
}

/** The server's own choice is 30 to 60 minutes; a shorter one finds a better server sooner. Spread, so that not all nodes come at once. */
const TIMEOUT_SECONDS = { least: 300, spread: 300 };
/** A watch that ends sooner, having said nothing, is no watch: what ends it would do so again. */
const LEAST_LIFE_MS = 1000;
const OPERATION = { verb: 'watch', resource: 'nodes' } as const;

/**
 * Ends when the signal aborts, by its reason.
 * @throws HistoryLostError, StoreUnavailableError, StoreAccessError
 */
export async function* watchNodes(
  options: WatchNodesOptions,
  signal: AbortSignal,
): AsyncGenerator<NodeBatch, never> {
  const { api, clock } = options;
  let revision = options.after;
  for (;;) {
    await requireHistory(api, revision, signal);
    const startedAtMs = clock();
    const response = await openWatch(options, revision, signal);
    let said = false;
    try {
      yield { revision, changes: [] };
      for await (const batch of batches(options, response)) {
        said = true;
        // A server that lags behind another may repeat what we know.
        if (Number(batch.revision) < Number(revision)) continue;
        revision = batch.revision;
        yield batch;
      }
    } finally {
      response.cancel();
    }
    signal.throwIfAborted();
    if (!said && clock() - startedAtMs < LEAST_LIFE_MS) {
      throw new StoreUnavailableError(`Kubernetes ${options.server}: watch nodes: ended as soon as it began`);
    }
  }
}

async function requireHistory(api: NodesApi, after: Revision, signal: AbortSignal): Promise<void> {
  const now = await api.revision(signal);
  if (Number(now) >= Number(after)) return;
  throw new HistoryLostError(`Kubernetes is at resource version ${now}, before our ${after}`, 'rewound');
}

async function openWatch(
  { api, random }: WatchNodesOptions,
  after: Revision,
  signal: AbortSignal,
): Promise<ApiResponse> {
  const timeoutSeconds = Math.round(TIMEOUT_SECONDS.least + TIMEOUT_SECONDS.spread * random());
  try {
    return await api.watch(after, { timeoutSeconds }, signal);
  } catch (error) {
    throw isExpired(error) ? compacted(after, error) : error;
  }
}

const compacted = (after: Revision, cause: unknown): HistoryLostError =>
  new HistoryLostError(`Kubernetes has forgotten what happened after ${after}`, 'compacted', { cause });

/** The events of one response, those that came together as one batch; ends with it, or when it falls silent. */
async function* batches(
  { server, after, silenceMs }: WatchNodesOptions,
  response: ApiResponse,
): AsyncGenerator<NodeBatch, void> {
  let silence: NodeJS.Timeout | undefined;
  let isSilent = false;
  const listen = (): void => {
    clearTimeout(silence);
    silence = setTimeout(() => {
      isSilent = true;
      response.cancel();
    }, silenceMs);
  };
  let rest = '';
  try {
    listen();
    for await (const piece of response.body) {
      listen();
      const lines = (rest + piece).split('\n');
      rest = lines.pop() ?? '';
      const batch = batchOf(lines, server, after);
      if (batch !== undefined) yield batch;
      // What the consumer takes its time for is not the server's silence.
      listen();
    }
  } catch (error) {
    if (!isSilent) throw error;
  } finally {
    clearTimeout(silence);
  }
}

function batchOf(lines: readonly string[], server: string, after: Revision): NodeBatch | undefined {
  const changes: NodeChange[] = [];
  let revision: Revision | undefined;
  for (const line of lines) {
    if (line === '') continue;
    const { type, object } = fields(JSON.parse(line));
    if (type === 'ERROR') {
      const error = eventError(server, OPERATION, object);
      throw isExpired(error) ? compacted(after, error) : error;
    }
    const { resourceVersion } = fields(fields(object).metadata);
    if (typeof resourceVersion !== 'string') continue;
    revision = resourceVersion;
    const node = type === 'BOOKMARK' ? undefined : readNode(object);
    if (node !== undefined) changes.push({ node, isDeleted: type === 'DELETED' });
  }
  return revision === undefined ? undefined : { revision, changes };
}
