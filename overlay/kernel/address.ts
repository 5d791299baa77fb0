/** Addresses on links (`ip address`). */
import { type Address, addressBytes, addressFromBytes, type Family, familyOf } from '../../store/address.ts';
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
  AF_UNSPEC,
  familyFromNumber,
  familyNumber,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from './rtnetlink.ts';

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;

/** No duplicate address detection: the address is ours by lease, and waiting for it costs a second. */
const IFA_F_NODAD = 0x02;
const IFA_F_DADFAILED = 0x08;
/** In IPv6; the same bit is `secondary` in IPv4. */
const IFA_F_TEMPORARY = 0x01;
const IFA_F_DEPRECATED = 0x20;
const IFA_F_TENTATIVE = 0x40;

const RT_SCOPE_UNIVERSE = 0;

export interface LinkAddress {
  readonly linkIndex: number;
  readonly family: Family;
  readonly address: Address;
  readonly prefixLength: number;
  /** 0 global, 253 link, 254 host. */
  readonly scope: number;
  /** Not usable yet, or not at all: duplicate address detection is under way or failed. */
  readonly tentative: boolean;
  /** IPv6: made for privacy (RFC 8981), or deprecated: it is there for now. */
  readonly transient: boolean;
}

export interface NewLinkAddress {
  readonly linkIndex: number;
  readonly address: Address;
  readonly prefixLength: number;
}

/** `ip address show` */
export const listAddresses = (netlink: NetlinkSocket): LinkAddress[] =>
  netlink.dump(
    { type: RTM_GETADDR, flags: 0, write: (w) => addressHeader(w, AF_UNSPEC, 0, 0) },
    readLinkAddress,
    'list addresses',
  );

/** Decodes RTM_NEWADDR and RTM_DELADDR. */
export function readLinkAddress(message: NetlinkMessage): LinkAddress | undefined {
  const { type, body } = message;
  if ((type !== RTM_NEWADDR && type !== RTM_DELADDR) || body.length < 8) return undefined;
  const family = familyFromNumber(body[0] ?? 0);
  const found = attributes(body, 8);
  // On a point-to-point link IFA_ADDRESS is the far end's; IFA_LOCAL is always ours.
  const bytes = found[IFA_LOCAL] ?? found[IFA_ADDRESS];
  if (family === undefined || bytes === undefined || (bytes.length !== 4 && bytes.length !== 16))
    return undefined;
  const flags = readU32(found[IFA_FLAGS]) ?? body[2] ?? 0;
  return {
    linkIndex: body.readUInt32LE(4),
    family,
    address: addressFromBytes(bytes),
    prefixLength: body[1] ?? 0,
    scope: body[3] ?? 0,
    tentative: (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) !== 0,
    transient: family === 'ipv6' && (flags & (IFA_F_TEMPORARY | IFA_F_DEPRECATED)) !== 0,
  };
}

/** `ip address replace ADDRESS/LENGTH [broadcast +] dev INDEX nodad` */
export function addAddress(wanted: NewLinkAddress): NetlinkRequest {
  return addressRequest(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, wanted);
}

/** `ip address del ADDRESS/LENGTH dev INDEX` */
export function deleteAddress(unwanted: NewLinkAddress): NetlinkRequest {
  return addressRequest(RTM_DELADDR, 0, unwanted);
}

function addressRequest(
  type: number,
  flags: number,
  { linkIndex, address, prefixLength }: NewLinkAddress,
): NetlinkRequest {
  const bytes = addressBytes(address);
  const family = familyOf(address);
  return {
    type,
    flags,
    write(w) {
      addressHeader(w, familyNumber(family), prefixLength, linkIndex);
      w.attribute(IFA_LOCAL, bytes).attribute(IFA_ADDRESS, bytes);
      if (family === 'ipv4' && prefixLength < 31)
        w.attribute(IFA_BROADCAST, broadcastOf(bytes, prefixLength));
      if (family === 'ipv6') w.attributeU32(IFA_FLAGS, IFA_F_NODAD);
    },
  };
}

function addressHeader(w: MessageWriter, family: number, prefixLength: number, linkIndex: number): void {
  w.u8(family).u8(prefixLength).u8(0).u8(RT_SCOPE_UNIVERSE).u32(linkIndex);
}

function broadcastOf(address: Uint8Array, prefixLength: number): Uint8Array {
  return address.map((byte, i) => byte | (0xff >> Math.min(8, Math.max(0, prefixLength - 8 * i))));
}
