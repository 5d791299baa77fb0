/** What chooseUnderlay needs to know of this node, read from the kernel. */
import { type Address, type Family, isLinkLocal, isMulticast, type Subnet } from '../../store/address.ts';
import type { UnderlayFacts, UnderlayWishes } from '../desired/underlay.ts';
import { listAddresses, readLinkAddress } from './address.ts';
import { listLinks, readLink } from './link.ts';
import type { NetlinkMessage } from './netlink-message.ts';
import { NetlinkError, type NetlinkSocket } from './netlink-socket.ts';
import { listOthersRoutes, lookUpRoute, type Route, RT_TABLE_MAIN, readRoute } from './route.ts';
import {
  ROUTE_PROTOCOL,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELROUTE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWROUTE,
} from './rtnetlink.ts';

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** @param own names of our own devices, which are never the underlay */
export function readUnderlayFacts(
  netlink: NetlinkSocket,
  wishes: UnderlayWishes,
  own: (name: string) => boolean,
): UnderlayFacts {
  const links = listLinks(netlink).filter((link) => !link.loopback && !own(link.name));
  const indexes = new Set(links.map(({ index }) => index));
  const addresses = listAddresses(netlink).filter(({ linkIndex }) => indexes.has(linkIndex));
  const routes = FAMILIES.flatMap((family) => listOthersRoutes(netlink, family));
  const isDefault = ({ destination, unicast, table }: Route): boolean =>
    destination.prefixLength === 0 && unicast && table === RT_TABLE_MAIN;
  // Metrics of two families say nothing of one another.
  const defaultRoutes = FAMILIES.flatMap((family) =>
    routes
      .filter((route) => route.destination.family === family && isDefault(route))
      .toSorted((a, b) => (a.metric ?? 0) - (b.metric ?? 0))
      .flatMap(({ linkIndex }) => (linkIndex === undefined ? [] : [{ family, linkIndex }])),
  );
  return { links, addresses, defaultRoutes, routes, reaching: reaching(netlink, wishes.canReach) };
}

function reaching(netlink: NetlinkSocket, address: Address | undefined): UnderlayFacts['reaching'] {
  if (address === undefined) return undefined;
  try {
    const route = lookUpRoute(netlink, address);
    if (route?.linkIndex === undefined) return undefined;
    return { linkIndex: route.linkIndex, source: route.preferredSource };
  } catch (error) {
    // ENETUNREACH, EHOSTUNREACH: there is no way yet.
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}

/**
 * Whether an announcement may change the choice of the underlay: links, addresses, routes of others. Each
 * pod's interface brings IPv6 routes for what stays on its own link, and takes its link-local address away
 * with it: nothing hangs on those. (A look is a dump of all routes: at 10,000 peers, not for every pod.)
 */
export function concernsUnderlay(message: NetlinkMessage, own: (name: string) => boolean): boolean {
  switch (message.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const link = readLink(message);
      return link !== undefined && !own(link.name);
    }
    case RTM_NEWADDR:
      return true;
    case RTM_DELADDR: {
      const address = readLinkAddress(message)?.address;
      return address === undefined || !address.includes(':') || !isLinkLocal(address);
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      // Of our own there may be thousands.
      return message.body[5] !== ROUTE_PROTOCOL && !staysOnLink(readRoute(message)?.destination);
    default:
      return false;
  }
}

const staysOnLink = (destination: Subnet | undefined): boolean =>
  destination?.family === 'ipv6' && (isLinkLocal(destination.address) || isMulticast(destination.address));
