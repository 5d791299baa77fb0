/**
 * UDP (RFC 768).
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-------------------------------+-------------------------------+
 *   |          source port          |       destination port        |
 *   +-------------------------------+-------------------------------+
 *   |        length (with header)   |           checksum            |
 *   +-------------------------------+-------------------------------+
 */
import { type Decoded, uint16 } from './decoded.ts';

export const UDP_HEADER_BYTES = 8;

export interface UdpHeader {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly lengthBytes: number;
  /** Zero: the sender computed none, which VXLAN over IPv4 does (RFC 7348), and over IPv6 may (RFC 6935). */
  readonly checksum: number;
}

export function decodeUdp(bytes: Uint8Array): Decoded<UdpHeader> {
  if (bytes.length < UDP_HEADER_BYTES) return { fault: 'truncated' };
  const lengthBytes = uint16(bytes, 4);
  if (lengthBytes < UDP_HEADER_BYTES) return { fault: 'length' };
  if (bytes.length < lengthBytes) return { fault: 'truncated' };
  return {
    header: {
      sourcePort: uint16(bytes, 0),
      destinationPort: uint16(bytes, 2),
      lengthBytes,
      checksum: uint16(bytes, 6),
    },
    payload: bytes.subarray(UDP_HEADER_BYTES, lengthBytes),
  };
}
