/**
 * What the repair benchmark takes away by hand, one kind of object each, and the announcement that says that
 * it is back. Whole devices take their peers' entries along: they are back with the last route.
 */

import { deleteAddress, readLinkAddress } from '../../overlay/kernel/address.ts';
import { deleteLink, findLink, readLink, setLink } from '../../overlay/kernel/link.ts';
import {
  deleteFdbEntry,
  deleteNeighbour,
  readFdbEntry,
  readNeighbour,
} from '../../overlay/kernel/neighbour.ts';
import type { NetlinkMessage, NetlinkRequest } from '../../overlay/kernel/netlink-message.ts';
import type { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { changedTable, messageType } from '../../overlay/kernel/nft-message.ts';
import type { Nftables } from '../../overlay/kernel/nftables.ts';
import { deleteNexthop, deleteRoute, listNexthops, readRoute } from '../../overlay/kernel/route.ts';
import {
  ROUTE_PROTOCOL,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
} from '../../overlay/kernel/rtnetlink.ts';
import { executeSlowly } from '../../overlay/kernel/slow-netlink.ts';
import type { StatusReport } from '../../overlay/ops/status.ts';
import { addressAt, parseSubnet } from '../../store/address.ts';
import { type NumberedPeer, numberedPeer } from './peers.ts';

const NFT_MSG_NEWRULE = messageType(6);
const NFT_MSG_NEWSETELEM = messageType(12);
const NFT_MSG_NEWGEN = messageType(15);
const TABLE = { family: 'inet', name: 'vtepd' };

/** The node whose objects are taken away. */
export interface Victim {
  readonly netlink: NetlinkSocket;
  readonly nftables: Nftables;
  readonly status: StatusReport;
  readonly peers: number;
}

export interface Breakage {
  /** Takes it away; a promise is waited for. */
  readonly strike: () => unknown;
  /** Sees every announcement from before the strike on, once; true: it is back. */
  readonly back: (message: NetlinkMessage) => boolean;
}

/** By kind; `round` chooses which peer's. */
export const SINGLE_OBJECTS: Readonly<Record<string, (victim: Victim, round: number) => Breakage>> = {
  route: (victim, round) => {
    const { subnet } = peerOf(victim, round);
    return { strike: send(victim, deleteRoute({ destination: subnet })), back: routeTo(subnet.address) };
  },
  neighbour: (victim, round) => {
    const { subnet } = peerOf(victim, round);
    // On its way out the kernel announces it once more, as failed.
    const back = (message: NetlinkMessage): boolean => {
      const found = message.type === RTM_NEWNEIGH ? readNeighbour(message) : undefined;
      return found?.address === subnet.address && found.permanent;
    };
    return { strike: send(victim, deleteNeighbour(vxlanOf(victim).index, subnet.address)), back };
  },
  fdb: (victim, round) => {
    const { publicAddress, lease } = peerOf(victim, round);
    const mac = lease.attributes.vtep.ipv4?.mac;
    if (mac === undefined) throw new Error('unreachable: every numbered peer has a VTEP');
    const back = (message: NetlinkMessage): boolean =>
      message.type === RTM_NEWNEIGH && readFdbEntry(message)?.mac === mac;
    return { strike: send(victim, deleteFdbEntry(vxlanOf(victim).index, mac, publicAddress)), back };
  },
  /** With the nexthop goes its route: both must be back. */
  nexthop: (victim, round) => {
    const { subnet } = peerOf(victim, round);
    const found = listNexthops(victim.netlink)?.find(({ gateway }) => gateway === subnet.address);
    return { strike: send(victim, deleteNexthop(found?.id ?? 0)), back: routeTo(subnet.address) };
  },
  bridgeAddress: (victim) => {
    const subnet = parseSubnet(victim.status.lease?.subnet ?? '');
    const address = addressAt(subnet, 1);
    const bridge = linkNamed(victim, victim.status.overlay?.bridge);
    const unwanted = { linkIndex: bridge.index, address, prefixLength: subnet.prefixLength };
    const back = (message: NetlinkMessage): boolean =>
      message.type === RTM_NEWADDR && readLinkAddress(message)?.address === address;
    return { strike: send(victim, deleteAddress(unwanted)), back };
  },
  bridgeMtu: (victim) => {
    const { index, mtuBytes } = linkNamed(victim, victim.status.overlay?.bridge);
    const back = (message: NetlinkMessage): boolean => {
      const link = message.type === RTM_NEWLINK ? readLink(message) : undefined;
      return link?.index === index && link.mtuBytes === mtuBytes;
    };
    return { strike: send(victim, setLink(index, { mtuBytes: mtuBytes - 100 })), back };
  },
  nftElement: (victim, round) => {
    const { publicAddress } = peerOf(victim, round);
    const text = `delete element ${TABLE.family} ${TABLE.name} peers4 { ${publicAddress} }`;
    const back = (message: NetlinkMessage): boolean =>
      message.type === NFT_MSG_NEWSETELEM && changedTable(message)?.table === TABLE.name;
    return { strike: () => victim.nftables.run(text), back };
  },
  /** Back with the transaction that brings the last of its rules. */
  nftTable: (victim) => {
    const rules = victim.nftables.list(TABLE, { json: true }).split('"rule":').length - 1;
    let made = 0;
    const back = (message: NetlinkMessage): boolean => {
      if (message.type === NFT_MSG_NEWRULE && changedTable(message)?.table === TABLE.name) made++;
      return made >= rules && message.type === NFT_MSG_NEWGEN;
    };
    return { strike: () => victim.nftables.run(`delete table ${TABLE.family} ${TABLE.name}`), back };
  },
};

/** The kernel takes its time to flush a device's entries (a second for 10,000), which the figures hold. */
export const WHOLE_DEVICES: typeof SINGLE_OBJECTS = {
  vxlanDown: (victim) => ({
    strike: sendSlowly(victim, setLink(vxlanOf(victim).index, { up: false })),
    back: everyRoute(victim),
  }),
  vxlanDeleted: (victim) => ({
    strike: sendSlowly(victim, deleteLink(vxlanOf(victim).index)),
    back: everyRoute(victim),
  }),
};

const peerOf = ({ peers }: Victim, round: number): NumberedPeer => numberedPeer((round * 37) % peers);

const vxlanOf = (victim: Victim) => linkNamed(victim, victim.status.overlay?.device ?? undefined);

function linkNamed({ netlink }: Victim, name: string | undefined) {
  const link = findLink(netlink, name ?? '');
  if (link === undefined) throw new Error(`there is no link ${name}`);
  return link;
}

const send =
  ({ netlink }: Victim, request: NetlinkRequest) =>
  (): void =>
    netlink.request(request, 'take it away');

/** On another thread: this one reads the thousands of announcements meanwhile. */
const sendSlowly =
  ({ netlink }: Victim, request: NetlinkRequest) =>
  (): Promise<unknown> =>
    executeSlowly(netlink, [request], () => 'take it away');

const routeTo =
  (address: string) =>
  (message: NetlinkMessage): boolean =>
    message.type === RTM_NEWROUTE && readRoute(message)?.destination.address === address;

function everyRoute({ peers }: Victim): Breakage['back'] {
  let made = 0;
  return (message) => message.type === RTM_NEWROUTE && message.body[5] === ROUTE_PROTOCOL && ++made === peers;
}
