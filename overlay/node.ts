/**
 * This node's life in the cluster: from the store's network configuration, this machine's underlay and the
 * lease that it holds to what the reconciler shall program, and anew whenever one of them changes.
 *
 *     store --follow--> view: network configuration, leases --.
 *     kernel announcements --> underlay -----------------------+--> wanted overlay, peers --> Reconciler
 *     LeaseKeeper <-- attributes (public address, VTEP) -------'         |
 *          '--------- lease held ----------------------------------------'
 *
 * With the store away at the start, the cached view and the remembered lease stand in for it.
 */
import { type Address, FAMILIES, type Family, type Mac } from '../store/address.ts';
import type { Clock, Sleep } from '../store/backoff.ts';
import { followLeases, type StoreHealth, type ViewDelta } from '../store/follow.ts';
import { type Lease, type LeaseAttributes, type NetworkConfig, sameAttributes } from '../store/lease.ts';
import type { HeldLease, LeaseStore } from '../store/lease-store.ts';
import type { LeaseView } from '../store/lease-view.ts';
import { fitsNetwork, type Random } from '../store/subnet-choice.ts';
import { deviceName, type Settings } from './config/settings.ts';
import { formerNetworks } from './desired/former-networks.ts';
import { routesDirectly } from './desired/on-link.ts';
import { carriedFamilies, type FormerState, type OverlayIdentity, wantOverlay } from './desired/overlay.ts';
import type { PodSource, Readiness } from './desired/pods.ts';
import type { Underlay, UnderlayFacts, UnderlayWishes } from './desired/underlay.ts';
import { type FormerLease, FormerLeases } from './leases/former-leases.ts';
import { KnownNetworks } from './leases/known-networks.ts';
import { LeaseKeeper } from './leases/lease-keeper.ts';
import type { NodeMemory } from './leases/node-memory.ts';
import type { SnapshotCache } from './leases/snapshot-cache.ts';
import { NetworkWatch } from './network-watch.ts';
import type { Log } from './ops/log.ts';
import type { Metrics } from './ops/metrics.ts';
import type { LeaseOperation } from './ops/recorder.ts';
import type { Reconciler } from './reconcile/reconciler.ts';
import { UnderlayWatch } from './underlay-watch.ts';

export interface NodeOptions {
  readonly settings: Settings;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly store: LeaseStore;
  readonly memory: NodeMemory;
  readonly cache: SnapshotCache;
  readonly reconciler: Reconciler;
  readonly pods: Pick<PodSource, 'addresses'>;
  readonly readUnderlay: (wishes: UnderlayWishes) => UnderlayFacts;
  readonly clock: Clock;
  readonly sleep: Sleep;
  readonly random: Random;
  /** Ends it. */
  readonly signal: AbortSignal;
}

const RELEASE_TIMEOUT_MS = 5000;
/** `udp` has become a vxlan before it gets here: see carriedNetwork(). */
const BACKENDS: readonly string[] = ['vxlan', 'host-gw'];

export class OverlayNode {
  readonly #options: NodeOptions;
  readonly #keeper: LeaseKeeper;
  readonly #former: FormerLeases;
  readonly #knownNetworks: KnownNetworks;
  readonly #networkWatch: NetworkWatch;
  readonly #underlayWatch: UnderlayWatch;
  #releaseOnExit: boolean;
  #view: LeaseView | undefined;
  #health: StoreHealth | undefined;
  /** At least once since the start. */
  #storeFailed = false;
  #lastContactAt: number | undefined;
  #lease: Lease | undefined;
  #keeping: Promise<void> | undefined;

  constructor(options: NodeOptions) {
    this.#options = options;
    const { settings, store, random, sleep, log, metrics, signal, memory } = options;
    this.#releaseOnExit = settings.lease.releaseOnExit;
    const keeperOptions = {
      store,
      ttlMs: settings.lease.ttlMs,
      renewMarginMs: settings.lease.renewMarginMs,
      random,
      sleep,
      log,
      onFailure: (operation: LeaseOperation) => metrics.leaseFailure(operation),
    };
    this.#keeper = new LeaseKeeper({ ...keeperOptions, onHeld: (held) => this.#held(held) });
    this.#former = new FormerLeases({
      ...keeperOptions,
      signal,
      isReplaced: ({ key }) => this.#keeper.held !== undefined && this.#keeper.held.lease.key !== key,
      podAddresses: () => options.pods.addresses(),
      attributesFor: (families, written) => this.#formerAttributes(families, written),
      onChange: () => {
        memory.rememberFormerLeases(this.#former.stored);
        this.#program();
      },
    });
    this.#knownNetworks = new KnownNetworks({
      memory,
      log,
      look: () => this.#certainLeases(),
      onForgotten: () => {
        this.#settleUnderlayNeeds();
        this.#program();
      },
    });
    this.#networkWatch = new NetworkWatch({
      store: settings.store,
      unsupported,
      log,
      onChange: (now, before) => this.#networkChanged(now, before),
    });
    this.#underlayWatch = new UnderlayWatch({
      wishes: settings.underlay,
      read: options.readUnderlay,
      remembered: () => memory.lease?.attributes.publicAddress ?? {},
      log,
      onChange: (now, before) => this.#underlayChanged(now, before),
    });
  }

  /** Runs until the signal aborts; then gives the lease back if that was asked for. */
  async run(): Promise<void> {
    const { store, cache, clock, sleep, random, log, metrics, signal } = this.#options;
    const following = followLeases(store, {
      signal,
      clock,
      sleep,
      random,
      cached: cache.read(),
      deliver: (delta, view) => this.#delivered(delta, view),
      onHealth: (health) => this.#healthChanged(health),
    });
    this.#view = following.view;
    this.#health = following.health();
    metrics.storeHealth(false);
    try {
      await following.done;
      await this.#keeping;
      await this.#former.ended();
    } finally {
      this.#underlayWatch.close();
      this.#knownNetworks.close();
      cache.flush();
    }
    if (!this.#releaseOnExit || this.#keeper.held === undefined) return;
    try {
      const { key } = this.#keeper.held.lease;
      const timeout = AbortSignal.timeout(RELEASE_TIMEOUT_MS);
      await this.#former.releaseAll(timeout);
      await this.#keeper.release(timeout);
      this.#options.memory.rememberFormerLeases([]);
      this.#options.memory.rememberLease(undefined);
      log.info('gave the lease back', { subnet: key });
    } catch (error) {
      metrics.leaseFailure('release');
      log.error('the lease could not be given back; it expires by itself', { error });
    }
  }

  /** Links, addresses or routes of the node changed. */
  underlayAnnounced(): void {
    this.#underlayWatch.announced();
  }

  /** Pods came or went. */
  podsChanged(): void {
    this.#former.podsChanged();
  }

  /** Another store answers from now on: our leases are confirmed by it. */
  storeOpened(): void {
    this.#keeper.checkNow();
    this.#former.checkNow();
  }

  /** What of the settings can change while the node lives. */
  reconfigure({ lease, underlay }: Pick<Settings, 'lease' | 'underlay'>): void {
    this.#releaseOnExit = lease.releaseOnExit;
    this.#keeper.setTimes(lease);
    this.#former.setTimes(lease);
    this.#underlayWatch.setWishes(underlay);
  }

  /** Whether pods work, as far as lease and store are concerned. */
  get readiness(): Readiness {
    const { network, problem } = this.#networkWatch;
    const underlay = this.#underlayWatch;
    const reason =
      (network === undefined ? (problem ?? 'the store has not answered yet') : undefined) ??
      (underlay.underlay === undefined ? underlay.problem : undefined) ??
      (this.#hasLease(network)
        ? undefined
        : ((this.#keeper.failure ?? this.#keeper.taken)?.message ?? 'the lease is being claimed'));
    return reason === undefined ? { ready: true } : { ready: false, reason };
  }

  /** A lease that may give addresses out: ours, and in the network as it is now. */
  #hasLease(network: NetworkConfig | undefined): boolean {
    if (this.#lease === undefined || this.#keeper.taken !== undefined) return false;
    return network !== undefined && fitsNetwork(network, this.#lease.subnets);
  }

  get view(): LeaseView | undefined {
    return this.#view;
  }

  get storeHealth(): {
    readonly healthy: boolean;
    readonly reason?: string;
    readonly lastContactAt?: number;
  } {
    const lastContactAt = this.#lastContactAt;
    const problem = this.#health?.healthy === false ? this.#health.error : this.#keeper.failure;
    return {
      healthy: this.#health?.healthy === true,
      ...(problem !== undefined && { reason: problem.message }),
      ...(lastContactAt !== undefined && { lastContactAt }),
    };
  }

  get network(): NetworkConfig | undefined {
    return this.#networkWatch.network;
  }

  /** What is wrong with the stored network configuration, whether or not another is in use. */
  get networkProblem(): string | undefined {
    return this.#networkWatch.problem;
  }

  /** Leases that a change of the network left behind, each with pods. */
  get formerLeases(): readonly FormerLease[] {
    return this.#former.all;
  }

  get underlay(): Underlay | undefined {
    return this.#underlayWatch.underlay;
  }

  get lease(): Lease | undefined {
    return this.#lease;
  }

  /** Absent while the lease is only remembered. */
  get held(): HeldLease | undefined {
    return this.#keeper.held;
  }

  #delivered(delta: ViewDelta, view: LeaseView): void {
    const arrivedAt = performance.now();
    const { cache, metrics, reconciler } = this.#options;
    // The cached one is delivered while followLeases is still being called.
    this.#view = view;
    if (delta.cause !== 'cache') {
      this.#lastContactAt = Date.now();
      cache.changed(view);
    }
    if (view.revision !== undefined) metrics.storeRevision(view.revision);
    this.#networkWatch.delivered(view);
    const own = this.#lease?.key;
    const programmed = reconciler.wanted !== undefined;
    for (const change of delta.changes) {
      const key =
        change.type === 'put'
          ? change.lease.key
          : change.type === 'delete'
            ? change.key
            : change.malformed.key;
      if (key === own) this.#ownLeaseDelivered(change.type === 'put' ? change.lease : undefined);
      else if (this.#former.has(key)) this.#former.checkNow();
      else if (programmed && change.type === 'put') reconciler.leaseChanged(change.lease, arrivedAt);
      else if (programmed) reconciler.leaseGone(key, arrivedAt);
    }
    if (delta.changes.some(({ type }) => type === 'delete')) this.#keeper.subnetFreed();
    if (!programmed) this.#program();
    if (own !== undefined && view.withheld.has(own)) this.#keeper.checkNow();
  }

  /** Our own lease as the store has it: if it is not as we wrote it, the keeper looks at once. */
  #ownLeaseDelivered(lease: Lease | undefined): void {
    const written = this.#keeper.held?.lease.attributes;
    if (written === undefined) return;
    if (lease === undefined || !sameAttributes(lease.attributes, written)) this.#keeper.checkNow();
  }

  /**
   * Our lease may have no place in the network any more: then it becomes a former one, and the keeper claims
   * another. Its pods keep their network; new ones wait for the new lease.
   */
  #networkChanged(now: NetworkConfig, before: NetworkConfig | undefined): void {
    const { memory } = this.#options;
    this.#knownNetworks.take(now);
    const lease = this.#lease ?? memory.lease;
    const former = before === undefined ? [...memory.formerLeases] : [];
    if (lease !== undefined && !fitsNetwork(now, lease.subnets)) former.push(lease);
    for (const each of former) this.#former.add(each, now.backend);
    this.#keeper.setNetwork(now);
    this.#settleUnderlayNeeds();
    this.#settleAttributes();
    this.#startKeeping();
    this.#program();
  }

  #underlayChanged(now: Underlay, before: Underlay | undefined): void {
    // First of all: the lease follows over these connections.
    if (before !== undefined && movedFrom(before, now)) this.#options.store.reconnect();
    this.#settleAttributes();
    this.#startKeeping();
    this.#program();
  }

  /** A family of old pods alone needs its underlay too. */
  #settleUnderlayNeeds(): void {
    const { network } = this.#networkWatch;
    if (network === undefined) return;
    const former = this.#former.leases;
    const families = FAMILIES.filter(
      (family) =>
        network.networks[family] !== undefined || former.some(({ subnets }) => subnets[family] !== undefined),
    );
    const overlayNetworks = [network, ...this.#options.memory.networks].flatMap(({ networks }) =>
      FAMILIES.flatMap((family) => networks[family]?.network ?? []),
    );
    this.#underlayWatch.setNeeds({ families, overlayNetworks, reach: routesDirectly(network.backend) });
  }

  #settleAttributes(): void {
    const [{ network }, { underlay }] = [this.#networkWatch, this.#underlayWatch];
    if (network === undefined || underlay === undefined) return;
    if (this.#keeping !== undefined) {
      this.#keeper.setAttributes(this.#attributes(network, underlay, carriedFamilies(network, underlay)));
    }
    this.#former.refreshAttributes();
  }

  /** Begins to claim and keep the lease, as soon as it is known what to claim. */
  #startKeeping(): void {
    const { memory, log, signal } = this.#options;
    const [{ network }, { underlay }] = [this.#networkWatch, this.#underlayWatch];
    if (this.#keeping !== undefined || network === undefined || underlay === undefined) return;
    const attributes = this.#attributes(network, underlay, carriedFamilies(network, underlay));
    this.#keeping = this.#keeper.run(network, attributes, memory.lease, signal);
    this.#keeping.catch((error: unknown) => log.error('the lease is not kept any more', { error }));
  }

  /** The store was away at the start and has failed to answer: the remembered lease and the cached ones stand in. */
  #serveFromCache(): void {
    const { memory, log } = this.#options;
    const [{ network }, remembered] = [this.#networkWatch, memory.lease];
    if (this.#lease !== undefined || this.#view?.source !== 'cache') return;
    if (network === undefined || remembered === undefined) return;
    if (!fitsNetwork(network, remembered.subnets)) return;
    log.warn('the store has not answered; serving from the cache', { subnet: remembered.key });
    this.#lease = remembered;
    this.#program();
  }

  #attributes(network: NetworkConfig, underlay: Underlay, families: readonly Family[]): LeaseAttributes {
    const { vtepMac } = this.#options.memory.identity;
    const { type, vni } = network.backend;
    const publicAddress: { [F in Family]?: Address } = {};
    const vtep: { [F in Family]?: { vni: number; mac: Mac } } = {};
    for (const family of families) {
      const address = underlay.publicAddress[family];
      if (address !== undefined) publicAddress[family] = address;
      if (type === 'vxlan') vtep[family] = { vni, mac: vtepMac[family] };
    }
    return { publicAddress, backend: type, vtep };
  }

  /** A former lease says what our own says, in its own families. */
  #formerAttributes(families: readonly Family[], written: LeaseAttributes): LeaseAttributes {
    const [{ network }, { underlay }] = [this.#networkWatch, this.#underlayWatch];
    if (network === undefined || underlay === undefined) return written;
    const carried = families.filter((family) => underlay.localAddress[family] !== undefined);
    return carried.length === 0 ? written : this.#attributes(network, underlay, carried);
  }

  #held(held: HeldLease): void {
    const { memory, log } = this.#options;
    const { network } = this.#networkWatch;
    const before = this.#lease?.key;
    this.#lease = held.lease;
    memory.rememberLease(held.lease);
    // Changed again while this one was being claimed: the keeper is on its way to the next.
    if (network !== undefined && !fitsNetwork(network, held.lease.subnets)) {
      this.#former.add(held.lease, network.backend);
    } else {
      this.#former.forget(held.lease.key);
    }
    const address = Object.values(held.lease.attributes.publicAddress).join(' ');
    if (before === undefined || before === held.lease.key)
      log.info('lease held', { subnet: held.lease.key, address });
    else {
      const consequence = this.#former.has(before)
        ? 'pods of the old one keep it until they end'
        : 'the old one is lost, and so are the addresses of its pods: start them anew';
      log.warn(`another subnet is leased now; ${consequence}`, { subnet: held.lease.key, before });
    }
    this.#former.podsChanged();
    this.#program();
  }

  /** Hands the reconciler what is known now; does nothing while something is missing. */
  #program(): void {
    const { settings, memory, reconciler } = this.#options;
    const [{ network }, { underlay }] = [this.#networkWatch, this.#underlayWatch];
    const [lease, view] = [this.#lease, this.#view];
    if (network === undefined || lease === undefined || underlay === undefined || view === undefined) return;
    // The cache may lack what is in the kernel and works: nothing is withdrawn by it that the store may confirm.
    if (view.source === 'cache' && !this.#storeFailed) return;
    const former: FormerState = {
      leases: this.#former.leases,
      networks: formerNetworks(memory.networks, network),
    };
    const identity: OverlayIdentity = {
      deviceName: (family, vni) => deviceName(settings.overlay, family, vni),
      bridgeName: settings.overlay.bridge,
      bridgeMac: memory.identity.bridgeMac,
      datapath: settings.overlay.datapath,
    };
    const wanted = wantOverlay(network, lease, underlay, identity, former);
    const context = {
      network,
      families: wanted.families,
      ownKey: lease.key,
      ownSubnets: lease.subnets,
      ownPublicAddress: underlay.publicAddress,
      ownMac: memory.identity.vtepMac,
      reach: underlay.reach,
      formerLeases: this.#former.stored,
      formerNetworks: former.networks,
    };
    reconciler.setOverlay(wanted, context, view.leases.values());
    this.#knownNetworks.forgetLater();
  }

  /** Of a cached view nothing is concluded, nor while the kernel is not as it should be. */
  #certainLeases(): { readonly network: NetworkConfig; readonly leases: readonly Lease[] } | undefined {
    const [{ network }, view] = [this.#networkWatch, this.#view];
    if (network === undefined || view?.source !== 'store') return undefined;
    if (this.#options.reconciler.fault !== undefined) return undefined;
    return { network, leases: [...view.leases.values(), ...this.#former.stored] };
  }

  #healthChanged(health: StoreHealth): void {
    const { log, metrics, store } = this.#options;
    metrics.storeHealth(health.healthy);
    const before = this.#health;
    this.#health = health;
    if (!health.healthy) {
      this.#storeFailed = true;
      log.warn('the store does not answer; the network stays as it is', {
        store: store.kind,
        error: health.error,
      });
      this.#serveFromCache();
      return;
    }
    this.#lastContactAt = Date.now();
    if (before?.healthy === false && this.#lease !== undefined) this.#keeper.checkNow();
    this.#former.checkNow();
    log.info('the store answers', { store: store.kind });
  }
}

/** An address that connections were made from is gone. */
const movedFrom = (before: Underlay, now: Underlay): boolean =>
  FAMILIES.some((family) => before.localAddress[family] !== now.localAddress[family]);

/** What of a well-formed configuration this version does not do. */
function unsupported({ backend: { type } }: NetworkConfig): string | undefined {
  if (BACKENDS.includes(type)) return undefined;
  return `Backend.Type "${type}" is not one that vtepd has: use "vxlan", "host-gw" or "udp"`;
}
