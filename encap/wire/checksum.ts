/** The Internet checksum (RFC 1071). */
import { uint16 } from './decoded.ts';

/**
 * The one's complement sum of 16-bit big-endian words, folded; an odd last byte is padded with zero. Over a
 * header that carries its right checksum it is 0xffff. `initial` is an earlier sum of an even count of bytes.
 */
export function onesComplementSum(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  const even = bytes.length & ~1;
  for (let at = 0; at < even; at += 2) sum += uint16(bytes, at);
  if (even < bytes.length) sum += (bytes[even] ?? 0) << 8;
  // Sums of up to 64 KiB stay far below 2^53; two folds take any such sum to 16 bits.
  while (sum > 0xffff) sum = (sum % 65_536) + Math.floor(sum / 65_536);
  return sum;
}

/** The sum over the pseudo header of UDP, TCP and ICMPv6 (RFC 768, RFC 8200 section 8.1). */
export const pseudoHeaderSum = (
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  lengthBytes: number,
): number => {
  const length = (lengthBytes >>> 16) + (lengthBytes & 0xffff);
  return onesComplementSum(destination, onesComplementSum(source, protocol + length));
};
