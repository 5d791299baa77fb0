/**
 * The kernel's vxlan device of one family, brought from whatever there is to what is wanted. One that is right is
 * kept, with its traffic; of a wrong one, what the kernel can change is changed; else it is replaced.
 */
import type { WantedVxlan } from '../desired/overlay.ts';
import { addVxlan, findLink, type Link, setLink, setVxlanLocal } from '../kernel/link.ts';
import { NetlinkError, type NetlinkSocket } from '../kernel/netlink-socket.ts';
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
 * The kernel has no vxlan, or does not let us have one: a module that is not there, a sandbox, a policy. `code` is
 * the errno's name.
 */
export class VxlanRefusedError extends Error {
  override readonly name = 'VxlanRefusedError';
  readonly code: string;
  constructor(device: string, cause: NetlinkError) {
    super(`${cause.message}. Load the kernel's vxlan module, or start with --datapath userspace`, { cause });
    this.code = cause.code;
    this.device = device;
  }
  readonly device: string;
}

/** Unknown kind, no vxlan in this family, not for us. Other errors are about this one device. */
const REFUSALS: ReadonlySet<string> = new Set([
  'EOPNOTSUPP',
  'ENOTSUP',
  'ENOSYS',
  'EPROTONOSUPPORT',
  'EAFNOSUPPORT',
  'EPERM',
  'EACCES',
]);

/**
 * @param tunnels to end one that has the device's name or port; absent where there is no user-space path
 * @throws VxlanRefusedError, DeviceConflictError, NetlinkError
 */
export async function settleVxlan(
  netlink: NetlinkSocket,
  tunnels: Pick<Tunnels, 'discard'> | undefined,
  wanted: WantedVxlan,
  links: Map<string, Link>,
  changed: ChangeListener,
): Promise<number> {
  let link = links.get(wanted.name);
  if (link?.isTap === true && link.alias === LINK_ALIAS) {
    await tunnels?.discard(link.name);
    await removeLink(netlink, link);
    changed('link', `${link.name} removed: the data path is the kernel's`);
    links.delete(link.name);
    link = undefined;
  }
  if (link !== undefined && link.kind !== 'vxlan') {
    throw new DeviceConflictError(
      `${wanted.name} is a ${link.kind ?? 'hardware'} device: name another with --device, or remove it`,
    );
  }
  if (link !== undefined && vxlanFault(wanted, link) === 'local') {
    const failures = netlink.execute(
      [setVxlanLocal(link.index, wanted.local)],
      () => 'set the local address',
    );
    link = findLink(netlink, wanted.name) ?? link;
    if (failures.length === 0) changed('link', `${wanted.name} local ${wanted.local}`);
  }
  const fault = link === undefined ? 'absence' : vxlanFault(wanted, link);
  if (link !== undefined && fault !== undefined) {
    const isAside = (fault === 'VNI' || fault === 'port') && putAside(netlink, link);
    if (!isAside) await removeLink(netlink, link);
    changed('link', `${wanted.name} ${isAside ? 'put aside' : 'removed'}: wrong ${fault}`);
    link = undefined;
  }
  if (link === undefined) {
    // Its holder may have outlived a tunnel's device: it has the port.
    await tunnels?.discard(wanted.name);
    create(netlink, wanted, links);
    link = findLink(netlink, wanted.name);
    if (link === undefined) throw new DeviceConflictError(`${wanted.name} went away as soon as it was there`);
    changed('link', `${wanted.name} created`);
  }
  changeLink(netlink, link, linkDifferences(wanted, link), changed);
  links.set(wanted.name, link);
  return link.index;
}

/**
 * Gives its name free for the device that takes its place, so that it carries packets until that one stands; it
 * is stale from now on. False on kernels that rename no device that is up (before 6.2).
 */
function putAside(netlink: NetlinkSocket, link: Link): boolean {
  const name = `${link.name.slice(0, 14)}~`;
  const requests = [setLink(link.index, { name }), setLink(link.index, { alias: LINK_ALIAS })];
  return netlink.execute(requests, () => `rename ${link.name}`).length === 0;
}

function create(netlink: NetlinkSocket, wanted: WantedVxlan, links: ReadonlyMap<string, Link>): void {
  try {
    netlink.request(addVxlan({ ...wanted, learning: false }), `create ${wanted.name}`);
  } catch (error) {
    if (error instanceof NetlinkError && REFUSALS.has(error.code)) {
      throw new VxlanRefusedError(wanted.name, error);
    }
    if (!(error instanceof NetlinkError) || error.code !== 'EEXIST') throw error;
    const rival = [...links.values()].find(
      ({ vxlan }) => vxlan?.vni === wanted.vni && vxlan.port === wanted.port,
    );
    throw new DeviceConflictError(
      `${wanted.name} cannot be created: ${rival?.name ?? 'another device'} already has VNI ${wanted.vni} on port ` +
        `${wanted.port}. Remove it (ip link del ${rival?.name ?? '...'}) or give the network another VNI`,
      { cause: error },
    );
  }
}

/** The parameter that makes a device unfit; undefined: it can stay. */
export function vxlanFault(wanted: WantedVxlan, { vxlan, kind }: Link): string | undefined {
  if (kind !== 'vxlan' || vxlan === undefined) return 'kind';
  if (vxlan.vni !== wanted.vni) return 'VNI';
  if (vxlan.port !== wanted.port) return 'port';
  if (vxlan.learning) return 'learning';
  return vxlan.local === wanted.local ? undefined : 'local';
}
