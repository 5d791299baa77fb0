/**
 * Which leases are peers, and the entries that reach them: the pure half of programming the overlay.
 *
 * What peers write in the store is hostile input. Each lease is judged on its own and against those already
 * accepted; one that must not be programmed is kept by name with the reason, and the others go on. Between
 * two leases that cannot both be right (one MAC at two addresses, overlapping subnets) the one that was
 * there first stays, for its flows are fine; the other is judged again when that one goes.
 *
 * Cost: a change of one lease is O(1); judging anew (the network or our own lease changed) is O(leases).
 */
import {
  type Address,
  type Family,
  formatSubnet,
  isLoopback,
  isUnicast,
  isUnicastMac,
  type Mac,
  type PerFamily,
  type Subnet,
  subnetContains,
  subnetOf,
  subnetsOverlap,
} from '../../store/address.ts';
import type { Lease, NetworkConfig, Vtep } from '../../store/lease.ts';

/** How packets for one family of a peer's pods travel. */
export interface PeerPath {
  readonly family: Family;
  readonly subnet: Subnet;
  /** The subnet's network address: stands for the peer's VTEP in routes and neighbour entries. */
  readonly gateway: Address;
  readonly mac: Mac;
  /** The peer's public address. */
  readonly remote: Address;
}

export interface Peer {
  readonly key: string;
  readonly paths: readonly PeerPath[];
}

/** Why a lease is not a peer. */
export interface SkippedLease {
  readonly key: string;
  readonly reason: string;
}

/** What this node knows of itself when it judges others. */
export interface PeerContext {
  readonly network: NetworkConfig;
  /** The families that this node's overlay carries. */
  readonly families: readonly Family[];
  readonly ownKey: string;
  readonly ownSubnets: PerFamily<Subnet>;
  readonly ownPublicAddress: PerFamily<Address>;
  readonly ownMac: PerFamily<Mac>;
}

/** The entries wanted on one family's vxlan device. A neighbour's key is also its nexthop's gateway. */
export interface WantedEntries {
  readonly neighbours: ReadonlyMap<Address, Mac>;
  readonly fdb: ReadonlyMap<Mac, Address>;
  /** By the subnet's text. */
  readonly routes: ReadonlyMap<string, PeerPath>;
  /** The peers' public addresses, with how many paths lead to each. */
  readonly remotes: ReadonlyMap<Address, number>;
}

/** Hears of every entry that may have changed, by its key in WantedEntries. */
export interface EntryObserver {
  neighbour(family: Family, gateway: Address): void;
  fdb(family: Family, mac: Mac): void;
  route(family: Family, subnet: string): void;
  remote(family: Family, remote: Address): void;
}

class FamilyEntries implements WantedEntries {
  readonly neighbours = new Map<Address, Mac>();
  readonly fdb = new Map<Mac, Address>();
  readonly routes = new Map<string, PeerPath>();
  readonly remotes = new Map<Address, number>();
  /** Leases that share a MAC, which is right while they name one public address. */
  readonly macHolders = new Map<Mac, Set<string>>();
  /** Accepted subnets by prefix length, then text: overlap is one look-up a length in use. */
  readonly subnets = new Map<number, Map<string, string>>();
}

export class PeerTable {
  readonly peers = new Map<string, Peer>();
  readonly skipped = new Map<string, SkippedLease>();
  readonly #observer: EntryObserver;
  readonly #entries: Readonly<Record<Family, FamilyEntries>> = {
    ipv4: new FamilyEntries(),
    ipv6: new FamilyEntries(),
  };
  /** Leases that wait for another to go: by that other's key. */
  readonly #blocked = new Map<string, Set<Lease>>();
  #context: PeerContext | undefined;

  constructor(observer: EntryObserver) {
    this.#observer = observer;
  }

  wanted(family: Family): WantedEntries {
    return this.#entries[family];
  }

  /** Judges every lease anew by a changed context. Peers that stay accepted keep their entries. */
  judgeAll(context: PeerContext, leases: Iterable<Lease>): void {
    this.#context = context;
    const present = new Map<string, Lease>();
    for (const lease of leases) present.set(lease.key, lease);
    this.#blocked.clear();
    this.skipped.clear();
    for (const key of this.peers.keys()) {
      const lease = present.get(key);
      if (lease === undefined || this.#objection(lease, context) !== undefined) this.#withdraw(key);
    }
    for (const lease of present.values()) this.put(lease);
  }

  /** A lease appeared or changed. */
  put(lease: Lease): void {
    const context = this.#context;
    if (context === undefined) throw new Error('a lease was judged before this node knows its own');
    this.#forget(lease.key);
    const objection = lease.key === context.ownKey ? null : this.#objection(lease, context);
    const earlier = this.peers.get(lease.key);
    if (objection !== undefined) {
      if (objection !== null) this.skipped.set(lease.key, { key: lease.key, reason: objection });
      if (earlier !== undefined) this.#withdraw(lease.key);
      return;
    }
    const paths = pathsOf(lease, context);
    const rival = this.#rival(lease.key, paths);
    if (rival !== undefined) {
      this.skipped.set(lease.key, { key: lease.key, reason: rival.reason });
      const waiting = this.#blocked.get(rival.key) ?? new Set();
      this.#blocked.set(rival.key, waiting.add(lease));
      if (earlier !== undefined) this.#withdraw(lease.key);
      return;
    }
    // The new entries are in place before the old ones go: what both need is never taken away.
    this.peers.set(lease.key, { key: lease.key, paths });
    const before = earlier?.paths ?? [];
    for (const path of paths) if (!before.some((known) => samePath(known, path))) this.#add(lease.key, path);
    for (const path of before) {
      if (!paths.some((kept) => samePath(kept, path))) this.#remove(lease.key, path, paths);
    }
    if (earlier !== undefined) this.#unblock(lease.key);
  }

  /** A lease is gone. */
  delete(key: string): void {
    this.#forget(key);
    this.#withdraw(key);
  }

  #forget(key: string): void {
    this.skipped.delete(key);
    for (const [rival, leases] of this.#blocked) {
      for (const lease of leases) if (lease.key === key) leases.delete(lease);
      if (leases.size === 0) this.#blocked.delete(rival);
    }
  }

  #withdraw(key: string): void {
    const peer = this.peers.get(key);
    if (peer === undefined) return;
    this.peers.delete(key);
    for (const path of peer.paths) this.#remove(key, path, []);
    this.#unblock(key);
  }

  #unblock(key: string): void {
    const waiting = this.#blocked.get(key);
    if (waiting === undefined) return;
    this.#blocked.delete(key);
    for (const lease of waiting) this.put(lease);
  }

  #add(key: string, path: PeerPath): void {
    const entries = this.#entries[path.family];
    const subnet = formatSubnet(path.subnet);
    entries.neighbours.set(path.gateway, path.mac);
    entries.fdb.set(path.mac, path.remote);
    entries.routes.set(subnet, path);
    entries.remotes.set(path.remote, (entries.remotes.get(path.remote) ?? 0) + 1);
    setOf(entries.macHolders, path.mac).add(key);
    mapOf(entries.subnets, path.subnet.prefixLength).set(subnet, key);
    this.#announce(path);
  }

  /** Takes a path's entries away, but for those that `kept`, the same lease's new paths, still need. */
  #remove(key: string, path: PeerPath, kept: readonly PeerPath[]): void {
    const entries = this.#entries[path.family];
    const subnet = formatSubnet(path.subnet);
    const sameFamily = kept.filter((other) => other.family === path.family);
    if (!sameFamily.some((other) => other.gateway === path.gateway)) entries.neighbours.delete(path.gateway);
    if (!sameFamily.some((other) => formatSubnet(other.subnet) === subnet)) {
      entries.routes.delete(subnet);
      const sameLength = entries.subnets.get(path.subnet.prefixLength);
      sameLength?.delete(subnet);
      if (sameLength?.size === 0) entries.subnets.delete(path.subnet.prefixLength);
    }
    if (!sameFamily.some((other) => other.mac === path.mac)) {
      const holders = entries.macHolders.get(path.mac);
      holders?.delete(key);
      if (holders === undefined || holders.size === 0) {
        entries.macHolders.delete(path.mac);
        entries.fdb.delete(path.mac);
      }
    }
    const others = (entries.remotes.get(path.remote) ?? 0) - 1;
    if (others > 0) entries.remotes.set(path.remote, others);
    else entries.remotes.delete(path.remote);
    this.#announce(path);
  }

  #announce(path: PeerPath): void {
    this.#observer.neighbour(path.family, path.gateway);
    this.#observer.fdb(path.family, path.mac);
    this.#observer.route(path.family, formatSubnet(path.subnet));
    this.#observer.remote(path.family, path.remote);
  }

  /** What is wrong with a lease by itself; undefined: nothing. */
  #objection(lease: Lease, context: PeerContext): string | undefined {
    const { backend } = lease.attributes;
    if (backend !== context.network.backend.type) {
      return `its backend is "${backend}", the network's is "${context.network.backend.type}"`;
    }
    const families = familiesInCommon(lease, context);
    for (const family of families) {
      const objection = familyObjection(lease, family, context);
      if (objection !== undefined) return objection;
    }
    if (families.length > 0) return undefined;
    const carried = context.families.join(' or ');
    return `it has no ${carried} subnet with a public address and a VTEP, and this node carries no other family`;
  }

  /** An accepted lease that this one cannot stand beside. */
  #rival(key: string, paths: readonly PeerPath[]): { key: string; reason: string } | undefined {
    for (const path of paths) {
      const entries = this.#entries[path.family];
      const remote = entries.fdb.get(path.mac);
      if (remote !== undefined && remote !== path.remote) {
        const holder = [...(entries.macHolders.get(path.mac) ?? [])].find((other) => other !== key);
        if (holder !== undefined) {
          return { key: holder, reason: `lease ${holder} has its VTEP MAC ${path.mac} at another address` };
        }
      }
      const overlapping = this.#overlap(key, path.subnet, entries);
      if (overlapping !== undefined) {
        return { key: overlapping, reason: `its subnet overlaps that of lease ${overlapping}` };
      }
    }
    return undefined;
  }

  #overlap(key: string, subnet: Subnet, entries: FamilyEntries): string | undefined {
    for (const [length, subnets] of entries.subnets) {
      if (length <= subnet.prefixLength) {
        const holder = subnets.get(formatSubnet(subnetOf(subnet.address, length)));
        if (holder !== undefined && holder !== key) return holder;
        continue;
      }
      // Shorter than one in use: rare, so it may cost a walk.
      for (const [text, holder] of subnets) {
        const inner = entries.routes.get(text)?.subnet;
        if (holder !== key && inner !== undefined && subnetContains(subnet, inner)) return holder;
      }
    }
    return undefined;
  }
}

/** A node that has one family of two is reached in that one. */
const familiesInCommon = ({ subnets, attributes }: Lease, context: PeerContext): Family[] =>
  context.families.filter(
    (family) =>
      subnets[family] !== undefined &&
      attributes.publicAddress[family] !== undefined &&
      attributes.vtep[family] !== undefined,
  );

function familyObjection(lease: Lease, family: Family, context: PeerContext): string | undefined {
  const subnet = lease.subnets[family] as Subnet;
  const network = context.network.networks[family]?.network;
  if (network === undefined || !subnetContains(network, subnet)) {
    return `its subnet ${formatSubnet(subnet)} is outside the cluster's network`;
  }
  const own = context.ownSubnets[family];
  if (own !== undefined && subnetsOverlap(own, subnet)) {
    return `its subnet ${formatSubnet(subnet)} overlaps this node's ${formatSubnet(own)}`;
  }
  const remote = lease.attributes.publicAddress[family] as Address;
  if (!isUnicast(remote) || isLoopback(remote)) return `its public address ${remote} is not a node's address`;
  if (remote === context.ownPublicAddress[family]) return `its public address ${remote} is this node's own`;
  if (subnetContains(network, remote)) return `its public address ${remote} is inside the overlay`;
  const vtep = lease.attributes.vtep[family] as Vtep;
  if (!isUnicastMac(vtep.mac)) return `its VTEP MAC ${vtep.mac} is not one that an interface can have`;
  if (vtep.mac === context.ownMac[family]) return `its VTEP MAC ${vtep.mac} is this node's own`;
  if (vtep.vni !== context.network.backend.vni) {
    return `its VNI is ${vtep.vni}, the network's is ${context.network.backend.vni}`;
  }
  return undefined;
}

function pathsOf(lease: Lease, context: PeerContext): PeerPath[] {
  return familiesInCommon(lease, context).map((family) => {
    const subnet = lease.subnets[family] as Subnet;
    const { mac } = lease.attributes.vtep[family] as Vtep;
    const remote = lease.attributes.publicAddress[family] as Address;
    return { family, subnet, gateway: subnet.address, mac, remote };
  });
}

const samePath = (a: PeerPath, b: PeerPath): boolean =>
  a.family === b.family &&
  formatSubnet(a.subnet) === formatSubnet(b.subnet) &&
  a.mac === b.mac &&
  a.remote === b.remote;

function setOf<K, V>(map: Map<K, Set<V>>, key: K): Set<V> {
  const found = map.get(key) ?? new Set();
  map.set(key, found);
  return found;
}

function mapOf<K, L, V>(map: Map<K, Map<L, V>>, key: K): Map<L, V> {
  const found = map.get(key) ?? new Map();
  map.set(key, found);
  return found;
}
