/**
 * What a router answers when a packet does not fit its next hop: ICMP "fragmentation needed" (RFC 792, RFC 1191), ICMPv6
 * "packet too big" (RFC 4443, section 3.2), or, for IPv4 without "don't fragment", fragments (RFC 791, section 3.2).
 * Kernel vxlan does the same for what comes over a bridge (iptunnel_pmtud_build_icmp): the answer comes from the address
 * that the packet was for.
 */
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from './ethernet.ts';
import { fold, swap16 } from './fast-sum.ts';
import { PROTOCOL_ICMP } from './ipv4.ts';
import { PROTOCOL_ICMPV6 } from './ipv6.ts';
import type { PacketMemory } from './memory.ts';
import type { PacketSink } from './segment.ts';
import { VNET_HEADER_BYTES } from './vnet.ts';
import { VXLAN_HEADER_BYTES } from './vxlan.ts';

/** The largest answer: IPv4's quotes what fits 576 bytes, IPv6's what fits 1,280. */
export const TOO_BIG_BYTES = VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES + 1280;

/** IPv4 with less than 8 bytes a fragment, or IPv6 below its minimum, is no path. */
const MIN_IPV4_MTU = 68;
const MIN_IPV6_MTU = 1280;

/**
 * Writes the answer to a frame that is too big: an offload header without offload, and the frame.
 * @param to a multiple of 4, room for TOO_BIG_BYTES
 * @param mtuBytes of the inner packet
 * @returns its length; 0: this frame gets none (not IP, itself an ICMP error, a fragment but the first, group addresses)
 */
export function writeTooBig(
  memory: PacketMemory,
  frame: number,
  lengthBytes: number,
  mtuBytes: number,
  to: number,
): number {
  const { view, bytes } = memory;
  const type = view.getUint16(frame + 12);
  const ip = frame + ETHERNET_HEADER_BYTES;
  const ipBytes = lengthBytes - ETHERNET_HEADER_BYTES;
  let written = 0;
  if (type === ETHERTYPE_IPV4 && ipBytes >= 28) written = writeIpv4(memory, ip, ipBytes, mtuBytes, to);
  else if (type === ETHERTYPE_IPV6 && ipBytes >= 48) written = writeIpv6(memory, ip, ipBytes, mtuBytes, to);
  if (written === 0) return 0;
  bytes.fill(0, to, to + VNET_HEADER_BYTES);
  // Back to where it came from: the addresses change places.
  bytes.copyWithin(to + VNET_HEADER_BYTES, frame + 6, frame + 12);
  bytes.copyWithin(to + VNET_HEADER_BYTES + 6, frame, frame + 6);
  view.setUint16(to + VNET_HEADER_BYTES + 12, type);
  return VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES + written;
}

function writeIpv4(memory: PacketMemory, ip: number, ipBytes: number, mtuBytes: number, to: number): number {
  const { view, bytes, sum } = memory;
  const header = (view.getUint8(ip) & 15) * 4;
  if (view.getUint8(ip) >> 4 !== 4 || header < 20 || header + 8 > ipBytes) return 0;
  if (
    (view.getUint16(ip + 6) & 0x1fff) !== 0 ||
    view.getUint8(ip + 16) >= 224 ||
    view.getUint8(ip + 12) >= 224
  ) {
    return 0;
  }
  // Never an error about an error: of ICMP, only requests and replies are answered.
  if (view.getUint8(ip + 9) === PROTOCOL_ICMP && !isQuery(view.getUint8(ip + header))) return 0;
  const quoted = Math.min(ipBytes, 576 - 28);
  const out = to + VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES;
  view.setUint32(out, 0x45c0_0000 + 28 + quoted);
  view.setUint32(out + 4, 0);
  view.setUint32(out + 8, (64 << 24) | (PROTOCOL_ICMP << 16));
  bytes.copyWithin(out + 12, ip + 16, ip + 20);
  bytes.copyWithin(out + 16, ip + 12, ip + 16);
  view.setUint16(out + 10, ~fold(sum(out, 20)), true);
  // Destination unreachable, fragmentation needed; the next hop's MTU.
  view.setUint32(out + 20, 0x0304_0000);
  view.setUint32(out + 24, Math.max(mtuBytes, MIN_IPV4_MTU));
  bytes.copyWithin(out + 28, ip, ip + quoted);
  view.setUint16(out + 22, ~fold(sum(out + 20, 8 + quoted)), true);
  return 28 + quoted;
}

/** Echo, timestamp and their replies. */
const isQuery = (type: number): boolean => type === 0 || type === 8 || type === 13 || type === 14;

function writeIpv6(memory: PacketMemory, ip: number, ipBytes: number, mtuBytes: number, to: number): number {
  const { view, bytes, sum } = memory;
  if (view.getUint8(ip) >> 4 !== 6 || view.getUint8(ip + 24) === 0xff || view.getUint8(ip + 8) === 0xff)
    return 0;
  // ICMPv6 errors are the types below 128.
  if (view.getUint8(ip + 6) === PROTOCOL_ICMPV6 && view.getUint8(ip + 40) < 128) return 0;
  const quoted = Math.min(ipBytes, 1280 - 48);
  const out = to + VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES;
  view.setUint32(out, 0x6000_0000);
  view.setUint32(out + 4, ((8 + quoted) << 16) | (PROTOCOL_ICMPV6 << 8) | 64);
  bytes.copyWithin(out + 8, ip + 24, ip + 40);
  bytes.copyWithin(out + 24, ip + 8, ip + 24);
  view.setUint32(out + 40, 0x0200_0000);
  view.setUint32(out + 44, Math.max(mtuBytes, MIN_IPV6_MTU));
  bytes.copyWithin(out + 48, ip, ip + quoted);
  const pseudo = sum(out + 8, 32) + swap16(PROTOCOL_ICMPV6) + swap16(8 + quoted);
  view.setUint16(out + 42, ~fold(pseudo + sum(out + 40, 8 + quoted)), true);
  return 48 + quoted;
}

/**
 * Sends an IPv4 frame that is too big in fragments. Its VXLAN header has been written before it, and its checksums are
 * complete. @returns false, and nothing is sent: it must not be cut, or has options (which would have to be told apart)
 */
export function sendFragments(
  memory: PacketMemory,
  frame: number,
  lengthBytes: number,
  limitBytes: number,
  sink: PacketSink,
): boolean {
  const { view, bytes, sum } = memory;
  const ip = frame + ETHERNET_HEADER_BYTES;
  const payload = ip + 20;
  if (view.getUint16(frame + 12) !== ETHERTYPE_IPV4 || lengthBytes < 34 || view.getUint8(ip) !== 0x45)
    return false;
  const fragment = view.getUint16(ip + 6);
  const end = ip + view.getUint16(ip + 2);
  const size = (limitBytes - ETHERNET_HEADER_BYTES - 20) & ~7;
  if ((fragment & 0x4000) !== 0 || size < 8 || end > frame + lengthBytes || end <= payload) return false;
  for (let at = payload; at < end; at += size) {
    const part = Math.min(size, end - at);
    const header = sink.split(payload - (frame - VXLAN_HEADER_BYTES), at, part);
    bytes.copyWithin(header, frame - VXLAN_HEADER_BYTES, payload);
    const copy = header + VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES;
    view.setUint16(copy + 2, 20 + part);
    const isLast = at + part === end;
    const offset = (fragment & 0x1fff) + (at - payload) / 8;
    view.setUint16(copy + 6, offset | (isLast ? fragment & 0x2000 : 0x2000));
    view.setUint16(copy + 10, 0);
    view.setUint16(copy + 10, ~fold(sum(copy, 20)), true);
  }
  return true;
}
