/**
 * IPv6 (RFC 8200): the fixed header. Extension headers are part of the payload.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-------+---------------+---------------------------------------+
 *   |   6   | traffic class |              flow label               |
 *   +-------+---------------+-------+---------------+---------------+
 *   |        payload length         |  next header  |   hop limit   |
 *   +-------------------------------+---------------+---------------+
 *   |                   source address (16 bytes)                   |
 *   +---------------------------------------------------------------+
 *   |                 destination address (16 bytes)                |
 *   +---------------------------------------------------------------+
 */
import { type Decoded, uint16, uint24 } from './decoded.ts';

export const IPV6_HEADER_BYTES = 40;

export const PROTOCOL_ICMPV6 = 58;

export interface Ipv6Header {
  readonly trafficClass: number;
  readonly flowLabel: number;
  readonly payloadBytes: number;
  readonly nextHeader: number;
  readonly hopLimit: number;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
}

/** What follows the packet's own length (Ethernet's padding) is left out of the payload. */
export function decodeIpv6(bytes: Uint8Array): Decoded<Ipv6Header> {
  if (bytes.length < IPV6_HEADER_BYTES) return { fault: 'truncated' };
  if ((bytes[0] ?? 0) >> 4 !== 6) return { fault: 'version' };
  const payloadBytes = uint16(bytes, 4);
  if (bytes.length < IPV6_HEADER_BYTES + payloadBytes) return { fault: 'truncated' };
  return {
    header: {
      trafficClass: (uint16(bytes, 0) >> 4) & 255,
      flowLabel: uint24(bytes, 1) & 0xfffff,
      payloadBytes,
      nextHeader: bytes[6] ?? 0,
      hopLimit: bytes[7] ?? 0,
      source: bytes.subarray(8, 24),
      destination: bytes.subarray(24, 40),
    },
    payload: bytes.subarray(IPV6_HEADER_BYTES, IPV6_HEADER_BYTES + payloadBytes),
  };
}
