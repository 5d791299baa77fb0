/** What the demo does with a lab, step by step; what each found goes into the report. */
import { readFile } from 'node:fs/promises';
import { type Address, formatSubnet, parseAddress, type Subnet, subnetOf } from '../../store/address.ts';
import { Capture } from '../lab/capture.ts';
import type { Lab } from '../lab/lab.ts';
import type { LabNode } from '../lab/lab-node.ts';
import { ping } from '../lab/ping.ts';
import type { Pod } from '../lab/pod.ts';
import { throughput } from '../lab/tcp.ts';
import { NODE_INTERFACE } from '../lab/underlay.ts';
import { DeadlineError } from '../lab/wait.ts';
import type { StatusReport } from '../ops/status.ts';
import { findTunnelled } from './demo-packet.ts';
import type { Progress } from './demo-progress.ts';
import type { DemoGuard, DemoNode, DemoPacket, DemoPing, DemoPod, DemoTcp } from './demo-report.ts';

export interface DemoPlan {
  readonly podsPerNode: number;
  readonly networks: readonly Subnet[];
  readonly signal: AbortSignal;
}

const PINGS_A_PAIR = 3;
/** More at once would measure this machine's scheduler. */
const PAIRS_AT_ONCE = 4;
const PLAIN_PINGS = 3;
const TCP_SECONDS = 2;

/** Starts all daemons at once and waits for each. Returns how long each took to be ready, in milliseconds. */
export async function startDaemons(lab: Lab, { signal }: DemoPlan, progress: Progress): Promise<number[]> {
  const begin = performance.now();
  const ready = lab.nodes.map(async (node) => {
    await node.startDaemon();
    await node.untilReady(signal);
    return performance.now() - begin;
  });
  // One that fails is reported at its turn; until then it must not count as unhandled.
  for (const each of ready) each.catch(() => {});
  const times: number[] = [];
  for (const [at, node] of lab.nodes.entries()) {
    const readyMs = await progress.step(
      `node ${node.number}`,
      `starting vtepd at ${node.address}`,
      async () => {
        const value = await (ready[at] ?? Promise.reject(new Error('a node without a daemon')));
        const subnets = (await leasedSubnets(node)).join(' and ');
        return {
          value,
          said: `${node.address} leases ${subnets}; ready ${value.toFixed(0)} ms after its start`,
        };
      },
    );
    times.push(readyMs);
  }
  return times;
}

/** From subnet.env, which stands there once the daemon is ready and names the gateways. */
async function leasedSubnets(node: LabNode): Promise<string[]> {
  const text = await readFile(node.subnetFile, 'utf8');
  const gateways = text.matchAll(/^FLANNEL(?:_IPV6)?_SUBNET=(\S+)\/(\d+)$/gm);
  return Array.from(gateways, ([, address = '', length]) =>
    formatSubnet(subnetOf(parseAddress(address), Number(length))),
  );
}

/** Waits until every node has programmed every other one. */
export function meetPeers(lab: Lab, { signal }: DemoPlan, progress: Progress): Promise<StatusReport[]> {
  const others = lab.nodes.length - 1;
  return progress.step('peers', 'waiting for every node to know every other', async () => {
    const value = await Promise.all(lab.nodes.map((node) => node.untilProgrammed(others, signal)));
    return { value, said: `every node has programmed its ${others === 1 ? 'peer' : `${others} peers`}` };
  });
}

export function attachPods(lab: Lab, plan: DemoPlan, progress: Progress): Promise<void> {
  return progress.step('pods', 'attaching through the CNI plugin', async () => {
    await Promise.all(
      lab.nodes.map(async (node) => {
        for (let i = 0; i < plan.podsPerNode; i++) {
          plan.signal.throwIfAborted();
          await node.attachPod();
        }
      }),
    );
    const pods = lab.nodes.flatMap((node) => node.pods);
    const mean = pods.reduce((sum, pod) => sum + pod.addMs, 0) / pods.length;
    const said = `${pods.length} attached through CNI's ADD, ${mean.toFixed(1)} ms each`;
    return { value: undefined, said };
  });
}

export const describeNodes = (
  lab: Lab,
  statuses: readonly StatusReport[],
  readyMs: readonly number[],
): DemoNode[] =>
  lab.nodes.map((node, at) => ({
    name: node.name,
    namespace: node.namespace,
    publicIP: node.address,
    subnet: statuses[at]?.lease?.subnet ?? '',
    vtepMAC: statuses[at]?.lease?.vtepMAC ?? '',
    mtuBytes: statuses[at]?.overlay?.mtuBytes ?? 0,
    datapath: statuses[at]?.overlay?.datapath === 'userspace' ? 'userspace' : 'kernel',
    readyMs: Math.round(readyMs[at] ?? 0),
    pods: podsOf(node).map(({ label, pod }) => ({
      label,
      namespace: pod.namespace,
      address: pod.address,
      addMs: Math.round(pod.addMs * 10) / 10,
    })),
  }));

interface LabelledPod {
  readonly label: DemoPod['label'];
  readonly pod: Pod;
  readonly node: LabNode;
}

const podsOf = (node: LabNode): LabelledPod[] =>
  node.pods.map((pod, at) => ({ label: `${node.number}.${at + 1}`, pod, node }));

/** Every pod pings every other one. */
export function pingAll(lab: Lab, { signal }: DemoPlan, progress: Progress): Promise<DemoPing[]> {
  return progress.step('pings', 'every pod to every other', async () => {
    const pods = lab.nodes.flatMap(podsOf);
    const pairs = pods.flatMap((from) => pods.filter((to) => to !== from).map((to) => ({ from, to })));
    const value: DemoPing[] = [];
    const worker = async () => {
      for (let pair = pairs.shift(); pair !== undefined; pair = pairs.shift()) {
        const { from, to } = pair;
        const report = await ping(from.pod.namespace, to.pod.address, { count: PINGS_A_PAIR, signal });
        value.push({ from: from.label, to: to.label, acrossNodes: from.node !== to.node, ...report });
      }
    };
    await Promise.all(Array.from({ length: PAIRS_AT_ONCE }, worker));
    const silent = value.filter(({ lost }) => lost > 0).length;
    const said = `${value.length - silent} of ${value.length} pairs answered every request`;
    return { value, said, bad: silent > 0 };
  });
}

/** What the underlay dropped of these pings, and what it does with a pod's address sent to it as it is. */
export function proveGuard(lab: Lab, plan: DemoPlan, progress: Progress): Promise<DemoGuard> {
  return progress.step('guard', 'sending to a pod without the tunnel', async () => {
    const { from, to } = farPair(lab);
    const refusedDuringPings = await lab.underlay.refused();
    const plain = await ping(from.node.namespace, to.pod.address, {
      count: PLAIN_PINGS,
      device: NODE_INTERFACE,
      signal: plan.signal,
    });
    const value: DemoGuard = {
      networks: plan.networks.map(formatSubnet),
      refusedDuringPings,
      refusedPlain: (await lab.underlay.refused()) - refusedDuringPings,
      plainSent: plain.sent,
      plainAnswered: plain.received,
    };
    const said = `the underlay refused ${refusedDuringPings} packets of these, and ${value.refusedPlain} of ${plain.sent} sent without the tunnel`;
    return { value, said, bad: guardProblems(value).length > 0 };
  });
}

export function guardProblems(guard: DemoGuard): string[] {
  const problems: string[] = [];
  if (guard.refusedDuringPings > 0) {
    problems.push(`${guard.refusedDuringPings} packets bore a pod's address on the underlay`);
  }
  if (guard.plainAnswered > 0 || guard.refusedPlain < guard.plainSent) {
    problems.push('the underlay let packets with a pod’s address pass: these pings prove no tunnel');
  }
  return problems;
}

/** Captures a ping from the first node to the second on the first's way out. */
export function capturePacket(
  lab: Lab,
  plan: DemoPlan,
  port: number,
  progress: Progress,
): Promise<DemoPacket | null> {
  return progress.step('packet', 'capturing a ping on the underlay', async () => {
    const { from, to } = farPair(lab);
    const capture = await Capture.start(from.node.namespace, NODE_INTERFACE, `udp port ${port}`);
    let frames: Uint8Array[] = [];
    try {
      const { received } = await ping(from.pod.namespace, to.pod.address, { count: 1, signal: plan.signal });
      await capture.untilCaptured(received + 1, plan.signal).catch(notSeen);
    } finally {
      frames = (await capture.stop()).map(({ bytes }) => bytes);
    }
    const where = { node: from.node.name, device: NODE_INTERFACE };
    const packet = findTunnelled(frames, port, where);
    const said =
      packet === undefined ? `no echo request among ${frames.length} packets` : `captured on ${where.node}`;
    return { value: packet ?? null, said, bad: packet === undefined };
  });
}

/** What was not seen is missing in the report, which says so. */
function notSeen(error: unknown): void {
  if (!(error instanceof DeadlineError)) throw error;
}

export function measureTcp(lab: Lab, { signal }: DemoPlan, progress: Progress): Promise<DemoTcp> {
  return progress.step('tcp', 'measuring through the tunnel, then without', async () => {
    const { from, to } = farPair(lab);
    const between = (a: string, b: string, address: Address) =>
      throughput({ from: a, to: b, address }, TCP_SECONDS, signal);
    const overlay = await between(from.pod.namespace, to.pod.namespace, to.pod.address);
    const underlay = await between(from.node.namespace, to.node.namespace, to.node.address);
    const value = {
      tool: overlay.tool,
      seconds: TCP_SECONDS,
      overlayBitsPerSecond: Math.round(overlay.bitsPerSecond),
      underlayBitsPerSecond: Math.round(underlay.bitsPerSecond),
    };
    return { value, said: `measured with ${overlay.tool}, ${TCP_SECONDS} s each` };
  });
}

export function detachPods(lab: Lab, progress: Progress): Promise<void> {
  return progress.step('detach', 'detaching the pods', async () => {
    const pods = lab.nodes.flatMap((node) => node.pods);
    await Promise.all(pods.map((pod) => pod.detach()));
    return { value: undefined, said: `${pods.length} detached through CNI's DEL` };
  });
}

/** The first pods of the first two nodes. */
function farPair(lab: Lab): { from: LabelledPod; to: LabelledPod } {
  const [from] = podsOf(lab.node(1));
  const [to] = podsOf(lab.node(2));
  if (from === undefined || to === undefined) throw new Error('the first two nodes have no pods');
  return { from, to };
}
