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
  type Mac,
  type Subnet,
  subnetContains,
  subnetOf,
} from '../../store/address.ts';
import type { Lease } from '../../store/lease.ts';
import { judgeLease, type PeerContext, type PeerPath, samePath, type Travel } from './peer-paths.ts';

export type { PeerContext, PeerPath } from './peer-paths.ts';

export interface Peer {
  readonly key: string;
  readonly paths: readonly PeerPath[];
  /** Families of it that cannot be reached, in words. */
  readonly unreachable: readonly string[];
}

/** Why a lease is not a peer. */
export interface SkippedLease {
  readonly key: string;
  readonly reason: string;
}

/** The entries wanted for one family's peers. */
export interface WantedEntries {
  /** On the vxlan device: a tunnel path's gateway is at the peer's VTEP MAC. */
  readonly neighbours: ReadonlyMap<Address, Mac>;
  /** On the vxlan device: that MAC is behind the peer's public address. */
  readonly fdb: ReadonlyMap<Mac, Address>;
  /**
   * Every VTEP of a peer, with those that are routed directly: from there too packets come through the tunnel, for as
   * long as the peer itself has not moved.
   */
  readonly vteps: ReadonlyMap<Mac, Address>;
  /** Where routes lead, and over which device: a tunnel's gateway over the vxlan, another over the underlay's. */
  readonly gateways: ReadonlyMap<Address, Travel>;
  /** By the subnet's text. */
  readonly routes: ReadonlyMap<string, PeerPath>;
  /** The peers' public addresses, with how many paths lead to each. */
  readonly remotes: ReadonlyMap<Address, number>;
}

/** Hears of every entry that may have changed, by its key in WantedEntries. */
export interface EntryObserver {
  neighbour(family: Family, address: Address): void;
  fdb(family: Family, mac: Mac): void;
  gateway(family: Family, gateway: Address): void;
  route(family: Family, subnet: string): void;
  remote(family: Family, remote: Address): void;
}

class FamilyEntries implements WantedEntries {
  readonly neighbours = new Map<Address, Mac>();
  readonly fdb = new Map<Mac, Address>();
  readonly gateways = new Map<Address, Travel>();
  readonly routes = new Map<string, PeerPath>();
  readonly remotes = new Map<Address, number>();
  /** Two leases at one public address share a direct gateway, and may share a MAC: how many paths need each. */
  readonly gatewayUsers = new Map<Address, number>();
  readonly tunnelsOfMac = new Map<Mac, number>();
  /** Every VTEP MAC, in use for a tunnel or not: where it is, and the leases that name it. */
  readonly vteps = new Map<Mac, Address>();
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
      if (lease === undefined || typeof judgeLease(lease, context) === 'string') this.#withdraw(key);
    }
    for (const lease of present.values()) this.put(lease);
  }

  /** A lease appeared or changed. */
  put(lease: Lease): void {
    const context = this.#context;
    if (context === undefined) throw new Error('a lease was judged before this node knows its own');
    this.#forget(lease.key);
    const earlier = this.peers.get(lease.key);
    const judged = isOwn(lease, context) ? undefined : judgeLease(lease, context);
    if (judged === undefined || typeof judged === 'string') {
      if (judged !== undefined) this.skipped.set(lease.key, { key: lease.key, reason: judged });
      if (earlier !== undefined) this.#withdraw(lease.key);
      return;
    }
    const { paths, unreachable } = judged;
    const rival = this.#rival(lease.key, paths);
    if (rival !== undefined) {
      this.skipped.set(lease.key, { key: lease.key, reason: rival.reason });
      const waiting = this.#blocked.get(rival.key) ?? new Set();
      this.#blocked.set(rival.key, waiting.add(lease));
      if (earlier !== undefined) this.#withdraw(lease.key);
      return;
    }
    // The new entries are in place before the old ones go: what both need is never taken away.
    this.peers.set(lease.key, { key: lease.key, paths, unreachable });
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
    if (path.travel === 'tunnel') {
      entries.neighbours.set(path.gateway, path.mac);
      entries.fdb.set(path.mac, path.remote);
      more(entries.tunnelsOfMac, path.mac);
    }
    entries.gateways.set(path.gateway, path.travel);
    more(entries.gatewayUsers, path.gateway);
    entries.routes.set(subnet, path);
    more(entries.remotes, path.remote);
    if (path.mac !== undefined) {
      entries.vteps.set(path.mac, path.remote);
      setOf(entries.macHolders, path.mac).add(key);
    }
    mapOf(entries.subnets, path.subnet.prefixLength).set(subnet, key);
    this.#announce(path);
  }

  /** Takes a path's entries away, but for those that `kept`, the same lease's new paths, still need. */
  #remove(key: string, path: PeerPath, kept: readonly PeerPath[]): void {
    const entries = this.#entries[path.family];
    const subnet = formatSubnet(path.subnet);
    const sameFamily = kept.filter((other) => other.family === path.family);
    if (!sameFamily.some((other) => formatSubnet(other.subnet) === subnet)) {
      entries.routes.delete(subnet);
      const sameLength = entries.subnets.get(path.subnet.prefixLength);
      sameLength?.delete(subnet);
      if (sameLength?.size === 0) entries.subnets.delete(path.subnet.prefixLength);
    }
    if (fewer(entries.gatewayUsers, path.gateway) === 0) {
      entries.gateways.delete(path.gateway);
      entries.neighbours.delete(path.gateway);
    }
    if (path.travel === 'tunnel' && fewer(entries.tunnelsOfMac, path.mac) === 0) entries.fdb.delete(path.mac);
    if (path.mac !== undefined && !sameFamily.some((other) => other.mac === path.mac)) {
      const holders = entries.macHolders.get(path.mac);
      holders?.delete(key);
      if (holders === undefined || holders.size === 0) {
        entries.macHolders.delete(path.mac);
        entries.vteps.delete(path.mac);
      }
    }
    fewer(entries.remotes, path.remote);
    this.#announce(path);
  }

  #announce(path: PeerPath): void {
    if (path.travel === 'tunnel') this.#observer.neighbour(path.family, path.gateway);
    if (path.mac !== undefined) this.#observer.fdb(path.family, path.mac);
    this.#observer.gateway(path.family, path.gateway);
    this.#observer.route(path.family, formatSubnet(path.subnet));
    this.#observer.remote(path.family, path.remote);
  }

  /** An accepted lease that this one cannot stand beside. */
  #rival(key: string, paths: readonly PeerPath[]): { key: string; reason: string } | undefined {
    for (const path of paths) {
      const entries = this.#entries[path.family];
      const remote = path.mac && entries.vteps.get(path.mac);
      if (path.mac !== undefined && remote !== undefined && remote !== path.remote) {
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

const isOwn = ({ key }: Lease, { ownKey, formerLeases }: PeerContext): boolean =>
  key === ownKey || formerLeases?.some((former) => former.key === key) === true;

function more<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** @returns how many are left */
function fewer<K>(counts: Map<K, number>, key: K): number {
  const left = (counts.get(key) ?? 1) - 1;
  if (left > 0) counts.set(key, left);
  else counts.delete(key);
  return left;
}

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
