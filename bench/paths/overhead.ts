/**
 * What each way of carrying a packet adds to it: computed here from the formats, captured elsewhere, and
 * compared. Pure.
 */
import { ETHERNET_HEADER_BYTES } from '../../encap/wire/ethernet.ts';
import { IPV4_HEADER_BYTES } from '../../encap/wire/ipv4.ts';
import { IPV6_HEADER_BYTES } from '../../encap/wire/ipv6.ts';
import { UDP_HEADER_BYTES } from '../../encap/wire/udp.ts';
import { VXLAN_HEADER_BYTES } from '../../encap/wire/vxlan.ts';
import type { Family } from '../../store/address.ts';
import type { Layer } from '../report/schema.ts';

/** How a packet is wrapped. `none`: as it is. */
export type Encapsulation = 'none' | 'vxlan' | 'wireguard' | 'tinc' | 'fastd';

/** Type and reserved, receiver, counter (the WireGuard paper, 5.4.6). */
const WIREGUARD_HEADER_BYTES = 16;
/** Poly1305's. */
const WIREGUARD_TAG_BYTES = 16;
/** tinc 1.0 without cipher and digest: a sequence number. */
const TINC_SEQUENCE_BYTES = 4;
/** fastd's null method: the type of the packet. */
const FASTD_TYPE_BYTES = 1;

/** With timestamps, as Linux sends them. */
const TCP_HEADER_BYTES = 32;
/** Around each frame on a real wire: preamble and delimiter, check sequence, gap (IEEE 802.3). */
const WIRE_BYTES = 8 + 4 + 12;

type Part = readonly [name: string, bytes: number];

const UNDERLAY_IP: Readonly<Record<Family, Part>> = {
  ipv4: ['IPv4', IPV4_HEADER_BYTES],
  ipv6: ['IPv6', IPV6_HEADER_BYTES],
};

/** What stands between the underlay's Ethernet header and the pod's IP header, outermost first. */
function addedLayers(encapsulation: Encapsulation, underlay: Family): readonly Part[] {
  const carried: readonly Part[] = [UNDERLAY_IP[underlay], ['UDP', UDP_HEADER_BYTES]];
  switch (encapsulation) {
    case 'none':
      return [];
    case 'vxlan':
      return [...carried, ['VXLAN', VXLAN_HEADER_BYTES], ['Ethernet', ETHERNET_HEADER_BYTES]];
    case 'wireguard':
      return [
        ...carried,
        ['WireGuard', WIREGUARD_HEADER_BYTES],
        ['tag (behind the packet)', WIREGUARD_TAG_BYTES],
      ];
    case 'tinc':
      return [...carried, ['tinc', TINC_SEQUENCE_BYTES], ['Ethernet', ETHERNET_HEADER_BYTES]];
    case 'fastd':
      return [...carried, ['fastd', FASTD_TYPE_BYTES]];
  }
}

/** Bytes that it adds to a pod's IP packet. */
export const overheadBytes = (encapsulation: Encapsulation, underlay: Family): number =>
  addedLayers(encapsulation, underlay).reduce((sum, [, bytes]) => sum + bytes, 0);

/** WireGuard fills an IP packet up to a multiple of this, where the MTU leaves room. */
export const WIREGUARD_PADDING_BYTES = 16;

/** A full-sized TCP segment over IPv4 as it leaves the node, outermost header first. @param mtuBytes the pod's */
export function layersOf(encapsulation: Encapsulation, underlay: Family, mtuBytes: number): Layer[] {
  const added = addedLayers(encapsulation, underlay).map(
    ([name, bytes]): Layer => ({ name, bytes, role: 'added' }),
  );
  return [
    { name: 'Ethernet', bytes: ETHERNET_HEADER_BYTES, role: 'outer' },
    ...added,
    { name: 'IPv4', bytes: IPV4_HEADER_BYTES, role: 'inner' },
    { name: 'TCP', bytes: TCP_HEADER_BYTES, role: 'inner' },
    { name: 'payload', bytes: mtuBytes - IPV4_HEADER_BYTES - TCP_HEADER_BYTES, role: 'inner' },
  ];
}

/** Of all the time that a full-sized frame takes on a wire, the share that carries payload: 0 to 1. */
export function efficiency(layers: readonly Layer[]): number {
  const whole = layers.reduce((sum, { bytes }) => sum + bytes, WIRE_BYTES);
  const payload = layers.find(({ name }) => name === 'payload')?.bytes ?? 0;
  return payload / whole;
}
