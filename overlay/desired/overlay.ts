/**
 * The devices, addresses and sysctls that this node's lease asks for: pure, from the network configuration,
 * the lease and the underlay. The peers' entries on them are peer-table.ts's.
 *
 * With the host-gw backend there is no vxlan device, and pods get the underlay's whole MTU. With DirectRouting
 * they get the tunnel's, also towards peers that are routed directly: a pod has one MTU, some of its peers are
 * behind the tunnel, and a flow whose peer moves into it must not stall.
 */
import {
  type Address,
  addressAt,
  addressBits,
  FAMILIES,
  type Family,
  type Mac,
  type PerFamily,
  type Subnet,
} from '../../store/address.ts';
import type { Lease, NetworkConfig } from '../../store/lease.ts';
import { type DataPathChoice, type DataPathWish, wantDataPath } from './data-path.ts';
import type { PodNetworkFacts } from './pods.ts';
import type { Underlay } from './underlay.ts';

/** What encapsulation adds to a packet: outer IP, UDP, VXLAN and inner Ethernet headers (RFC 7348). */
export const OVERHEAD_BYTES: Readonly<Record<Family, number>> = { ipv4: 50, ipv6: 70 };

export interface WantedVxlan {
  readonly family: Family;
  readonly name: string;
  readonly vni: number;
  readonly port: number;
  readonly local: Address;
  readonly mac: Mac;
  readonly mtuBytes: number;
  /** The subnet's network address, as a host address: the source of this node's own packets to pods. */
  readonly address: Address;
  readonly addressBits: number;
  /** The same of leases that this node had before: its own flows that began then go on. */
  readonly formerAddresses: readonly Address[];
  /** No packet of the tunnel is larger on the underlay. */
  readonly underlayMtuBytes: number;
}

export interface WantedBridge {
  readonly name: string;
  readonly mac: Mac;
  readonly mtuBytes: number;
  /** The pods' gateways; last those of pods whose subnet this node leased before. */
  readonly addresses: readonly { readonly address: Address; readonly prefixLength: number }[];
}

/** What a change of the network left behind, for as long as somebody's pods need it. */
export interface FormerState {
  /** Leases of this node besides its current one: each has pods. */
  readonly leases: readonly Lease[];
  /** Networks besides the current one in which some node's leases may lie. */
  readonly networks: PerFamily<readonly Subnet[]>;
}

export const NOTHING_FORMER: FormerState = { leases: [], networks: {} };

export interface WantedOverlay {
  readonly network: NetworkConfig;
  readonly lease: Lease;
  readonly former: FormerState;
  readonly underlay: Underlay;
  readonly families: readonly Family[];
  readonly vxlan: PerFamily<WantedVxlan>;
  /** What is to carry their packets. */
  readonly datapath: DataPathWish;
  readonly bridge: WantedBridge;
}

/** What only this node knows: names that the operator chose, MACs that the state directory keeps. */
export interface OverlayIdentity {
  readonly deviceName: (family: Family, vni: number) => string;
  readonly bridgeName: string;
  readonly bridgeMac: Mac;
  /** The operator's; `auto` unless told. */
  readonly datapath?: DataPathChoice;
}

/** The families that this node carries: in the network, in its lease, and with an underlay address. */
export const carriedFamilies = (network: NetworkConfig, underlay: Underlay): Family[] =>
  (['ipv4', 'ipv6'] as const).filter(
    (family) => network.networks[family] !== undefined && underlay.localAddress[family] !== undefined,
  );

export function wantOverlay(
  network: NetworkConfig,
  lease: Lease,
  underlay: Underlay,
  identity: OverlayIdentity,
  former: FormerState = NOTHING_FORMER,
): WantedOverlay {
  const leases = [lease, ...former.leases.filter(({ key }) => key !== lease.key)];
  // A family that the network has no more is carried on while pods have addresses of it.
  const families = FAMILIES.filter(
    (family) =>
      underlay.localAddress[family] !== undefined &&
      leases.some(({ subnets }) => subnets[family] !== undefined),
  );
  const vxlan: { [F in Family]?: WantedVxlan } = {};
  const addresses: WantedBridge['addresses'][number][] = [];
  const mtuBytes = overlayMtu(network, underlay, families);
  for (const family of families) {
    const [subnet, ...others] = leases.flatMap(({ subnets }) => subnets[family] ?? []);
    const local = underlay.localAddress[family];
    if (subnet === undefined || local === undefined) continue;
    for (const each of [subnet, ...others]) {
      addresses.push({ address: gatewayOf(each), prefixLength: each.prefixLength });
    }
    const [vtep] = leases.flatMap(({ attributes }) => attributes.vtep[family] ?? []);
    if (network.backend.type !== 'vxlan' || vtep === undefined) continue;
    const { vni, port } = network.backend;
    vxlan[family] = {
      family,
      name: identity.deviceName(family, vni),
      vni,
      port,
      local,
      mac: vtep.mac,
      mtuBytes,
      address: subnet.address,
      addressBits: addressBits(family),
      formerAddresses: others.map(({ address }) => address),
      underlayMtuBytes: underlay.link.mtuBytes,
    };
  }
  const bridge = { name: identity.bridgeName, mac: identity.bridgeMac, mtuBytes, addresses };
  return {
    network,
    lease,
    former: { ...former, leases: leases.slice(1) },
    underlay,
    families,
    vxlan,
    datapath: wantDataPath(identity.datapath ?? 'auto', network),
    bridge,
  };
}

/** One MTU for device, bridge and pods: the smallest that any family's encapsulation leaves, if there is one. */
export function overlayMtu(network: NetworkConfig, underlay: Underlay, families: readonly Family[]): number {
  const tunnels = network.backend.type === 'host-gw' ? [] : families;
  const overhead = Math.max(...tunnels.map((family) => OVERHEAD_BYTES[family]), 0);
  return (network.backend.mtuBytes ?? underlay.link.mtuBytes) - overhead;
}

/** The first address after the network's own is the bridge's. */
export const gatewayOf = (subnet: Subnet): Address => addressAt(subnet, 1);

/** The networks in which pods' addresses lie, the current one first. */
export function clusterNetworksOf({ network, former }: WantedOverlay, family: Family): Subnet[] {
  const current = network.networks[family]?.network;
  return [...(current === undefined ? [] : [current]), ...(former.networks[family] ?? [])];
}

/** What the pods' side needs to know; `bridgeIndex` comes from the kernel. */
export function podNetworkFacts(wanted: WantedOverlay, bridgeIndex: number): PodNetworkFacts {
  const subnets: { [F in Family]?: Subnet } = {};
  const gateways: { [F in Family]?: Address } = {};
  const clusterNetworks: { [F in Family]?: Subnet } = {};
  for (const family of wanted.families) {
    const subnet = wanted.lease.subnets[family];
    const network = wanted.network.networks[family]?.network;
    if (subnet === undefined || network === undefined) continue;
    subnets[family] = subnet;
    gateways[family] = gatewayOf(subnet);
    clusterNetworks[family] = network;
  }
  return {
    bridge: wanted.bridge.name,
    bridgeIndex,
    subnets,
    gateways,
    clusterNetworks,
    mtuBytes: wanted.bridge.mtuBytes,
  };
}

/** The devices that packets of pods come in by, and so must forward: ours, and the underlay's. */
export const forwardingDevices = (wanted: WantedOverlay, family: Family): string[] => [
  wanted.bridge.name,
  ...(wanted.vxlan[family] === undefined ? [] : [wanted.vxlan[family].name]),
  wanted.underlay.link.name,
];
