/**
 * A captured frame taken apart, outermost header first, down to what a VXLAN packet carries: for people and
 * for checks. Each layer keeps its own decoded header, so nothing is parsed out of text.
 */
import type { Decoded, Fault } from './decoded.ts';
import { decodeEthernet, ETHERTYPE_IPV4, ETHERTYPE_IPV6, type EthernetHeader } from './ethernet.ts';
import { decodeIcmp, type IcmpHeader } from './icmp.ts';
import { decodeIpv4, type Ipv4Header, PROTOCOL_ICMP, PROTOCOL_UDP } from './ipv4.ts';
import { decodeIpv6, type Ipv6Header, PROTOCOL_ICMPV6 } from './ipv6.ts';
import { decodeUdp, type UdpHeader } from './udp.ts';
import { decodeVxlan, type VxlanHeader } from './vxlan.ts';

export type Layer = (
  | { readonly kind: 'ethernet'; readonly header: EthernetHeader }
  | { readonly kind: 'ipv4'; readonly header: Ipv4Header }
  | { readonly kind: 'ipv6'; readonly header: Ipv6Header }
  | { readonly kind: 'udp'; readonly header: UdpHeader }
  | { readonly kind: 'vxlan'; readonly header: VxlanHeader }
  | { readonly kind: 'icmp' | 'icmpv6'; readonly header: IcmpHeader }
  /** What is not taken apart further. */
  | { readonly kind: 'data'; readonly header?: undefined }
  /** A header that is not what the one before said it would be. */
  | {
      readonly kind: 'broken';
      readonly expected: LayerKind;
      readonly fault: Fault;
      readonly header?: undefined;
    }
) & {
  /** The header's bytes; all that is left for `data` and `broken`. */
  readonly bytes: Uint8Array;
  /** 0 outside, 1 inside the tunnel. */
  readonly depth: number;
};

export type LayerKind = 'ethernet' | 'ipv4' | 'ipv6' | 'udp' | 'vxlan' | 'icmp' | 'icmpv6';

/** How deep tunnels in tunnels are followed. */
const MAX_DEPTH = 4;

/** Takes an Ethernet frame apart; UDP to `vxlanPort` is VXLAN. Any bytes give layers, never an error. */
export function takeApart(frame: Uint8Array, vxlanPort: number): Layer[] {
  const layers: Layer[] = [];
  let next: LayerKind | undefined = 'ethernet';
  let bytes = frame;
  let depth = 0;
  while (next !== undefined) {
    const kind: LayerKind = next;
    const decoded: Decoded<unknown> = DECODERS[kind](bytes);
    if (decoded.fault !== undefined) {
      layers.push({ kind: 'broken', expected: kind, fault: decoded.fault, bytes, depth });
      return layers;
    }
    const headerEnd = decoded.payload.byteOffset - bytes.byteOffset;
    // The table below pairs each kind with its decoder, which the compiler cannot follow through a lookup.
    layers.push({ kind, header: decoded.header, bytes: bytes.subarray(0, headerEnd), depth } as Layer);
    bytes = decoded.payload;
    if (kind === 'vxlan') depth++;
    next = depth > MAX_DEPTH ? undefined : following(layers.at(-1), vxlanPort);
  }
  if (bytes.length > 0) layers.push({ kind: 'data', bytes, depth });
  return layers;
}

const DECODERS = {
  ethernet: decodeEthernet,
  ipv4: decodeIpv4,
  ipv6: decodeIpv6,
  udp: decodeUdp,
  vxlan: decodeVxlan,
  icmp: decodeIcmp,
  icmpv6: decodeIcmp,
} as const satisfies Record<LayerKind, (bytes: Uint8Array) => Decoded<unknown>>;

function following(layer: Layer | undefined, vxlanPort: number): LayerKind | undefined {
  switch (layer?.kind) {
    case 'ethernet':
      return ETHERNET_PAYLOADS.get(layer.header.etherType);
    case 'ipv4':
      // Only a packet's first fragment begins with the next header.
      return layer.header.fragmentOffsetBytes > 0 ? undefined : IP_PAYLOADS.get(layer.header.protocol);
    case 'ipv6':
      return IP_PAYLOADS.get(layer.header.nextHeader);
    case 'udp':
      return layer.header.destinationPort === vxlanPort ? 'vxlan' : undefined;
    case 'vxlan':
      return 'ethernet';
    default:
      return undefined;
  }
}

const ETHERNET_PAYLOADS: ReadonlyMap<number, LayerKind> = new Map([
  [ETHERTYPE_IPV4, 'ipv4'],
  [ETHERTYPE_IPV6, 'ipv6'],
]);

const IP_PAYLOADS: ReadonlyMap<number, LayerKind> = new Map([
  [PROTOCOL_ICMP, 'icmp'],
  [PROTOCOL_UDP, 'udp'],
  [PROTOCOL_ICMPV6, 'icmpv6'],
]);
