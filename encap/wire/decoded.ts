/**
 * What every decoder of this folder gives. They are pure, never throw, and never read past the bytes they are
 * given, whatever those are: packets come from strangers. Nothing is copied: addresses and payloads are views
 * of the caller's bytes, good for as long as the caller leaves those alone.
 */

/** Why bytes are not the header that they should be: the same few words for every protocol, to be counted. */
export type Fault =
  /** Fewer bytes than the header, or than it says there are. */
  | 'truncated'
  /** Another version of the protocol. */
  | 'version'
  /** A length field that cannot be. */
  | 'length'
  /** A flag that must be set is not. */
  | 'flags';

export type Decoded<Header> =
  | { readonly header: Header; readonly payload: Uint8Array; readonly fault?: undefined }
  | { readonly fault: Fault };

/** Big-endian 16 bits at a place that the caller has checked to be there. */
export const uint16 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);

/** Big-endian 32 bits, unsigned. */
export const uint32 = (bytes: Uint8Array, at: number): number =>
  uint16(bytes, at) * 65_536 + uint16(bytes, at + 2);

/** Big-endian 24 bits. */
export const uint24 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] ?? 0) << 16) | uint16(bytes, at + 1);
