/**
 * The devices of the overlay: vxlan (or the TAP in its place), bridge, their addresses and settings, and the pods' ports. One call
 * brings them from whatever there is to what is wanted, and says what it had to change.
 *
 * A device that is right is kept, with its traffic; a wrong one is replaced, and its entries are then
 * programmed anew by the caller, who sees the new index. Ours are known by name, and, when the name has
 * changed since an earlier run, by their alias.
 */
import { type Address, type Family, type Mac, subnetContains } from '../../store/address.ts';
import type { DataPath } from '../desired/data-path.ts';
import { routesDirectly } from '../desired/on-link.ts';
import {
  clusterNetworksOf,
  forwardingDevices,
  type WantedBridge,
  type WantedOverlay,
} from '../desired/overlay.ts';
import type { PodPort } from '../desired/pods.ts';
import { addAddress, deleteAddress, listAddresses } from '../kernel/address.ts';
import { settleForwarding, settleOwnDevice, settleReversePath } from '../kernel/device-settings.ts';
import {
  addBridge,
  findLink,
  type Link,
  listLinks,
  setHairpin,
  setLink,
  setNoLinkLocalLearn,
} from '../kernel/link.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import {
  type ChangeListener,
  changeLink,
  DeviceConflictError,
  LINK_ALIAS,
  linkDifferences,
  removeLink,
} from './own-links.ts';
import { settleTap, tapFault } from './tap-device.ts';
import type { Tunnels } from './tunnels.ts';
import { settleVxlan, VxlanRefusedError, vxlanFault } from './vxlan-device.ts';

export interface DeviceIndexes {
  readonly vxlan: Readonly<Partial<Record<Family, number>>>;
  readonly bridge: number;
}

export interface DeviceTools {
  readonly netlink: NetlinkSocket;
  /** The user-space path; absent where the kernel's is the only one. */
  readonly tunnels: Tunnels | undefined;
  /** A family's peers by their VTEP MACs: what a user-space tunnel begins with. */
  readonly peersOf: (family: Family) => ReadonlyMap<Mac, Address>;
}

/** @throws DeviceConflictError, NetlinkError, TunnelError, VxlanRefusedError */
export async function settleDevices(
  tools: DeviceTools,
  wanted: WantedOverlay,
  ports: readonly PodPort[],
  changed: ChangeListener,
): Promise<DeviceIndexes> {
  const { netlink, tunnels } = tools;
  const links = new Map(listLinks(netlink).map((link) => [link.name, link] as const));
  await removeRivals(tools, wanted, links, changed);
  const bridge = await settleBridge(netlink, wanted.bridge, links.get(wanted.bridge.name), changed);
  const path = dataPathOf(tunnels, wanted);
  const vxlan: Partial<Record<Family, number>> = {};
  try {
    for (const family of wanted.families) {
      const device = wanted.vxlan[family];
      if (device === undefined) continue;
      vxlan[family] =
        path === 'userspace' && tunnels !== undefined
          ? await settleTap(netlink, tunnels, device, tools.peersOf(family), links, changed)
          : await settleVxlan(netlink, tunnels, device, links, changed);
    }
  } catch (error) {
    if (!(error instanceof VxlanRefusedError)) throw error;
    const refusal = error.cause instanceof Error ? error.cause.message : error.message;
    if (tunnels?.kernelRefused(wanted.datapath, refusal) !== true) throw error;
    return settleDevices(tools, wanted, ports, changed);
  }
  settleSettings(wanted, changed);
  settleAddresses(netlink, wanted, { vxlan, bridge }, changed);
  for (const family of wanted.families)
    raise(netlink, links, vxlan[family], wanted.vxlan[family]?.name, changed);
  raise(netlink, links, bridge, wanted.bridge.name, changed);
  settlePorts(netlink, bridge, ports, links, changed);
  return { vxlan, bridge };
}

const dataPathOf = (tunnels: Tunnels | undefined, { datapath }: WantedOverlay): DataPath =>
  tunnels?.state(datapath).path ?? 'kernel';

/** Whether an announced link is one of ours and not as it should be. */
export function linkNeedsRepair(
  link: Link,
  path: DataPath,
  wanted: WantedOverlay,
  bridgeIndex: number | undefined,
): boolean {
  if (link.name === wanted.bridge.name) {
    return (
      link.index !== bridgeIndex || !link.up || Object.keys(linkDifferences(wanted.bridge, link)).length > 0
    );
  }
  for (const family of wanted.families) {
    const device = wanted.vxlan[family];
    if (link.name !== device?.name) continue;
    return (
      !link.up ||
      (path === 'kernel' ? vxlanFault(device, link) : tapFault(link)) !== undefined ||
      Object.keys(linkDifferences(device, link)).length > 0
    );
  }
  return false;
}

export const portNeedsRepair = (link: Link, port: PodPort, bridgeIndex: number | undefined): boolean =>
  link.master !== bridgeIndex || !link.up || link.hairpin !== port.hairpin;

async function settleBridge(
  netlink: NetlinkSocket,
  wanted: WantedBridge,
  present: Link | undefined,
  changed: ChangeListener,
): Promise<number> {
  let link = present;
  if (link !== undefined && link.kind !== 'bridge') {
    throw new DeviceConflictError(
      `${wanted.name} is a ${link.kind ?? 'hardware'} device: name another with --bridge, or remove it`,
    );
  }
  if (link === undefined) {
    // Born a byte short: only an MTU that is changed afterwards is a bridge's own, and not what its ports have.
    netlink.request(addBridge({ ...wanted, mtuBytes: wanted.mtuBytes - 1 }), `create ${wanted.name}`);
    link = findLink(netlink, wanted.name);
    if (link === undefined) throw new DeviceConflictError(`${wanted.name} went away as soon as it was there`);
    changed('link', `${wanted.name} created`);
    netlink.request(setLink(link.index, { mtuBytes: wanted.mtuBytes }), `set the MTU of ${wanted.name}`);
    link = { ...link, mtuBytes: wanted.mtuBytes };
  }
  changeLink(netlink, link, linkDifferences(wanted, link), changed);
  if (!link.noLinkLocalLearn) {
    netlink.request(setNoLinkLocalLearn(link.index), `keep ${wanted.name} from learning link-local frames`);
    changed('link', `${wanted.name} no_linklocal_learn`);
  }
  return link.index;
}

function raise(
  netlink: NetlinkSocket,
  links: ReadonlyMap<string, Link>,
  index: number | undefined,
  name: string | undefined,
  changed: ChangeListener,
): void {
  if (index === undefined || name === undefined) return;
  const known = links.get(name);
  if (known?.index === index && known.up) return;
  netlink.request(setLink(index, { up: true }), `raise ${name}`);
  changed('link', `${name} up`);
}

function settleAddresses(
  netlink: NetlinkSocket,
  wanted: WantedOverlay,
  indexes: DeviceIndexes,
  changed: ChangeListener,
): void {
  const present = listAddresses(netlink);
  const place = (device: string, linkIndex: number, addresses: WantedBridge['addresses']): void => {
    const found = present.filter((each) => each.linkIndex === linkIndex);
    const isWanted = (each: PlacedAddress): boolean => addresses.some((wish) => samePlace(wish, each));
    for (const { address, prefixLength } of addresses) {
      if (found.some((each) => samePlace(each, { address, prefixLength }))) continue;
      netlink.request(addAddress({ linkIndex, address, prefixLength }), `add ${address} to ${device}`);
      changed('address', `${address}/${prefixLength} on ${device}`);
    }
    for (const each of found) {
      // Of another address in the cluster's network only we can be the author: that of an earlier lease.
      const networks = clusterNetworksOf(wanted, each.family);
      if (isWanted(each) || !networks.some((network) => subnetContains(network, each.address))) continue;
      netlink.request(deleteAddress({ ...each }), `remove ${each.address} from ${device}`);
      changed('address', `${each.address}/${each.prefixLength} removed from ${device}`);
    }
  };
  for (const family of wanted.families) {
    const vxlan = wanted.vxlan[family];
    const index = indexes.vxlan[family];
    if (vxlan === undefined || index === undefined) continue;
    const addresses = [vxlan.address, ...vxlan.formerAddresses];
    place(
      vxlan.name,
      index,
      addresses.map((address) => ({ address, prefixLength: vxlan.addressBits })),
    );
  }
  place(wanted.bridge.name, indexes.bridge, wanted.bridge.addresses);
}

type PlacedAddress = WantedBridge['addresses'][number];

const samePlace = (a: PlacedAddress, b: PlacedAddress): boolean =>
  a.address === b.address && a.prefixLength === b.prefixLength;

function settleSettings(wanted: WantedOverlay, changed: ChangeListener): void {
  const told = (what: string): void => changed('sysctl', what);
  const ours = [wanted.bridge.name, ...wanted.families.flatMap((family) => wanted.vxlan[family]?.name ?? [])];
  for (const device of ours) settleOwnDevice(device, wanted.families, told);
  for (const family of wanted.families) settleForwarding(family, forwardingDevices(wanted, family), told);
  // A peer that routes to us directly may be one that we still reach through the tunnel.
  const plain = routesDirectly(wanted.network.backend) ? [wanted.underlay.link.name] : [];
  if (wanted.families.includes('ipv4')) settleReversePath([...ours, ...plain], told);
}

function settlePorts(
  netlink: NetlinkSocket,
  bridge: number,
  ports: readonly PodPort[],
  links: ReadonlyMap<string, Link>,
  changed: ChangeListener,
): void {
  for (const port of ports) {
    const link = links.get(port.hostInterface);
    if (link === undefined || !portNeedsRepair(link, port, bridge)) continue;
    if (link.master !== bridge || !link.up) {
      netlink.request(setLink(link.index, { master: bridge, up: true }), `plug ${link.name} in`);
    }
    if (link.hairpin !== port.hairpin)
      netlink.request(setHairpin(link.name, port.hairpin), `hairpin of ${link.name}`);
    changed('port', `${link.name} on the bridge`);
  }
}

/**
 * Devices of ours under a name that is not wanted any more: another VNI, --device or --bridge. For the end of
 * a pass, when what is wanted stands with its entries: until then the old ones carry what they can.
 * @throws NetlinkError
 */
export async function removeStaleDevices(
  { netlink, tunnels }: DeviceTools,
  wanted: WantedOverlay,
  changed: ChangeListener,
): Promise<void> {
  for (const link of staleDevices(listLinks(netlink), wanted)) {
    if (link.isTap) await tunnels?.discard(link.name);
    await removeLink(netlink, link);
    changed('link', `${link.name} removed: not wanted any more`);
  }
}

/**
 * Of the stale ones those that cannot stand beside what is wanted: the same VNI and port, or the same address.
 * A port that user space has on either side is not shared with other VNIs, as it is among the kernel's devices.
 */
async function removeRivals(
  { netlink, tunnels }: DeviceTools,
  wanted: WantedOverlay,
  links: Map<string, Link>,
  changed: ChangeListener,
): Promise<void> {
  const devices = wanted.families.flatMap((family) => wanted.vxlan[family] ?? []);
  const alone = dataPathOf(tunnels, wanted) === 'userspace';
  for (const link of staleDevices(links.values(), wanted)) {
    const { vxlan } = link;
    const isRival = devices.some(({ vni, port }) => (alone || vni === vxlan?.vni) && port === vxlan?.port);
    // Two bridges with one subnet's gateway would share its route.
    if (!isRival && link.kind === 'vxlan') continue;
    if (link.isTap) await tunnels?.discard(link.name);
    await removeLink(netlink, link);
    links.delete(link.name);
    changed('link', `${link.name} removed: not wanted any more`);
  }
}

function staleDevices(links: Iterable<Link>, wanted: WantedOverlay): Link[] {
  const names = new Set([wanted.bridge.name, ...wanted.families.map((family) => wanted.vxlan[family]?.name)]);
  return [...links].filter(
    ({ kind, isTap, alias, name }) =>
      (kind === 'vxlan' || kind === 'bridge' || isTap) && alias === LINK_ALIAS && !names.has(name),
  );
}
