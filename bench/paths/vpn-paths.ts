/**
 * Other tunnels, where their programs are installed, between the nodes of a lab without daemons:
 *
 *   node 1 [ RUNw1 10.98.1.1 ] == WireGuard, UDP 51820 == [ RUNw2 10.98.1.2 ] node 2
 *   node 1 [ RUNt1 10.98.2.1 ] == tinc,      UDP 655   == [ RUNt2 10.98.2.2 ] node 2
 *   node 1 [ RUNf1 10.98.3.1 ] == fastd,     UDP 10000 == [ RUNf2 10.98.3.2 ] node 2
 *
 * They lack the bridge and the pods' veth pairs of the other paths. tinc and fastd neither encrypt nor
 * authenticate here, as VXLAN does not; WireGuard has no such mode.
 */
import { isInstalled } from '../../overlay/lab/command.ts';
import { Lab } from '../../overlay/lab/lab.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { ipBatch, runInside } from '../../overlay/lab/namespace.ts';
import { ping } from '../../overlay/lab/ping.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import { DeadlineError, until } from '../../overlay/lab/wait.ts';
import { type Address, parseAddress } from '../../store/address.ts';
import { LocalEnd } from '../engine/end.ts';
import type { Contestant } from '../report/schema.ts';
import { type DataPath, type OpenPaths, type PathPlan, PathUnavailableError } from './data-path.ts';
import { offloadsOf } from './offloads.ts';
import { type Encapsulation, overheadBytes } from './overhead.ts';
import type { Tunnel, TunnelEnd, VpnProgram } from './vpn-program.ts';

export type VpnPath = 'wireguard' | 'tinc' | 'fastd';

interface Vpn extends Pick<Contestant, 'title' | 'about'> {
  readonly network: number;
  readonly port: number;
  readonly letter: string;
  /** Each with its Debian package. */
  readonly programs: Readonly<Record<string, string>>;
  readonly encapsulation: Encapsulation;
  readonly load: () => Promise<VpnProgram>;
}

export const VPN_PATHS: Readonly<Record<VpnPath, Vpn>> = {
  wireguard: {
    title: 'WireGuard',
    about: 'Node to node, encrypted, by the kernel’s WireGuard where it has one and else by wireguard-go.',
    network: 1,
    port: 51820,
    letter: 'w',
    programs: { wg: 'wireguard-tools' },
    encapsulation: 'wireguard',
    load: async () => (await import('./wireguard.ts')).wireguard,
  },
  tinc: {
    title: 'tinc, no cipher',
    about: 'Node to node by tinc 1.0 over UDP, without cipher, digest and compression.',
    network: 2,
    port: 655,
    letter: 't',
    programs: { tincd: 'tinc' },
    encapsulation: 'tinc',
    load: async () => (await import('./tinc.ts')).tinc,
  },
  fastd: {
    title: 'fastd, null method',
    about: 'Node to node by fastd over UDP, with the method “null”.',
    network: 3,
    port: 10_000,
    letter: 'f',
    programs: { fastd: 'fastd' },
    encapsulation: 'fastd',
    load: async () => (await import('./fastd.ts')).fastd,
  },
};

/** A handshake, and tinc's search for the path's MTU. */
const ANSWER_DEADLINE_MS = 15_000;

/** Opens those that are installed; the others are skipped, with what to install. @throws the signal's reason */
export async function openVpnPaths(wanted: readonly VpnPath[], plan: PathPlan): Promise<OpenPaths> {
  const skipped: Contestant[] = [];
  const there: VpnPath[] = [];
  for (const id of wanted) {
    const missing = Object.entries(VPN_PATHS[id].programs).filter(([program]) => !isInstalled(program));
    if (missing.length === 0) there.push(id);
    else skipped.push(skippedBecause(id, missingText(missing)));
  }
  if (there.length === 0) return { paths: [], skipped, close: async () => {} };
  const lab = await Lab.create({
    nodes: 2,
    store: 'embedded',
    underlayMtuBytes: plan.underlayMtuBytes,
    signal: plan.signal,
  });
  const tunnels: Tunnel[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(tunnels.map((tunnel) => tunnel.close()));
    await lab.close();
  };
  try {
    const paths: DataPath[] = [];
    for (const id of there) {
      try {
        paths.push(await openOne(id, lab, plan, (tunnel) => tunnels.push(tunnel)));
      } catch (error) {
        plan.signal.throwIfAborted();
        skipped.push(skippedBecause(id, error instanceof Error ? error.message : String(error)));
      }
    }
    return { paths, skipped, close };
  } catch (error) {
    await close();
    throw error;
  }
}

const missingText = (missing: readonly (readonly [string, string])[]): string =>
  `${missing.map(([program]) => program).join(', ')} not installed: apt-get install ${missing.map(([, name]) => name).join(' ')}`;

const skippedBecause = (id: VpnPath, why: string): Contestant => {
  const { title, about } = VPN_PATHS[id];
  return { id, title, about, skipped: why.slice(0, 1000) };
};

async function openOne(
  id: VpnPath,
  lab: Lab,
  plan: PathPlan,
  own: (tunnel: Tunnel) => void,
): Promise<DataPath> {
  const vpn = VPN_PATHS[id];
  const program = await vpn.load();
  const mtuBytes = plan.underlayMtuBytes - overheadBytes(vpn.encapsulation, 'ipv4');
  const ends = [endOf(vpn, lab, lab.node(1), mtuBytes), endOf(vpn, lab, lab.node(2), mtuBytes)] as const;
  const tunnel = await program.open(ends, { dir: lab.dir, log: plan.log, signal: plan.signal });
  own(tunnel);
  for (const { namespace, device, address } of ends) {
    await until(() => hasDevice(namespace, device), {
      what: `${id}’s interface ${device}`,
      deadlineMs: ANSWER_DEADLINE_MS,
      signal: plan.signal,
    });
    await ipBatch(namespace, [
      `addr replace ${address}/24 dev ${device}`,
      `link set ${device} mtu ${mtuBytes} up`,
    ]);
  }
  const [near, far] = ends;
  await untilAnswered(near.namespace, far.address, mtuBytes, plan.signal);
  const { title, about } = vpn;
  const offloads = await offloadsOf(near.namespace, near.device);
  return {
    contestant: {
      id,
      title: `${title}${tunnel.variant}`,
      about,
      mtuBytes,
      ...(offloads !== undefined && { offloads: { [`${near.device} in node-1`]: offloads } }),
    },
    from: new LocalEnd(near.namespace, near.address, plan.log),
    to: new LocalEnd(far.namespace, far.address, plan.log),
    programs: () => tunnel.pids.slice(0, 1),
    encapsulation: vpn.encapsulation,
    tap: { namespace: near.namespace, device: NODE_INTERFACE, filter: `udp port ${vpn.port}` },
  };
}

function endOf(vpn: Vpn, lab: Lab, node: LabNode, mtuBytes: number): TunnelEnd {
  return {
    name: `node${node.number}`,
    namespace: node.namespace,
    underlay: node.address,
    address: parseAddress(`10.98.${vpn.network}.${node.number}`),
    // wireguard-go names its control socket after it, in a folder of all namespaces: unique by the run.
    device: `${lab.run}${vpn.letter}${node.number}`,
    port: vpn.port,
    mtuBytes,
  };
}

async function hasDevice(namespace: string, device: string): Promise<boolean> {
  const { status } = await runInside(namespace, ['ip', 'link', 'show', device], { tolerant: true });
  return status === 0;
}

/** Full-sized packets must come back: a tunnel that has only shaken hands is not measured yet. */
async function untilAnswered(
  namespace: string,
  to: Address,
  mtuBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const answers = async () =>
    (await ping(namespace, to, { count: 2, patienceMs: 1000, signal })).received > 0;
  try {
    await until(answers, { what: 'an answer', deadlineMs: ANSWER_DEADLINE_MS, signal });
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    throw new PathUnavailableError(`no answer through it (MTU ${mtuBytes})`);
  }
}
