/** How many of the peers' entries the kernel holds in a namespace: read by us, whatever the daemon says. */
import { findLink } from '../../overlay/kernel/link.ts';
import { inNamespace } from '../../overlay/kernel/namespace.ts';
import { listFdb, listNeighbours } from '../../overlay/kernel/neighbour.ts';
import { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { listNexthops, listRoutes } from '../../overlay/kernel/route.ts';
import { ROUTE_PROTOCOL } from '../../overlay/kernel/rtnetlink.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import { VNI } from './peers.ts';

export const VXLAN_DEVICE = `vtep.${VNI}`;

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

export function countEntries(namespace: string): EntryCounts {
  using netlink = netlinkInside(namespace);
  const link = findLink(netlink, VXLAN_DEVICE);
  if (link === undefined) return { neighbours: 0, fdb: 0, nexthops: 0, routes: 0 };
  return {
    neighbours: listNeighbours(netlink, link.index).filter(({ permanent }) => permanent).length,
    fdb: listFdb(netlink, link.index).length,
    nexthops: (listNexthops(netlink) ?? []).length,
    routes: listRoutes(netlink, 'ipv4', ROUTE_PROTOCOL).length,
  };
}

/** @throws IncompleteError unless there is one of each a peer */
export function requireEntries(namespace: string, peers: number, { nexthops = peers } = {}): void {
  const found = countEntries(namespace);
  const whole = [found.neighbours, found.fdb, found.routes].every((count) => count === peers);
  if (whole && found.nexthops === nexthops) return;
  throw new IncompleteError(`of ${peers} peers, ${namespace} holds ${JSON.stringify(found)}`);
}
