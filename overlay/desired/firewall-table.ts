/**
 * The form of the packet filter's tables: rules as nft's text, sets by declaration, elements apart from them.
 * Made by firewall.ts and pod-filter.ts, carried out by kernel/firewall.ts.
 */
import type { TableFamily } from '../kernel/nft-message.ts';
import type { FieldType, NftSet } from '../kernel/nft-set.ts';

/** The name of both tables. */
export const FIREWALL_TABLE = 'vtepd';

/** Why a packet was dropped: the names of the counters. */
export const DROP_REASONS = {
  vxlan_stranger: 'VXLAN with our VNI from an address that no peer has',
  vxlan_forged: 'VXLAN with our VNI from a process of this node',
  plain_forged: "a plain packet from the underlay with the address of one of this node's own pods",
  vxlan_pod: 'UDP to the VXLAN port from a pod to outside the overlay',
  pod_source: "a pod's packet with a MAC or IP address that is not its own",
  pod_arp: 'ARP by a pod for an address or MAC that is not its own',
  pod_ndp: 'neighbour or router advertisement or redirect that a pod may not send',
  pod_link_local: 'IPv6 without an address of the overlay',
  pod_protocol: 'a frame of a pod that is neither IPv4, IPv6 nor ARP',
} as const;
export type DropReason = keyof typeof DROP_REASONS;

export type SetName = 'peers4' | 'peers6' | 'pods4' | 'pods6' | 'targets6';

export interface FirewallSet extends NftSet {
  readonly name: SetName;
  /** As nft wants it. */
  readonly declaration: string;
  /** Its addresses are bytes without a type to nft, which then reads and prints them as a number. */
  readonly untyped: boolean;
}

/** The target address of a neighbour message: nft 1.0.6 has no name for it yet. */
export const NDP_TARGET = '@th,64,128';

const peers = (name: SetName, address: FieldType): FirewallSet => ({
  family: 'inet',
  table: FIREWALL_TABLE,
  name,
  fields: [address],
  declaration: `type ${address}`,
  untyped: false,
});

const pods = (name: SetName, address: FieldType, target?: string): FirewallSet => ({
  family: 'bridge',
  table: FIREWALL_TABLE,
  name,
  fields: ['ifname', 'ether_addr', address],
  declaration:
    target === undefined
      ? `type ifname . ether_addr . ${address}`
      : `typeof iifname . ether saddr . ${target}`,
  untyped: target !== undefined,
});

export const FIREWALL_SETS: Readonly<Record<SetName, FirewallSet>> = {
  /** Public addresses of the peers. */
  peers4: peers('peers4', 'ipv4_addr'),
  peers6: peers('peers6', 'ipv6_addr'),
  /** Port, MAC and address of the pods. */
  pods4: pods('pods4', 'ipv4_addr'),
  pods6: pods('pods6', 'ipv6_addr'),
  /** The elements of pods6: nft compares a nameless field only with a set that is declared by it. */
  targets6: pods('targets6', 'ipv6_addr', NDP_TARGET),
};

export interface FirewallChain {
  readonly name: string;
  /** `type ... hook ... priority ...`; absent: other chains go to it. */
  readonly hook?: string;
  readonly rules: readonly string[];
  /**
   * Made before the rest of the table: `rules` with its rules, which harm nobody without the rest; `hook` empty.
   * A table's chains also end in the order in which they were made.
   */
  readonly early?: 'hook' | 'rules';
}

export interface FirewallTable {
  readonly family: TableFamily;
  readonly name: string;
  readonly sets: readonly FirewallSet[];
  readonly counters: readonly DropReason[];
  readonly chains: readonly FirewallChain[];
}

/** One element of one set, in the text that nft-set.ts describes. */
export interface FirewallElement {
  readonly set: SetName;
  readonly element: string;
}

export type FirewallElements = Readonly<Record<SetName, ReadonlySet<string>>>;

export interface FirewallDesired {
  /** Those with at least one rule: a table that is not named is not wanted. */
  readonly tables: readonly FirewallTable[];
  /** Of sets that no wanted table declares, the elements are ignored. */
  readonly elements: FirewallElements;
}

/** A name that cannot stand in a rule: it would end the quotes or match other interfaces. */
export class InterfaceNameError extends Error {
  override readonly name = 'InterfaceNameError';
  readonly code = 'VTEPD_INTERFACE_NAME';
}

/** The counter's and the verdict's part of a rule. */
export const drop = (reason: DropReason): string => `counter name ${reason} drop`;

/** @throws InterfaceNameError */
export function quoted(name: string): string {
  // The kernel refuses space, slash and colon; quotes, backslash and star mean something to nft.
  if (!/^[^\s/:"*\\\p{C}]{1,15}$/u.test(name)) {
    throw new InterfaceNameError(
      `"${name.replace(/\p{C}/gu, '\ufffd').slice(0, 32)}" cannot be an interface's name in a rule: at most 15 ` +
        'characters, no space, slash, colon, quote, backslash or star',
    );
  }
  return `"${name}"`;
}
