/**
 * The LeaseStore on Kubernetes: a Node is a lease. Its subnets are the Node's podCIDRs, which the controller
 * gives; what is written are annotations of this node's own Node, as flannel's kube subnet manager writes them,
 * so that nodes of both can share a cluster.
 *
 * Nothing expires: a lease ends with its Node. Its time to live says how often it is looked at. A Node whose
 * address an operator has written (`public-ip-overwrite`) is a reservation: it is not given back.
 *
 * What decides about our Node is its content and its resource version, in every patch. Whoever has our node name
 * and is not us is found by what it writes.
 */
import type { Family, PerFamily, Subnet } from '../address.ts';
import { FAMILIES, subnetsOverlap } from '../address.ts';
import type { Clock, Sleep } from '../backoff.ts';
import {
  HistoryLostError,
  LeaseLostError,
  NoFreeSubnetError,
  PublicAddressConflictError,
  StoreUnavailableError,
} from '../errors.ts';
import type { Lease, LeaseAttributes, MalformedLease, NetworkConfig } from '../lease.ts';
import { networkFamilies, sameAttributes } from '../lease.ts';
import { encodeLeaseKey } from '../lease-codec.ts';
import { isStillHeld, planClaim, planRenewal } from '../lease-ownership.ts';
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
import { fitsNetwork, type Random } from '../subnet-choice.ts';
import { ApiClient } from './api-client.ts';
import { awaitNode } from './await-node.ts';
import { LeaseTable } from './lease-table.ts';
import {
  asCut,
  familiesOf,
  type NetworkSource,
  recordOf,
  requireFit,
  sameFamilies,
} from './network-source.ts';
import {
  annotationChanges,
  annotationRemovals,
  isMalformedLease,
  isReservation,
  leaseOf,
  subnetsOf,
  withOverwrites,
} from './node-lease.ts';
import type { NodeObject } from './node-object.ts';
import { NodesApi } from './nodes-api.ts';
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
/** How often a Node that changes under our hands is looked at again before we wait. */
const REPLANS = 10;

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
  /** What the view of a watch from `at` holds; of any other, nothing is known. */
  #known: { readonly table: LeaseTable; readonly at: Revision | undefined };
  /** What the view was told last. */
  #toldNetwork: string | undefined;
  #hasTold = false;
  #families: readonly Family[] = FAMILIES;
  #ownSubnets: PerFamily<Subnet> | undefined;
  /** What our Node was last written for, and what came of that: see #ownLeaseAsItShallBe. */
  #written: { readonly asked: LeaseAttributes; readonly attributes: LeaseAttributes } | undefined;
  #isReady = false;
  /** Our Node could not be claimed for want of a podCIDR: the next attempt waits for it. */
  #isAwaited = false;
  readonly #networkListeners = new Set<() => void>();

  constructor(options: KubernetesStoreOptions) {
    this.#options = options;
    const { transport, sleep, callTimeoutMs = CALL_TIMEOUT_MS, pageSize = PAGE_SIZE } = options;
    this.#client = new ApiClient({ transport, sleep, callTimeoutMs });
    this.#api = new NodesApi(this.#client, pageSize);
    this.#known = { table: new LeaseTable(options.nodeName), at: undefined };
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined> {
    this.#client.throwIfEnded(signal);
    const record = asCut(await this.#networkRecord(), this.#ownSubnets);
    if (record !== undefined && 'fault' in record) throw record.fault;
    return record?.config;
  }

  async claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    const { nodeName } = this.#options;
    for (let tries = 0; tries < REPLANS; tries++) {
      const node = await this.#readOwn(signal);
      const subnets = this.#requireSubnets(node, request.network);
      const attributes = withOverwrites(request.attributes, node);
      const key = encodeLeaseKey(subnets);
      const current = leaseOf(node, networkFamilies(request.network));
      const lease = current === undefined || isMalformedLease(current) ? undefined : current;
      const plan = planClaim(
        { ...request, attributes },
        {
          leases: new Map(lease === undefined ? [] : [[lease.key, lease]]),
          malformedKeys: [],
          isReservation: () => isReservation(node),
        },
      );
      const { remembered } = request;
      const isRemembered = remembered !== undefined && encodeLeaseKey(remembered.subnets) === key;
      if (plan.type === 'create' && isRemembered && lease !== undefined) throw nameConflict(nodeName, lease);
      const written = await this.#write(node, request.attributes, attributes, signal);
      if (written === undefined) continue;
      const held = { lease: { key, subnets, attributes }, revision: written.resourceVersion };
      return { ...held, ...this.#times(isReservation(node) ? 0 : request.ttlMs) };
    }
    throw this.#isBusy();
  }

  async renew(held: HeldLease, asked: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    const { key, subnets } = held.lease;
    const families = FAMILIES.filter((family) => subnets[family] !== undefined);
    for (let tries = 0; tries < REPLANS; tries++) {
      const node = await this.#readOwn(signal);
      const own = subnetsOf(node, families);
      if (own === undefined || encodeLeaseKey(own) !== key) throw await this.#lost(held, signal);
      const attributes = withOverwrites(asked, node);
      const current = leaseOf(node, families);
      const isUnreadable = current !== undefined && isMalformedLease(current);
      const plan = planRenewal(held, attributes, isUnreadable ? 'malformed' : current);
      const written = plan === 'keep' ? node : await this.#write(node, asked, attributes, signal);
      if (written === undefined) continue;
      this.#written = { asked, attributes };
      if (this.#isReady) await this.#writeCondition(written, signal);
      const revision = plan === 'keep' ? held.revision : written.resourceVersion;
      return { ...this.#times(held.ttlMs), lease: { key, subnets, attributes }, revision };
    }
    throw this.#isBusy();
  }

  async release(held: HeldLease, signal: AbortSignal): Promise<void> {
    const families = FAMILIES.filter((family) => held.lease.subnets[family] !== undefined);
    for (let tries = 0; tries < REPLANS; tries++) {
      const node = await this.#api.get(this.#options.nodeName, signal);
      if (node === undefined || isReservation(node)) return;
      const current = leaseOf(node, families);
      if (current?.key !== held.lease.key || isMalformedLease(current) || !isStillHeld(held, current)) return;
      if ((await this.#api.patchAnnotations(node, annotationRemovals(node), signal)) !== undefined) return;
    }
    throw this.#isBusy();
  }

  /** The NetworkUnavailable condition, which keeps pods off a node, is false from now on. */
  async announceReady(signal: AbortSignal): Promise<void> {
    this.#isReady = true;
    await this.#writeCondition(await this.#readOwn(signal), signal);
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
    this.#toldNetwork = textOf(network);
    this.#hasTold = true;
    return { revision, leases, malformed: [...malformed.values()], network };
  }

  async *watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch> {
    if (signal.aborted) return;
    const { network, random, clock, silenceMs = SILENCE_MS } = this.#options;
    const ending = new AbortController();
    const abort = (): void => ending.abort(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    const news = new Notice();
    const told = (): void => news.tell();
    this.#networkListeners.add(told);
    const unlisten = network.onChange(told);
    const options = { api: this.#api, server: this.#client.server, after, random, clock, silenceMs };
    const nodes = watchNodes(options, ending.signal);
    try {
      yield* this.#batches(after, nodes, news);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      signal.removeEventListener('abort', abort);
      unlisten();
      this.#networkListeners.delete(told);
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
    news: Notice,
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
      const arrived = await (stands ? Promise.race([next, news.told()]) : next);
      let changes: LeaseChange[] = [];
      if (arrived !== undefined) {
        next = undefined;
        ({ revision } = arrived.value);
        this.#known = { table, at: undefined };
        changes = this.#changesOf(arrived.value, table, isComplete);
        stands = true;
      }
      news.heard();
      const network = await this.#networkNews();
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
      if (node.name === this.#options.nodeName && !isDeleted) this.#learnOwn(node);
      const lease = isDeleted ? undefined : this.#leaseOf(node);
      if (lease !== undefined) return table.put(node.name, lease);
      const subnets = subnetsOf(node, this.#families);
      const isAny = subnets?.ipv4 !== undefined || subnets?.ipv6 !== undefined;
      return table.delete(node.name, !isComplete && isAny ? encodeLeaseKey(subnets) : undefined);
    });
  }

  #leaseOf(node: NodeObject): Lease | MalformedLease | undefined {
    const lease = leaseOf(node, this.#families);
    const isOurs = node.name === this.#options.nodeName && lease !== undefined && !isMalformedLease(lease);
    return isOurs ? this.#ownLeaseAsItShallBe(node, lease) : lease;
  }

  /**
   * An operator writes or removes an overwrite: the lease is still as we wrote it, but ought to be another. So
   * it is told as that, and whoever keeps it sees that it is not what it wrote, and renews it.
   */
  #ownLeaseAsItShallBe(node: NodeObject, lease: Lease): Lease {
    const written = this.#written;
    if (written === undefined || !sameAttributes(lease.attributes, written.attributes)) return lease;
    try {
      return { ...lease, attributes: withOverwrites(written.asked, node) };
    } catch {
      return lease;
    }
  }

  #learnOwn(node: NodeObject): void {
    const subnets = subnetsOf(node, this.#families);
    const before = this.#ownSubnets;
    const isAny = subnets?.ipv4 !== undefined || subnets?.ipv6 !== undefined;
    this.#ownSubnets = isAny ? subnets : undefined;
    if (JSON.stringify(before) === JSON.stringify(this.#ownSubnets)) return;
    for (const listener of this.#networkListeners) listener();
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
    const text = textOf(record);
    const isNews = !this.#hasTold || text !== this.#toldNetwork;
    this.#hasTold = true;
    this.#toldNetwork = text;
    return isNews ? (record ?? null) : undefined;
  }

  /** @throws StoreUnavailableError when there is no such Node */
  async #readOwn(signal: AbortSignal): Promise<NodeObject> {
    const { nodeName } = this.#options;
    if (this.#isAwaited) await awaitNode(this.#api, nodeName, signal);
    const node = await this.#api.get(nodeName, signal);
    this.#isAwaited = node === undefined || node.podCidrs.length === 0;
    if (node !== undefined) {
      this.#learnOwn(node);
      return node;
    }
    throw new StoreUnavailableError(
      `Kubernetes has no Node "${nodeName}": the kubelet registers it under the name that ` +
        '`kubectl get nodes` shows; --node-name (or NODE_NAME) must be that',
    );
  }

  #requireSubnets(node: NodeObject, network: NetworkConfig): PerFamily<Subnet> {
    if (node.podCidrs.length === 0) {
      throw new NoFreeSubnetError(
        `Node ${node.name} has no podCIDR yet: kube-controller-manager gives them when it runs with ` +
          '--allocate-node-cidrs=true and --cluster-cidr (kubeadm: networking.podSubnet; k3s does by itself), ' +
          'while its --cluster-cidr has any left',
      );
    }
    const subnets = subnetsOf(node, networkFamilies(network));
    if (subnets === undefined) {
      throw new StoreUnavailableError(`the podCIDRs of Node ${node.name} cannot be read`);
    }
    requireFit(node.name, network, subnets);
    if (fitsNetwork(network, subnets)) return subnets;
    for (const listener of this.#networkListeners) listener();
    throw new StoreUnavailableError(
      `Node ${node.name}'s podCIDR is new; the network configuration follows it`,
    );
  }

  /** Undefined: it changed meanwhile, or it is not known what became of it: look again. */
  async #write(
    node: NodeObject,
    asked: LeaseAttributes,
    attributes: LeaseAttributes,
    signal: AbortSignal,
  ): Promise<NodeObject | undefined> {
    const changes = annotationChanges(node, attributes);
    const isAsWanted = Object.keys(changes).length === 0;
    const written = isAsWanted ? node : await this.#api.patchAnnotations(node, changes, signal);
    if (written !== undefined) this.#written = { asked, attributes };
    return written;
  }

  async #writeCondition({ name, networkUnavailable }: NodeObject, signal: AbortSignal): Promise<void> {
    const isFalse = networkUnavailable?.status === 'False';
    if (isFalse && networkUnavailable.reason === REASON) return;
    const now = new Date(this.#options.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    const condition = {
      type: 'NetworkUnavailable',
      status: 'False',
      reason: REASON,
      message: 'vtepd has built the overlay: pods of this node are reached',
      lastHeartbeatTime: now,
      lastTransitionTime: (isFalse ? networkUnavailable.lastTransitionTime : undefined) ?? now,
    };
    await this.#api.patchCondition(name, condition, signal);
  }

  #times(ttlMs: number): Pick<HeldLease, 'ttlMs' | 'expiresAt'> {
    return ttlMs === 0 ? { ttlMs } : { ttlMs, expiresAt: this.#options.now() + ttlMs };
  }

  /** Our Node has other podCIDRs now: it was made anew. Who has the old ones is told where somebody has. */
  async #lost({ lease: { key, subnets }, ttlMs }: HeldLease, signal: AbortSignal): Promise<LeaseLostError> {
    const { nodes } = await this.#api.list(signal);
    const holder = nodes
      .map((node) => leaseOf(node, this.#families))
      .filter((lease): lease is Lease => lease !== undefined && !isMalformedLease(lease))
      .find((lease) =>
        FAMILIES.some((family) => {
          const [ours, other] = [subnets[family], lease.subnets[family]];
          return ours !== undefined && other !== undefined && subnetsOverlap(ours, other);
        }),
      );
    const message = `Node ${this.#options.nodeName} was made anew and has another podCIDR than ${key}`;
    // Not ours to use, whoever has it; but of a reservation its operator has said so.
    const how = holder === undefined && ttlMs === 0 ? 'expired' : 'taken';
    return new LeaseLostError(message, how, holder?.attributes);
  }

  #isBusy(): StoreUnavailableError {
    const { nodeName } = this.#options;
    return new StoreUnavailableError(
      `Kubernetes: Node ${nodeName} is rewritten again and again by somebody else`,
    );
  }
}

const REASON = 'VtepdIsUp';

function nameConflict(nodeName: string, { key, attributes }: Lease): PublicAddressConflictError {
  const at = FAMILIES.flatMap((family) => attributes.publicAddress[family] ?? []).join(', ');
  return new PublicAddressConflictError(
    `Node ${nodeName}, which was ours, is written by another daemon, at ${at}: stop it, or give one of the two ` +
      `its own --node-name; if it is gone: kubectl annotate node ${nodeName} flannel.alpha.coreos.com/kube-subnet-manager-`,
    key,
    attributes,
  );
}

const textOf = (record: NetworkRecord | undefined): string | undefined =>
  record && JSON.stringify('fault' in record ? { fault: record.fault.message } : record);

/** Something that somebody waits for, told any number of times before it is heard. */
class Notice {
  #told = false;
  #wake: (() => void) | undefined;

  tell(): void {
    this.#told = true;
    this.#wake?.();
  }

  heard(): void {
    this.#told = false;
  }

  async told(): Promise<undefined> {
    if (this.#told) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}
