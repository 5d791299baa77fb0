/**
 * The LeaseStore on Kubernetes: a Node is a lease. Its subnets are the Node's podCIDRs, which the controller
 * gives; what is written are annotations of this node's own Node, as flannel's kube subnet manager writes them,
 * so that nodes of both can share a cluster. The cluster's network is a file that every node has.
 *
 * Nothing expires: a lease ends with its Node. Its time to live says how often it is looked at. A Node whose
 * address an operator has written (`public-ip-overwrite`) is a reservation: it is not given back.
 */
import { FAMILIES, type Family, type PerFamily, type Subnet } from '../address.ts';
import type { Clock, Sleep } from '../backoff.ts';
import { HistoryLostError } from '../errors.ts';
import type { Lease, LeaseAttributes, MalformedLease, NetworkConfig } from '../lease.ts';
import { encodeLeaseKey } from '../lease-codec.ts';
import type {
  ClaimRequest,
  HeldLease,
  LeaseChange,
  LeaseSnapshot,
  LeaseStore,
  NetworkRecord,
  Revision,
  WatchBatch,
} from '../lease-store.ts';
import type { Random } from '../subnet-choice.ts';
import { ApiClient } from './api-client.ts';
import { LeaseTable } from './lease-table.ts';
import { asCut, familiesOf, type NetworkSource, recordOf, sameFamilies } from './network-source.ts';
import { isMalformedLease, leaseOf, subnetsOf } from './node-lease.ts';
import type { NodeObject } from './node-object.ts';
import { NodesApi } from './nodes-api.ts';
import { Notice } from './notice.ts';
import { OwnNode } from './own-node.ts';
import type { KubernetesTransport } from './transport.ts';
import { type NodeBatch, watchNodes } from './watch-nodes.ts';

export interface KubernetesStoreOptions {
  readonly transport: KubernetesTransport;
  /** Of this node's Node. */
  readonly nodeName: string;
  readonly network: NetworkSource;
  readonly random: Random;
  /** Wall-clock milliseconds: the time of a condition, and until when a lease is looked at again. */
  readonly now: Clock;
  /** Monotonic milliseconds. */
  readonly clock: Clock;
  readonly sleep: Sleep;
  readonly callTimeoutMs?: number | undefined;
  /** How many Nodes one answer carries. */
  readonly pageSize?: number | undefined;
  readonly silenceMs?: number | undefined;
}

/** A page of Nodes is read from etcd and is some megabytes; the server itself gives up after a minute. */
const CALL_TIMEOUT_MS = 15_000;
/** client-go's own: some five megabytes, which are read in a tenth of a second. */
const PAGE_SIZE = 500;
/** Two bookmarks and a half: they come about every minute. */
const SILENCE_MS = 150_000;
/**
 * Bookmarks tell that a watch is alive and how far it is, so a list is needed when they say so, or history is
 * lost: of 5,000 daemons, each listing 5,000 Nodes every few minutes, the API server would have no other work.
 */
const RELIST_INTERVAL_MS = 6 * 3_600_000;

/** Opens no connection yet: a server that is away is found by the first call. */
export function openKubernetesStore(options: KubernetesStoreOptions): LeaseStore {
  return new KubernetesStore(options);
}

class KubernetesStore implements LeaseStore {
  readonly kind = 'kubernetes';
  readonly relistIntervalMs = RELIST_INTERVAL_MS;
  readonly #options: KubernetesStoreOptions;
  readonly #client: ApiClient;
  readonly #api: NodesApi;
  readonly #own: OwnNode;
  /** What the view of a watch from `at` holds; of any other, nothing is known. */
  #known: { readonly table: LeaseTable; readonly at: Revision | undefined };
  /** The network configuration that the view was told last, as text. */
  #toldNetwork: string | undefined;
  #hasTold = false;
  #families: readonly Family[] = FAMILIES;
  #ownSubnets: PerFamily<Subnet> | undefined;
  /** Watches that are to look at the network configuration again. */
  readonly #notices = new Set<Notice>();

  constructor(options: KubernetesStoreOptions) {
    this.#options = options;
    const {
      transport,
      sleep,
      now,
      nodeName,
      callTimeoutMs = CALL_TIMEOUT_MS,
      pageSize = PAGE_SIZE,
    } = options;
    this.#client = new ApiClient({ transport, sleep, callTimeoutMs });
    this.#api = new NodesApi(this.#client, pageSize);
    this.#own = new OwnNode({
      name: nodeName,
      api: this.#api,
      now,
      onRead: (node) => this.#learnOwn(node),
      onMisfit: () => this.#lookAtNetwork(),
    });
    this.#known = { table: new LeaseTable(nodeName), at: undefined };
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined> {
    this.#client.throwIfEnded(signal);
    const record = asCut(await this.#networkRecord(), this.#ownSubnets);
    if (record !== undefined && 'fault' in record) throw record.fault;
    return record?.config;
  }

  claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    return this.#own.claim(request, signal);
  }

  renew(held: HeldLease, attributes: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    return this.#own.renew(held, attributes, signal);
  }

  release(held: HeldLease, signal: AbortSignal): Promise<void> {
    return this.#own.release(held, signal);
  }

  announceReady(signal: AbortSignal): Promise<void> {
    return this.#own.announceReady(signal);
  }

  async snapshot(signal: AbortSignal): Promise<LeaseSnapshot> {
    this.#client.throwIfEnded(signal);
    const { nodeName } = this.#options;
    const record = await this.#networkRecord();
    const { revision, nodes } = await this.#api.list(signal);
    this.#families = familiesOf(record) ?? this.#families;
    const table = new LeaseTable(nodeName);
    const leases = new Map<string, Lease>();
    const malformed = new Map<string, MalformedLease>();
    const own = nodes.find(({ name }) => name === nodeName);
    // Ours first: it is never refused.
    for (const node of own === undefined ? nodes : [own, ...nodes]) {
      for (const change of table.put(node.name, this.#leaseOf(node))) {
        if (change.type === 'put') leases.set(change.lease.key, change.lease);
        else if (change.type === 'malformed') malformed.set(change.malformed.key, change.malformed);
      }
    }
    if (own !== undefined) this.#learnOwn(own);
    this.#known = { table, at: revision };
    const network = asCut(record, this.#ownSubnets);
    this.#isNews(network);
    return { revision, leases, malformed: [...malformed.values()], network };
  }

  async *watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch> {
    if (signal.aborted) return;
    const { network, random, clock, silenceMs = SILENCE_MS } = this.#options;
    const ending = new AbortController();
    const abort = (): void => ending.abort(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    const notice = new Notice();
    // Once in any case: it may have changed before anybody listened.
    notice.tell();
    this.#notices.add(notice);
    const unlisten = network.onChange(() => notice.tell());
    const options = { api: this.#api, server: this.#client.server, after, random, clock, silenceMs };
    const nodes = watchNodes(options, ending.signal);
    try {
      yield* this.#batches(after, nodes, notice);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      signal.removeEventListener('abort', abort);
      unlisten();
      this.#notices.delete(notice);
      ending.abort();
      // It may rest between two batches, with a timer that runs.
      nodes.return(undefined as never).catch(() => {});
    }
  }

  /** Decimal numbers that rise: not promised to clients before Kubernetes 1.35, and true since the first. */
  compareRevisions(a: Revision, b: Revision): number {
    return Number(a) - Number(b);
  }

  reconnect(): void {
    this.#options.transport.reconnect();
  }

  async close(): Promise<void> {
    this.#client.close();
  }

  /** Batches of the Nodes' watch, and between them the network configuration when that has changed. */
  async *#batches(
    after: Revision,
    nodes: AsyncGenerator<NodeBatch, never>,
    notice: Notice,
  ): AsyncGenerator<WatchBatch, void> {
    const isComplete = this.#known.at === after;
    // Whoever did not list here is told what changes from now on.
    if (!this.#hasTold) await this.#networkNews();
    const table = isComplete ? this.#known.table : new LeaseTable(this.#options.nodeName);
    const families = this.#families;
    let revision = after;
    let next: Promise<IteratorResult<NodeBatch, never>> | undefined;
    let stands = false;
    for (;;) {
      next ??= nodes.next();
      const arrived = await (stands ? Promise.race([next, notice.told()]) : next);
      let changes: LeaseChange[] = [];
      if (arrived !== undefined) {
        next = undefined;
        stands = true;
        ({ revision } = arrived.value);
        this.#known = { table, at: undefined };
        changes = this.#changesOf(arrived.value, table, isComplete);
      }
      const network = notice.heard() ? await this.#networkNews() : undefined;
      if (!sameFamilies(families, this.#families)) {
        throw new HistoryLostError("the cluster network's families are others now", 'gap');
      }
      if (arrived === undefined && network === undefined) continue;
      this.#known = { table, at: isComplete ? revision : undefined };
      yield { revision, changes, ...(network !== undefined && { network }) };
    }
  }

  #changesOf(batch: NodeBatch, table: LeaseTable, isComplete: boolean): LeaseChange[] {
    return batch.changes.flatMap(({ node, isDeleted }) => {
      if (node.name === this.#own.name && !isDeleted) this.#learnOwn(node);
      const lease = isDeleted ? undefined : this.#leaseOf(node);
      if (lease !== undefined) return table.put(node.name, lease);
      const subnets = subnetsOf(node, this.#families);
      const isAny = subnets?.ipv4 !== undefined || subnets?.ipv6 !== undefined;
      return table.delete(node.name, !isComplete && isAny ? encodeLeaseKey(subnets) : undefined);
    });
  }

  #leaseOf(node: NodeObject): Lease | MalformedLease | undefined {
    const lease = leaseOf(node, this.#families);
    const isOurs = node.name === this.#own.name && lease !== undefined && !isMalformedLease(lease);
    return isOurs ? this.#own.asItShallBe(node, lease) : lease;
  }

  #learnOwn(node: NodeObject): void {
    const subnets = subnetsOf(node, this.#families);
    const before = this.#ownSubnets;
    const isAny = subnets?.ipv4 !== undefined || subnets?.ipv6 !== undefined;
    this.#ownSubnets = isAny ? subnets : undefined;
    if (JSON.stringify(before) !== JSON.stringify(this.#ownSubnets)) this.#lookAtNetwork();
  }

  #lookAtNetwork(): void {
    for (const notice of this.#notices) notice.tell();
  }

  async #networkRecord(): Promise<NetworkRecord | undefined> {
    try {
      return recordOf(await this.#options.network.read());
    } catch (error) {
      return { fault: error instanceof Error ? error : new Error(String(error)) };
    }
  }

  /** The network configuration where it is not what was told last; null: there is none any more. */
  async #networkNews(): Promise<NetworkRecord | null | undefined> {
    const written = await this.#networkRecord();
    this.#families = familiesOf(written) ?? this.#families;
    const record = asCut(written, this.#ownSubnets);
    return this.#isNews(record) ? (record ?? null) : undefined;
  }

  #isNews(record: NetworkRecord | undefined): boolean {
    const text = record && JSON.stringify('fault' in record ? { fault: record.fault.message } : record);
    const isNews = !this.#hasTold || text !== this.#toldNetwork;
    this.#hasTold = true;
    this.#toldNetwork = text;
    return isNews;
  }
}
