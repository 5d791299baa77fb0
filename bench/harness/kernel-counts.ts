/** How many of the peers' entries the kernel holds in a namespace: read by us, whatever the daemon says. */
import { findLink } from '../../overlay/kernel/link.ts';
import { inNamespace } from '../../overlay/kernel/namespace.ts';
import { listFdb, listNeighbours } from '../../overlay/kernel/neighbour.ts';
import { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { listNexthops, listRoutes } from '../../overlay/kernel/route.ts';
import { ROUTE_PROTOCOL } from '../../overlay/kernel/rtnetlink.ts';
import { familiesOf, type LabFamilies } from '../../overlay/lab/lab-network.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import type { Family } from '../../store/address.ts';
import { VNI } from './peers.ts';

export const VXLAN_DEVICES: Readonly<Record<Family, string>> = { ipv4: `vtep.${VNI}`, ipv6: `vtep6.${VNI}` };

export interface EntryCounts {
  readonly neighbours: number;
  readonly fdb: number;
  readonly nexthops: number;
  readonly routes: number;
}

/** The kernel does not hold what it should. */
export class IncompleteError extends Error {
  override readonly name = 'IncompleteError';
  readonly code = 'VTEPD_BENCH_INCOMPLETE';
}

/** A netlink socket of the caller's, in that namespace. */
export const netlinkInside = (namespace: string): NetlinkSocket =>
  inNamespace(namespacePath(namespace), () => NetlinkSocket.open());

export function countEntries(namespace: string, family: Family = 'ipv4'): EntryCounts {
  using netlink = netlinkInside(namespace);
  const link = findLink(netlink, VXLAN_DEVICES[family]);
  if (link === undefined) return { neighbours: 0, fdb: 0, nexthops: 0, routes: 0 };
  const isOurs = ({ linkIndex }: { readonly linkIndex?: number | undefined }): boolean =>
    linkIndex === link.index;
  return {
    neighbours: listNeighbours(netlink, link.index).filter(({ permanent }) => permanent).length,
    fdb: listFdb(netlink, link.index).length,
    nexthops: (listNexthops(netlink) ?? []).filter(isOurs).length,
    routes: listRoutes(netlink, family, ROUTE_PROTOCOL).length,
  };
}

export interface Expected {
  readonly families?: LabFamilies | undefined;
  /** As many as peers, unless told. */
  readonly nexthops?: number | undefined;
}

/** @throws IncompleteError unless there is one of each a peer and family */
export function requireEntries(
  namespace: string,
  peers: number,
  { families = 'ipv4', nexthops = peers }: Expected = {},
): void {
  for (const family of familiesOf(families)) {
    const found = countEntries(namespace, family);
    const whole = [found.neighbours, found.fdb, found.routes].every((count) => count === peers);
    if (whole && found.nexthops === nexthops) continue;
    throw new IncompleteError(`of ${peers} ${family} peers, ${namespace} holds ${JSON.stringify(found)}`);
  }
}
