/** The paths between this machine and another, on which `vtepd bench serve` runs: hosts, and a pod on each. */
import type { Pod } from '../../overlay/lab/pod.ts';
import { parseAddress } from '../../store/address.ts';
import { LocalEnd } from '../engine/end.ts';
import { bootId } from '../harness/machine.ts';
import type { DataPath, OpenPaths, PathPlan } from '../paths/data-path.ts';
import { offloadsOf } from '../paths/offloads.ts';
import type { PathSource } from '../paths/path-source.ts';
import type { Contestant } from '../report/schema.ts';
import { DEFAULT_PORT } from '../run/names.ts';
import { attachBenchPod, deviceTo, mtuOf, type PodFolders } from './bench-pod.ts';
import { RemoteEnd, RemoteMachine } from './client.ts';

export interface Target {
  readonly host: string;
  readonly port: number;
}

/** `host`, `host:port`, `[2001:db8::1]:port`, an IPv6 address alone. @throws RangeError */
export function parseTarget(target: string): Target {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(target);
  const host = match?.[1] ?? match?.[2] ?? (target.split(':').length > 2 ? target : '');
  const port = match?.[3] === undefined ? DEFAULT_PORT : Number(match[3]);
  if (host === '' || port < 1 || port > 65_535) throw new RangeError(`"${target}" is no HOST[:PORT]`);
  return { host, port };
}

const HOSTS = {
  title: 'host to host',
  about: 'Between the two machines themselves, over the real underlay.',
};
const PODS = {
  title: 'pod to pod',
  about: 'From a pod of this node to one of the other, attached by the nodes’ own CNI configuration.',
};

export const remoteSource = (target: Target, folders: PodFolders): PathSource => ({
  title: `What does encapsulation cost, from here to ${target.host}?`,
  method: [
    'Two machines, whose processor time is summed. iperf3 sends the other way too (-R); round trips and connections are begun by this machine only.',
  ],
  mtuPaths: 0,
  open: (plan) => openRemote(target, folders, plan),
});

async function openRemote({ host, port }: Target, folders: PodFolders, plan: PathPlan): Promise<OpenPaths> {
  const machine = await RemoteMachine.connect(host, port, plan.signal);
  let pod: Pod | undefined;
  const close = async (): Promise<void> => {
    machine.close();
    await pod?.detach();
  };
  try {
    const withPods = folders.confDir !== undefined;
    const { podAddress, noPod, version, cpu, cores, kernel, ...hello } = await machine.hello(withPods);
    const isNear = hello.bootId === bootId();
    const far = isNear
      ? 'Both ends are of one machine, and share its processors.'
      : `The far machine: ${cpu}, ${cores} cores, Linux ${kernel}, vtepd ${version}.`;
    const [local, remote] = [machine.localAddress, machine.remoteAddress].map((text) =>
      parseAddress(text.replace(/^::ffff:(?=\d+\.)/, '')),
    );
    if (local === undefined || remote === undefined)
      throw new Error('unreachable: a connection has two ends');
    const device = await deviceTo(remote);
    const paths: DataPath[] = [
      {
        contestant: {
          id: 'underlay',
          ...HOSTS,
          about: `${HOSTS.about} ${far}`,
          ...(await facts(undefined, device)),
        },
        from: new LocalEnd(undefined, local, plan.log),
        to: new RemoteEnd(machine, 'host', remote, isNear),
        programs: () => [],
        encapsulation: 'none',
      },
    ];
    const skipped: Contestant[] = [];
    if (withPods && podAddress === undefined) {
      skipped.push({ id: 'pods', ...PODS, skipped: `the far end has no pod: ${noPod}` });
    } else if (podAddress !== undefined) {
      try {
        pod = await attachBenchPod(folders);
        paths.push({
          contestant: { id: 'pods', ...PODS, ...(await facts(pod.namespace, 'eth0')) },
          from: new LocalEnd(pod.namespace, pod.address, plan.log),
          to: new RemoteEnd(machine, 'pod', parseAddress(podAddress), isNear),
          programs: () => [],
          encapsulation: 'none',
        });
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        skipped.push({ id: 'pods', ...PODS, skipped: `this end has no pod: ${why}` });
      }
    }
    return { paths, skipped, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function facts(
  namespace: string | undefined,
  device: string | undefined,
): Promise<Pick<Contestant, 'mtuBytes' | 'offloads'>> {
  if (device === undefined) return {};
  const mtuBytes = await mtuOf(namespace, device);
  const offloads = await offloadsOf(namespace, device);
  return {
    ...(mtuBytes !== undefined && { mtuBytes }),
    ...(offloads !== undefined && { offloads: { [`${device} here`]: offloads } }),
  };
}
