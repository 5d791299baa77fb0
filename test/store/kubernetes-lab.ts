/**
 * The conformance suite's lab on Kubernetes. Its clients act for many nodes, a daemon's store for one alone: so each
 * claimant has a Node of its own, known as a machine is by what it writes, and a store of its own, and its kubelet
 * registers the Node before the daemon claims. What an operator, a flannel node or time would do:
 *
 *   an entry is put        a Node has these podCIDRs and annotations; whoever had the podCIDRs has none now
 *   it has no VTEP         an operator wrote the node's address: public-ip-overwrite
 *   it is removed, or expires   the Node is deleted
 *   fields of others       further annotations
 */

import { openTransport } from '../../overlay/leases/kubernetes-http.ts';
import { FAMILIES, formatSubnet } from '../../store/address.ts';
import { delay } from '../../store/backoff.ts';
import { type KubernetesStoreOptions, openKubernetesStore } from '../../store/kubernetes/kubernetes-store.ts';
import type { NetworkSource } from '../../store/kubernetes/network-source.ts';
import { ANNOTATION_PREFIX } from '../../store/kubernetes/node-object.ts';
import type { LeaseAttributes, NetworkConfig } from '../../store/lease.ts';
import { decodeAttributes, decodeLeaseKey } from '../../store/lease-codec.ts';
import type {
  ClaimRequest,
  HeldLease,
  LeaseSnapshot,
  LeaseStore,
  WatchBatch,
} from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { KubernetesApi, type KubernetesApiOptions } from '../lab/kubernetes-api.ts';
import { KubernetesCluster, podCidrsOf } from '../lab/kubernetes-cluster.ts';
import { objectOf } from '../lab/kubernetes-objects.ts';
import type { StoreLab } from './store-lab.ts';

/** A document that a test changes, in the place of a file. */
export class NetworkDocument implements NetworkSource {
  #text: string | undefined;
  readonly #listeners = new Set<() => void>();

  get text(): string | undefined {
    return this.#text;
  }

  set(text: string | undefined): void {
    this.#text = text;
    for (const listener of [...this.#listeners]) listener();
  }

  async read(): Promise<string | undefined> {
    return this.#text;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export class KubernetesLab implements StoreLab {
  readonly api: KubernetesApi;
  readonly cluster: KubernetesCluster;
  readonly document = new NetworkDocument();
  readonly #opened: LeaseStore[] = [];
  /** Machines by what they write: a VTEP's MAC, a public address. */
  readonly #names = new Map<string, string>();

  private constructor(api: KubernetesApi) {
    this.api = api;
    this.cluster = new KubernetesCluster(api);
  }

  static async create(options?: KubernetesApiOptions): Promise<KubernetesLab> {
    return new KubernetesLab(await KubernetesApi.start(options));
  }

  /** The store of one node, as its daemon has it. */
  openNode(nodeName: string, options: Partial<KubernetesStoreOptions> = {}): LeaseStore {
    const server = this.api.url;
    const store = openKubernetesStore({
      transport: openTransport({ server, credentials: async () => ({}) }),
      nodeName,
      network: this.document,
      random: Math.random,
      now: Date.now,
      clock: () => performance.now(),
      sleep: delay,
      ...options,
    });
    this.#opened.push(store);
    return store;
  }

  async open(): Promise<LeaseStore> {
    const client = new Client(this);
    this.#opened.push(client);
    return client;
  }

  /** The Node of whoever writes this. */
  nodeOf(attributes: LeaseAttributes): string {
    const marks = FAMILIES.flatMap((family) => [
      attributes.vtep[family]?.mac,
      attributes.publicAddress[family],
    ]);
    const known = marks.flatMap((mark) => (mark === undefined ? [] : (this.#names.get(mark) ?? [])))[0];
    const name = known ?? `node-${new Set(this.#names.values()).size + 1}`;
    for (const mark of marks) if (mark !== undefined) this.#names.set(mark, name);
    return name;
  }

  async put(key: string, text: string): Promise<void> {
    if (key === 'config') {
      this.document.set(text);
      this.#allocate();
      return;
    }
    const cidrs = cidrsOf(key);
    const holder = this.cluster.holderOf(cidrs);
    const attributes = decodeAttributes(text);
    const name =
      typeof attributes === 'string'
        ? (holder ?? `unreadable-${this.api.objects.revision}`)
        : this.nodeOf(attributes);
    if (holder !== undefined && holder !== name) this.api.objects.delete(holder);
    const before = this.api.objects.find(name);
    if (before !== undefined && JSON.stringify(podCidrsOf(before)) !== JSON.stringify(cidrs)) {
      this.api.objects.delete(name);
    }
    if (this.api.objects.find(name) !== undefined) this.#clearAnnotations(name, text);
    else this.cluster.put(name, cidrs, annotationsOf(text));
  }

  async remove(key: string): Promise<void> {
    if (key === 'config') this.document.set(undefined);
    else this.#delete(key);
  }

  async get(key: string): Promise<string | undefined> {
    const name = this.cluster.holderOf(cidrsOf(key));
    return name === undefined ? undefined : textOf(this.annotations(name));
  }

  async expire(key: string): Promise<void> {
    this.#delete(`subnets/${key}`);
  }

  /** It lives as long as its Node, unless an operator wrote it. */
  async expires(key: string): Promise<boolean> {
    const name = this.cluster.holderOf(cidrsOf(`subnets/${key}`)) ?? '';
    return this.annotations(name)[`${ANNOTATION_PREFIX}public-ip-overwrite`] === undefined;
  }

  async forgetHistory(): Promise<void> {
    this.api.compact();
  }

  async close(): Promise<void> {
    for (const store of this.#opened) await store.close();
    await this.api.close();
  }

  annotations(name: string): Record<string, string> {
    const { metadata } = this.api.objects.get(name);
    return objectOf(objectOf(metadata).annotations) as Record<string, string>;
  }

  #allocate(): void {
    let network: NetworkConfig | undefined;
    try {
      network = parseNetworkConfig(this.document.text ?? '');
    } catch {
      return;
    }
    this.cluster.allocateFrom(network);
  }

  #delete(key: string): void {
    const name = this.cluster.holderOf(cidrsOf(key));
    if (name !== undefined) this.cluster.remove(name);
  }

  /** flannel's annotations of a Node become these and no others. */
  #clearAnnotations(name: string, text: string): void {
    const node = this.api.objects.get(name);
    const metadata = objectOf(node.metadata);
    const others = Object.entries(objectOf(metadata.annotations)).filter(
      ([each]) => !each.startsWith(ANNOTATION_PREFIX),
    );
    const annotations = { ...Object.fromEntries(others), ...annotationsOf(text) };
    this.api.objects.replace(name, { ...node, metadata: { ...metadata, annotations } });
  }
}

/** `subnets/10.244.5.0-24&fc00::-64` names these podCIDRs. */
function cidrsOf(key: string): string[] {
  const name = key.replace(/^subnets\//, '');
  const subnets = decodeLeaseKey(name);
  if (subnets === undefined) return [name];
  return FAMILIES.flatMap((family) => subnets[family] ?? []).map(formatSubnet);
}

const FIELDS: Readonly<Record<string, string>> = {
  PublicIP: 'public-ip',
  PublicIPv6: 'public-ipv6',
  BackendType: 'backend-type',
  BackendData: 'backend-data',
  BackendV6Data: 'backend-v6-data',
};

/** etcd's document as a Node has it; what is no document, as an address that is none. */
function annotationsOf(text: string): Record<string, string> {
  let document: Record<string, unknown>;
  try {
    document = JSON.parse(text);
  } catch {
    document = { PublicIP: text };
  }
  const isReservation = typeof document.Owner === 'string';
  const annotations: Record<string, string> = { [`${ANNOTATION_PREFIX}kube-subnet-manager`]: 'true' };
  for (const [field, value] of Object.entries(document)) {
    if (value === null) continue;
    const isText = typeof value === 'string' && field in FIELDS;
    annotations[ANNOTATION_PREFIX + (FIELDS[field] ?? field)] = isText ? value : JSON.stringify(value);
  }
  if (isReservation) annotations[`${ANNOTATION_PREFIX}public-ip-overwrite`] = String(document.PublicIP);
  return annotations;
}

/** The other way round, in flannel's order. */
function textOf(annotations: Readonly<Record<string, string>>): string {
  const has = (name: string): string | undefined => annotations[ANNOTATION_PREFIX + name];
  const parsed = (name: string): unknown => JSON.parse(has(name) ?? 'null') ?? undefined;
  const known = [...Object.values(FIELDS), 'kube-subnet-manager', 'public-ip-overwrite'];
  const others = Object.entries(annotations)
    .filter(([name]) => name.startsWith(ANNOTATION_PREFIX))
    .map(([name, value]) => [name.slice(ANNOTATION_PREFIX.length), value] as const)
    .filter(([name]) => !known.includes(name));
  return JSON.stringify({
    PublicIP: has('public-ip') ?? '0.0.0.0',
    PublicIPv6: has('public-ipv6') ?? null,
    BackendType: has('backend-type'),
    BackendData: parsed('backend-data'),
    BackendV6Data: parsed('backend-v6-data'),
    ...Object.fromEntries(others.map(([name, value]) => [name, JSON.parse(value)])),
  });
}

/** A client that reads as one node and claims as whoever claims. */
class Client implements LeaseStore {
  readonly kind = 'kubernetes';
  readonly #lab: KubernetesLab;
  readonly #reader: LeaseStore;
  readonly #nodes = new Map<string, LeaseStore>();
  #isClosed = false;

  constructor(lab: KubernetesLab) {
    this.#lab = lab;
    this.#reader = lab.openNode('reader');
  }

  networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined> {
    return this.#reader.networkConfig(signal);
  }

  claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    return this.#storeOf(request.remembered?.attributes ?? request.attributes).claim(request, signal);
  }

  renew(held: HeldLease, attributes: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    return this.#storeOf(held.lease.attributes).renew(held, attributes, signal);
  }

  release(held: HeldLease, signal: AbortSignal): Promise<void> {
    return this.#storeOf(held.lease.attributes).release(held, signal);
  }

  snapshot(signal: AbortSignal): Promise<LeaseSnapshot> {
    return this.#reader.snapshot(signal);
  }

  watch(after: string, signal: AbortSignal): AsyncIterable<WatchBatch> {
    return this.#reader.watch(after, signal);
  }

  compareRevisions(a: string, b: string): number {
    return this.#reader.compareRevisions(a, b);
  }

  reconnect(): void {
    for (const store of this.#nodes.values()) store.reconnect();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const store of [this.#reader, ...this.#nodes.values()]) await store.close();
  }

  /** Its kubelet runs, whatever became of its Node. */
  #storeOf(attributes: LeaseAttributes): LeaseStore {
    const name = this.#lab.nodeOf(attributes);
    const store = this.#nodes.get(name) ?? this.#lab.openNode(name);
    this.#nodes.set(name, store);
    if (this.#isClosed) void store.close();
    else this.#lab.cluster.register(name);
    return store;
  }
}
