/**
 * Other nodes by number, as many as wanted: what stands in the store for them. Pods' subnets are cut from
 * 10.0.0.0/8; public addresses are of the network that RFC 2544 keeps for benchmarks, so no packet to one
 * of them could go anywhere even outside of a lab.
 */
import {
  type Address,
  addressAt,
  formatSubnet,
  parseMac,
  parseSubnet,
  type Subnet,
} from '../../store/address.ts';
import type { Lease } from '../../store/lease.ts';
import { encodeLease, encodeLeaseKey } from '../../store/lease-codec.ts';

/** Room for MAX_PEERS /24; what is left at its end is where the measured node gets its own. */
const OVERLAY = parseSubnet('10.0.0.0/8');
const PUBLIC = parseSubnet('198.18.0.0/15');
const SUBNET_LENGTH = 24;
const SUBNET_ADDRESSES = 256;
/** 10.0.1.0 to 10.239.255.0. */
export const MAX_PEERS = 240 * 256 - 1;

export const VNI = 1;
export const PORT = 8472;

/** flannel's JSON for the store. The node's own lease is none of the numbered ones. */
export const NETWORK_CONFIG = JSON.stringify({
  Network: formatSubnet(OVERLAY),
  SubnetLen: SUBNET_LENGTH,
  SubnetMin: '10.240.0.0',
  SubnetMax: '10.255.255.0',
  Backend: { Type: 'vxlan', VNI, Port: PORT },
});

export interface NumberedPeer {
  readonly subnet: Subnet;
  readonly publicAddress: Address;
  readonly lease: Lease;
}

/** @param number from 0, below MAX_PEERS */
export function numberedPeer(number: number): NumberedPeer {
  if (number >= MAX_PEERS) throw new RangeError(`there are ${MAX_PEERS} numbered peers`);
  const subnet: Subnet = {
    family: 'ipv4',
    address: addressAt(OVERLAY, (number + 1) * SUBNET_ADDRESSES),
    prefixLength: SUBNET_LENGTH,
  };
  const publicAddress = addressAt(PUBLIC, number + 1);
  const hex = number.toString(16).padStart(6, '0');
  const mac = parseMac(`0a:be:00:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4)}`);
  const subnets = { ipv4: subnet };
  const attributes = {
    publicAddress: { ipv4: publicAddress },
    backend: 'vxlan',
    vtep: { ipv4: { vni: VNI, mac } },
  };
  return { subnet, publicAddress, lease: { key: encodeLeaseKey(subnets), subnets, attributes } };
}

/** The stored text of a numbered peer's lease. */
export const leaseText = ({ lease }: NumberedPeer): string => encodeLease(lease.attributes);
