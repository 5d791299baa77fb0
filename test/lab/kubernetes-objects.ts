/**
 * What the API server of the lab keeps: Nodes with their versions, as etcd keeps them. Every write makes a new
 * resource version, one for all objects; what each Node was at an earlier one is known until it is compacted.
 */
import { conflict, expired, invalid, notFound } from './kubernetes-status.ts';

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

export interface StoredEvent {
  readonly revision: number;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: JsonObject;
}

/** What a patch may change: the main resource leaves the status alone, the status the spec. */
export type Subresource = 'main' | 'status';

export class KubernetesObjects {
  /** Clusters have a history before us. */
  #revision = 1000;
  #compacted = 0;
  readonly #events: StoredEvent[] = [];
  /** The Nodes as they were at #compacted. */
  readonly #base = new Map<string, JsonObject>();
  readonly #nodes = new Map<string, JsonObject>();
  readonly #listeners = new Set<(event: StoredEvent) => void>();

  get revision(): number {
    return this.#revision;
  }

  get names(): string[] {
    return [...this.#nodes.keys()].sort();
  }

  find(name: string): JsonObject | undefined {
    return this.#nodes.get(name);
  }

  get(name: string): JsonObject {
    const node = this.#nodes.get(name);
    if (node === undefined) throw notFound(name);
    return node;
  }

  /** Whatever it is: validation is the business of who asks. */
  create(name: string, content: JsonObject): JsonObject {
    if (this.#nodes.has(name)) throw invalid(name, 'it exists');
    const { metadata, ...rest } = content;
    return this.#commit('ADDED', name, {
      kind: 'Node',
      apiVersion: 'v1',
      metadata: { ...objectOf(metadata), name, creationTimestamp: '2025-01-01T00:00:00Z' },
      ...rest,
    });
  }

  /** Puts another content in its place; the same again is no change, and no new version. */
  replace(name: string, content: JsonObject): JsonObject {
    const before = this.get(name);
    if (JSON.stringify(before) === JSON.stringify(content)) return before;
    return this.#commit('MODIFIED', name, content);
  }

  delete(name: string): void {
    const before = this.get(name);
    this.#commit('DELETED', name, before);
  }

  /** Something else in the cluster is written. */
  writeElsewhere(): void {
    this.#revision++;
  }

  /** @throws ApiFailure 410 */
  at(revision: number, continueToken: string): JsonObject[] {
    if (revision < this.#compacted) {
      throw expired(
        'The provided continue parameter is too old to display a consistent list result.',
        continueToken,
      );
    }
    const isNow = revision === this.#revision;
    const nodes = new Map(isNow ? this.#nodes : this.#base);
    for (const event of isNow ? [] : this.#events) {
      if (event.revision > revision) break;
      apply(nodes, event);
    }
    return [...nodes.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, node]) => node);
  }

  /** What happened after a revision. @throws ApiFailure 410 */
  since(revision: number): StoredEvent[] {
    if (revision < this.#compacted) {
      throw expired(`too old resource version: ${revision} (${this.#compacted})`);
    }
    return this.#events.filter((event) => event.revision > revision);
  }

  compact(): void {
    for (const event of this.#events) apply(this.#base, event);
    this.#events.length = 0;
    // etcd compacts what is before a revision; that one itself can still be read.
    this.#compacted = this.#revision;
  }

  /** What a backup has that is restored later. */
  backUp(): { readonly restore: () => void } {
    const [revision, nodes] = [this.#revision, new Map(this.#nodes)];
    return {
      restore: () => {
        this.#revision = revision;
        this.#compacted = revision;
        this.#events.length = 0;
        for (const map of [this.#base, this.#nodes]) {
          map.clear();
          for (const [name, node] of nodes) map.set(name, node);
        }
      },
    };
  }

  listen(listener: (event: StoredEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #commit(type: StoredEvent['type'], name: string, content: JsonObject): JsonObject {
    const revision = ++this.#revision;
    const metadata = { ...objectOf(content.metadata), resourceVersion: String(revision) };
    const object = { ...content, metadata };
    const event = { revision, type, object };
    apply(this.#nodes, event, name);
    this.#events.push(event);
    for (const listener of [...this.#listeners]) listener(event);
    return object;
  }
}

function apply(nodes: Map<string, JsonObject>, { type, object }: StoredEvent, name = nameOf(object)): void {
  if (type === 'DELETED') nodes.delete(name);
  else nodes.set(name, object);
}

export const nameOf = (object: JsonObject): string => String(objectOf(object.metadata).name ?? '');

export const objectOf = (value: Json | undefined): JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {};

/** A patch of either kind, applied as the API server applies it. @throws ApiFailure 409, 422 */
export function patched(
  before: JsonObject,
  patch: JsonObject,
  kind: 'merge' | 'strategic',
  subresource: Subresource,
): JsonObject {
  const name = nameOf(before);
  const wanted = objectOf(patch.metadata).resourceVersion;
  if (wanted !== undefined && wanted !== objectOf(before.metadata).resourceVersion) throw conflict(name);
  const merged = objectOf(mergePatch(before, patch, kind));
  const kept = subresource === 'main' ? 'status' : 'spec';
  const after: JsonObject = { ...merged };
  if (before[kept] === undefined) delete after[kept];
  else after[kept] = before[kept];
  const metadata = {
    ...objectOf(after.metadata),
    resourceVersion: objectOf(before.metadata).resourceVersion ?? '',
  };
  const result = { ...after, metadata };
  validate(name, before, result);
  return result;
}

/** What strategic merge patches of a Node merge by a key; other lists are replaced whole. */
const MERGE_KEYS: Readonly<Record<string, string>> = { conditions: 'type', addresses: 'type', taints: 'key' };

function mergePatch(before: Json | undefined, patch: Json, kind: 'merge' | 'strategic', field = ''): Json {
  const key = MERGE_KEYS[field];
  if (kind === 'strategic' && key !== undefined && Array.isArray(patch)) {
    const merged = [...(Array.isArray(before) ? before : [])];
    for (const item of patch) {
      const at = merged.findIndex((each) => objectOf(each)[key] === objectOf(item)[key]);
      if (at < 0) merged.push(item);
      else merged[at] = mergePatch(merged[at], item, kind);
    }
    return merged;
  }
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const result: JsonObject = { ...objectOf(before) };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = mergePatch(result[name], value, kind, name);
  }
  return result;
}

/** Of the many rules for Nodes, those that a lease could break. */
function validate(name: string, before: JsonObject, after: JsonObject): void {
  const [old, now] = [objectOf(before.spec), objectOf(after.spec)];
  for (const field of ['podCIDR', 'podCIDRs']) {
    const isChanged = JSON.stringify(old[field]) !== JSON.stringify(now[field]);
    if (old[field] !== undefined && isChanged) {
      throw invalid(
        name,
        `spec.${field}: Forbidden: node updates may only change labels, taints, or capacity`,
      );
    }
  }
  const annotations = objectOf(objectOf(after.metadata).annotations);
  let bytes = 0;
  for (const [key, value] of Object.entries(annotations)) {
    if (!/^(?:[a-z0-9.-]{1,253}\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/.test(key)) {
      throw invalid(name, `metadata.annotations: Invalid value: "${key}"`);
    }
    if (typeof value !== 'string') throw invalid(name, `metadata.annotations: "${key}" is no string`);
    bytes += key.length + value.length;
  }
  if (bytes > 262_144)
    throw invalid(name, 'metadata.annotations: Too long: may not be more than 262144 bytes');
}
