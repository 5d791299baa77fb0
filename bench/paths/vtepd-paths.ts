/**
 * The paths that vtepd itself makes, in labs of two nodes with real daemons and pods attached through CNI:
 *
 *   underlay    node 1 ----------------------------------> node 2
 *   vxlan       pod 1.1 - bridge - vxlan - underlay - vxlan - bridge - pod 2.1
 *   bridge      pod 1.1 - bridge - pod 1.2
 *   direct      as vxlan, by plain routes (DirectRouting), in a lab of its own
 *   userspace   as vxlan, carried by the daemons themselves, in a lab of its own
 */

import { Lab, type LabOptions } from '../../overlay/lab/lab.ts';
import { labNetworkConfig } from '../../overlay/lab/lab-network.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import type { Pod } from '../../overlay/lab/pod.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import type { StatusReport } from '../../overlay/ops/status.ts';
import { LocalEnd } from '../engine/end.ts';
import type { Contestant } from '../report/schema.ts';
import { type DataPath, type OpenPaths, type PathPlan, PathUnavailableError } from './data-path.ts';
import { offloadsOf } from './offloads.ts';

export type OwnPath = 'underlay' | 'vxlan' | 'bridge' | 'direct' | 'userspace';

export const OWN_PATHS: Readonly<Record<OwnPath, Pick<Contestant, 'title' | 'about'>>> = {
  underlay: {
    title: 'bare underlay',
    about: 'Between the two nodes themselves: veth pairs and a bridge between them, no overlay.',
  },
  vxlan: {
    title: 'pod to pod, kernel vxlan',
    about:
      'From a pod through its node’s bridge and the kernel’s vxlan device, over the underlay, and the same back up.',
  },
  userspace: {
    title: 'pod to pod, user space',
    about: 'The same packets on the underlay, made and read by the daemons: a TAP device and UDP sockets.',
  },
  direct: {
    title: 'pod to pod, direct routes',
    about:
      'From pod to pod by plain routes over the underlay (DirectRouting): no encapsulation, the same MTU.',
  },
  bridge: {
    title: 'pod to pod on one node',
    about: 'Two pods on one node’s bridge: no underlay, no tunnel.',
  },
};

/** Which share a lab, and what it is told. */
const LABS: readonly { readonly paths: readonly OwnPath[]; readonly options: Partial<LabOptions> }[] = [
  { paths: ['underlay', 'vxlan', 'bridge'], options: {} },
  {
    paths: ['direct'],
    options: { networkConfig: labNetworkConfig('ipv4', { Backend: { Type: 'vxlan', DirectRouting: true } }) },
  },
  { paths: ['userspace'], options: { datapath: 'userspace' } },
];

/** Opens those of these paths; one that cannot be had is skipped, with the reason. @throws the signal's reason */
export async function openOwnPaths(wanted: readonly OwnPath[], plan: PathPlan): Promise<OpenPaths> {
  const labs: Lab[] = [];
  const paths: DataPath[] = [];
  const skipped: Contestant[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(labs.map((lab) => lab.close()));
  };
  try {
    for (const { paths: shared, options } of LABS) {
      const ids = shared.filter((id) => wanted.includes(id));
      if (ids.length === 0) continue;
      const lab = await Lab.create({
        nodes: 2,
        store: 'embedded',
        underlayMtuBytes: plan.underlayMtuBytes,
        signal: plan.signal,
        ...options,
      });
      labs.push(lab);
      try {
        paths.push(...(await inLab(lab, ids, plan)));
      } catch (error) {
        // What a daemon said of itself; whoever ended us is no reason to skip.
        plan.signal.throwIfAborted();
        if (ids.includes('underlay')) throw error;
        const why = error instanceof Error ? error.message : String(error);
        for (const id of ids) skipped.push({ id, ...OWN_PATHS[id], skipped: why.slice(0, 1000) });
        labs.pop();
        await lab.close();
      }
    }
    return { paths, skipped, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function inLab(lab: Lab, ids: readonly OwnPath[], plan: PathPlan): Promise<DataPath[]> {
  const [one, two] = [lab.node(1), lab.node(2)];
  const paths: DataPath[] = [];
  if (ids.some((id) => id !== 'underlay')) {
    await lab.startDaemons(plan.signal);
    const [status] = await Promise.all([
      one.untilProgrammed(1, plan.signal),
      two.untilProgrammed(1, plan.signal),
    ]);
    const far = await two.attachPod();
    const near = await one.attachPod();
    for (const id of ids) {
      if (id === 'underlay') continue;
      const to = id === 'bridge' ? await one.attachPod() : far;
      paths.push(await podPath(id, one, near, to, status, plan));
    }
  }
  if (ids.includes('underlay')) paths.push(await underlayPath(one, two, plan));
  return paths;
}

async function underlayPath(one: LabNode, two: LabNode, plan: PathPlan): Promise<DataPath> {
  return {
    contestant: {
      id: 'underlay',
      ...OWN_PATHS.underlay,
      mtuBytes: plan.underlayMtuBytes,
      ...(await offloads(one, [NODE_INTERFACE])),
    },
    from: new LocalEnd(one.namespace, one.address, plan.log),
    to: new LocalEnd(two.namespace, two.address, plan.log),
    programs: () => [],
    encapsulation: 'none',
    tap: { namespace: one.namespace, device: NODE_INTERFACE, filter: `icmp and host ${two.address}` },
  };
}

async function podPath(
  id: Exclude<OwnPath, 'underlay'>,
  node: LabNode,
  from: Pod,
  to: Pod,
  status: StatusReport,
  plan: PathPlan,
): Promise<DataPath> {
  const { overlay } = status;
  if (overlay === null) throw new PathUnavailableError('the daemon has no overlay');
  const userspace = id === 'userspace';
  if (userspace !== (overlay.datapath === 'userspace')) {
    throw new PathUnavailableError(`the daemon’s data path is ${overlay.datapath}`);
  }
  const tunnelled = id === 'vxlan' || userspace;
  const device = tunnelled && overlay.device !== null ? [overlay.device] : [];
  const filter = tunnelled ? `udp port ${overlay.port}` : `icmp and host ${to.address}`;
  return {
    contestant: {
      id,
      ...OWN_PATHS[id],
      mtuBytes: overlay.mtuBytes,
      ...(await offloads(node, [NODE_INTERFACE, ...device])),
    },
    from: new LocalEnd(from.namespace, from.address, plan.log),
    to: new LocalEnd(to.namespace, to.address, plan.log),
    programs: () => (node.daemon === undefined ? [] : [node.daemon.pid]),
    encapsulation: tunnelled ? 'vxlan' : 'none',
    tap: id === 'bridge' ? undefined : { namespace: node.namespace, device: NODE_INTERFACE, filter },
  };
}

async function offloads(node: LabNode, devices: readonly string[]): Promise<Pick<Contestant, 'offloads'>> {
  const found: Record<string, string[]> = {};
  for (const device of devices) {
    const on = await offloadsOf(node.namespace, device);
    if (on !== undefined) found[`${device} in ${node.name}`] = on;
  }
  return Object.keys(found).length > 0 ? { offloads: found } : {};
}
