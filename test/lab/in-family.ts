/** What the status and the kernel call things in each family, for tests that run in both. */
import type { LeaseStatus, PeerStatus } from '../../overlay/ops/status.ts';
import type { Family } from '../../store/address.ts';

/** The vxlan device of VNI 1. */
export const VXLAN_DEVICE: Readonly<Record<Family, string>> = { ipv4: 'vtep.1', ipv6: 'vtep6.1' };

/** nftables' sets are named `peers4`, `pods6`. */
export const FAMILY_DIGIT: Readonly<Record<Family, string>> = { ipv4: '4', ipv6: '6' };

/** What a packet of the underlay has more than the pod's packet in it. */
export const OVERHEAD: Readonly<Record<Family, number>> = { ipv4: 50, ipv6: 70 };

/** A node as its own lease, or another's list of peers, shows it in one family. */
export interface NodeInFamily {
  readonly subnet: string;
  /** The subnet without its length. */
  readonly network: string;
  readonly publicIP: string;
  readonly vtepMAC: string;
}

/** @throws Error when it is not there in this family */
export function inFamily(shown: LeaseStatus | PeerStatus | null | undefined, family: Family): NodeInFamily {
  const [subnet, publicIP, vtepMAC] =
    family === 'ipv4'
      ? [shown?.subnet, shown?.publicIP, shown?.vtepMAC]
      : [shown?.subnetIPv6, shown?.publicIPv6, shown?.vtepMACIPv6];
  if (subnet === undefined || publicIP === undefined || vtepMAC === undefined) {
    throw new Error(`it is not there in ${family}: ${JSON.stringify(shown)}`);
  }
  return { subnet, network: subnet.slice(0, subnet.indexOf('/')), publicIP, vtepMAC };
}
