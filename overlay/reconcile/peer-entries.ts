/**
 * The peers' entries of one family: how PeerTable's wishes map to kernel objects.
 *
 *     tunnel   neighbour and FDB entry on the vxlan device, a nexthop over it, a route; in user space the device is
 *              a TAP, and the FDB the tunnel's own table
 *     direct   a nexthop over the underlay's device, a route
 *
 * Added in the order neighbour, FDB, nexthop, route and removed in reverse, so a route never leads to a
 * peer that cannot be reached yet, and a peer that moves from one way to the other is never without. All
 * neighbours and FDB entries on our own device are ours; routes and nexthop objects, which live in tables
 * shared with others, are ours by their protocol number.
 *
 * Scaling: a peer is two or four entries; a change of one is so many messages; a full look is four dumps.
 * Nexthop objects are what keeps it linear, on the underlay's device as on our own (see kernel/route.ts).
 */
import type { Tunnel } from '../../encap/tunnel-types.ts';
import {
  type Address,
  addressBits,
  type Family,
  familyOf,
  formatSubnet,
  type Mac,
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
  listRoutes,
  type Nexthop,
  prependRoute,
  RT_TABLE_MAIN,
  readNexthop,
  readRoute,
  setNexthop,
  setRoute,
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
import { type EntryKind, EntryTable, type Way } from './entry-table.ts';
import {
  explicitMtu,
  fdbValue,
  leadsAlike,
  neighbourValue,
  nexthopValue,
  parseRouteKey,
  parseTarget,
  routeKey,
  targetText,
} from './entry-values.ts';
import { NexthopIds } from './nexthop-ids.ts';

/**
 * An IPv4 route is put in front of a stranger's to the same subnet. IPv6 has no such order among routes of one
 * metric: ours has a smaller one than what others get by default (1024).
 */
const ROUTE_METRIC: Readonly<Record<Family, number | undefined>> = { ipv4: undefined, ipv6: 512 };

/** The devices that paths lead over, by index. */
export interface PathDevices {
  /** Absent where this node has no tunnel. */
  readonly vxlan: number | undefined;
  readonly underlay: number;
  /** What carries the packets of the device in user space, and has the FDB; absent where the kernel does. */
  readonly tunnel?: Pick<Tunnel, 'peers' | 'setPeer' | 'deletePeer'> | undefined;
}

export class PeerEntries {
  readonly family: Family;
  readonly devices: PathDevices;
  readonly neighbours: EntryTable;
  readonly fdb: EntryTable;
  readonly nexthops: EntryTable;
  readonly routes: EntryTable;
  /** In the order in which entries are added. */
  readonly tables: readonly EntryTable[];
  readonly #wanted: WantedEntries;
  readonly #withNexthops: boolean;
  readonly #routeMtu: (path: PeerPath) => number | undefined;
  readonly #metric: number | undefined;
  readonly #ids: NexthopIds;
  /** The subnets whose routes were given the nexthop object; some may have another by now. */
  readonly #subnetsOfId = new Map<number, Set<string>>();

  /**
   * @param withNexthops false on kernels without nexthop objects: routes then name the gateway themselves
   * @param routeMtu the MTU of a path's route, where that is smaller than its device's
   */
  constructor(
    family: Family,
    devices: PathDevices,
    wanted: WantedEntries,
    withNexthops: boolean,
    routeMtu: (path: PeerPath) => number | undefined,
  ) {
    this.family = family;
    this.devices = devices;
    this.#wanted = wanted;
    this.#withNexthops = withNexthops;
    this.#routeMtu = routeMtu;
    this.#metric = ROUTE_METRIC[family];
    this.#ids = new NexthopIds(family);
    this.neighbours = new EntryTable(this.#neighbourKind());
    this.fdb = new EntryTable(this.#fdbKind());
    this.nexthops = new EntryTable(this.#nexthopKind());
    this.routes = new EntryTable(this.#routeKind());
    this.tables = [this.neighbours, this.fdb, this.nexthops, this.routes];
  }

  gatewayTouched(gateway: Address): void {
    if (!this.#withNexthops) return;
    const id = this.#wanted.gateways.has(gateway) ? this.#ids.for(gateway) : this.#ids.of(gateway);
    if (id !== undefined) this.nexthops.markDirty(String(id));
  }

  /** What `routeMtu` says of the routes to these public addresses may have changed. O(peers). */
  routeMtusTouched(remotes: ReadonlySet<Address>): void {
    for (const [subnet, { remote }] of this.#wanted.routes) {
      if (remotes.has(remote)) this.routes.markDirty(subnet);
    }
  }

  /**
   * Reads all four tables.
   * @param nexthops all that the kernel has, of both families
   * @throws NetlinkError, DumpInterruptedError
   */
  observe(netlink: NetlinkSocket, nexthops: readonly Nexthop[]): void {
    const { family } = this;
    const { vxlan, tunnel } = this.devices;
    const neighbours = vxlan === undefined ? [] : listNeighbours(netlink, vxlan);
    const fdb = tunnel !== undefined || vxlan === undefined ? [] : listFdb(netlink, vxlan);
    const routes = listRoutes(netlink, family, ROUTE_PROTOCOL);

    this.neighbours.replaceObserved(
      neighbours
        .filter(({ address }) => familyOf(address) === family)
        .filter((entry) => entry.permanent || this.#wanted.neighbours.has(entry.address))
        .map((entry) => [entry.address, neighbourValue(entry)] as const),
    );
    this.fdb.replaceObserved(tunnel?.peers ?? fdb.map((entry) => [entry.mac, fdbValue(entry)] as const));
    this.#adopt(nexthops);
    this.nexthops.replaceObserved(
      nexthops
        .filter((nexthop) => this.#isOurs(nexthop))
        .map((nexthop) => [String(nexthop.id), nexthopValue(nexthop, ROUTE_PROTOCOL)] as const),
    );
    this.routes.replaceObserved(
      routes
        .filter(({ table, destination }) => table === RT_TABLE_MAIN && destination.family === family)
        .map((route) => [routeKey(route, this.#metric), targetText(route)] as const),
    );
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
    const kinds: string[] = [];
    if (path.travel === 'tunnel') {
      if (this.neighbours.observed.get(path.gateway) !== path.mac) kinds.push('neighbour');
      if (this.fdb.observed.get(path.mac) !== path.remote) kinds.push('fdb');
    }
    const id = this.#ids.of(path.gateway);
    if (this.#withNexthops && (id === undefined || !this.nexthops.observed.has(String(id))))
      kinds.push('nexthop');
    const route = this.#wantedRoute(path);
    if (route === undefined || this.routes.observed.get(formatSubnet(path.subnet)) !== route)
      kinds.push('route');
    return kinds;
  }

  #neighbourAnnounced(message: NetlinkMessage): boolean {
    const gone = message.type === RTM_DELNEIGH;
    const fdb = readFdbEntry(message);
    if (fdb !== undefined) {
      const { vxlan, tunnel } = this.devices;
      if (fdb.linkIndex !== vxlan || tunnel !== undefined) return false;
      return this.fdb.announced(fdb.mac, gone ? undefined : fdbValue(fdb));
    }
    const neighbour = readNeighbour(message);
    if (neighbour === undefined || neighbour.linkIndex !== this.devices.vxlan) return false;
    if (familyOf(neighbour.address) !== this.family) return false;
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
      if (gone) this.#ids.foreignWent(nexthop.id);
      else if (nexthop.protocol !== ROUTE_PROTOCOL) this.#ids.foreignCame(nexthop.id);
      return false;
    }
    const value = gone ? undefined : nexthopValue(nexthop, ROUTE_PROTOCOL);
    let differs = this.nexthops.announced(String(nexthop.id), value);
    if (!gone) return differs;
    // The kernel took its routes along without a word.
    for (const subnet of this.#subnetsOfId.get(nexthop.id) ?? []) {
      const route = this.routes.observed.get(subnet);
      if (route === undefined || parseTarget(route).nexthopId !== nexthop.id) continue;
      differs = this.routes.announced(subnet, undefined) || differs;
    }
    if (this.nexthops.kind.wanted(String(nexthop.id)) === undefined) this.#subnetsOfId.delete(nexthop.id);
    return differs;
  }

  #routeAnnounced(message: NetlinkMessage): boolean {
    const route = readRoute(message);
    if (route?.destination.family !== this.family || route.table !== RT_TABLE_MAIN) return false;
    const key = routeKey(route, this.#metric);
    if (route.protocol === ROUTE_PROTOCOL) {
      const gone = message.type === RTM_DELROUTE;
      // With two of ours to one subnet, the news of one going says nothing of the other.
      if (gone && this.routes.observed.get(key) !== targetText(route)) return false;
      return this.routes.announced(key, gone ? undefined : targetText(route));
    }
    // Somebody's `ip route replace` may have taken ours away: nothing else says so.
    const replaced = message.type === RTM_NEWROUTE && (message.flags & NLM_F_REPLACE) !== 0;
    return replaced && this.routes.observed.has(key) && this.routes.announced(key, undefined);
  }

  #neighbourKind(): EntryKind {
    const { vxlan } = this.devices;
    if (vxlan === undefined) return nothingWanted('neighbour');
    return {
      name: 'neighbour',
      wanted: (gateway) => this.#wanted.neighbours.get(gateway as Address),
      wantedKeys: () => this.#wanted.neighbours.keys(),
      set: (gateway, mac) => setNeighbour(vxlan, gateway as Address, mac as Mac),
      remove: (gateway) => deleteNeighbour(vxlan, gateway as Address),
    };
  }

  #fdbKind(): EntryKind {
    const { vxlan, tunnel } = this.devices;
    if (vxlan === undefined) return nothingWanted('fdb');
    if (tunnel !== undefined) {
      // It takes packets from those in its table alone.
      return {
        name: 'fdb',
        wanted: (mac) => this.#wanted.vteps.get(mac as Mac),
        wantedKeys: () => this.#wanted.vteps.keys(),
        set: (mac, remote) => () => tunnel.setPeer(mac as Mac, remote as Address),
        remove: (mac) => () => tunnel.deletePeer(mac as Mac),
      };
    }
    return {
      name: 'fdb',
      wanted: (mac) => this.#wanted.fdb.get(mac as Mac),
      wantedKeys: () => this.#wanted.fdb.keys(),
      set: (mac, remote) => setFdbEntry(vxlan, mac as Mac, remote as Address),
      remove: (mac) => deleteFdbEntry(vxlan, mac as Mac),
    };
  }

  #nexthopKind(): EntryKind {
    const wanted = (id: string): string | undefined => {
      const gateway = this.#ids.gatewayOf(Number(id));
      return gateway === undefined ? undefined : this.#via(gateway);
    };
    const ids = function* (this: PeerEntries): Iterable<string> {
      if (!this.#withNexthops) return;
      for (const gateway of this.#wanted.gateways.keys()) yield String(this.#ids.for(gateway));
    };
    return {
      name: 'nexthop',
      wanted,
      wantedKeys: () => ids.call(this),
      set(id, value) {
        const { gateway, linkIndex = 0 } = parseTarget(value);
        return setNexthop(Number(id), gateway as Address, linkIndex);
      },
      wayFor: (_id, value) => this.#wayTo(value),
      remove: (id) => deleteNexthop(Number(id)),
    };
  }

  #routeKind(): EntryKind {
    const wanted = (subnet: string): string | undefined => {
      const path = this.#wanted.routes.get(subnet);
      return path === undefined ? undefined : this.#wantedRoute(path);
    };
    const at = (key: string) => parseRouteKey(key, this.#metric);
    const to = (value: string) => ({ ...parseTarget(value), onlink: value.startsWith('via') });
    // IPv6 takes two routes that differ in their MTU alone for one and the same, and refuses the second.
    const replaces = (value: string, before: string | undefined): boolean =>
      this.family === 'ipv6' && before !== undefined && leadsAlike(value, before);
    return {
      name: 'route',
      wanted,
      wantedKeys: () => this.#wanted.routes.keys(),
      set: (key, value, before) =>
        replaces(value, before)
          ? setRoute({ ...at(key), ...to(value) })
          : prependRoute({ ...at(key), ...to(value), ...explicitMtu(value, before) }),
      wayFor: (_key, value) => this.#wayTo(value),
      remove: (key) => deleteRoute(at(key)),
      removeReplaced(key, before, value) {
        if (replaces(value, before)) return undefined;
        const target = to(before);
        return deleteRoute({ ...at(key), ...target, mtuBytes: target.mtuBytes ?? 0 });
      },
    };
  }

  /** A wanted gateway with the device that it is reached over; undefined where it or the device is not wanted. */
  #via(gateway: Address): string | undefined {
    const travel = this.#wanted.gateways.get(gateway);
    const linkIndex = travel === 'direct' ? this.devices.underlay : this.devices.vxlan;
    return travel === undefined || linkIndex === undefined ? undefined : targetText({ gateway, linkIndex });
  }

  /**
   * IPv6 refuses a gateway that its own look at the routes finds over another device, `onlink` or not. So it is
   * while the peer's subnet, which holds the tunnel's gateway, is still routed another way. A route to the
   * gateway alone, over the right device, satisfies it.
   */
  #wayTo(value: string): Way | undefined {
    const { gateway, linkIndex } = parseTarget(value);
    if (this.family !== 'ipv6' || gateway === undefined || linkIndex !== this.devices.vxlan) return undefined;
    const route = {
      destination: { family: this.family, address: gateway, prefixLength: addressBits(this.family) },
      linkIndex,
      metric: this.#metric,
    };
    return { open: setRoute(route), close: deleteRoute(route) };
  }

  #wantedRoute(path: PeerPath): string | undefined {
    const via = this.#via(path.gateway);
    if (via === undefined) return undefined;
    const mtuBytes = this.#routeMtu(path);
    if (!this.#withNexthops) return targetText({ ...parseTarget(via), mtuBytes });
    const nexthopId = this.#ids.for(path.gateway);
    const subnets = this.#subnetsOfId.get(nexthopId) ?? new Set();
    this.#subnetsOfId.set(nexthopId, subnets.add(formatSubnet(path.subnet)));
    return targetText({ nexthopId, mtuBytes });
  }

  #isOurs(nexthop: Nexthop): boolean {
    if (this.#ids.gatewayOf(nexthop.id) !== undefined) return true;
    // One of ours without a gateway, or of an address length that tells the family, is this family's to clear.
    const family = nexthop.gateway === undefined ? 'ipv4' : familyOf(nexthop.gateway);
    return nexthop.protocol === ROUTE_PROTOCOL && family === this.family;
  }

  /** Takes the ids of an earlier run over, so that a restart changes nothing. */
  #adopt(nexthops: readonly Nexthop[]): void {
    const foreign: number[] = [];
    for (const { id, gateway, linkIndex, protocol } of nexthops) {
      const ours = protocol === ROUTE_PROTOCOL && gateway !== undefined && familyOf(gateway) === this.family;
      const fits =
        ours &&
        this.#wanted.gateways.has(gateway) &&
        targetText({ gateway, linkIndex }) === this.#via(gateway);
      if (!fits) foreign.push(id);
      else if (this.#ids.of(gateway) === undefined) this.#ids.assign(gateway, id);
    }
    this.#ids.replaceForeign(foreign);
  }
}

const nothingWanted = (name: string): EntryKind => {
  const refuse = (): never => {
    throw new Error(`without a vxlan device there is no ${name} entry`);
  };
  return { name, wanted: () => undefined, wantedKeys: () => [], set: refuse, remove: refuse };
};
