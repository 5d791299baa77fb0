/**
 * Ethernet II (IEEE 802.3), without the frame check sequence, which the kernel keeps for itself.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-------------------------------+-------------------------------+
 *   |                      destination MAC                          |
 *   +-------------------------------+-------------------------------+
 *   |       destination MAC         |          source MAC           |
 *   +-------------------------------+-------------------------------+
 *   |                         source MAC                            |
 *   +-------------------------------+-------------------------------+
 *   |          EtherType            |           payload ...
 *   +-------------------------------+----
 */
import { type Decoded, uint16 } from './decoded.ts';

export const ETHERNET_HEADER_BYTES = 14;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;

export interface EthernetHeader {
  readonly destination: Uint8Array;
  readonly source: Uint8Array;
  /** 0x0600 and above; below, it is a length (IEEE 802.3) and nothing we carry. */
  readonly etherType: number;
}

/** The payload may end with padding: a frame has 60 bytes at least. */
export function decodeEthernet(bytes: Uint8Array): Decoded<EthernetHeader> {
  if (bytes.length < ETHERNET_HEADER_BYTES) return { fault: 'truncated' };
  return {
    header: {
      destination: bytes.subarray(0, 6),
      source: bytes.subarray(6, 12),
      etherType: uint16(bytes, 12),
    },
    payload: bytes.subarray(ETHERNET_HEADER_BYTES),
  };
}
