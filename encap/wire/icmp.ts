/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443): what both have in common, and the echo messages' two numbers.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +---------------+---------------+-------------------------------+
 *   |     type      |     code      |           checksum            |
 *   +---------------+---------------+-------------------------------+
 *   |          identifier           |        sequence number        |
 *   +-------------------------------+-------------------------------+
 */
import { type Decoded, uint16 } from './decoded.ts';

export const ICMP_HEADER_BYTES = 8;

export interface IcmpHeader {
  readonly type: number;
  readonly code: number;
  readonly checksum: number;
  /** These two mean something in echo messages only. */
  readonly identifier: number;
  readonly sequence: number;
}

export function decodeIcmp(bytes: Uint8Array): Decoded<IcmpHeader> {
  if (bytes.length < ICMP_HEADER_BYTES) return { fault: 'truncated' };
  return {
    header: {
      type: bytes[0] ?? 0,
      code: bytes[1] ?? 0,
      checksum: uint16(bytes, 2),
      identifier: uint16(bytes, 4),
      sequence: uint16(bytes, 6),
    },
    payload: bytes.subarray(ICMP_HEADER_BYTES),
  };
}
