/**
 * The peers' entries on one family's vxlan device: how PeerTable's wishes map to kernel objects.
 *
 * Added in the order neighbour, FDB, nexthop, route and removed in reverse, so a route never leads to a
 * peer that cannot be reached yet. Everything of these kinds on our own device is ours; routes and nexthop
 * objects, which live in tables shared with others, are ours by their protocol number.
 *
 * Scaling: a peer is four entries; a change of one is four messages; a full look is four filtered dumps.
 */
import {
  type Address,
  type Family,
  familyOf,
  formatSubnet,
  type Mac,
  parseSubnet,
} from '../../store/address.ts';
import type { PeerPath, WantedEntries } from '../desired/peer-table.ts';
import {
  deleteFdbEntry,
  deleteNeighbour,
  listFdb,
  listNeighbours,
  readFdbEntry,
  readNeighbour,
  setFdbEntry,
  setNeighbour,
} from '../kernel/neighbour.ts';
import { type NetlinkMessage, NLM_F_REPLACE } from '../kernel/netlink-message.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import {
  deleteNexthop,
  deleteRoute,
  listNexthops,
  listRoutes,
  type NewRoute,
  type Nexthop,
  prependRoute,
  type Route,
  readNexthop,
  readRoute,
  setNexthop,
} from '../kernel/route.ts';
import {
  ROUTE_PROTOCOL,
  RTM_DELNEIGH,
  RTM_DELNEXTHOP,
  RTM_DELROUTE,
  RTM_NEWNEIGH,
  RTM_NEWNEXTHOP,
  RTM_NEWROUTE,
} from '../kernel/rtnetlink.ts';
import { type EntryKind, EntryTable } from './entry-table.ts';

/**
 * Ids of our nexthop objects count up from here: far from the small ones that people choose, and each family
 * by itself, so that two devices never choose the same one.
 */
const FIRST_NEXTHOP_ID: Readonly<Record<Family, number>> = { ipv4: 0x76_00_00_00, ipv6: 0x76_80_00_00 };
const RT_TABLE_MAIN = 254;
/**
 * An IPv4 route is put in front of a stranger's to the same subnet. IPv6 has no such order among routes of one
 * metric: ours has a smaller one than what others get by default (1024).
 */
const ROUTE_METRIC: Readonly<Record<Family, number | undefined>> = { ipv4: undefined, ipv6: 512 };

export class PeerEntries {
  readonly family: Family;
  readonly linkIndex: number;
  readonly neighbours: EntryTable;
  readonly fdb: EntryTable;
  readonly nexthops: EntryTable;
  readonly routes: EntryTable;
  /** In the order in which entries are added. */
  readonly tables: readonly EntryTable[];
  readonly #wanted: WantedEntries;
  readonly #withNexthops: boolean;
  readonly #idOfGateway = new Map<Address, number>();
  readonly #gatewayOfId = new Map<number, Address>();
  /** The subnet whose route names the nexthop object. */
  readonly #subnetOfId = new Map<number, string>();
  readonly #foreignIds = new Set<number>();
  #nextId: number;

  /** @param withNexthops false on kernels without nexthop objects: routes then name the gateway themselves */
  constructor(family: Family, linkIndex: number, wanted: WantedEntries, withNexthops: boolean) {
    this.family = family;
    this.linkIndex = linkIndex;
    this.#wanted = wanted;
    this.#withNexthops = withNexthops;
    this.#nextId = FIRST_NEXTHOP_ID[family];
    this.neighbours = new EntryTable(this.#neighbourKind());
    this.fdb = new EntryTable(this.#fdbKind());
    this.nexthops = new EntryTable(this.#nexthopKind());
    this.routes = new EntryTable(this.#routeKind());
    this.tables = [this.neighbours, this.fdb, this.nexthops, this.routes];
  }

  neighbourTouched(gateway: Address): void {
    this.neighbours.markDirty(gateway);
    if (!this.#withNexthops) return;
    const wanted = this.#wanted.neighbours.has(gateway);
    const id = wanted ? this.#idFor(gateway) : this.#idOfGateway.get(gateway);
    if (id !== undefined) this.nexthops.markDirty(String(id));
  }

  /** Reads all four tables. @throws NetlinkError, DumpInterruptedError */
  observe(netlink: NetlinkSocket): void {
    const { linkIndex, family } = this;
    const neighbours = listNeighbours(netlink, linkIndex).filter(
      ({ address }) => familyOf(address) === family,
    );
    const fdb = listFdb(netlink, linkIndex);
    const nexthops = this.#withNexthops ? (listNexthops(netlink) ?? []) : [];
    const routes = listRoutes(netlink, family, ROUTE_PROTOCOL).filter(({ table }) => table === RT_TABLE_MAIN);

    this.neighbours.replaceObserved(
      neighbours
        .filter((entry) => entry.permanent || this.#wanted.neighbours.has(entry.address))
        .map((entry) => [entry.address, neighbourValue(entry)] as const),
    );
    this.fdb.replaceObserved(fdb.map((entry) => [entry.mac, fdbValue(entry)] as const));
    this.#adopt(nexthops);
    this.nexthops.replaceObserved(
      nexthops
        .filter((nexthop) => this.#isOurs(nexthop))
        .map((nexthop) => [String(nexthop.id), this.#nexthopValue(nexthop)] as const),
    );
    this.routes.replaceObserved(routes.map((route) => [routeKey(route), this.#routeValue(route)] as const));
  }

  /** An announcement of the kernel. @returns whether something has to be repaired */
  announced(message: NetlinkMessage): boolean {
    switch (message.type) {
      case RTM_NEWNEIGH:
      case RTM_DELNEIGH:
        return this.#neighbourAnnounced(message);
      case RTM_NEWNEXTHOP:
      case RTM_DELNEXTHOP:
        return this.#withNexthops && this.#nexthopAnnounced(message);
      case RTM_NEWROUTE:
      case RTM_DELROUTE:
        return this.#routeAnnounced(message);
      default:
        return false;
    }
  }

  /** The kinds of entry that a peer lacks in the kernel. */
  missing(path: PeerPath): string[] {
    const id = this.#idOfGateway.get(path.gateway);
    const subnet = formatSubnet(path.subnet);
    const kinds: string[] = [];
    if (this.neighbours.observed.get(path.gateway) !== path.mac) kinds.push('neighbour');
    if (this.fdb.observed.get(path.mac) !== path.remote) kinds.push('fdb');
    if (this.#withNexthops && (id === undefined || !this.nexthops.observed.has(String(id))))
      kinds.push('nexthop');
    if (this.routes.observed.get(subnet) !== this.#wantedRoute(path)) kinds.push('route');
    return kinds;
  }

  #neighbourAnnounced(message: NetlinkMessage): boolean {
    const gone = message.type === RTM_DELNEIGH;
    const fdb = readFdbEntry(message);
    if (fdb !== undefined) {
      return (
        fdb.linkIndex === this.linkIndex && this.fdb.announced(fdb.mac, gone ? undefined : fdbValue(fdb))
      );
    }
    const neighbour = readNeighbour(message);
    if (neighbour?.linkIndex !== this.linkIndex || familyOf(neighbour.address) !== this.family) return false;
    const known =
      this.neighbours.observed.has(neighbour.address) || this.#wanted.neighbours.has(neighbour.address);
    if (!neighbour.permanent && !known) return false;
    return this.neighbours.announced(neighbour.address, gone ? undefined : neighbourValue(neighbour));
  }

  #nexthopAnnounced(message: NetlinkMessage): boolean {
    const nexthop = readNexthop(message);
    if (nexthop === undefined) return false;
    const gone = message.type === RTM_DELNEXTHOP;
    if (!this.#isOurs(nexthop)) {
      if (gone) this.#foreignIds.delete(nexthop.id);
      else if (nexthop.protocol !== ROUTE_PROTOCOL) this.#foreignIds.add(nexthop.id);
      return false;
    }
    const key = String(nexthop.id);
    const differs = this.nexthops.announced(key, gone ? undefined : this.#nexthopValue(nexthop));
    if (!gone) return differs;
    // The kernel took its routes along without a word.
    const subnet = this.#subnetOfId.get(nexthop.id);
    const routeDiffers =
      subnet !== undefined &&
      this.routes.observed.get(subnet) === `nhid ${nexthop.id}` &&
      this.routes.announced(subnet, undefined);
    return differs || routeDiffers;
  }

  #routeAnnounced(message: NetlinkMessage): boolean {
    const route = readRoute(message);
    if (route?.destination.family !== this.family || route.table !== RT_TABLE_MAIN) return false;
    const key = routeKey(route);
    if (route.protocol === ROUTE_PROTOCOL) {
      const gone = message.type === RTM_DELROUTE;
      // With two of ours to one subnet, the news of one going says nothing of the other.
      if (gone && this.routes.observed.get(key) !== this.#routeValue(route)) return false;
      return this.routes.announced(key, gone ? undefined : this.#routeValue(route));
    }
    // Somebody's `ip route replace` may have taken ours away: nothing else says so.
    const replaced = message.type === RTM_NEWROUTE && (message.flags & NLM_F_REPLACE) !== 0;
    return replaced && this.routes.observed.has(key) && this.routes.announced(key, undefined);
  }

  #neighbourKind(): EntryKind {
    const { linkIndex } = this;
    return {
      name: 'neighbour',
      wanted: (gateway) => this.#wanted.neighbours.get(gateway as Address),
      wantedKeys: () => this.#wanted.neighbours.keys(),
      set: (gateway, mac) => setNeighbour(linkIndex, gateway as Address, mac as Mac),
      remove: (gateway) => deleteNeighbour(linkIndex, gateway as Address),
    };
  }

  #fdbKind(): EntryKind {
    const { linkIndex } = this;
    return {
      name: 'fdb',
      wanted: (mac) => this.#wanted.fdb.get(mac as Mac),
      wantedKeys: () => this.#wanted.fdb.keys(),
      set: (mac, remote) => setFdbEntry(linkIndex, mac as Mac, remote as Address),
      remove: (mac) => deleteFdbEntry(linkIndex, mac as Mac),
    };
  }

  #nexthopKind(): EntryKind {
    const wanted = (id: string): Address | undefined => {
      const gateway = this.#gatewayOfId.get(Number(id));
      return gateway !== undefined && this.#wanted.neighbours.has(gateway) ? gateway : undefined;
    };
    const { linkIndex } = this;
    const ids = function* (this: PeerEntries): Iterable<string> {
      if (!this.#withNexthops) return;
      for (const gateway of this.#wanted.neighbours.keys()) yield String(this.#idFor(gateway));
    };
    return {
      name: 'nexthop',
      wanted,
      wantedKeys: () => ids.call(this),
      set: (id, gateway) => setNexthop(Number(id), gateway as Address, linkIndex),
      remove: (id) => deleteNexthop(Number(id)),
    };
  }

  #routeKind(): EntryKind {
    const wanted = (subnet: string): string | undefined => {
      const path = this.#wanted.routes.get(subnet);
      return path === undefined ? undefined : this.#wantedRoute(path);
    };
    const metric = ROUTE_METRIC[this.family];
    const stray = (key: string) => {
      const [subnet = '', other] = key.split(' metric ');
      return { destination: parseSubnet(subnet), metric: other === undefined ? metric : Number(other) };
    };
    return {
      name: 'route',
      wanted,
      wantedKeys: () => this.#wanted.routes.keys(),
      set: (subnet, value) =>
        prependRoute({ destination: parseSubnet(subnet), metric, ...this.#routeTarget(value) }),
      remove: (key) => deleteRoute(stray(key)),
      removeReplaced: (key, value) => deleteRoute({ ...stray(key), ...this.#routeTarget(value) }),
    };
  }

  #wantedRoute(path: PeerPath): string {
    if (!this.#withNexthops) return `via ${path.gateway}`;
    const id = this.#idFor(path.gateway);
    this.#subnetOfId.set(id, formatSubnet(path.subnet));
    return `nhid ${id}`;
  }

  #routeValue(route: Route): string {
    if (route.nexthopId !== undefined) return `nhid ${route.nexthopId}`;
    const onOurs = route.linkIndex === this.linkIndex ? '' : ` dev ${route.linkIndex}`;
    return `via ${route.gateway}${onOurs}`;
  }

  /** The reverse of #routeValue. */
  #routeTarget(value: string): Pick<NewRoute, 'nexthopId' | 'gateway' | 'linkIndex' | 'onlink'> {
    const [kind, what = '', , device] = value.split(' ');
    if (kind === 'nhid') return { nexthopId: Number(what) };
    const linkIndex = device === undefined ? this.linkIndex : Number(device);
    return what === 'undefined' ? { linkIndex } : { gateway: what as Address, linkIndex, onlink: true };
  }

  #nexthopValue(nexthop: Nexthop): string {
    const ours = nexthop.linkIndex === this.linkIndex && nexthop.protocol === ROUTE_PROTOCOL;
    return ours
      ? `${nexthop.gateway}`
      : `${nexthop.gateway} dev ${nexthop.linkIndex} proto ${nexthop.protocol}`;
  }

  #isOurs(nexthop: Nexthop): boolean {
    if (this.#gatewayOfId.has(nexthop.id)) return true;
    // One of ours without a gateway, or of an address length that tells the family, is this family's to clear.
    const family = nexthop.gateway === undefined ? 'ipv4' : familyOf(nexthop.gateway);
    return nexthop.protocol === ROUTE_PROTOCOL && family === this.family;
  }

  /** Takes the ids of an earlier run over, so that a restart changes nothing. */
  #adopt(nexthops: readonly Nexthop[]): void {
    this.#foreignIds.clear();
    for (const { id, gateway, linkIndex, protocol } of nexthops) {
      if (protocol !== ROUTE_PROTOCOL) this.#foreignIds.add(id);
      else if (gateway !== undefined && linkIndex === this.linkIndex && familyOf(gateway) === this.family) {
        if (!this.#idOfGateway.has(gateway)) this.#assign(gateway, id);
      } else this.#foreignIds.add(id);
    }
  }

  #idFor(gateway: Address): number {
    const known = this.#idOfGateway.get(gateway);
    if (known !== undefined) return known;
    while (this.#gatewayOfId.has(this.#nextId) || this.#foreignIds.has(this.#nextId)) this.#nextId++;
    this.#assign(gateway, this.#nextId);
    return this.#nextId;
  }

  #assign(gateway: Address, id: number): void {
    this.#idOfGateway.set(gateway, id);
    this.#gatewayOfId.set(id, gateway);
  }
}

const neighbourValue = ({ mac, permanent }: { mac: Mac | undefined; permanent: boolean }): string =>
  permanent ? `${mac}` : `${mac} not permanent`;

const fdbValue = ({ remote, permanent }: { remote: Address; permanent: boolean }): string =>
  permanent ? remote : `${remote} not permanent`;

/** A route of ours with another metric is none that this version writes: its key is never wanted. */
const routeKey = (route: Route): string =>
  route.metric === ROUTE_METRIC[route.destination.family]
    ? formatSubnet(route.destination)
    : `${formatSubnet(route.destination)} metric ${route.metric ?? 0}`;
