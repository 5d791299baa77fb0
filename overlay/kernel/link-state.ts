/**
 * Whether links carry packets (`ip link`: state UP; `bridge link`: state forwarding).
 *
 * A carrier is there at once when the far end of a veth is raised, but what follows from it is not: the kernel's
 * linkwatch does that a moment later, in a worker of its own, on a busy machine many milliseconds later. Only then do
 * an interface's queues take packets, does a port of a bridge forward, and has the bridge, with its first port, a
 * carrier and a link-local address itself. Before that packets are dropped, ARP and neighbour solicitations first of
 * all, which are repeated after a second.
 *
 * From kernel 6.9 on a look at one link (not at all of them) does that work at once, if it is due; on older ones
 * looking again is all there is.
 */
import { attributes, type MessageWriter, type NetlinkMessage, readText, readU8 } from './netlink-message.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import { AF_UNSPEC, RTM_GETLINK } from './rtnetlink.ts';

const LINK_HEADER_BYTES = 16;
const IFLA_IFNAME = 3;
const IFLA_OPERSTATE = 16;
const IFLA_LINKINFO = 18;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const IFLA_BRPORT_STATE = 1;
/** RFC 2863, as linux/if.h numbers it. */
const IF_OPER_UP = 6;
/** linux/if_bridge.h */
const BR_STATE_FORWARDING = 3;

export interface LinkState {
  /** Its queues take packets. */
  readonly running: boolean;
  /** It is a port of a bridge that lets packets through. */
  readonly forwarding: boolean;
}

/** `ip -d link show dev NAME`; undefined when there is no such link. @throws NetlinkError */
export function readLinkState(netlink: NetlinkSocket, name: string): LinkState | undefined {
  const write = (w: MessageWriter): void => {
    w.u8(AF_UNSPEC).u8(0).u16(0).u32(0).u32(0).u32(0);
    w.attributeText(IFLA_IFNAME, name);
  };
  return netlink.get({ type: RTM_GETLINK, flags: 0, write }, stateOf, `look whether ${name} carries packets`);
}

function stateOf({ body }: NetlinkMessage): LinkState {
  const none = Buffer.alloc(0);
  const found = attributes(body, LINK_HEADER_BYTES);
  const info = attributes(found[IFLA_LINKINFO] ?? none);
  const isPort = readText(info[IFLA_INFO_SLAVE_KIND]) === 'bridge';
  const port = attributes((isPort ? info[IFLA_INFO_SLAVE_DATA] : undefined) ?? none);
  return {
    running: readU8(found[IFLA_OPERSTATE]) === IF_OPER_UP,
    forwarding: readU8(port[IFLA_BRPORT_STATE]) === BR_STATE_FORWARDING,
  };
}
