/**
 * Neighbour entries: the address -> MAC table of a link (`ip neigh`), and a vxlan device's forwarding
 * database, MAC -> remote VTEP (`bridge fdb`), which travel in the same messages.
 */
import {
  type Address,
  addressBytes,
  addressFromBytes,
  familyOf,
  type Mac,
  macBytes,
  macFromBytes,
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
import type { NetlinkSocket } from './netlink-socket.ts';
import {
  AF_BRIDGE,
  AF_UNSPEC,
  familyFromNumber,
  familyNumber,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './rtnetlink.ts';

const NDA_DST = 1;
const NDA_LLADDR = 2;
const NDA_IFINDEX = 8;
const NDA_MASTER = 9;

/** The entry is in the device's own table, not in the bridge that the device is a port of. */
const NTF_SELF = 0x02;
const NUD_NOARP = 0x40;

/** `ADDRESS dev INDEX lladdr MAC` */
export interface Neighbour {
  readonly linkIndex: number;
  readonly address: Address;
  /** Undefined while the kernel is still asking. */
  readonly mac: Mac | undefined;
  readonly permanent: boolean;
}

/** `MAC dev INDEX dst REMOTE self` */
export interface FdbEntry {
  readonly linkIndex: number;
  readonly mac: Mac;
  readonly remote: Address;
  readonly permanent: boolean;
}

/** `ip neigh show dev INDEX`, both families */
export function listNeighbours(netlink: NetlinkSocket, linkIndex: number): Neighbour[] {
  const write = (w: MessageWriter): void => {
    neighbourHeader(w, AF_UNSPEC, 0, 0, 0);
    w.attributeU32(NDA_IFINDEX, linkIndex);
  };
  const onLink = (message: NetlinkMessage): Neighbour | undefined => {
    const found = readNeighbour(message);
    return found?.linkIndex === linkIndex ? found : undefined;
  };
  return netlink.dump({ type: RTM_GETNEIGH, flags: 0, write }, onLink, 'list neighbours');
}

/** `bridge fdb show dev INDEX` */
export function listFdb(netlink: NetlinkSocket, linkIndex: number): FdbEntry[] {
  const onLink = (message: NetlinkMessage): FdbEntry | undefined => {
    const found = readFdbEntry(message);
    return found?.linkIndex === linkIndex ? found : undefined;
  };
  return netlink.dump(
    { type: RTM_GETNEIGH, flags: 0, write: (w) => neighbourHeader(w, AF_BRIDGE, linkIndex, 0, 0) },
    onLink,
    'list the FDB',
  );
}

/** `bridge fdb show br BRIDGE state` not permanent: behind which port each MAC was seen last. */
export function listLearned(netlink: NetlinkSocket, bridgeIndex: number): Map<Mac, number> {
  const learned = ({ type, body }: NetlinkMessage): readonly [Mac, number] | undefined => {
    if (type !== RTM_NEWNEIGH || body.length < 12 || body[0] !== AF_BRIDGE) return undefined;
    const found = attributes(body, 12);
    const mac = found[NDA_LLADDR];
    const permanent = (body.readUInt16LE(8) & NUD_PERMANENT) !== 0;
    if (mac?.length !== 6 || permanent || readU32(found[NDA_MASTER]) !== bridgeIndex) return undefined;
    return [macFromBytes(mac), body.readInt32LE(4)];
  };
  const write = (w: MessageWriter): void => neighbourHeader(w, AF_BRIDGE, 0, 0, 0);
  return new Map(
    netlink.dump({ type: RTM_GETNEIGH, flags: 0, write }, learned, `list what bridge ${bridgeIndex} learned`),
  );
}

/** Decodes RTM_NEWNEIGH and RTM_DELNEIGH of IPv4 and IPv6. */
export function readNeighbour({ type, body }: NetlinkMessage): Neighbour | undefined {
  if ((type !== RTM_NEWNEIGH && type !== RTM_DELNEIGH) || body.length < 12) return undefined;
  if (familyFromNumber(body[0] ?? 0) === undefined) return undefined;
  const found = attributes(body, 12);
  const address = found[NDA_DST];
  if (address === undefined || (address.length !== 4 && address.length !== 16)) return undefined;
  const mac = found[NDA_LLADDR];
  return {
    linkIndex: body.readInt32LE(4),
    address: addressFromBytes(address),
    mac: mac?.length === 6 ? macFromBytes(mac) : undefined,
    permanent: (body.readUInt16LE(8) & NUD_PERMANENT) !== 0,
  };
}

/** Decodes RTM_NEWNEIGH and RTM_DELNEIGH of AF_BRIDGE that name a remote VTEP. */
export function readFdbEntry({ type, body }: NetlinkMessage): FdbEntry | undefined {
  if ((type !== RTM_NEWNEIGH && type !== RTM_DELNEIGH) || body.length < 12 || body[0] !== AF_BRIDGE)
    return undefined;
  const found = attributes(body, 12);
  const remote = found[NDA_DST];
  const mac = found[NDA_LLADDR];
  if (mac?.length !== 6 || remote === undefined || (remote.length !== 4 && remote.length !== 16))
    return undefined;
  return {
    linkIndex: readU32(found[NDA_IFINDEX]) ?? body.readInt32LE(4),
    mac: macFromBytes(mac),
    remote: addressFromBytes(remote),
    permanent: (body.readUInt16LE(8) & NUD_PERMANENT) !== 0,
  };
}

/** `ip neigh replace ADDRESS lladdr MAC dev INDEX nud permanent` */
export function setNeighbour(linkIndex: number, address: Address, mac: Mac): NetlinkRequest {
  return {
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    write(w) {
      neighbourHeader(w, familyNumber(familyOf(address)), linkIndex, NUD_PERMANENT, 0);
      w.attribute(NDA_DST, addressBytes(address)).attribute(NDA_LLADDR, macBytes(mac));
    },
  };
}

/** `ip neigh del ADDRESS dev INDEX` */
export function deleteNeighbour(linkIndex: number, address: Address): NetlinkRequest {
  return {
    type: RTM_DELNEIGH,
    flags: 0,
    write(w) {
      neighbourHeader(w, familyNumber(familyOf(address)), linkIndex, 0, 0);
      w.attribute(NDA_DST, addressBytes(address));
    },
  };
}

/** `bridge fdb replace MAC dev INDEX dst REMOTE self permanent` */
export function setFdbEntry(linkIndex: number, mac: Mac, remote: Address): NetlinkRequest {
  return {
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    write(w) {
      neighbourHeader(w, AF_BRIDGE, linkIndex, NUD_PERMANENT | NUD_NOARP, NTF_SELF);
      w.attribute(NDA_LLADDR, macBytes(mac)).attribute(NDA_DST, addressBytes(remote));
    },
  };
}

/** `bridge fdb del MAC dev INDEX [dst REMOTE] self` */
export function deleteFdbEntry(linkIndex: number, mac: Mac, remote?: Address): NetlinkRequest {
  return {
    type: RTM_DELNEIGH,
    flags: 0,
    write(w) {
      neighbourHeader(w, AF_BRIDGE, linkIndex, 0, NTF_SELF);
      w.attribute(NDA_LLADDR, macBytes(mac));
      if (remote !== undefined) w.attribute(NDA_DST, addressBytes(remote));
    },
  };
}

function neighbourHeader(
  w: MessageWriter,
  family: number,
  linkIndex: number,
  state: number,
  flags: number,
): void {
  w.u8(family).u8(0).u16(0).u32(linkIndex).u16(state).u8(flags).u8(0);
}
