/**
 * Leases and the cluster's network configuration, as the rest of vtepd sees them: parsed, precise, plain.
 * The stored form (flannel's schema) is lease-codec.ts's and network-config.ts's business.
 */
import { type Address, type Family, type Mac, type PerFamily, type Subnet, sameSubnet } from './address.ts';

/** One tunnel end of a lease: a vxlan lease has one a family of the underlay. */
export interface Vtep {
  readonly vni: number;
  readonly mac: Mac;
}

export interface LeaseAttributes {
  /** Where the node receives encapsulated packets. */
  readonly publicAddress: PerFamily<Address>;
  /** `vxlan`, `host-gw`, or whatever another program wrote. */
  readonly backend: string;
  readonly vtep: PerFamily<Vtep>;
}

/** A node's subnet with what its peers need to reach it. */
export interface Lease {
  /** The store's name for it: `10.244.5.0-24`, `10.244.5.0-24&fc00:0:0:5::-64`, its subnets as etcd keeps them. */
  readonly key: string;
  readonly subnets: PerFamily<Subnet>;
  readonly attributes: LeaseAttributes;
}

/** A stored lease that could not be read. It is counted and named; the others go on. */
export interface MalformedLease {
  readonly key: string;
  readonly reason: string;
}

export interface BackendConfig {
  /**
   * As it was written. Only `vxlan`, `host-gw` and, as vxlan that is carried in user space, `udp` mean something to
   * vtepd; others are refused by name where they matter.
   */
  readonly type: string;
  /** A `udp` that was taken for a `vxlan`: see desired/data-path.ts. Never in a document. */
  readonly datapath?: 'userspace' | undefined;
  readonly vni: number;
  readonly port: number;
  readonly directRouting: boolean;
  /**
   * Of encapsulated packets, in bytes, as flannel means it: pods get this less the encapsulation. Absent: the
   * underlay interface's.
   */
  readonly mtuBytes?: number | undefined;
}

/** One family of the cluster's network: where subnets are cut from. */
export interface FamilyNetwork {
  readonly network: Subnet;
  readonly subnetLength: number;
  /** First and last subnet that may be leased, inclusive. */
  readonly subnetMin: Address;
  readonly subnetMax: Address;
}

export interface NetworkConfig {
  readonly networks: PerFamily<FamilyNetwork>;
  readonly backend: BackendConfig;
}

/** The families that the network gives addresses of. */
export const networkFamilies = (config: NetworkConfig): Family[] =>
  (['ipv4', 'ipv6'] as const).filter((family) => config.networks[family] !== undefined);

export function sameAttributes(a: LeaseAttributes, b: LeaseAttributes): boolean {
  const same = (family: Family) =>
    a.publicAddress[family] === b.publicAddress[family] &&
    a.vtep[family]?.mac === b.vtep[family]?.mac &&
    a.vtep[family]?.vni === b.vtep[family]?.vni;
  return a.backend === b.backend && same('ipv4') && same('ipv6');
}

export function sameLease(a: Lease, b: Lease): boolean {
  if (a === b) return true;
  const same = (x: Subnet | undefined, y: Subnet | undefined) =>
    x === undefined || y === undefined ? x === y : sameSubnet(x, y);
  return (
    a.key === b.key &&
    same(a.subnets.ipv4, b.subnets.ipv4) &&
    same(a.subnets.ipv6, b.subnets.ipv6) &&
    sameAttributes(a.attributes, b.attributes)
  );
}
