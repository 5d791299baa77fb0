/**
 * Tunnels between the two nodes of a lab by themselves, without daemons, bridges and pods, so that what carries the
 * packets is all that differs:
 *
 *   underlay    eth0 ------------------------ eth0
 *   vxlan       vx0  10.98.10.1 == UDP 4789 == 10.98.10.2  vx0     the kernel's
 *   userspace   us0  10.98.11.1 == UDP 8472 == 10.98.11.2  us0     ours
 */
import { Lab } from '../../overlay/lab/lab.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { LoneTunnel } from '../../overlay/lab/lone-tunnel.ts';
import { ipBatch } from '../../overlay/lab/namespace.ts';
import { ping } from '../../overlay/lab/ping.ts';
import { until } from '../../overlay/lab/wait.ts';
import { type Address, type Mac, parseAddress, parseMac } from '../../store/address.ts';
import { LocalEnd } from '../engine/end.ts';
import type { Contestant } from '../report/schema.ts';
import { type LabPath, type PathPlan, PathUnavailableError } from './data-path.ts';
import { overheadBytes } from './overhead.ts';

export type LonePath = 'underlay' | 'vxlan' | 'userspace';

export interface OpenLonePaths {
  readonly paths: readonly LabPath[];
  /** Of ours. */
  readonly tunnels: readonly LoneTunnel[];
  close(): Promise<void>;
}

const VXLAN = { device: 'vx0', network: 10, port: 4789 } as const;
const OURS = { device: 'us0', network: 11, port: 8472 } as const;
const VNI = 1;
const ANSWER_DEADLINE_MS = 10_000;

const mac = (node: LabNode): Mac => parseMac(`02:00:00:00:0b:0${node.number}`);
const inside = (network: number, node: LabNode): Address => parseAddress(`10.98.${network}.${node.number}`);

/** @throws CommandError, PathUnavailableError, the signal's reason */
export async function openLonePaths(plan: PathPlan): Promise<OpenLonePaths> {
  const { underlayMtuBytes, signal } = plan;
  const lab = await Lab.create({ nodes: 2, store: 'embedded', underlayMtuBytes, signal });
  const tunnels: LoneTunnel[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(tunnels.map((tunnel) => tunnel.close()));
    await lab.close();
  };
  try {
    const [one, two] = [lab.node(1), lab.node(2)];
    const mtuBytes = underlayMtuBytes - overheadBytes('vxlan', 'ipv4');
    await addVxlan(one, two, mtuBytes);
    await addVxlan(two, one, mtuBytes);
    tunnels.push(await openOurs(one, two, plan, mtuBytes));
    tunnels.push(await openOurs(two, one, plan, mtuBytes));
    const paths = [
      path('underlay', 'bare underlay', one, two, (node) => node.address, underlayMtuBytes, plan),
      path('vxlan', 'kernel vxlan', one, two, (node) => inside(VXLAN.network, node), mtuBytes, plan),
      path(
        'userspace',
        'vtepd in user space',
        one,
        two,
        (node) => inside(OURS.network, node),
        mtuBytes,
        plan,
      ),
    ];
    for (const { from, to, contestant } of paths) {
      const answers = async () =>
        (await ping(from.namespace ?? '', to.address, { count: 1, signal })).received === 1;
      await until(answers, { what: `an answer by ${contestant.id}`, deadlineMs: ANSWER_DEADLINE_MS, signal });
    }
    return { paths, tunnels, close };
  } catch (error) {
    await close();
    signal.throwIfAborted();
    throw new PathUnavailableError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

function path(
  id: LonePath,
  title: string,
  one: LabNode,
  two: LabNode,
  address: (node: LabNode) => Address,
  mtuBytes: number,
  plan: PathPlan,
): LabPath {
  const contestant: Contestant = { id, title, about: 'Node to node, without daemons and pods.', mtuBytes };
  return {
    contestant,
    from: new LocalEnd(one.namespace, address(one), plan.log),
    to: new LocalEnd(two.namespace, address(two), plan.log),
    programs: () => [],
    encapsulation: id === 'underlay' ? 'none' : 'vxlan',
  };
}

async function addVxlan(node: LabNode, other: LabNode, mtuBytes: number): Promise<void> {
  const { device, network, port } = VXLAN;
  await ipBatch(node.namespace, [
    `link add ${device} mtu ${mtuBytes} type vxlan id ${VNI} local ${node.address} remote ${other.address} dstport ${port}`,
    `addr add ${inside(network, node)}/24 dev ${device}`,
    `link set dev ${device} up`,
  ]);
}

async function openOurs(
  node: LabNode,
  other: LabNode,
  { underlayMtuBytes }: PathPlan,
  mtuBytes: number,
): Promise<LoneTunnel> {
  const { device, network, port } = OURS;
  const tunnel = await LoneTunnel.start({
    namespace: node.namespace,
    tunnel: {
      ...{ device, mac: mac(node), vni: VNI, port, mark: 0 },
      ...{ local: node.address, underlayMtuBytes, peers: [[mac(other), other.address]] },
    },
    mtuBytes,
    addresses: [`${inside(network, node)}/24`],
  });
  const neighbour = inside(network, other);
  await ipBatch(node.namespace, [
    `neigh replace ${neighbour} lladdr ${mac(other)} dev ${device} nud permanent`,
  ]);
  return tunnel;
}
