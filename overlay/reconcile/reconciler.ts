/**
 * The one loop that programs this node's network. Level-triggered: whatever happens (a lease, a link, a
 * route, a pod, a timer) only marks what may differ; the loop looks, compares and applies, and does so again
 * until nothing is marked.
 *
 *     leases --> PeerTable --.         PassLoop                .--> devices.ts    links, addresses, sysctls
 *     lease, underlay -------+--> marks --> pass, one at once --+--> Firewall      nftables
 *     kernel announcements --|      ^                          '--> peer entries  neighbour, FDB, nexthop, route
 *     resync timer ----------'      '-- what failed, after a backoff
 *
 * A change of one lease costs the four entries of that peer. Everything is looked at anew when a device was
 * made again, when announcements were lost, when the operator's or the lease's facts change, and every
 * `resyncIntervalMs` for what the kernel announces nowhere.
 */
import { type Address, FAMILIES, type Family } from '../../store/address.ts';
import type { Lease } from '../../store/lease.ts';
import { routesDirectly } from '../desired/on-link.ts';
import { podNetworkFacts, type WantedOverlay } from '../desired/overlay.ts';
import { routeMtuBytes } from '../desired/path-mtu.ts';
import {
  type EntryObserver,
  type Peer,
  type PeerContext,
  type PeerPath,
  PeerTable,
  type SkippedLease,
} from '../desired/peer-table.ts';
import type { PodNetworkFacts, PodSource } from '../desired/pods.ts';
import { readLinkAddress } from '../kernel/address.ts';
import { readLink } from '../kernel/link.ts';
import type { NetlinkMessage } from '../kernel/netlink-message.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { listNexthops, type Nexthop } from '../kernel/route.ts';
import { RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNETCONF } from '../kernel/rtnetlink.ts';
import { changedSettings } from '../kernel/sysctl.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { PassTrigger } from '../ops/recorder.ts';
import { applyEntries } from './apply-entries.ts';
import {
  type DeviceIndexes,
  type DeviceTools,
  linkNeedsRepair,
  removeStaleDevices,
  settleDevices,
} from './devices.ts';
import type { FirewallPass } from './firewall-pass.ts';
import { isRunning, LinkWatch } from './link-watch.ts';
import type { Marks } from './marks.ts';
import type { ChangeListener } from './own-links.ts';
import { PassLoop } from './pass-loop.ts';
import { PeerEntries } from './peer-entries.ts';
import { PortWatch } from './port-watch.ts';
import { type Repair, RepairLog } from './repair-log.ts';
import type { DataPathState, OpenTunnel, Tunnels } from './tunnels.ts';

export interface ReconcilerOptions {
  readonly netlink: NetlinkSocket;
  /** The user-space path; absent where the kernel's is to be the only one. */
  readonly tunnels?: Tunnels | undefined;
  readonly firewall: FirewallPass;
  readonly pods: Pick<PodSource, 'ports'>;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'pass' | 'repair' | 'leaseToKernel'>;
  readonly resyncIntervalMs: number;
  /** False on kernels without nexthop objects. */
  readonly withNexthops: boolean;
  /** A peer's public address came or went. */
  readonly onPeerAddress: (family: Family, remote: Address, present: boolean) => void;
  /** After every pass. */
  readonly onPass: () => void;
}

export interface ReconcileState {
  readonly passes: number;
  readonly repairs: number;
  readonly lastRepair: Repair | undefined;
  readonly lastPassAt: number | undefined;
  /** Why the last pass failed. */
  readonly failing: string | undefined;
}

/** Some peers' entries are refused by the kernel; everything else stands. */
export class EntriesRefusedError extends Error {
  override readonly name = 'EntriesRefusedError';
  readonly code = 'VTEPD_ENTRIES_REFUSED';
}

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #peers: PeerTable;
  readonly #repairs: RepairLog;
  readonly #ports: PortWatch;
  readonly #tools: DeviceTools;
  readonly #loop: PassLoop;
  readonly #linkWatch = new LinkWatch();
  readonly #entries: Partial<Record<Family, PeerEntries>> = {};
  #wanted: WantedOverlay | undefined;
  #indexes: DeviceIndexes | undefined;
  /** How large packets to a peer may be on the underlay, where the data path would send larger ones. */
  readonly #pathMtus: Readonly<Record<Family, Map<Address, number>>> = { ipv4: new Map(), ipv6: new Map() };
  /** Peers' addresses whose routes may have another MTU than they should. */
  readonly #pathsTouched = new Set<Address>();
  /** When the lease events that are not in the kernel yet arrived; monotonic milliseconds. */
  #leaseEvents: number[] = [];
  #converged = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#peers = new PeerTable(this.#entryObserver());
    this.#repairs = new RepairLog(options.log, options.metrics);
    this.#ports = new PortWatch(options.pods);
    const { netlink, tunnels } = options;
    this.#tools = { netlink, tunnels, peersOf: (family) => this.#peers.wanted(family).vteps };
    this.#loop = new PassLoop({ ...options, pass: (marks) => this.#makeSo(marks) });
  }

  setResyncInterval(intervalMs: number): void {
    this.#loop.setResyncInterval(intervalMs);
  }

  /**
   * The devices, this node's own lease or the network changed. Every lease is judged anew.
   * @param leases all of the store's, this node's own among them
   */
  setOverlay(wanted: WantedOverlay, context: PeerContext, leases: Iterable<Lease>): void {
    this.#wanted = wanted;
    for (const mtus of Object.values(this.#pathMtus)) {
      for (const remote of mtus.keys()) this.#pathsTouched.add(remote);
    }
    this.#peers.judgeAll(context, leases);
    this.#loop.mark({ devices: true, firewall: true, wishes: true });
    this.#loop.schedule();
  }

  /** @param arrivedAt when its event arrived; monotonic milliseconds */
  leaseChanged(lease: Lease, arrivedAt: number): void {
    this.#peers.put(lease);
    this.#leaseEvents.push(arrivedAt);
    this.#loop.schedule();
  }

  leaseGone(key: string, arrivedAt: number): void {
    this.#peers.delete(key);
    this.#leaseEvents.push(arrivedAt);
    this.#loop.schedule();
  }

  /**
   * What the underlay was found to carry to a peer's public address, as a whole packet.
   * @param mtuBytes undefined: as much as the data path sends, or not known
   */
  setPathMtu(family: Family, remote: Address, mtuBytes: number | undefined): void {
    if (mtuBytes === undefined) this.#pathMtus[family].delete(remote);
    else this.#pathMtus[family].set(remote, mtuBytes);
    this.#pathsTouched.add(remote);
    this.#loop.schedule();
  }

  /** Looks at everything, trusting nothing that was seen before. */
  lookAgain(trigger: PassTrigger = 'event'): void {
    this.#loop.lookAgain(trigger);
  }

  /** A routing announcement of the kernel. */
  announced(message: NetlinkMessage): void {
    if (this.#wanted === undefined) return;
    let differs = false;
    // The echo of what this loop did itself says nothing new: there are four a peer.
    const isEcho = message.portId === this.#options.netlink.portId;
    if (!isEcho)
      for (const entries of Object.values(this.#entries)) differs = entries.announced(message) || differs;
    if (this.#concernsDevices(message, this.#wanted)) {
      this.#loop.mark({ devices: true });
      differs = true;
    }
    if (this.#concernsDirectRoutes(message, this.#wanted)) {
      this.#loop.mark({ entries: true });
      differs = true;
    }
    if (differs || this.#ports.isDoubtful) this.#loop.schedule();
  }

  /** nftables announced a change of a table of ours that we did not make. */
  firewallAnnounced(): void {
    this.#loop.mark({ firewall: true });
    this.#loop.schedule();
  }

  /** Programs what PodSource says now, and resolves when the kernel holds it. */
  settlePods(): Promise<void> {
    this.#readPorts();
    return this.settled();
  }

  /** Resolves after the next pass that succeeds, rejects when it fails. */
  settled(): Promise<void> {
    return this.#loop.settled();
  }

  /** Why pods would not work now, where something of the node itself is not as it should be. */
  get fault(): string | undefined {
    const { failure } = this.#loop;
    if (failure !== undefined && !(failure instanceof EntriesRefusedError)) return failure.message;
    return this.#options.tunnels?.fault ?? (this.#converged ? undefined : 'the network is being programmed');
  }

  /** What carries the tunnels' packets; undefined while nothing is wanted. */
  get datapath(): DataPathState | undefined {
    return this.#wanted && this.#datapath(this.#wanted);
  }

  /** Those in user space. */
  get tunnels(): readonly OpenTunnel[] {
    return this.#options.tunnels?.all ?? [];
  }

  #datapath({ datapath }: WantedOverlay): DataPathState {
    return this.#options.tunnels?.state(datapath) ?? { path: 'kernel', why: datapath.why };
  }

  /** How long the pass under way has been at it, in milliseconds; undefined between passes. */
  get passRunningMs(): number | undefined {
    return this.#loop.runningMs;
  }

  podFacts(): PodNetworkFacts | undefined {
    if (this.#wanted === undefined || this.#indexes === undefined) return undefined;
    return podNetworkFacts(this.#wanted, this.#indexes.bridge);
  }

  get wanted(): WantedOverlay | undefined {
    return this.#wanted;
  }

  get peers(): ReadonlyMap<string, Peer> {
    return this.#peers.peers;
  }

  get skipped(): ReadonlyMap<string, SkippedLease> {
    return this.#peers.skipped;
  }

  /** What a peer lacks in the kernel: `route 10.244.5.0/24`. */
  missing(peer: Peer): string[] {
    const kinds = peer.paths.flatMap((path) => this.#entries[path.family]?.missing(path) ?? ['vxlan device']);
    return [...kinds, ...peer.unreachable];
  }

  get state(): ReconcileState {
    return {
      passes: this.#loop.passes,
      repairs: this.#repairs.count,
      lastRepair: this.#repairs.last,
      lastPassAt: this.#loop.lastPassAt,
      failing: this.#loop.failure?.message,
    };
  }

  /** Ends after the pass under way. What is programmed stays. */
  close(): Promise<void> {
    return this.#loop.close();
  }

  #entryObserver(): EntryObserver {
    return {
      neighbour: (family, address) => this.#entries[family]?.neighbours.markDirty(address),
      fdb: (family, mac) => this.#entries[family]?.fdb.markDirty(mac),
      gateway: (family, gateway) => this.#entries[family]?.gatewayTouched(gateway),
      route: (family, subnet) => this.#entries[family]?.routes.markDirty(subnet),
      remote: (family, remote) => {
        this.#options.firewall.peerTouched(remote);
        this.#options.onPeerAddress(family, remote, this.#peers.wanted(family).remotes.has(remote));
      },
    };
  }

  #concernsDirectRoutes(message: NetlinkMessage, { network, underlay }: WantedOverlay): boolean {
    return routesDirectly(network.backend) && this.#linkWatch.announced(message, underlay.link);
  }

  #concernsDevices(message: NetlinkMessage, wanted: WantedOverlay): boolean {
    switch (message.type) {
      case RTM_NEWLINK:
      case RTM_DELLINK: {
        const link = readLink(message);
        if (link === undefined) return false;
        const ours = this.#isOurs(link.index);
        if (message.type === RTM_DELLINK) {
          this.#ports.gone(link);
          return ours;
        }
        // Going down took the entries along, without a word of most of them; a TAP whose queues are all closed is
        // without a carrier, which takes its nexthop objects and their routes.
        if (ours && (!link.up || (link.isTap && !link.carrier))) this.#loop.mark({ entries: true });
        if (this.#ports.announced(link, this.#indexes?.bridge)) return false;
        return (
          (ours && !this.#isNamed(link.name, wanted)) ||
          linkNeedsRepair(link, this.#datapath(wanted).path, wanted, this.#indexes?.bridge)
        );
      }
      case RTM_NEWADDR:
      case RTM_DELADDR: {
        const index = readLinkAddress(message)?.linkIndex;
        return index !== undefined && this.#isOurs(index);
      }
      case RTM_NEWNETCONF: {
        const index = changedSettings(message);
        if (index === undefined) return false;
        return index < 0 || this.#isOurs(index) || index === wanted.underlay.link.index;
      }
      default:
        return false;
    }
  }

  #isOurs(index: number): boolean {
    return index === this.#indexes?.bridge || Object.values(this.#indexes?.vxlan ?? {}).includes(index);
  }

  #isNamed(name: string, wanted: WantedOverlay): boolean {
    return (
      name === wanted.bridge.name || wanted.families.some((family) => wanted.vxlan[family]?.name === name)
    );
  }

  #readPorts(): void {
    this.#options.firewall.setPods(this.#ports.read());
  }

  async #makeSo(marks: Marks): Promise<void> {
    const { netlink, metrics } = this.#options;
    const events = this.#leaseEvents.splice(0);
    try {
      if (this.#ports.hasBad(netlink, this.#indexes?.bridge)) marks.devices = true;
      if (this.#wanted !== undefined) await this.#pass(this.#wanted, marks);
    } catch (error) {
      this.#leaseEvents.unshift(...events);
      throw error;
    } finally {
      this.#repairs.report();
    }
    this.#converged ||= this.#wanted !== undefined && !this.#loop.isDue;
    const now = performance.now();
    for (const arrivedAt of events) metrics.leaseToKernel(now - arrivedAt);
  }

  async #pass(wanted: WantedOverlay, marks: Marks): Promise<void> {
    const { firewall } = this.#options;
    // Before the guard: without its pods it would drop what those of an earlier run send.
    if (marks.devices || this.#indexes === undefined) this.#readPorts();
    // The guard stands before the first packet can pass.
    const repaired = firewall.settle(wanted, this.#peers, marks.firewall);
    this.#repairs.note(repaired.map((what) => ({ kind: 'nft', what })));
    const lookAtDevices = marks.devices || this.#indexes === undefined;
    const isRepair = this.#converged && !marks.wishes;
    const changed: ChangeListener = (kind, what) => {
      if (isRepair) this.#repairs.note([{ kind, what }]);
      else this.#options.log.debug('made', { kind, what });
    };
    try {
      if (lookAtDevices || this.#indexes === undefined) {
        this.#indexes = await settleDevices(this.#tools, wanted, this.#ports.ports, changed);
      }
      this.#observeEntries(wanted, this.#indexes, marks.entries);
      for (const entries of Object.values(this.#entries)) await this.#applyEntries(entries, wanted);
    } finally {
      // Last, so that what replaces them carries the packets already; and at all events, for no guard is
      // left on them.
      if (lookAtDevices) await removeStaleDevices(this.#tools, wanted, changed);
    }
  }

  /** Both families, also one that this node does not carry: an earlier run may have. */
  #observeEntries(wanted: WantedOverlay, indexes: DeviceIndexes, again: boolean): void {
    const { netlink, withNexthops } = this.#options;
    const underlay = wanted.underlay.link.index;
    let nexthops: readonly Nexthop[] | undefined;
    for (const family of FAMILIES) {
      const vxlan = indexes.vxlan[family];
      const tunnel = this.#options.tunnels?.of(wanted.vxlan[family]?.name);
      let entries = this.#entries[family];
      const before = entries?.devices;
      const stays = before?.vxlan === vxlan && before?.underlay === underlay && before?.tunnel === tunnel;
      if (entries !== undefined && stays && !again) continue;
      if (entries === undefined || !stays) {
        const devices = { vxlan, underlay, tunnel };
        entries = new PeerEntries(family, devices, this.#peers.wanted(family), withNexthops, (path) =>
          this.#routeMtu(path),
        );
      }
      nexthops ??= withNexthops ? (listNexthops(netlink) ?? []) : [];
      entries.observe(netlink, nexthops);
      this.#entries[family] = entries;
    }
    if (this.#pathsTouched.size === 0) return;
    for (const entries of Object.values(this.#entries)) entries.routeMtusTouched(this.#pathsTouched);
    this.#pathsTouched.clear();
  }

  #routeMtu({ family, travel, remote }: PeerPath): number | undefined {
    const pathMtuBytes = this.#pathMtus[family].get(remote);
    if (pathMtuBytes === undefined || this.#wanted === undefined) return undefined;
    const mtuBytes = routeMtuBytes(family, travel, pathMtuBytes);
    return mtuBytes < this.#wanted.bridge.mtuBytes ? mtuBytes : undefined;
  }

  async #applyEntries(entries: PeerEntries, { underlay: { link } }: WantedOverlay): Promise<void> {
    const { netlink, log } = this.#options;
    const { repaired, failures } = await applyEntries(netlink, entries);
    this.#repairs.note(repaired);
    const [first] = failures;
    if (first === undefined) return;
    const deviceless = failures.filter(({ code }) => code === 'ENODEV' || code === 'ENETDOWN').length;
    // Routes over nexthop objects that could not be made fail for that reason.
    if (deviceless > 0 && !isRunning(netlink, link)) {
      log.warn('direct routes wait for the underlay', { device: link.name, count: deviceless });
      return;
    }
    if (deviceless === failures.length) {
      // A device went away under us, which is announced after its entries.
      this.#loop.mark({ devices: true });
      this.#loop.schedule();
      return;
    }
    const more = failures.length > 1 ? ` (and ${failures.length - 1} more like it)` : '';
    throw new EntriesRefusedError(`${first.message}${more}`, { cause: first });
  }
}
