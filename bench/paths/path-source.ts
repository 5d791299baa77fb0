/** Where a run's paths come from: labs of this machine here, another machine in remote/. */
import { PATH_IDS, type PathId } from '../run/names.ts';
import type { OpenPaths, PathPlan } from './data-path.ts';
import { openVpnPaths, VPN_PATHS, type VpnPath } from './vpn-paths.ts';
import { OWN_PATHS, type OwnPath, openOwnPaths } from './vtepd-paths.ts';

export interface PathSource {
  readonly title: string;
  /** How they are made, in sentences. */
  readonly method: readonly string[];
  /** @throws the signal's reason */
  open(plan: PathPlan): Promise<OpenPaths>;
  /** The same over an underlay of another MTU; absent where that cannot be had. */
  openForMtu?: ((plan: PathPlan) => Promise<OpenPaths>) | undefined;
  /** How many those are. */
  readonly mtuPaths: number;
}

/** What the underlay's MTU matters to. */
const MTU_PATHS: readonly PathId[] = ['underlay', 'vxlan', 'userspace', 'direct'];

const isOwn = (id: PathId): id is OwnPath => id in OWN_PATHS;
const isVpn = (id: PathId): id is VpnPath => id in VPN_PATHS;

/** Labs of this machine. */
export const labSource = (wanted: readonly PathId[]): PathSource => {
  const forMtu = wanted.filter((id) => MTU_PATHS.includes(id));
  return {
    title: 'What does encapsulation cost, here?',
    method: [
      'Two nodes in network namespaces of one machine, joined by veth pairs and a bridge. Both ends, and the tunnel’s work, share its processors: throughput is what they make of it, not what a network card could carry.',
    ],
    open: (plan) => openPaths(wanted, plan),
    openForMtu: forMtu.length > 0 ? (plan) => openPaths(forMtu, plan) : undefined,
    mtuPaths: forMtu.length,
  };
};

async function openPaths(wanted: readonly PathId[], plan: PathPlan): Promise<OpenPaths> {
  const opened: OpenPaths[] = [];
  try {
    opened.push(await openOwnPaths(wanted.filter(isOwn), plan));
    opened.push(await openVpnPaths(wanted.filter(isVpn), plan));
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
  const paths = opened.flatMap((each) => each.paths);
  paths.sort((a, b) => placeOfPath(a.contestant.id) - placeOfPath(b.contestant.id));
  return { paths, skipped: opened.flatMap((each) => each.skipped), close: () => closeAll(opened) };
}

/** Closes every one, whatever happens to another. */
export async function closeAll(opened: readonly OpenPaths[]): Promise<void> {
  const ends = await Promise.allSettled(opened.map((open) => open.close()));
  const failed = ends.find(({ status }) => status === 'rejected');
  if (failed?.status === 'rejected') throw failed.reason;
}

/** The order of PATH_IDS; what is none of these comes last. */
export function placeOfPath(id: string): number {
  const known: readonly string[] = PATH_IDS;
  return known.includes(id) ? known.indexOf(id) : known.length;
}
