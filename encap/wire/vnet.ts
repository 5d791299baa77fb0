/**
 * What a TAP device opened with IFF_VNET_HDR puts before each frame (struct virtio_net_hdr of virtio 1.2, section
 * 5.1.6; the fields are little-endian here):
 *
 *   flags(1) gso type(1) header length(2) segment size(2) checksum start(2) checksum offset(2)
 *
 * With a segment size the frame is up to 64 KiB of one flow, to be cut into packets of that much payload each; with
 * NEEDS_CHECKSUM the field at `start + offset` (from the frame's start) holds the sum of the pseudo header, and the
 * rest is to be added.
 *
 * In memory the header begins at a multiple of 4. So the frame behind it begins 2 bytes past one, and what follows
 * Ethernet's 14 bytes at one again; and a VXLAN header has room between the two.
 */

export const VNET_HEADER_BYTES = 10;
export const VNET_FLAGS = 0;
export const VNET_GSO_TYPE = 1;
export const VNET_HEADER_LENGTH = 2;
export const VNET_GSO_SIZE = 4;
export const VNET_CHECKSUM_START = 6;
export const VNET_CHECKSUM_OFFSET = 8;

export const NEEDS_CHECKSUM = 1;

export const GSO_NONE = 0;
export const GSO_TCP4 = 1;
export const GSO_TCP6 = 4;
export const GSO_UDP = 5;
/** Beside a TCP type: the first segment says "congestion window reduced". */
export const GSO_ECN = 0x80;
