/** Where the fields of TCP (RFC 9293) and UDP (RFC 768) stand in their headers, as far as the fast path touches them. */

export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGEMENT = 8;
/** Header length in the high four bits, flags in the low eight. */
export const TCP_FLAGS = 12;
export const TCP_CHECKSUM = 16;
export const TCP_HEADER_BYTES = 20;

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK = 0x10;
export const URG = 0x20;
export const CWR = 0x80;

export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;
