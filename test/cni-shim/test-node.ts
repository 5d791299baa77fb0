/**
 * A node for the tests of this room, without an overlay: a namespace with a bridge, a registry and a CNI
 * server on it, and pods' namespaces that the real plugin is called for.
 *
 *     node namespace: bridge vtep0 (10.244.7.1/24) -- vtp... ~~~ eth0 in a pod's namespace
 *
 * The server runs in the tests' process; its netlink sockets are opened inside the node's namespace.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AttachmentRegistry } from '../../cni-shim/registry.ts';
import {
  type CniServer,
  type CniServerOptions,
  createCniServer,
  type VerbReport,
} from '../../cni-shim/server.ts';
import type { Checkpoint } from '../../cni-shim/verbs/context.ts';
import type { PodNetwork, PodNetworkFacts, PodPort, Readiness } from '../../overlay/desired/pods.ts';
import { addAddress } from '../../overlay/kernel/address.ts';
import { addBridge, findLink, listLinks, setLink } from '../../overlay/kernel/link.ts';
import { inNamespace } from '../../overlay/kernel/namespace.ts';
import { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { familiesOf, type LabFamilies } from '../../overlay/lab/lab-network.ts';
import { type RecordingLog, recordingLog } from '../../overlay/ops/log.ts';
import { packageRoot } from '../../overlay/ops/package.ts';
import { type Family, type PerFamily, parseAddress, parseMac, parseSubnet } from '../../store/address.ts';

export const BRIDGE = 'vtep0';

/** What the node's lease and its first pods are in each family. */
export const IN_FAMILY = {
  ipv4: {
    subnet: parseSubnet('10.244.7.0/24'),
    gateway: parseAddress('10.244.7.1'),
    cluster: parseSubnet('10.244.0.0/16'),
    everything: '0.0.0.0/0',
    first: '10.244.7.2',
    asked: '10.244.7.77',
    version: '4',
    lastReserved: 'last_reserved_ip.0',
  },
  ipv6: {
    subnet: parseSubnet('fd00:7::/64'),
    gateway: parseAddress('fd00:7::1'),
    cluster: parseSubnet('fd00::/16'),
    everything: '::/0',
    first: 'fd00:7::2',
    asked: 'fd00:7::77',
    version: '6',
    lastReserved: 'last_reserved_ip.1',
  },
} as const;

export const EVERY_FAMILIES: readonly LabFamilies[] = ['ipv4', 'ipv6', 'dual'];
export const FAMILIES_TEXT = { ipv4: 'IPv4', ipv6: 'IPv6', dual: 'dual stack' } as const;

/** `ip -4`, `ip -6` */
export const ipFlag = (family: Family): string => (family === 'ipv4' ? '-4' : '-6');

const MTU_BYTES = 1450;

let counter = 0;
export const uniqueName = (what: string): string => `vtepd-cni-${process.pid}-${counter++}-${what}`;

/** Builds a file of cni-shim/shim.mk; does nothing when it is up to date. */
export function buildShim(target: string): string {
  execFileSync('make', ['-s', '-f', 'cni-shim/shim.mk', target], { cwd: packageRoot, stdio: 'pipe' });
  return join(packageRoot, target);
}

export interface ShimResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a plugin binary as a runtime does. Nothing of our own environment reaches it. */
export function runPlugin(
  path: string,
  env: Readonly<Record<string, string>>,
  stdin: string | Buffer,
  args: readonly string[] = [],
): Promise<ShimResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { env, stdio: 'pipe' });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.stdin.on('error', () => {});
    child.once('error', reject);
    child.once('close', (status) =>
      resolve({ status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
    );
    child.stdin.end(stdin);
  });
}

/** The overlay's part, as far as the pods see it. Tests change its fields. */
export class FakeNetwork implements PodNetwork {
  ready: Readiness = { ready: true };
  current: PodNetworkFacts;
  /** Awaited by settlePods. */
  settle: () => Promise<void> = () => Promise.resolve();
  settled: readonly PodPort[] = [];
  registry: AttachmentRegistry | undefined;

  constructor(bridgeIndex: number, families: LabFamilies) {
    this.current = {
      bridge: BRIDGE,
      bridgeIndex,
      subnets: {},
      gateways: {},
      clusterNetworks: {},
      mtuBytes: MTU_BYTES,
    };
    this.useFamilies(families);
  }

  readiness(): Readiness {
    return this.ready;
  }

  facts(): PodNetworkFacts {
    return this.current;
  }

  async settlePods(): Promise<void> {
    await this.settle();
    this.settled = this.registry?.ports() ?? [];
  }

  useFamilies(families: LabFamilies): void {
    const each = <T>(of: (family: Family) => T): PerFamily<T> =>
      Object.fromEntries(familiesOf(families).map((family) => [family, of(family)]));
    this.current = {
      ...this.current,
      subnets: each((family) => IN_FAMILY[family].subnet),
      gateways: each((family) => IN_FAMILY[family].gateway),
      clusterNetworks: each((family) => IN_FAMILY[family].cluster),
    };
  }
}

export interface CallOptions {
  readonly pod?: string | undefined;
  readonly containerID?: string | undefined;
  readonly ifname?: string | undefined;
  readonly netns?: string | undefined;
  readonly args?: string | undefined;
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** A command that ends by becoming the plugin, whose path follows. */
  readonly launcher?: readonly string[] | undefined;
}

export interface CallResult extends ShimResult {
  /** What was printed, parsed; undefined when nothing was. */
  readonly json: unknown;
  /** The CNI error code, undefined for a success. */
  readonly code: number | undefined;
}

export class TestNode {
  readonly directory = mkdtempSync(join(tmpdir(), 'vtepd-cni-'));
  readonly namespace = uniqueName('node');
  readonly stateDir = join(this.directory, 'state');
  readonly socketPath = join(this.directory, 'run', 'vtepd.sock');
  readonly spoolDir = join(this.directory, 'run', 'spool');
  readonly log: RecordingLog = recordingLog();
  readonly reports: VerbReport[] = [];
  readonly network: FakeNetwork;
  readonly plugin = buildShim('build/vtepd-cni');
  readonly #pods = new Set<string>();
  registry: AttachmentRegistry | undefined;
  server: CniServer | undefined;

  /** @param families those of the node's lease */
  constructor(families: LabFamilies = 'ipv4') {
    execFileSync('ip', ['netns', 'add', this.namespace]);
    this.network = new FakeNetwork(this.#makeBridge(), families);
  }

  openNetlink = (): NetlinkSocket => inNamespace(`/run/netns/${this.namespace}`, () => NetlinkSocket.open());

  async start(
    checkpoint?: (step: Checkpoint) => void,
    { carrierDeadlineMs }: Pick<CniServerOptions, 'carrierDeadlineMs'> = {},
  ): Promise<void> {
    const { stateDir, log, socketPath, network, openNetlink } = this;
    this.registry = await AttachmentRegistry.open({ stateDir, log, openNetlink });
    network.registry = this.registry;
    this.server = await createCniServer({
      socketPath,
      network,
      registry: this.registry,
      log,
      openNetlink,
      carrierDeadlineMs,
      observer: { onVerb: (report) => this.reports.push(report) },
      ...(checkpoint === undefined ? {} : { checkpoint }),
    });
  }

  async stop(): Promise<void> {
    await this.server?.close();
    await this.registry?.close();
    this.server = undefined;
    this.registry = undefined;
  }

  /** Afterwards nothing is left, whatever the test did. */
  async remove(): Promise<void> {
    await this.stop();
    for (const pod of [...this.#pods]) this.removePod(pod);
    execFileSync('ip', ['netns', 'del', this.namespace]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A pod's namespace, without any interface. @returns its name, which is also its container id */
  addPod(): string {
    const name = uniqueName('pod');
    execFileSync('ip', ['netns', 'add', name]);
    this.#pods.add(name);
    return name;
  }

  /** The namespace goes, and with it its interfaces; the daemon is not told. */
  removePod(name: string): void {
    execFileSync('ip', ['netns', 'del', name]);
    this.#pods.delete(name);
  }

  configuration(extra: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    return { cniVersion: '1.0.0', name: 'test-net', type: 'vtepd-cni', socket: this.socketPath, ...extra };
  }

  /** Calls the plugin. `pod` gives the container id and the namespace. */
  async call(command: string, options: CallOptions = {}): Promise<CallResult> {
    const { pod } = options;
    const env = {
      PATH: process.env.PATH ?? '',
      CNI_COMMAND: command,
      CNI_CONTAINERID: options.containerID ?? pod ?? '',
      CNI_NETNS: options.netns ?? (pod === undefined ? '' : `/run/netns/${pod}`),
      CNI_IFNAME: options.ifname ?? 'eth0',
      CNI_PATH: '/usr/lib/cni',
      ...(options.args === undefined ? {} : { CNI_ARGS: options.args }),
      ...options.env,
    };
    const [program = this.plugin, ...before] = options.launcher ?? [];
    const args = options.launcher === undefined ? [] : [...before, this.plugin];
    const result = await runPlugin(program, env, JSON.stringify(this.configuration(options.config)), args);
    const json: unknown = result.stdout.trim() === '' ? undefined : JSON.parse(result.stdout);
    return { ...result, json, code: result.status === 0 ? undefined : errorCode(json) };
  }

  /** ADD that must succeed. @returns the result, and its addresses without their lengths, the first by itself */
  async add(
    pod: string,
    options: CallOptions = {},
  ): Promise<{ result: CniResult; address: string; addresses: string[] }> {
    const { status, stdout } = await this.call('ADD', { pod, ...options });
    if (status !== 0) throw new Error(`ADD of ${pod}: ${stdout}`);
    const result = JSON.parse(stdout) as CniResult;
    const addresses = result.ips.map(({ address }) => address.split('/')[0] ?? '');
    return { result, addresses, address: addresses[0] ?? '' };
  }

  /** Names of the pods' interfaces on the node. */
  podLinks(): string[] {
    using netlink = this.openNetlink();
    return listLinks(netlink)
      .map((link) => link.name)
      .filter((name) => name.startsWith('vtp'));
  }

  #makeBridge(): number {
    using netlink = this.openNetlink();
    netlink.request(
      addBridge({ name: BRIDGE, mac: parseMac('02:00:00:00:07:01'), mtuBytes: MTU_BYTES }),
      'bridge',
    );
    const index = findLink(netlink, BRIDGE)?.index ?? 0;
    netlink.request(setLink(index, { up: true }), 'raise the bridge');
    for (const { gateway, subnet } of Object.values(IN_FAMILY)) {
      const { prefixLength } = subnet;
      netlink.request(addAddress({ linkIndex: index, address: gateway, prefixLength }), 'address');
    }
    mkdirSync(this.directory, { recursive: true });
    return index;
  }
}

/** ADD's result, as far as the tests look at it. */
export interface CniResult {
  readonly cniVersion: string;
  readonly interfaces: readonly { name: string; mac?: string; sandbox?: string; mtu?: number }[];
  readonly ips: readonly { version?: string; address: string; gateway: string; interface: number }[];
  readonly routes: readonly { dst: string; gw: string }[];
  readonly dns?: unknown;
}

function errorCode(json: unknown): number {
  const code = typeof json === 'object' && json !== null && 'code' in json ? json.code : undefined;
  return typeof code === 'number' ? code : -1;
}

/** Output of a command inside a namespace. */
export const inside = (namespace: string, ...command: string[]): string =>
  execFileSync('ip', ['netns', 'exec', namespace, ...command], { encoding: 'utf8', stdio: 'pipe' });
