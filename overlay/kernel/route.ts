/**
 * Routes (`ip route`) and nexthop objects (`ip nexthop`).
 *
 * Why nexthop objects: the kernel keeps routes with a gateway in a hash whose chains all routes of one
 * device share, so N routes with N gateways on the vxlan device cost N² (40,000: 20 s). A route that names
 * a nexthop object carries no gateway of its own and stays linear (40,000: 0.8 s).
 */
import {
  type Address,
  addressBytes,
  addressFromBytes,
  type Family,
  familyOf,
  type Subnet,
} from '../../store/address.ts';
import {
  attributes,
  type MessageWriter,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  readU32,
} from './netlink-message.ts';
import { NetlinkError, type NetlinkSocket } from './netlink-socket.ts';
import {
  AF_UNSPEC,
  familyFromNumber,
  familyNumber,
  ROUTE_PROTOCOL,
  RTM_DELNEXTHOP,
  RTM_DELROUTE,
  RTM_GETNEXTHOP,
  RTM_GETROUTE,
  RTM_NEWNEXTHOP,
  RTM_NEWROUTE,
  RTNH_F_ONLINK,
} from './rtnetlink.ts';

const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_MULTIPATH = 9;
const RTA_METRICS = 8;
const RTA_TABLE = 15;
const RTA_VIA = 18;
const RTA_NH_ID = 30;

const RTAX_MTU = 2;

const NHA_ID = 1;
const NHA_OIF = 5;
const NHA_GATEWAY = 6;

export const RT_TABLE_MAIN = 254;
const RT_TABLE_LOCAL = 255;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;

export interface Route {
  readonly destination: Subnet;
  readonly table: number;
  readonly protocol: number;
  readonly metric: number | undefined;
  readonly linkIndex: number | undefined;
  readonly gateway: Address | undefined;
  readonly nexthopId: number | undefined;
  readonly preferredSource: Address | undefined;
  /** Its own, where it has one. */
  readonly mtuBytes: number | undefined;
  /** Routes that lead somewhere; not blackhole, local, broadcast and the like. */
  readonly unicast: boolean;
  /** It leads out of its link to the destination itself: no gateway, of whichever family. */
  readonly connected: boolean;
}

export interface NewRoute {
  /** Undefined: `default`, of the gateway's family. */
  readonly destination?: Subnet | undefined;
  readonly linkIndex?: number | undefined;
  readonly gateway?: Address | undefined;
  readonly onlink?: boolean | undefined;
  readonly nexthopId?: number | undefined;
  readonly metric?: number | undefined;
  /** For packets that are forwarded by it, too. 0 says that it has none, which a deletion then matches. */
  readonly mtuBytes?: number | undefined;
  /** Default: ours. */
  readonly protocol?: number | undefined;
}

export interface Nexthop {
  readonly id: number;
  readonly linkIndex: number | undefined;
  readonly gateway: Address | undefined;
  readonly protocol: number;
}

/** `ip route show table all [proto N]`, one family */
export function listRoutes(netlink: NetlinkSocket, family: Family, protocol?: number): Route[] {
  const wanted = (message: NetlinkMessage): Route | undefined => {
    const route = readRoute(message);
    return protocol === undefined || route?.protocol === protocol ? route : undefined;
  };
  const write = (w: MessageWriter): void => routeHeader(w, family, 0, 0, protocol ?? 0, 0, 0);
  return netlink.dump({ type: RTM_GETROUTE, flags: 0, write }, wanted, `list ${family} routes`);
}

/** `ip route show table main` and `table local`, without ours, of which there may be thousands. */
export function listOthersRoutes(netlink: NetlinkSocket, family: Family): Route[] {
  const wanted = (message: NetlinkMessage): Route | undefined => {
    if (message.body[5] === ROUTE_PROTOCOL) return undefined;
    const route = readRoute(message);
    const counts = route?.table === RT_TABLE_MAIN || route?.table === RT_TABLE_LOCAL;
    return counts && route?.destination.family === family ? route : undefined;
  };
  const write = (w: MessageWriter): void => routeHeader(w, family, 0, 0, 0, 0, 0);
  return netlink.dump({ type: RTM_GETROUTE, flags: 0, write }, wanted, `list ${family} routes of others`);
}

/** `ip route get ADDRESS`: the interface and source address the kernel would use. @throws NetlinkError */
export function lookUpRoute(netlink: NetlinkSocket, address: Address): Route | undefined {
  const family = familyOf(address);
  const write = (w: MessageWriter): void => {
    routeHeader(w, family, family === 'ipv4' ? 32 : 128, 0, 0, 0, 0);
    w.attribute(RTA_DST, addressBytes(address));
  };
  return netlink.get({ type: RTM_GETROUTE, flags: 0, write }, readRoute, `look up the route to ${address}`);
}

/** Decodes RTM_NEWROUTE and RTM_DELROUTE. */
export function readRoute({ type, body }: NetlinkMessage): Route | undefined {
  if ((type !== RTM_NEWROUTE && type !== RTM_DELROUTE) || body.length < 12) return undefined;
  const family = familyFromNumber(body[0] ?? 0);
  if (family === undefined) return undefined;
  const found = attributes(body, 12);
  const address = (bytes: Buffer | undefined): Address | undefined =>
    bytes !== undefined && (bytes.length === 4 || bytes.length === 16) ? addressFromBytes(bytes) : undefined;
  const any = (family === 'ipv4' ? '0.0.0.0' : '::') as Address;
  const unicast = body[7] === RTN_UNICAST;
  const metrics = found[RTA_METRICS];
  const led = [RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH].some((attribute) => found[attribute] !== undefined);
  return {
    destination: { family, address: address(found[RTA_DST]) ?? any, prefixLength: body[1] ?? 0 },
    table: readU32(found[RTA_TABLE]) ?? body[4] ?? 0,
    protocol: body[5] ?? 0,
    metric: readU32(found[RTA_PRIORITY]),
    linkIndex: readU32(found[RTA_OIF]),
    gateway: address(found[RTA_GATEWAY]),
    nexthopId: readU32(found[RTA_NH_ID]),
    preferredSource: address(found[RTA_PREFSRC]),
    mtuBytes: metrics === undefined ? undefined : readU32(attributes(metrics)[RTAX_MTU]) || undefined,
    unicast,
    connected: unicast && !led && found[RTA_OIF] !== undefined,
  };
}

/** `ip route replace SUBNET proto N (nhid ID | via GATEWAY dev INDEX [onlink] | dev INDEX) [mtu BYTES]` */
export const setRoute = (route: NewRoute): NetlinkRequest =>
  routeRequest(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route);

/** `ip route prepend ...`: in front of whatever route to that subnet somebody else has put there. */
export const prependRoute = (route: NewRoute): NetlinkRequest =>
  routeRequest(RTM_NEWROUTE, NLM_F_CREATE, route);

/** `ip route del SUBNET proto N [nhid ID] [dev INDEX] [metric N] [mtu BYTES]`: of that protocol only, never a stranger's. */
export const deleteRoute = (route: NewRoute): NetlinkRequest => routeRequest(RTM_DELROUTE, 0, route);

function routeRequest(type: number, flags: number, route: NewRoute): NetlinkRequest {
  const { destination, gateway, linkIndex, nexthopId } = route;
  const family = destination?.family ?? (gateway === undefined ? undefined : familyOf(gateway));
  if (family === undefined) throw new TypeError('a default route needs a gateway');
  const onLinkOnly =
    type === RTM_NEWROUTE && gateway === undefined && nexthopId === undefined && family === 'ipv4';
  // A scope on a deletion would have to match; RT_SCOPE_NOWHERE (255) matches any.
  const scope = type === RTM_DELROUTE ? 255 : onLinkOnly ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  return {
    type,
    flags,
    write(w) {
      routeHeader(
        w,
        family,
        destination?.prefixLength ?? 0,
        RT_TABLE_MAIN,
        route.protocol ?? ROUTE_PROTOCOL,
        scope,
        route.onlink === true ? RTNH_F_ONLINK : 0,
        type === RTM_NEWROUTE ? RTN_UNICAST : 0,
      );
      if (destination !== undefined && destination.prefixLength > 0) {
        w.attribute(RTA_DST, addressBytes(destination.address));
      }
      if (nexthopId !== undefined) w.attributeU32(RTA_NH_ID, nexthopId);
      if (gateway !== undefined) w.attribute(RTA_GATEWAY, addressBytes(gateway));
      if (linkIndex !== undefined) w.attributeU32(RTA_OIF, linkIndex);
      if (route.metric !== undefined) w.attributeU32(RTA_PRIORITY, route.metric);
      const { mtuBytes } = route;
      if (mtuBytes !== undefined) w.nest(RTA_METRICS, () => w.attributeU32(RTAX_MTU, mtuBytes));
    },
  };
}

function routeHeader(
  w: MessageWriter,
  family: Family,
  prefixLength: number,
  table: number,
  protocol: number,
  scope: number,
  flags: number,
  type = 0,
): void {
  w.u8(familyNumber(family))
    .u8(prefixLength)
    .u8(0)
    .u8(0)
    .u8(table)
    .u8(protocol)
    .u8(scope)
    .u8(type)
    .u32(flags);
}

/** `ip nexthop show` @throws NetlinkError; undefined where the kernel has no nexthop objects (before 5.3) */
export function listNexthops(netlink: NetlinkSocket): Nexthop[] | undefined {
  const write = (w: MessageWriter): void => nexthopHeader(w, AF_UNSPEC, 0, 0);
  try {
    return netlink.dump({ type: RTM_GETNEXTHOP, flags: 0, write }, readNexthop, 'list nexthop objects');
  } catch (error) {
    if (error instanceof NetlinkError && (error.code === 'EOPNOTSUPP' || error.code === 'ENOTSUP'))
      return undefined;
    throw error;
  }
}

/** Decodes RTM_NEWNEXTHOP and RTM_DELNEXTHOP. */
export function readNexthop({ type, body }: NetlinkMessage): Nexthop | undefined {
  if ((type !== RTM_NEWNEXTHOP && type !== RTM_DELNEXTHOP) || body.length < 8) return undefined;
  const found = attributes(body, 8);
  const id = readU32(found[NHA_ID]);
  const gateway = found[NHA_GATEWAY];
  if (id === undefined) return undefined;
  return {
    id,
    linkIndex: readU32(found[NHA_OIF]),
    gateway: gateway?.length === 4 || gateway?.length === 16 ? addressFromBytes(gateway) : undefined,
    protocol: body[2] ?? 0,
  };
}

/** `ip nexthop replace id ID via GATEWAY dev INDEX onlink proto N` */
export function setNexthop(id: number, gateway: Address, linkIndex: number): NetlinkRequest {
  return {
    type: RTM_NEWNEXTHOP,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    write(w) {
      nexthopHeader(w, familyNumber(familyOf(gateway)), ROUTE_PROTOCOL, RTNH_F_ONLINK);
      w.attributeU32(NHA_ID, id)
        .attributeU32(NHA_OIF, linkIndex)
        .attribute(NHA_GATEWAY, addressBytes(gateway));
    },
  };
}

/** `ip nexthop del id ID`; its routes go with it, unannounced. */
export const deleteNexthop = (id: number): NetlinkRequest => ({
  type: RTM_DELNEXTHOP,
  flags: 0,
  write(w) {
    nexthopHeader(w, AF_UNSPEC, 0, 0);
    w.attributeU32(NHA_ID, id);
  },
});

function nexthopHeader(w: MessageWriter, family: number, protocol: number, flags: number): void {
  w.u8(family).u8(0).u8(protocol).u8(0).u32(flags);
}
