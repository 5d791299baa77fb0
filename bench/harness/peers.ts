/**
 * Other nodes by number, as many as wanted: what stands in the store for them. Pods' subnets are cut from
 * 10.0.0.0/8 and fc00:76::/48; public addresses are of the networks that RFC 2544 and RFC 5180 keep for
 * benchmarks, so no packet to one of them could go anywhere even outside of a lab.
 */
import { familiesOf, type LabFamilies } from '../../overlay/lab/lab-network.ts';
import {
  type Address,
  addressAt,
  type Family,
  formatSubnet,
  parseMac,
  parseSubnet,
  type Subnet,
} from '../../store/address.ts';
import type { Lease, Vtep } from '../../store/lease.ts';
import { encodeLease, encodeLeaseKey } from '../../store/lease-codec.ts';

interface PeerSpace {
  /** Room for MAX_PEERS subnets; what is left at its end is where the measured node gets its own. */
  readonly overlay: Subnet;
  readonly subnetLength: number;
  readonly publicNetwork: Subnet;
}

const SPACES: Readonly<Record<Family, PeerSpace>> = {
  ipv4: {
    overlay: parseSubnet('10.0.0.0/8'),
    subnetLength: 24,
    publicNetwork: parseSubnet('198.18.0.0/15'),
  },
  ipv6: {
    overlay: parseSubnet('fc00:76::/48'),
    subnetLength: 64,
    publicNetwork: parseSubnet('2001:2::/48'),
  },
};
/** 10.0.1.0 to 10.239.255.0, fc00:76:0:1:: to fc00:76:0:efff::. */
export const MAX_PEERS = 240 * 256 - 1;

export const VNI = 1;
export const PORT = 8472;

/** flannel's JSON for the store. The node's own lease is none of the numbered ones. */
export function networkConfig(families: LabFamilies): string {
  const has = (family: Family): boolean => familiesOf(families).includes(family);
  const { ipv4, ipv6 } = SPACES;
  return JSON.stringify({
    ...(has('ipv4')
      ? {
          Network: formatSubnet(ipv4.overlay),
          SubnetLen: ipv4.subnetLength,
          SubnetMin: '10.240.0.0',
          SubnetMax: '10.255.255.0',
        }
      : { EnableIPv4: false }),
    ...(has('ipv6') && {
      EnableIPv6: true,
      IPv6Network: formatSubnet(ipv6.overlay),
      IPv6SubnetLen: ipv6.subnetLength,
      IPv6SubnetMin: 'fc00:76:0:f000::',
      IPv6SubnetMax: 'fc00:76:0:ffff::',
    }),
    Backend: { Type: 'vxlan', VNI, Port: PORT },
  });
}

/** One family of a numbered peer. */
export interface PeerSide {
  readonly family: Family;
  readonly subnet: Subnet;
  readonly publicAddress: Address;
  readonly vtep: Vtep;
}

export interface NumberedPeer {
  /** One a family; the first of them by itself, for where one is enough. */
  readonly sides: readonly PeerSide[];
  readonly subnet: Subnet;
  readonly publicAddress: Address;
  readonly lease: Lease;
}

/** @param number from 0, below MAX_PEERS */
export function numberedPeer(number: number, families: LabFamilies = 'ipv4'): NumberedPeer {
  if (number >= MAX_PEERS) throw new RangeError(`there are ${MAX_PEERS} numbered peers`);
  const sides = familiesOf(families).map((family) => sideOf(number, family));
  const [first] = sides;
  if (first === undefined) throw new RangeError('a peer has a family');
  const subnets: { [F in Family]?: Subnet } = {};
  const publicAddress: { [F in Family]?: Address } = {};
  const vtep: { [F in Family]?: Vtep } = {};
  for (const side of sides) {
    subnets[side.family] = side.subnet;
    publicAddress[side.family] = side.publicAddress;
    vtep[side.family] = side.vtep;
  }
  const attributes = { publicAddress, backend: 'vxlan', vtep };
  const lease = { key: encodeLeaseKey(subnets), subnets, attributes };
  return { sides, subnet: first.subnet, publicAddress: first.publicAddress, lease };
}

/** The second byte of the VTEP's MAC: each family has a device of its own. */
const MAC_BYTE: Readonly<Record<Family, string>> = { ipv4: 'be', ipv6: 'b6' };

function sideOf(number: number, family: Family): PeerSide {
  const { overlay, subnetLength, publicNetwork } = SPACES[family];
  const bits = family === 'ipv4' ? 32 : 128;
  const offset = BigInt(number + 1) << BigInt(bits - subnetLength);
  const hex = number.toString(16).padStart(6, '0');
  const mac = parseMac(`0a:${MAC_BYTE[family]}:00:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4)}`);
  return {
    family,
    subnet: { family, address: addressAt(overlay, offset), prefixLength: subnetLength },
    publicAddress: addressAt(publicNetwork, number + 1),
    vtep: { vni: VNI, mac },
  };
}

/** The stored text of a numbered peer's lease. */
export const leaseText = ({ lease }: NumberedPeer): string => encodeLease(lease.attributes);
