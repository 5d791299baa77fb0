/** What the devices of ours have in common: how they are known, compared, changed and removed. */
import type { Mac } from '../../store/address.ts';
import { deleteLink, type Link, type LinkSettings, setLink } from '../kernel/link.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { executeSlowly } from '../kernel/slow-netlink.ts';

/** On every device of ours: `ip link show` prints it, and a device of an earlier run is known by it. */
export const LINK_ALIAS = 'vtepd';

/** A device has our name but is not ours to change, or another one is in the way of ours. */
export class DeviceConflictError extends Error {
  override readonly name = 'DeviceConflictError';
  readonly code = 'VTEPD_DEVICE_CONFLICT';
  readonly retryable = true;
}

/** Hears of each change: `link`, `address`, `sysctl`, `port`, and what was done. */
export type ChangeListener = (kind: 'link' | 'address' | 'sysctl' | 'port', what: string) => void;

export interface WantedLink {
  readonly mac: Mac;
  readonly mtuBytes: number;
}

/** What can be put right in a device's life. */
export const linkDifferences = (wanted: WantedLink, link: Link): LinkSettings => ({
  ...(link.mtuBytes === wanted.mtuBytes ? {} : { mtuBytes: wanted.mtuBytes }),
  ...(link.mac === wanted.mac ? {} : { mac: wanted.mac }),
  ...(link.alias === LINK_ALIAS ? {} : { alias: LINK_ALIAS }),
});

/** `ip link set`, and tells what of it had to be repaired. @throws NetlinkError */
export function changeLink(
  netlink: NetlinkSocket,
  link: Link,
  differences: LinkSettings,
  changed: ChangeListener,
): void {
  const names = Object.keys(differences);
  if (names.length === 0) return;
  netlink.request(setLink(link.index, differences), `set ${names.join(', ')} of ${link.name}`);
  // The alias is only a label: nothing that had to be repaired.
  if (differences.mtuBytes !== undefined) changed('link', `${link.name} mtu ${differences.mtuBytes}`);
  if (differences.mac !== undefined) changed('link', `${link.name} address ${differences.mac}`);
}

/** On another thread, for it takes the kernel a while. A link that has gone already is no failure. @throws NetlinkError */
export async function removeLink(netlink: NetlinkSocket, link: Link): Promise<void> {
  const [failure] = await executeSlowly(netlink, [deleteLink(link.index)], () => `remove ${link.name}`);
  if (failure !== undefined && failure.error.code !== 'ENODEV') throw failure.error;
}
