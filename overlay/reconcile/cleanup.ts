/**
 * Takes everything of ours off this node: for an operator who removes vtepd, or who wants to begin anew.
 * In the order in which traffic ends: pods' ports, devices, what holds a tunnel's queues, routes, nexthop objects,
 * tables, files.
 */
import { rmSync } from 'node:fs';
import { formatSubnet } from '../../store/address.ts';
import type { Settings } from '../config/settings.ts';
import { POD_INTERFACE_PREFIX } from '../desired/pods.ts';
import { readFileIfThere } from '../kernel/files.ts';
import { Firewall } from '../kernel/firewall.ts';
import { deleteLink, type Link, listLinks } from '../kernel/link.ts';
import type { NetlinkRequest } from '../kernel/netlink-message.ts';
import { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { deleteNexthop, deleteRoute, listNexthops, listRoutes } from '../kernel/route.ts';
import { ROUTE_PROTOCOL } from '../kernel/rtnetlink.ts';
import { executeSlowly } from '../kernel/slow-netlink.ts';
import type { Log } from '../ops/log.ts';
import { LINK_ALIAS } from './own-links.ts';
import { holderFiles } from './tunnels.ts';

export interface CleanUpOptions {
  readonly settings: Pick<Settings, 'overlay' | 'files'>;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface CleanUpReport {
  /** In words: `link vtep.1`, `route 10.244.5.0/24`. */
  readonly removed: readonly string[];
}

/** @throws NetlinkError, NftablesError; what was removed until then stays removed, and is logged */
export async function cleanUp({ settings, log, signal }: CleanUpOptions): Promise<CleanUpReport> {
  const removed: string[] = [];
  const note = (what: string): void => {
    removed.push(what);
    log.debug('removed', { what });
  };
  using netlink = NetlinkSocket.open();
  await removeLinks(netlink, settings, note);
  for (const file of holderFiles(settings.files.runDir)) {
    // Without a tunnel in user space none of it is needed.
    const { endHolder } = await import('../../encap/tunnel.ts');
    if (await endHolder(file)) note(`the process of ${file}`);
  }
  signal.throwIfAborted();
  removeRoutes(netlink, note);
  const firewall = Firewall.open();
  try {
    for (const table of firewall.remove()) note(`nftables ${table}`);
  } finally {
    firewall.close();
  }
  if (readFileIfThere(settings.files.subnetFile) !== undefined) {
    rmSync(settings.files.subnetFile, { force: true });
    note(`file ${settings.files.subnetFile}`);
  }
  return { removed };
}

async function removeLinks(
  netlink: NetlinkSocket,
  settings: CleanUpOptions['settings'],
  note: (what: string) => void,
): Promise<void> {
  const ours = listLinks(netlink).filter((link) => isOurs(link, settings));
  if (ours.length === 0) return;
  const failures = await executeSlowly(
    netlink,
    ours.map(({ index }) => deleteLink(index)),
    (i) => `remove ${ours[i]?.name}`,
  );
  const failed = new Set(failures.map(({ index }) => index));
  for (const [i, { name }] of ours.entries()) if (!failed.has(i)) note(`link ${name}`);
  // A port may have gone with its pod in the meantime.
  const failure = failures.find(({ error }) => error.code !== 'ENODEV');
  if (failure !== undefined) throw failure.error;
}

function isOurs(link: Link, { overlay }: CleanUpOptions['settings']): boolean {
  if (link.kind === 'veth') return link.name.startsWith(POD_INTERFACE_PREFIX);
  // A TAP by its alias alone: many programs make such devices.
  if (link.isTap) return link.alias === LINK_ALIAS;
  if (link.kind !== 'vxlan' && link.kind !== 'bridge') return false;
  return link.alias === LINK_ALIAS || link.name === overlay.device;
}

function removeRoutes(netlink: NetlinkSocket, note: (what: string) => void): void {
  const requests: NetlinkRequest[] = [];
  const names: string[] = [];
  for (const family of ['ipv4', 'ipv6'] as const) {
    for (const { destination, metric } of listRoutes(netlink, family, ROUTE_PROTOCOL)) {
      requests.push(deleteRoute({ destination, metric }));
      names.push(`route ${formatSubnet(destination)}`);
    }
  }
  for (const nexthop of listNexthops(netlink) ?? []) {
    if (nexthop.protocol !== ROUTE_PROTOCOL) continue;
    requests.push(deleteNexthop(nexthop.id));
    names.push(`nexthop ${nexthop.id}`);
  }
  const failures = netlink.execute(requests, (i) => `remove ${names[i]}`);
  const failed = new Set(failures.map(({ index }) => index));
  for (const [i, name] of names.entries()) if (!failed.has(i)) note(name);
}
