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
import {
  type Address,
  FAMILIES,
  type Family,
  formatSubnet,
  type Mac,
  type Subnet,
} from '../store/address.ts';
import type { Clock, Sleep } from '../store/backoff.ts';
import { followLeases, type StoreHealth, type ViewDelta } from '../store/follow.ts';
import {
  type Lease,
  type LeaseAttributes,
  type NetworkConfig,
  networkFamilies,
  sameAttributes,
} from '../store/lease.ts';
import type { HeldLease, LeaseStore } from '../store/lease-store.ts';
import type { LeaseView } from '../store/lease-view.ts';
import { fitsNetwork, type Random } from '../store/subnet-choice.ts';
import { deviceName, type Settings } from './config/settings.ts';
import { carriedFamilies, wantOverlay } from './desired/overlay.ts';
import type { PeerContext } from './desired/peer-table.ts';
import type { Readiness } from './desired/pods.ts';
import { chooseUnderlay, NoUnderlayError, type Underlay, type UnderlayFacts } from './desired/underlay.ts';
import { LeaseKeeper } from './leases/lease-keeper.ts';
import type { NodeMemory } from './leases/node-memory.ts';
import type { SnapshotCache } from './leases/snapshot-cache.ts';
import type { Log } from './ops/log.ts';
import type { Metrics } from './ops/metrics.ts';
import type { Reconciler } from './reconcile/reconciler.ts';

export interface NodeOptions {
  readonly settings: Settings;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly store: LeaseStore;
  readonly memory: NodeMemory;
  readonly cache: SnapshotCache;
  readonly reconciler: Reconciler;
  readonly readUnderlay: () => UnderlayFacts;
  readonly clock: Clock;
  readonly sleep: Sleep;
  readonly random: Random;
}

/** Underlay changes come in bursts (an address goes, another comes): looked at once they rest. */
const UNDERLAY_SETTLE_MS = 10;
const RELEASE_TIMEOUT_MS = 5000;
const BACKENDS: readonly string[] = ['vxlan', 'host-gw'];

export class OverlayNode {
  readonly #options: NodeOptions;
  readonly #keeper: LeaseKeeper;
  #view: LeaseView | undefined;
  #health: StoreHealth | undefined;
  /** At least once since the start. */
  #storeFailed = false;
  #lastContactAt: number | undefined;
  #network: NetworkConfig | undefined;
  #underlay: Underlay | undefined;
  #underlayProblem: string | undefined;
  #networkProblem: string | undefined;
  #lease: Lease | undefined;
  #underlayTimer: NodeJS.Timeout | undefined;
  #keeping: Promise<void> | undefined;
  #signal: AbortSignal | undefined;

  constructor(options: NodeOptions) {
    this.#options = options;
    const { settings, store, random, sleep, log, metrics } = options;
    this.#keeper = new LeaseKeeper({
      store,
      ttlMs: settings.lease.ttlMs,
      renewMarginMs: settings.lease.renewMarginMs,
      random,
      sleep,
      log,
      onHeld: (held) => this.#held(held),
      onFailure: (operation) => metrics.leaseFailure(operation),
    });
  }

  /** Runs until the signal aborts; then gives the lease back if that was asked for. */
  async run(signal: AbortSignal): Promise<void> {
    const { settings, store, cache, clock, sleep, random, log, metrics } = this.#options;
    this.#signal = signal;
    this.#lookAtUnderlay();
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
    } finally {
      clearTimeout(this.#underlayTimer);
      cache.flush();
    }
    if (!settings.lease.releaseOnExit || this.#keeper.held === undefined) return;
    try {
      const { key } = this.#keeper.held.lease;
      await this.#keeper.release(AbortSignal.timeout(RELEASE_TIMEOUT_MS));
      this.#options.memory.rememberLease(undefined);
      log.info('gave the lease back', { subnet: key });
    } catch (error) {
      metrics.leaseFailure('release');
      log.error('the lease could not be given back; it expires by itself', { error });
    }
  }

  /** Links, addresses or routes of the node changed. */
  underlayAnnounced(): void {
    this.#underlayTimer ??= setTimeout(() => {
      this.#underlayTimer = undefined;
      this.#lookAtUnderlay();
    }, UNDERLAY_SETTLE_MS);
  }

  /** Whether pods work, as far as lease and store are concerned. */
  get readiness(): Readiness {
    const reason =
      this.#networkProblem ??
      (this.#network === undefined ? 'the store has not answered yet' : undefined) ??
      (this.#underlay === undefined ? this.#underlayProblem : undefined) ??
      (this.#lease === undefined || this.#keeper.taken !== undefined
        ? ((this.#keeper.failure ?? this.#keeper.taken)?.message ?? 'the lease is being claimed')
        : undefined);
    return reason === undefined ? { ready: true } : { ready: false, reason };
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
    return this.#network;
  }

  get underlay(): Underlay | undefined {
    return this.#underlay;
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
    this.#networkDelivered(view);
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
      else if (programmed && change.type === 'put') reconciler.leaseChanged(change.lease, arrivedAt);
      else if (programmed) reconciler.leaseGone(key, arrivedAt);
    }
    if (!programmed) this.#program();
    if (own !== undefined && view.withheld.has(own)) this.#keeper.checkNow();
  }

  /** Our own lease as the store has it: if it is not as we wrote it, the keeper looks at once. */
  #ownLeaseDelivered(lease: Lease | undefined): void {
    const written = this.#keeper.held?.lease.attributes;
    if (written === undefined) return;
    if (lease === undefined || !sameAttributes(lease.attributes, written)) this.#keeper.checkNow();
  }

  #networkDelivered(view: LeaseView): void {
    const { log, store } = this.#options;
    const record = view.network;
    if (record === undefined) {
      if (this.#network !== undefined || view.source !== 'store') return;
      this.#reportNetworkProblem(
        `the ${store.kind} store has no network configuration: ${this.#howToConfigure()}`,
        (problem) => log.warn(`${problem}; waiting for it`),
      );
      return;
    }
    const problem = 'fault' in record ? record.fault.message : unsupported(record.config);
    if (problem !== undefined || 'fault' in record) {
      const consequence = this.#network === undefined ? 'waiting for a usable one' : 'the one in use stays';
      const report = (text: string): void =>
        log.error(`the network configuration cannot be used; ${consequence}`, { reason: text });
      if (this.#network === undefined) this.#reportNetworkProblem(problem ?? '', report);
      else report(problem ?? '');
      return;
    }
    this.#networkProblem = undefined;
    if (this.#network === undefined) {
      this.#network = record.config;
      log.info('network configuration', { network: describeNetwork(record.config) });
      this.#lookAtUnderlay();
      this.#startKeeping();
    } else if (JSON.stringify(this.#network) !== JSON.stringify(record.config)) {
      log.warn('the network configuration changed in the store: restart this daemon to follow it', {
        network: describeNetwork(record.config),
      });
    }
  }

  #reportNetworkProblem(problem: string, report: (problem: string) => void): void {
    if (this.#networkProblem !== problem) report(problem);
    this.#networkProblem = problem;
  }

  #howToConfigure(): string {
    const { store } = this.#options.settings;
    const example = `'{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'`;
    return store.kind === 'etcd'
      ? `etcdctl put ${store.prefix}/config ${example}`
      : `start with --net-config-path naming a file that holds ${example}`;
  }

  #lookAtUnderlay(): void {
    const network = this.#network;
    if (network === undefined) return;
    const { settings, readUnderlay, log } = this.#options;
    const overlayNetworks = networkFamilies(network).flatMap(
      (family) => network.networks[family]?.network ?? [],
    );
    let found: Underlay;
    try {
      found = chooseUnderlay(settings.underlay, readUnderlay(), networkFamilies(network), overlayNetworks);
    } catch (error) {
      if (!(error instanceof NoUnderlayError)) throw error;
      if (this.#underlayProblem !== error.message) {
        log.warn(this.#underlay === undefined ? 'waiting for the underlay' : 'the underlay is away', {
          reason: error.message,
        });
      }
      // With one in use, its return is waited for: nothing better is known.
      this.#underlayProblem = error.message;
      return;
    }
    this.#underlayProblem = undefined;
    if (JSON.stringify(found) === JSON.stringify(this.#underlay)) return;
    const moved = this.#underlay !== undefined && movedFrom(this.#underlay, found);
    this.#underlay = found;
    // First of all: the lease follows over these connections.
    if (moved) this.#options.store.reconnect();
    log.info('underlay', {
      device: found.link.name,
      address: Object.values(found.publicAddress).join(' '),
      mtuBytes: found.link.mtuBytes,
      reason: found.why,
    });
    if (this.#keeping !== undefined) this.#keeper.setAttributes(this.#attributes(network, found));
    this.#startKeeping();
    this.#program();
  }

  /** Begins to claim and keep the lease, as soon as it is known what to claim. */
  #startKeeping(): void {
    const { memory, log } = this.#options;
    if (this.#keeping !== undefined || this.#signal === undefined) return;
    if (this.#network === undefined || this.#underlay === undefined) return;
    this.#keeping = this.#keeper.run(
      this.#network,
      this.#attributes(this.#network, this.#underlay),
      memory.lease,
      this.#signal,
    );
    this.#keeping.catch((error: unknown) => log.error('the lease is not kept any more', { error }));
  }

  /** The store was away at the start and has failed to answer: the remembered lease and the cached ones stand in. */
  #serveFromCache(): void {
    const { memory, log } = this.#options;
    const [network, remembered] = [this.#network, memory.lease];
    if (this.#lease !== undefined || this.#view?.source !== 'cache') return;
    if (network === undefined || remembered === undefined) return;
    if (!fitsNetwork(network, remembered.subnets)) return;
    log.warn('the store has not answered; serving from the cache', { subnet: remembered.key });
    this.#lease = remembered;
    this.#program();
  }

  #attributes(network: NetworkConfig, underlay: Underlay): LeaseAttributes {
    const { vtepMac } = this.#options.memory.identity;
    const { type, vni } = network.backend;
    const publicAddress: { [F in Family]?: Address } = {};
    const vtep: { [F in Family]?: { vni: number; mac: Mac } } = {};
    for (const family of carriedFamilies(network, underlay)) {
      const address = underlay.publicAddress[family];
      if (address !== undefined) publicAddress[family] = address;
      if (type === 'vxlan') vtep[family] = { vni, mac: vtepMac[family] };
    }
    return { publicAddress, backend: type, vtep };
  }

  #held(held: HeldLease): void {
    const { memory, log } = this.#options;
    const before = this.#lease?.key;
    this.#lease = held.lease;
    memory.rememberLease(held.lease);
    const address = Object.values(held.lease.attributes.publicAddress).join(' ');
    if (before === undefined || before === held.lease.key)
      log.info('lease held', { subnet: held.lease.key, address });
    else
      log.warn('another subnet is leased now; pods of the old one keep it until they end', {
        subnet: held.lease.key,
        before,
      });
    this.#program();
  }

  /** Hands the reconciler what is known now; does nothing while something is missing. */
  #program(): void {
    const { settings, memory, reconciler } = this.#options;
    const [network, lease, underlay, view] = [this.#network, this.#lease, this.#underlay, this.#view];
    if (network === undefined || lease === undefined || underlay === undefined || view === undefined) return;
    // The cache may lack what is in the kernel and works: nothing is withdrawn by it that the store may confirm.
    if (view.source === 'cache' && !this.#storeFailed) return;
    const wanted = wantOverlay(network, lease, underlay, {
      deviceName: (family, vni) => deviceName(settings.overlay, family, vni),
      bridgeName: settings.overlay.bridge,
      bridgeMac: memory.identity.bridgeMac,
    });
    const context: PeerContext = {
      network,
      families: wanted.families,
      ownKey: lease.key,
      ownSubnets: lease.subnets,
      ownPublicAddress: underlay.publicAddress,
      ownMac: memory.identity.vtepMac,
      reach: underlay.reach,
    };
    reconciler.setOverlay(wanted, context, view.leases.values());
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
    log.info('the store answers', { store: store.kind });
  }
}

/** An address that connections were made from is gone. */
const movedFrom = (before: Underlay, now: Underlay): boolean =>
  FAMILIES.some((family) => before.localAddress[family] !== now.localAddress[family]);

/** What of a well-formed configuration this version does not do. */
function unsupported({ backend: { type } }: NetworkConfig): string | undefined {
  if (BACKENDS.includes(type)) return undefined;
  return `Backend.Type "${type}" is not one that vtepd has: use ${BACKENDS.map((name) => `"${name}"`).join(' or ')}`;
}

function describeNetwork(network: NetworkConfig): string {
  const networks = FAMILIES.flatMap((family): Subnet[] => {
    const found = network.networks[family];
    return found === undefined ? [] : [found.network];
  });
  return `${networks.map(formatSubnet).join(' ')} vni ${network.backend.vni} port ${network.backend.port}`;
}
