/**
 * IPv4 (RFC 791).
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-------+-------+-----------+---+-------------------------------+
 *   |   4   |  IHL  |   DSCP    |ECN|         total length          |
 *   +-------+-------+-----------+---+-----+-------------------------+
 *   |        identification         |0|D|M|     fragment offset     |
 *   +---------------+---------------+-----+-------------------------+
 *   |      TTL      |   protocol    |        header checksum        |
 *   +---------------+---------------+-------------------------------+
 *   |                        source address                         |
 *   +---------------------------------------------------------------+
 *   |                      destination address                      |
 *   +---------------------------------------------------------------+
 *   |            options (IHL - 5 words) ...
 */
import { onesComplementSum } from './checksum.ts';
import { type Decoded, uint16 } from './decoded.ts';

export const IPV4_HEADER_BYTES = 20;

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

export interface Ipv4Header {
  readonly headerBytes: number;
  readonly totalBytes: number;
  readonly dscp: number;
  readonly ecn: number;
  readonly identification: number;
  readonly dontFragment: boolean;
  readonly moreFragments: boolean;
  readonly fragmentOffsetBytes: number;
  readonly ttl: number;
  readonly protocol: number;
  readonly checksum: number;
  readonly checksumRight: boolean;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
}

/** What follows the packet's own length (Ethernet's padding) is left out of the payload. */
export function decodeIpv4(bytes: Uint8Array): Decoded<Ipv4Header> {
  if (bytes.length < IPV4_HEADER_BYTES) return { fault: 'truncated' };
  const first = bytes[0] ?? 0;
  if (first >> 4 !== 4) return { fault: 'version' };
  const headerBytes = (first & 15) * 4;
  const totalBytes = uint16(bytes, 2);
  if (headerBytes < IPV4_HEADER_BYTES || totalBytes < headerBytes) return { fault: 'length' };
  if (bytes.length < totalBytes) return { fault: 'truncated' };
  const fragment = uint16(bytes, 6);
  return {
    header: {
      headerBytes,
      totalBytes,
      dscp: (bytes[1] ?? 0) >> 2,
      ecn: (bytes[1] ?? 0) & 3,
      identification: uint16(bytes, 4),
      dontFragment: (fragment & 0x4000) !== 0,
      moreFragments: (fragment & 0x2000) !== 0,
      fragmentOffsetBytes: (fragment & 0x1fff) * 8,
      ttl: bytes[8] ?? 0,
      protocol: bytes[9] ?? 0,
      checksum: uint16(bytes, 10),
      checksumRight: onesComplementSum(bytes.subarray(0, headerBytes)) === 0xffff,
      source: bytes.subarray(12, 16),
      destination: bytes.subarray(16, 20),
    },
    payload: bytes.subarray(headerBytes, totalBytes),
  };
}
