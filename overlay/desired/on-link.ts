/**
 * Which addresses the underlay link reaches without a router: pure, from the node's routes.
 *
 * The kernel sends a packet where the longest matching prefix says. So an address is on the link when that
 * prefix is one whose route leads out of the link and names no gateway; a longer one of another kind inside of
 * it (a part behind a router or a VPN, an address of our own, a broadcast address) is not. A default route
 * without a gateway says nothing about who is near, and does not count.
 */
import {
  type Address,
  formatSubnet,
  isLinkLocal,
  isMulticast,
  type Subnet,
  subnetContains,
} from '../../store/address.ts';
import type { BackendConfig } from '../../store/lease.ts';

/** A route that is not one of ours, as far as it tells what is on a link. */
export interface NearRoute {
  readonly destination: Subnet;
  readonly linkIndex: number | undefined;
  /** It leads out of the link to the destination itself, not to a gateway. */
  readonly connected: boolean;
  readonly metric: number | undefined;
}

/** What a link reaches by itself. Absent prefixes are not on it. */
export interface LinkReach {
  readonly onLink: readonly Subnet[];
  /** Inside of those, what is elsewhere. */
  readonly elsewhere: readonly Subnet[];
}

/** Whether some of the backend's peers are routed without a tunnel. */
export const routesDirectly = ({ type, directRouting }: BackendConfig): boolean =>
  type === 'host-gw' || (type === 'vxlan' && directRouting);

/** @param routes of one family; of two to the same prefix, the one of the smaller metric counts */
export function linkReach(routes: Iterable<NearRoute>, linkIndex: number): LinkReach {
  const best = new Map<string, NearRoute>();
  for (const route of routes) {
    if (tellsNothing(route.destination)) continue;
    const key = formatSubnet(route.destination);
    const known = best.get(key);
    if (known === undefined || (route.metric ?? 0) < (known.metric ?? 0)) best.set(key, route);
  }
  const onLink: Subnet[] = [];
  const others: Subnet[] = [];
  // Sorted, so that the same routes in another order are the same reach.
  for (const key of [...best.keys()].toSorted()) {
    const route = best.get(key) as NearRoute;
    (route.connected && route.linkIndex === linkIndex ? onLink : others).push(route.destination);
  }
  const elsewhere = others.filter((subnet) => onLink.some((outer) => subnetContains(outer, subnet)));
  return { onLink, elsewhere };
}

export function isOnLink(address: Address, reach: LinkReach | undefined): boolean {
  if (reach === undefined) return false;
  return longest(address, reach.onLink) > longest(address, reach.elsewhere);
}

/** Link-local addresses are on every link, and nobody's public one. */
const tellsNothing = ({ address, prefixLength }: Subnet): boolean =>
  prefixLength === 0 || isLinkLocal(address) || isMulticast(address);

const longest = (address: Address, subnets: readonly Subnet[]): number =>
  subnets.reduce(
    (length, subnet) =>
      subnet.prefixLength > length && subnetContains(subnet, address) ? subnet.prefixLength : length,
    -1,
  );
