/**
 * What one lease is to this node: nothing, for a reason, or a peer with a path a family. Pure, of one lease;
 * what leases are to each other is peer-table.ts's.
 *
 * A path is `direct` where the backend routes directly and the peer's public address is on our underlay link:
 * a plain route to that address. All others go through the `tunnel`. Each node decides by itself for the way
 * there; the way back may be the other kind (two nodes with different netmasks), and both work.
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
  subnetsOverlap,
} from '../../store/address.ts';
import type { Lease, NetworkConfig } from '../../store/lease.ts';
import { isOnLink, type LinkReach, routesDirectly } from './on-link.ts';

export type Travel = 'tunnel' | 'direct';

interface AnyPath {
  readonly family: Family;
  readonly subnet: Subnet;
  /**
   * Where the route leads. In the tunnel the subnet's network address, which stands for the peer's VTEP in
   * routes and neighbour entries; directly the peer's public address.
   */
  readonly gateway: Address;
  /** The peer's public address. */
  readonly remote: Address;
}

export interface TunnelPath extends AnyPath {
  readonly travel: 'tunnel';
  readonly mac: Mac;
}

export interface DirectPath extends AnyPath {
  readonly travel: 'direct';
  /** The peer's VTEP, where the backend has them. */
  readonly mac: Mac | undefined;
}

/** How packets for one family of a peer's pods travel. */
export type PeerPath = TunnelPath | DirectPath;

/** What this node knows of itself when it judges others. */
export interface PeerContext {
  readonly network: NetworkConfig;
  /** The families that this node's overlay carries. */
  readonly families: readonly Family[];
  readonly ownKey: string;
  readonly ownSubnets: PerFamily<Subnet>;
  readonly ownPublicAddress: PerFamily<Address>;
  readonly ownMac: PerFamily<Mac>;
  /** Leases that this node had before the network changed: its own as well. */
  readonly formerLeases?: readonly Lease[] | undefined;
  /** Networks that the cluster had before, in which leases still lie. */
  readonly formerNetworks?: PerFamily<readonly Subnet[]> | undefined;
  /** What the underlay link reaches without a router; looked at only where the backend routes directly. */
  readonly reach?: PerFamily<LinkReach> | undefined;
}

/** A peer's paths, and what of it cannot be reached. */
export interface PeerPaths {
  readonly paths: readonly PeerPath[];
  /** In words, a family each; empty for nearly every peer. */
  readonly unreachable: readonly string[];
}

/** @returns the reason not to use the lease at all, or its paths */
export function judgeLease(lease: Lease, context: PeerContext): string | PeerPaths {
  const { backend } = lease.attributes;
  const { type } = context.network.backend;
  if (backend !== type) return `its backend is "${backend}", the network's is "${type}"`;
  const families = familiesInCommon(lease, context);
  if (families.length === 0) {
    const needed = type === 'vxlan' ? 'a public address and a VTEP' : 'a public address';
    return `it has no ${context.families.join(' or ')} subnet with ${needed}, and this node carries no other family`;
  }
  for (const family of families) {
    const objection = familyObjection(lease, family, context);
    if (objection !== undefined) return objection;
  }
  const paths: PeerPath[] = [];
  const unreachable: string[] = [];
  for (const family of families) {
    const path = pathOf(lease, family, context);
    if (typeof path === 'string') unreachable.push(path);
    else paths.push(path);
  }
  return paths.length === 0 ? unreachable.join('; ') : { paths, unreachable };
}

export const samePath = (a: PeerPath, b: PeerPath): boolean =>
  a.family === b.family &&
  formatSubnet(a.subnet) === formatSubnet(b.subnet) &&
  a.travel === b.travel &&
  a.mac === b.mac &&
  a.remote === b.remote;

/** A node that has one family of two is reached in that one. */
const familiesInCommon = ({ subnets, attributes }: Lease, context: PeerContext): Family[] =>
  context.families.filter(
    (family) =>
      subnets[family] !== undefined &&
      attributes.publicAddress[family] !== undefined &&
      (context.network.backend.type !== 'vxlan' || attributes.vtep[family] !== undefined),
  );

/** Of a family in common. */
function familyObjection(lease: Lease, family: Family, context: PeerContext): string | undefined {
  const subnet = lease.subnets[family] as Subnet;
  const current = context.network.networks[family]?.network;
  const networks = [...(current === undefined ? [] : [current]), ...(context.formerNetworks?.[family] ?? [])];
  if (!networks.some((network) => subnetContains(network, subnet))) {
    return `its subnet ${formatSubnet(subnet)} is outside the cluster's network`;
  }
  const former = context.formerLeases?.flatMap(({ subnets }) => subnets[family] ?? []) ?? [];
  for (const own of [context.ownSubnets[family], ...former]) {
    if (own !== undefined && subnetsOverlap(own, subnet)) {
      return `its subnet ${formatSubnet(subnet)} overlaps this node's ${formatSubnet(own)}`;
    }
  }
  const remote = lease.attributes.publicAddress[family] as Address;
  if (!isUnicast(remote) || isLoopback(remote)) return `its public address ${remote} is not a node's address`;
  if (remote === context.ownPublicAddress[family]) return `its public address ${remote} is this node's own`;
  if (networks.some((network) => subnetContains(network, remote))) {
    return `its public address ${remote} is inside the overlay`;
  }
  const vtep = lease.attributes.vtep[family];
  if (vtep === undefined) return undefined;
  if (!isUnicastMac(vtep.mac)) return `its VTEP MAC ${vtep.mac} is not one that an interface can have`;
  if (vtep.mac === context.ownMac[family]) return `its VTEP MAC ${vtep.mac} is this node's own`;
  if (vtep.vni !== context.network.backend.vni) {
    return `its VNI is ${vtep.vni}, the network's is ${context.network.backend.vni}`;
  }
  return undefined;
}

/** Of a family in common. @returns the reason where there is no way */
function pathOf(lease: Lease, family: Family, context: PeerContext): string | PeerPath {
  const { backend } = context.network;
  const subnet = lease.subnets[family] as Subnet;
  const remote = lease.attributes.publicAddress[family] as Address;
  const mac = lease.attributes.vtep[family]?.mac;
  if (routesDirectly(backend) && isOnLink(remote, context.reach?.[family])) {
    return { travel: 'direct', family, subnet, gateway: remote, mac, remote };
  }
  if (mac !== undefined) return { travel: 'tunnel', family, subnet, gateway: subnet.address, mac, remote };
  return (
    `its public address ${remote} is not on the underlay link, and the ${backend.type} backend has no tunnel: ` +
    'put all nodes on one link, or use the vxlan backend with DirectRouting'
  );
}
