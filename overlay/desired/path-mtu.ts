/** From what the overlay sends to what the underlay must carry, and back from what it was found to carry. */
import type { Family } from '../../store/address.ts';
import { OVERHEAD_BYTES, type WantedOverlay } from './overlay.ts';
import type { Travel } from './peer-paths.ts';

/** No IPv6 packet is refused for a smaller one (RFC 8200, section 5), whatever a route says. */
const MIN_IPV6_MTU_BYTES = 1280;

/** The largest packet that this node puts on the underlay for a family. */
export const fullSizeBytes = ({ underlay, bridge }: WantedOverlay, family: Family): number =>
  Math.min(underlay.link.mtuBytes, bridge.mtuBytes + OVERHEAD_BYTES[family]);

/**
 * The MTU of a route over a path that carries packets of `pathMtuBytes`. An IPv6 path that leaves less than
 * IPv6 asks for is given what IPv6 asks for: smaller packets pass, and nobody could be told to send them.
 */
export function routeMtuBytes(family: Family, travel: Travel, pathMtuBytes: number): number {
  const inner = travel === 'tunnel' ? pathMtuBytes - OVERHEAD_BYTES[family] : pathMtuBytes;
  return family === 'ipv6' ? Math.max(inner, MIN_IPV6_MTU_BYTES) : inner;
}
