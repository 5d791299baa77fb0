/**
 * Links: devices as rtnetlink sees them (`ip link`). Requests are data, carried out by a NetlinkSocket;
 * `readLink` decodes dumps and announcements alike.
 */
import {
  type Address,
  addressBytes,
  addressFromBytes,
  type Mac,
  macBytes,
  macFromBytes,
} from '../../store/address.ts';
import {
  type Attributes,
  attributes,
  type MessageWriter,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_CREATE,
  NLM_F_EXCL,
  readText,
  readU8,
  readU16be,
  readU32,
} from './netlink-message.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import { AF_UNSPEC, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK } from './rtnetlink.ts';

const IFF_UP = 0x1;
const IFF_LOOPBACK = 0x8;
const IFF_LOWER_UP = 0x10000;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;

const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;

const IFLA_VXLAN_ID = 1;
const IFLA_VXLAN_LOCAL = 4;
const IFLA_VXLAN_LEARNING = 7;
const IFLA_VXLAN_PORT = 15;
const IFLA_VXLAN_LOCAL6 = 17;

const IFLA_TUN_TYPE = 3;
const IFF_TAP = 2;

/** A mask of switches (their new values, which of them to change); no_linklocal_learn is bit 0. */
const IFLA_BR_MULTI_BOOLOPT = 46;
const NO_LINKLOCAL_LEARN = 1;

const IFLA_BRPORT_MODE = 4;
const VETH_INFO_PEER = 1;

export interface VxlanParameters {
  readonly vni: number;
  readonly port: number;
  readonly local: Address;
  readonly learning: boolean;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  /** `vxlan`, `bridge`, `veth`, `tun` (of which TAP is a mode); undefined for hardware and the loopback. */
  readonly kind: string | undefined;
  readonly mac: Mac | undefined;
  readonly mtuBytes: number;
  /** Administratively up. */
  readonly up: boolean;
  /** The other side is there too: a cable, a raised peer. */
  readonly carrier: boolean;
  readonly loopback: boolean;
  /** Free text; how a device of an earlier run is known to be ours. */
  readonly alias: string | undefined;
  /** Index of the bridge whose port it is. */
  readonly master: number | undefined;
  readonly group: number;
  /** Of a bridge port: may send a packet back out of the port it came in by. */
  readonly hairpin: boolean;
  /** Ours and those like it; one without a local address has only a key. */
  readonly vxlan: VxlanParameters | undefined;
  /** What no two vxlan devices of a family share. */
  readonly vxlanKey?: Pick<VxlanParameters, 'vni' | 'port'> | undefined;
  /** Kind `tun`, and its packets are Ethernet frames. */
  readonly isTap: boolean;
  /** Of a bridge: it learns nothing from link-local frames. */
  readonly noLinkLocalLearn: boolean;
  /** The index of the lower device or the far end; in a veth's case in its namespace. */
  readonly lower: number | undefined;
}

function linkHeader(writer: MessageWriter, index: number, flags = 0, change = 0): void {
  writer.u8(AF_UNSPEC).u8(0).u16(0).u32(index).u32(flags).u32(change);
}

/** `ip link show`, all or by name. */
export const listLinks = (netlink: NetlinkSocket): Link[] =>
  netlink.dump({ type: RTM_GETLINK, flags: 0, write: (w) => linkHeader(w, 0) }, readLink, 'list links');

/** `ip link show dev NAME` */
export function findLink(netlink: NetlinkSocket, name: string): Link | undefined {
  const write = (w: MessageWriter): void => {
    linkHeader(w, 0);
    w.attributeText(IFLA_IFNAME, name);
  };
  return netlink.get({ type: RTM_GETLINK, flags: 0, write }, readLink, `look for link ${name}`);
}

/** Decodes RTM_NEWLINK and RTM_DELLINK. */
export function readLink(message: NetlinkMessage): Link | undefined {
  const { type, body } = message;
  // Family AF_BRIDGE announces bridge ports: such a message is about the port, not the whole link.
  if ((type !== RTM_NEWLINK && type !== RTM_DELLINK) || body.length < 16 || body[0] !== AF_UNSPEC)
    return undefined;
  const flags = body.readUInt32LE(8);
  const found = attributes(body, 16);
  const info = attributes(found[IFLA_LINKINFO] ?? Buffer.alloc(0));
  const kind = readText(info[IFLA_INFO_KIND]);
  const mac = found[IFLA_ADDRESS];
  return {
    index: body.readInt32LE(4),
    name: readText(found[IFLA_IFNAME]) ?? '',
    kind,
    mac: mac?.length === 6 ? macFromBytes(mac) : undefined,
    mtuBytes: readU32(found[IFLA_MTU]) ?? 0,
    up: (flags & IFF_UP) !== 0,
    carrier: (flags & IFF_LOWER_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    alias: readText(found[IFLA_IFALIAS]),
    master: readU32(found[IFLA_MASTER]),
    group: readU32(found[IFLA_GROUP]) ?? 0,
    hairpin: readU8(attributes(info[IFLA_INFO_SLAVE_DATA] ?? Buffer.alloc(0))[IFLA_BRPORT_MODE]) === 1,
    vxlan: kind === 'vxlan' ? readVxlan(info[IFLA_INFO_DATA]) : undefined,
    vxlanKey:
      kind === 'vxlan' ? readVxlanKey(attributes(info[IFLA_INFO_DATA] ?? Buffer.alloc(0))) : undefined,
    isTap:
      kind === 'tun' &&
      readU8(attributes(info[IFLA_INFO_DATA] ?? Buffer.alloc(0))[IFLA_TUN_TYPE]) === IFF_TAP,
    noLinkLocalLearn: kind === 'bridge' && readsNoLinkLocalLearn(info[IFLA_INFO_DATA]),
    lower: readU32(found[IFLA_LINK]),
  };
}

const readsNoLinkLocalLearn = (data: Buffer | undefined): boolean =>
  ((readU32(attributes(data ?? Buffer.alloc(0))[IFLA_BR_MULTI_BOOLOPT]) ?? 0) & NO_LINKLOCAL_LEARN) !== 0;

function readVxlan(data: Buffer | undefined): VxlanParameters | undefined {
  const found = attributes(data ?? Buffer.alloc(0));
  const local = found[IFLA_VXLAN_LOCAL] ?? found[IFLA_VXLAN_LOCAL6];
  if (local === undefined || (local.length !== 4 && local.length !== 16)) return undefined;
  return {
    ...readVxlanKey(found),
    local: addressFromBytes(local),
    learning: readU8(found[IFLA_VXLAN_LEARNING]) === 1,
  };
}

const readVxlanKey = (found: Attributes) => ({
  vni: readU32(found[IFLA_VXLAN_ID]) ?? 0,
  port: readU16be(found[IFLA_VXLAN_PORT]) ?? 0,
});

export interface NewVxlan extends VxlanParameters {
  readonly name: string;
  readonly mac: Mac;
  readonly mtuBytes: number;
}

/**
 * `ip link add NAME address MAC mtu N type vxlan id VNI local ADDRESS dstport PORT [no]learning`
 *
 * Without `dev`: a device tied to an underlay interface disappears with it, and all its entries too.
 */
export function addVxlan(vxlan: NewVxlan): NetlinkRequest {
  const local = addressBytes(vxlan.local);
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    write(w) {
      linkHeader(w, 0);
      w.attributeText(IFLA_IFNAME, vxlan.name)
        .attribute(IFLA_ADDRESS, macBytes(vxlan.mac))
        .attributeU32(IFLA_MTU, vxlan.mtuBytes)
        .nest(IFLA_LINKINFO, () => {
          w.attributeText(IFLA_INFO_KIND, 'vxlan').nest(IFLA_INFO_DATA, () => {
            w.attributeU32(IFLA_VXLAN_ID, vxlan.vni)
              .attribute(local.length === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, local)
              .attributeU8(IFLA_VXLAN_LEARNING, vxlan.learning ? 1 : 0)
              .attributeU16be(IFLA_VXLAN_PORT, vxlan.port);
          });
        });
    },
  };
}

/** `ip link set NAME type vxlan local ADDRESS`: the only parameter that a device may change in its life. */
export function setVxlanLocal(index: number, address: Address): NetlinkRequest {
  const local = addressBytes(address);
  return {
    type: RTM_NEWLINK,
    flags: 0,
    write(w) {
      linkHeader(w, index);
      w.nest(IFLA_LINKINFO, () => {
        w.attributeText(IFLA_INFO_KIND, 'vxlan').nest(IFLA_INFO_DATA, () => {
          w.attribute(local.length === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, local);
        });
      });
    },
  };
}

/**
 * `ip link add NAME address MAC mtu N type bridge no_linklocal_learn 1`: a bridge shows LLDP and its like to
 * no packet filter, yet would learn their sender, which may be another pod's MAC.
 */
export function addBridge(bridge: {
  readonly name: string;
  readonly mac: Mac;
  readonly mtuBytes: number;
}): NetlinkRequest {
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    write(w) {
      linkHeader(w, 0);
      w.attributeText(IFLA_IFNAME, bridge.name)
        .attribute(IFLA_ADDRESS, macBytes(bridge.mac))
        .attributeU32(IFLA_MTU, bridge.mtuBytes)
        .nest(IFLA_LINKINFO, () => {
          w.attributeText(IFLA_INFO_KIND, 'bridge').nest(IFLA_INFO_DATA, () => writeNoLinkLocalLearn(w));
        });
    },
  };
}

/** `ip link set NAME type bridge no_linklocal_learn 1` (kernel 4.20 and newer) */
export function setNoLinkLocalLearn(index: number): NetlinkRequest {
  return {
    type: RTM_NEWLINK,
    flags: 0,
    write(w) {
      linkHeader(w, index);
      w.nest(IFLA_LINKINFO, () => {
        w.attributeText(IFLA_INFO_KIND, 'bridge').nest(IFLA_INFO_DATA, () => writeNoLinkLocalLearn(w));
      });
    },
  };
}

const writeNoLinkLocalLearn = (w: MessageWriter): void => {
  w.attribute(
    IFLA_BR_MULTI_BOOLOPT,
    Buffer.from(Uint32Array.of(NO_LINKLOCAL_LEARN, NO_LINKLOCAL_LEARN).buffer),
  );
};

export interface NewVeth {
  readonly name: string;
  readonly mtuBytes: number;
  /** Index of the bridge to join. */
  readonly master?: number | undefined;
  readonly group?: number | undefined;
  readonly up?: boolean | undefined;
  readonly far: {
    readonly name: string;
    readonly mac: Mac;
    /** A descriptor of the namespace in which the far end is created. */
    readonly namespaceFd: number;
  };
}

/**
 * `ip link add NAME mtu N [master BRIDGE] [group N] [up] type veth peer NAME address MAC netns NS`: the far
 * end is born where it belongs, with its final name, so no name of the node's namespace is ever in its way.
 */
export function addVeth(veth: NewVeth): NetlinkRequest {
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    write(w) {
      linkHeader(w, 0, veth.up === true ? IFF_UP : 0, veth.up === true ? IFF_UP : 0);
      w.attributeText(IFLA_IFNAME, veth.name).attributeU32(IFLA_MTU, veth.mtuBytes);
      if (veth.master !== undefined) w.attributeU32(IFLA_MASTER, veth.master);
      if (veth.group !== undefined) w.attributeU32(IFLA_GROUP, veth.group);
      w.nest(IFLA_LINKINFO, () => {
        w.attributeText(IFLA_INFO_KIND, 'veth').nest(IFLA_INFO_DATA, () => {
          w.nest(VETH_INFO_PEER, () => {
            linkHeader(w, 0);
            w.attributeText(IFLA_IFNAME, veth.far.name)
              .attribute(IFLA_ADDRESS, macBytes(veth.far.mac))
              .attributeU32(IFLA_MTU, veth.mtuBytes)
              .attributeU32(IFLA_NET_NS_FD, veth.far.namespaceFd);
          });
        });
      });
    },
  };
}

export interface LinkSettings {
  readonly up?: boolean | undefined;
  /** Another one; while the link is up, only on kernels from 6.2 on. */
  readonly name?: string | undefined;
  readonly mtuBytes?: number | undefined;
  readonly mac?: Mac | undefined;
  /** Index of the bridge; 0 leaves it. */
  readonly master?: number | undefined;
  readonly group?: number | undefined;
  readonly alias?: string | undefined;
}

/** `ip link set INDEX [up|down] [name NAME] [mtu N] [address MAC] [master INDEX|nomaster] [group N] [alias TEXT]` */
export function setLink(index: number, settings: LinkSettings): NetlinkRequest {
  return {
    type: RTM_NEWLINK,
    flags: 0,
    write(w) {
      linkHeader(w, index, settings.up === true ? IFF_UP : 0, settings.up === undefined ? 0 : IFF_UP);
      if (settings.name !== undefined) w.attributeText(IFLA_IFNAME, settings.name);
      if (settings.mtuBytes !== undefined) w.attributeU32(IFLA_MTU, settings.mtuBytes);
      if (settings.mac !== undefined) w.attribute(IFLA_ADDRESS, macBytes(settings.mac));
      if (settings.master !== undefined) w.attributeU32(IFLA_MASTER, settings.master);
      if (settings.group !== undefined) w.attributeU32(IFLA_GROUP, settings.group);
      if (settings.alias !== undefined) w.attributeText(IFLA_IFALIAS, settings.alias);
    },
  };
}

/** `ip link set NAME type bridge_slave hairpin on|off` */
export function setHairpin(name: string, hairpin: boolean): NetlinkRequest {
  return {
    type: RTM_NEWLINK,
    flags: 0,
    write(w) {
      linkHeader(w, 0);
      w.attributeText(IFLA_IFNAME, name).nest(IFLA_LINKINFO, () => {
        w.attributeText(IFLA_INFO_SLAVE_KIND, 'bridge').nest(IFLA_INFO_SLAVE_DATA, () =>
          w.attributeU8(IFLA_BRPORT_MODE, hairpin ? 1 : 0),
        );
      });
    },
  };
}

/** `ip link del dev INDEX`. Waits for an RCU grace period, about 20 ms: not for the event loop. */
export const deleteLink = (index: number): NetlinkRequest => ({
  type: RTM_DELLINK,
  flags: 0,
  write: (w) => linkHeader(w, index),
});

/** `ip link del group N`: all of them in one grace period. Not for the event loop either. */
export const deleteLinkGroup = (group: number): NetlinkRequest => ({
  type: RTM_DELLINK,
  flags: 0,
  write(w) {
    linkHeader(w, 0);
    w.attributeU32(IFLA_GROUP, group);
  },
});
