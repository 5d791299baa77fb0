/**
 * The TAP device of one family's tunnel in user space, and the tunnel on it: brought from whatever there is to what
 * is wanted. Name, MAC, MTU, addresses and entries are those of the kernel's vxlan device, of which it takes the
 * place; and a vxlan device in its own place is removed first, since the port can be only one's.
 */
import { TunnelError } from '../../encap/tunnel-types.ts';
import type { Address, Mac } from '../../store/address.ts';
import type { WantedVxlan } from '../desired/overlay.ts';
import { findLink, type Link } from '../kernel/link.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import {
  type ChangeListener,
  changeLink,
  DeviceConflictError,
  LINK_ALIAS,
  linkDifferences,
  removeLink,
} from './own-links.ts';
import type { Tunnels } from './tunnels.ts';

/**
 * @param peers the tunnel's table to begin with
 * @returns the device's index
 * @throws DeviceConflictError, TunnelError, NetlinkError
 */
export async function settleTap(
  netlink: NetlinkSocket,
  tunnels: Tunnels,
  wanted: WantedVxlan,
  peers: ReadonlyMap<Mac, Address>,
  links: Map<string, Link>,
  changed: ChangeListener,
): Promise<number> {
  const present = links.get(wanted.name);
  if (present !== undefined && !present.isTap) {
    if (present.kind !== 'vxlan') {
      throw new DeviceConflictError(
        `${wanted.name} is a ${present.kind ?? 'hardware'} device: name another with --device, or remove it`,
      );
    }
    await removeLink(netlink, present);
    changed('link', `${wanted.name} removed: the data path is user space`);
  }
  if (tunnels.fits(wanted, present?.index)) {
    for (const what of tunnels.adjust(wanted)) changed('link', `${wanted.name} ${what}`);
  } else {
    if (tunnels.of(wanted.name) !== undefined) {
      await tunnels.discard(wanted.name);
      changed('link', `${wanted.name} removed: its tunnel cannot go on`);
    }
    await open(netlink, tunnels, wanted, peers, changed);
  }
  const link = require(findLink(netlink, wanted.name), wanted);
  changeLink(netlink, link, linkDifferences(wanted, link), changed);
  links.set(wanted.name, link);
  return link.index;
}

/** One of an earlier daemon is taken over; one of ours that cannot be (made by another version) is replaced. */
async function open(
  netlink: NetlinkSocket,
  tunnels: Tunnels,
  wanted: WantedVxlan,
  peers: ReadonlyMap<Mac, Address>,
  changed: ChangeListener,
): Promise<void> {
  const linkIndex = () => require(findLink(netlink, wanted.name), wanted).index;
  const before = findLink(netlink, wanted.name);
  try {
    await tunnels.open(wanted, peers, linkIndex);
  } catch (error) {
    const isOurs = before?.isTap === true && before.alias === LINK_ALIAS;
    if (!isOurs || !(error instanceof TunnelError) || error.code !== 'VTEPD_TUNNEL_DEVICE') throw error;
    await tunnels.discard(wanted.name);
    await removeLink(netlink, before);
    changed('link', `${wanted.name} removed: ${error.message}`);
    await tunnels.open(wanted, peers, linkIndex);
  }
  if (findLink(netlink, wanted.name)?.index !== before?.index) changed('link', `${wanted.name} created`);
}

/** What is wrong with the device; undefined: it can stay. */
export const tapFault = ({ isTap }: Link): string | undefined => (isTap ? undefined : 'kind');

function require(link: Link | undefined, { name }: WantedVxlan): Link {
  if (link === undefined) throw new DeviceConflictError(`${name} went away as soon as it was there`);
  return link;
}
