/**
 * VXLAN (RFC 7348). The payload is an Ethernet frame.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +---------------+-----------------------------------------------+
 *   |R|R|R|R|I|R|R|R|                  reserved                     |
 *   +---------------+-------------------------------+---------------+
 *   |                      VNI                      |   reserved    |
 *   +-----------------------------------------------+---------------+
 *
 * The I flag must be set. Reserved bits are sent as zero and ignored on receipt.
 */
import { type Decoded, uint24 } from './decoded.ts';

export const VXLAN_HEADER_BYTES = 8;

const VNI_IS_VALID = 0x08;

export interface VxlanHeader {
  readonly flags: number;
  readonly vni: number;
}

export function decodeVxlan(bytes: Uint8Array): Decoded<VxlanHeader> {
  if (bytes.length < VXLAN_HEADER_BYTES) return { fault: 'truncated' };
  const flags = bytes[0] ?? 0;
  if ((flags & VNI_IS_VALID) === 0) return { fault: 'flags' };
  return { header: { flags, vni: uint24(bytes, 4) }, payload: bytes.subarray(VXLAN_HEADER_BYTES) };
}
