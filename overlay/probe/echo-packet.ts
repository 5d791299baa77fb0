/**
 * The probe's packets: ICMP and ICMPv6 echo requests with their IP header, and the replies to them.
 *
 * The header is ours so that the source is the VTEP's address and, in IPv4, "don't fragment" is set, whatever
 * the socket and the routes say. The padding is zero: the checksum of a packet of any size is that of its
 * first few bytes.
 *
 *     IPv4 or IPv6 header | type 8 or 128, code, checksum, identifier, sequence | token (16) | zeros
 */

import { onesComplementSum, pseudoHeaderSum } from '../../encap/wire/checksum.ts';
import { decodeIcmp, ICMP_HEADER_BYTES } from '../../encap/wire/icmp.ts';
import { decodeIpv4, IPV4_HEADER_BYTES, PROTOCOL_ICMP } from '../../encap/wire/ipv4.ts';
import { IPV6_HEADER_BYTES, PROTOCOL_ICMPV6 } from '../../encap/wire/ipv6.ts';
import { type Address, addressBytes, type Family, familyOf } from '../../store/address.ts';

const ECHO_REQUEST: Readonly<Record<Family, number>> = { ipv4: 8, ipv6: 128 };
export const ECHO_REPLY: Readonly<Record<Family, number>> = { ipv4: 0, ipv6: 129 };
const IP_HEADER_BYTES: Readonly<Record<Family, number>> = {
  ipv4: IPV4_HEADER_BYTES,
  ipv6: IPV6_HEADER_BYTES,
};

/** What a stranger who does not see our packets would have to guess. */
export const TOKEN_BYTES = 16;
const HOP_LIMIT = 64;

export interface EchoRequest {
  readonly source: Address;
  readonly destination: Address;
  readonly identifier: number;
  readonly sequence: number;
  readonly token: Uint8Array;
  /** The whole packet, IP header included. */
  readonly sizeBytes: number;
}

export interface EchoReply {
  readonly identifier: number;
  readonly sequence: number;
  /** A view of the packet. */
  readonly token: Uint8Array;
  /** The whole packet, IP header included. */
  readonly sizeBytes: number;
}

/** The smallest packet that holds all of a request. */
export const minimumBytes = (family: Family): number =>
  IP_HEADER_BYTES[family] + ICMP_HEADER_BYTES + TOKEN_BYTES;

/** A packet for a socket that takes the IP header from its user; IPv4's checksum and id are the kernel's to fill. */
export function echoRequest(request: EchoRequest): Buffer {
  const { source, destination, identifier, sequence, token, sizeBytes } = request;
  const family = familyOf(destination);
  const header = IP_HEADER_BYTES[family];
  if (sizeBytes < minimumBytes(family))
    throw new RangeError(`an echo request has ${sizeBytes} bytes at least`);
  const packet = Buffer.alloc(sizeBytes);
  const [from, to] = [addressBytes(source), addressBytes(destination)];
  const icmpBytes = sizeBytes - header;
  if (family === 'ipv4') {
    packet[0] = 0x45;
    packet.writeUInt16BE(sizeBytes, 2);
    packet[6] = 0x40;
    packet[8] = HOP_LIMIT;
    packet[9] = PROTOCOL_ICMP;
    packet.set(from, 12);
    packet.set(to, 16);
  } else {
    packet[0] = 0x60;
    packet.writeUInt16BE(icmpBytes, 4);
    packet[6] = PROTOCOL_ICMPV6;
    packet[7] = HOP_LIMIT;
    packet.set(from, 8);
    packet.set(to, 24);
  }
  packet[header] = ECHO_REQUEST[family];
  packet.writeUInt16BE(identifier, header + 4);
  packet.writeUInt16BE(sequence, header + 6);
  packet.set(token, header + ICMP_HEADER_BYTES);
  const initial = family === 'ipv4' ? 0 : pseudoHeaderSum(from, to, PROTOCOL_ICMPV6, icmpBytes);
  const summed = packet.subarray(header, header + ICMP_HEADER_BYTES + TOKEN_BYTES);
  packet.writeUInt16BE(~onesComplementSum(summed, initial) & 0xffff, header + 2);
  return packet;
}

/**
 * What a raw socket received, if it is an echo reply that can be one of ours. Whether it is one is for its
 * reader to compare. @param bytes with the IP header in IPv4, without it in IPv6: as such sockets give them
 */
export function readEchoReply(family: Family, bytes: Uint8Array): EchoReply | undefined {
  let message = bytes;
  if (family === 'ipv4') {
    const packet = decodeIpv4(bytes);
    if (packet.fault !== undefined || packet.header.protocol !== PROTOCOL_ICMP) return undefined;
    message = packet.payload;
  }
  const icmp = decodeIcmp(message);
  if (icmp.fault !== undefined || icmp.payload.length < TOKEN_BYTES) return undefined;
  const { type, code, identifier, sequence } = icmp.header;
  if (type !== ECHO_REPLY[family] || code !== 0) return undefined;
  const token = icmp.payload.subarray(0, TOKEN_BYTES);
  return { identifier, sequence, token, sizeBytes: IP_HEADER_BYTES[family] + message.length };
}
