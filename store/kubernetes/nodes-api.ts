/** The five requests that the store makes: its whole need of the API, and of permissions. */
import { StoreUnavailableError } from '../errors.ts';
import type { Revision } from '../lease-store.ts';
import type { ApiClient } from './api-client.ts';
import { ApiStatusError, ForbiddenError, isExpired, isStatus, LostAnswerError } from './api-errors.ts';
import { fields, type NodeObject, readNode } from './node-object.ts';
import type { ApiRequest, ApiResponse } from './transport.ts';

const NODES = '/api/v1/nodes';
const METADATA_ONLY =
  'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;q=0.5';
/** RFC 7386. */
const MERGE_PATCH = 'application/merge-patch+json';
/** Kubernetes' own: conditions are merged by their type. */
const STRATEGIC_PATCH = 'application/strategic-merge-patch+json';
/** A continue token lives as long as history does, five minutes; more than once is no accident. */
const EXPIRED_TRIES = 5;
const [NOT_FOUND, CONFLICT, SERVER_ERROR] = [404, 409, 500];

export interface NodeList {
  /** Of all pages. */
  readonly revision: Revision;
  readonly nodes: readonly NodeObject[];
}

export class NodesApi {
  readonly #client: ApiClient;
  readonly #pageSize: number;

  constructor(client: ApiClient, pageSize: number) {
    this.#client = client;
    this.#pageSize = pageSize;
  }

  /**
   * Every Node at one revision, page by page. When history is compacted while pages are read, the server
   * offers to go on at a newer revision, which would be no snapshot: it begins again.
   */
  async list(signal: AbortSignal): Promise<NodeList> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#listOnce(signal);
      } catch (error) {
        if (!isExpired(error)) throw error;
        if (tries < EXPIRED_TRIES) continue;
        const message = 'Kubernetes compacts its history faster than its Nodes can be read';
        throw new StoreUnavailableError(message, { cause: error });
      }
    }
  }

  async #listOnce(signal: AbortSignal): Promise<NodeList> {
    const nodes: NodeObject[] = [];
    const keep = (item: unknown): void => {
      const node = readNode(item);
      if (node !== undefined) nodes.push(node);
    };
    let [revision, token] = ['', ''];
    do {
      const query = new URLSearchParams({ limit: String(this.#pageSize), ...(token && { continue: token }) });
      const request = { method: 'GET', path: `${NODES}?${query}` } as const;
      const page = await this.#client.list(LIST, request, keep, signal);
      const { resourceVersion, continue: next } = fields(fields(page).metadata);
      if (revision === '') revision = String(resourceVersion ?? '');
      token = typeof next === 'string' ? next : '';
    } while (token !== '');
    return { revision, nodes };
  }

  /** How far the cluster's history has got: the smallest list there is, read by quorum as every list. */
  async revision(signal: AbortSignal): Promise<Revision> {
    const path = `${NODES}?limit=1`;
    const list = await this.#client.call(LIST, { method: 'GET', path, accept: METADATA_ONLY }, signal);
    return String(fields(fields(list).metadata).resourceVersion ?? '');
  }

  /** Undefined: there is no such Node. */
  async get(name: string, signal: AbortSignal): Promise<NodeObject | undefined> {
    try {
      return readNode(await this.#client.call(GET, { method: 'GET', path: pathOf(name) }, signal));
    } catch (error) {
      if (isStatus(error, NOT_FOUND)) return undefined;
      throw error;
    }
  }

  /** The events after a revision, of all Nodes or of one: see watch-nodes.ts. */
  watch(
    after: Revision,
    { name, timeoutSeconds }: { readonly name?: string; readonly timeoutSeconds: number },
    signal: AbortSignal,
  ): Promise<ApiResponse> {
    const query = new URLSearchParams({
      watch: 'true',
      allowWatchBookmarks: 'true',
      // Without one it begins with what is there.
      ...(after !== '' && { resourceVersion: after }),
      timeoutSeconds: String(timeoutSeconds),
      ...(name !== undefined && { fieldSelector: `metadata.name=${name}` }),
    });
    return this.#client.open(WATCH, { method: 'GET', path: `${NODES}?${query}` }, signal);
  }

  /**
   * Changes annotations of a Node that is still as it was read.
   * @returns undefined when it is not, or when it is not known what became of the patch: read it again
   */
  async patchAnnotations(
    { name, resourceVersion }: NodeObject,
    annotations: Readonly<Record<string, string | null>>,
    signal: AbortSignal,
  ): Promise<NodeObject | undefined> {
    const body = JSON.stringify({ metadata: { resourceVersion, annotations } });
    const request = { method: 'PATCH', path: pathOf(name), contentType: MERGE_PATCH, body } as const;
    try {
      return readNode(await this.#patch(request, signal));
    } catch (error) {
      const isUnknown =
        error instanceof LostAnswerError || (error instanceof ApiStatusError && error.status >= SERVER_ERROR);
      if (isUnknown || isStatus(error, CONFLICT)) return undefined;
      throw error;
    }
  }

  /** flannel's role may patch a Node's status alone, which takes annotations as well: with it we can do without. */
  async #patch(request: ApiRequest, signal: AbortSignal): Promise<unknown> {
    try {
      return await this.#client.call(PATCH, request, signal);
    } catch (error) {
      if (!(error instanceof ForbiddenError)) throw error;
      const path = `${request.path}/status`;
      return await this.#client.call(PATCH_STATUS, { ...request, path }, signal).catch((second: unknown) => {
        throw second instanceof ForbiddenError ? error : second;
      });
    }
  }

  /** Writes one condition of a Node; the others stay. */
  async patchCondition(name: string, condition: object, signal: AbortSignal): Promise<void> {
    const body = JSON.stringify({ status: { conditions: [condition] } });
    const path = `${pathOf(name)}/status`;
    await this.#client.call(
      PATCH_STATUS,
      { method: 'PATCH', path, contentType: STRATEGIC_PATCH, body },
      signal,
    );
  }
}

const pathOf = (name: string): string => `${NODES}/${encodeURIComponent(name)}`;

const GET = { verb: 'get', resource: 'nodes' } as const;
const LIST = { verb: 'list', resource: 'nodes' } as const;
const WATCH = { verb: 'watch', resource: 'nodes' } as const;
const PATCH = { verb: 'patch', resource: 'nodes' } as const;
const PATCH_STATUS = { verb: 'patch', resource: 'nodes/status' } as const;
