/** Specification constants of rtnetlink that more than one file needs (include/uapi/linux/rtnetlink.h). */
import type { Family } from '../../store/address.ts';

export const AF_UNSPEC = 0;
export const AF_BRIDGE = 7;
const AF_INET = 2;
const AF_INET6 = 10;

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;
export const RTM_NEWNETCONF = 80;
export const RTM_NEWNEXTHOP = 104;
export const RTM_DELNEXTHOP = 105;
export const RTM_GETNEXTHOP = 106;

export const RTNLGRP_LINK = 1;
export const RTNLGRP_NEIGH = 3;
export const RTNLGRP_IPV4_IFADDR = 5;
export const RTNLGRP_IPV4_ROUTE = 7;
export const RTNLGRP_IPV6_IFADDR = 9;
export const RTNLGRP_IPV6_ROUTE = 11;
export const RTNLGRP_IPV4_NETCONF = 24;
export const RTNLGRP_IPV6_NETCONF = 25;
export const RTNLGRP_NEXTHOP = 32;

/** The neighbour entry never changes by itself (`permanent`). */
export const NUD_PERMANENT = 0x80;
/** The next hop is reachable on the device although no connected route says so (`onlink`). */
export const RTNH_F_ONLINK = 4;

/**
 * The routing protocol number on our routes and nexthop objects (`ip route show proto 118`): how an entry of
 * an earlier run is known to be ours. Free in iproute2's rt_protos; nobody registers these numbers.
 */
export const ROUTE_PROTOCOL = 118;

export const familyNumber = (family: Family): number => (family === 'ipv4' ? AF_INET : AF_INET6);

export function familyFromNumber(number: number): Family | undefined {
  if (number === AF_INET) return 'ipv4';
  return number === AF_INET6 ? 'ipv6' : undefined;
}
