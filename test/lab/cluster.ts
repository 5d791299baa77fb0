/**
 * Clusters for tests. `describeCluster` makes one suite a parameter set (the store and the families of pods),
 * starts the cluster once for the suite's tests and removes it afterwards. When a test fails, the state of
 * every node is printed. A test that sends packets sends them in every family of the cluster.
 */
import type { Suite } from 'mocha';
import { Lab, type LabDataPath, type LabOptions } from '../../overlay/lab/lab.ts';
import { familiesOf, type LabFamilies } from '../../overlay/lab/lab-network.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import type { LabStoreKind } from '../../overlay/lab/lab-store.ts';
import { type PingOptions, type PingReport, ping, RunningPing } from '../../overlay/lab/ping.ts';
import type { Pod } from '../../overlay/lab/pod.ts';
import { RunningStream, type StreamReport } from '../../overlay/lab/tcp.ts';
import type { Address, Family } from '../../store/address.ts';
import { need } from './capability.ts';
import { kernelDump } from './kernel-state.ts';
import { KubernetesLabStore } from './kubernetes-lab-store.ts';

export interface ClusterParameters {
  readonly store: LabStoreKind | 'kubernetes';
  readonly families: LabFamilies;
  /** What carries the nodes' tunnels; the kernel's unless told. */
  readonly datapath?: LabDataPath;
}

export const EMBEDDED: ClusterParameters = { store: 'embedded', families: 'ipv4' };
export const ETCD: ClusterParameters = { store: 'etcd', families: 'ipv4' };
export const EVERY_STORE: readonly ClusterParameters[] = [EMBEDDED, ETCD];

export const EMBEDDED_IPV6: ClusterParameters = { store: 'embedded', families: 'ipv6' };
export const EMBEDDED_DUAL: ClusterParameters = { store: 'embedded', families: 'dual' };
export const ETCD_IPV6: ClusterParameters = { store: 'etcd', families: 'ipv6' };
export const ETCD_DUAL: ClusterParameters = { store: 'etcd', families: 'dual' };
/** What depends on the families, but not on the store. */
export const EVERY_FAMILY: readonly ClusterParameters[] = [EMBEDDED, EMBEDDED_IPV6, EMBEDDED_DUAL];
/** What depends on both: dual stack has all that etcd's schema knows. */
export const EVERY_KIND: readonly ClusterParameters[] = [EMBEDDED, EMBEDDED_IPV6, ETCD_DUAL];
/** For what only etcd can do. */
export const EVERY_FAMILY_IN_ETCD: readonly ClusterParameters[] = [ETCD, ETCD_IPV6, ETCD_DUAL];

export const KUBERNETES: ClusterParameters = { store: 'kubernetes', families: 'ipv4' };
export const KUBERNETES_DUAL: ClusterParameters = { store: 'kubernetes', families: 'dual' };

export const USERSPACE_DUAL: ClusterParameters = { ...EMBEDDED_DUAL, datapath: 'userspace' };
export const MIXED_DUAL: ClusterParameters = { ...EMBEDDED_DUAL, datapath: 'mixed' };
/** Packets of both families go through everything, and both kinds of node read what the other writes. */
export const EVERY_USERSPACE: readonly ClusterParameters[] = [USERSPACE_DUAL, MIXED_DUAL];

export interface ClusterPlan
  extends Omit<LabOptions, 'store' | 'nodes' | 'signal' | 'families' | 'datapath' | 'networkConfig'> {
  /** As for a lab; a function is given the suite's families. */
  readonly networkConfig?: LabOptions['networkConfig'] | ((families: LabFamilies) => string);
  /** 2 unless told. */
  readonly nodes?: number;
  /** On each node, attached once all daemons are ready; 1 unless told. */
  readonly pods?: number;
  /** The tests start the daemons themselves. */
  readonly idle?: boolean;
  /** Programs that the tests use besides the lab's own. */
  readonly programs?: readonly string[];
}

/** The suite's cluster; its members may be used from the first `before` of the body on. */
export interface Cluster {
  readonly parameters: ClusterParameters;
  /** In which pods have addresses. */
  readonly families: readonly Family[];
  readonly lab: Lab;
  /** Node `number`, from 1. */
  node(number: number): LabNode;
  /** The first pod of node `number`. */
  pod(number: number): Pod;
  /** Every daemon that runs knows all `nodes` others that do. */
  settled(): Promise<void>;
}

const LAB_PROGRAMS = ['root', 'ip', 'nft', 'busybox'];

const FAMILIES_TEXT: Readonly<Record<LabFamilies, string>> = {
  ipv4: 'IPv4',
  ipv6: 'IPv6',
  dual: 'dual stack',
};

const DATA_PATH_TEXT: Readonly<Record<LabDataPath, string>> = {
  kernel: '',
  userspace: ', in user space',
  mixed: ', mixed data paths',
};

/** One suite for each set of parameters. */
export function describeCluster(
  title: string,
  every: readonly ClusterParameters[],
  plan: ClusterPlan,
  body: (this: Suite, cluster: Cluster) => void,
): void {
  for (const parameters of every) {
    const { store, families, datapath = 'kernel' } = parameters;
    describe(`${title} (${store} store, ${FAMILIES_TEXT[families]}${DATA_PATH_TEXT[datapath]})`, function () {
      this.timeout(60_000);
      const { nodes = 2, pods = 1, idle = false, programs = [], networkConfig: planned, ...options } = plan;
      const networkConfig = typeof planned === 'function' ? planned(families) : planned;
      let lab: Lab | undefined;
      const cluster: Cluster = {
        parameters,
        families: familiesOf(families),
        get lab() {
          if (lab === undefined) throw new Error('the cluster is not there outside of tests and hooks');
          return lab;
        },
        node: (number) => cluster.lab.node(number),
        pod: (number) => firstPod(cluster.node(number)),
        settled: () => settle(cluster.lab),
      };
      before(async function () {
        const devices = datapath === 'kernel' ? [] : ['/dev/net/tun'];
        need(
          this,
          ...LAB_PROGRAMS,
          ...programs,
          ...devices,
          ...(store === 'etcd' ? ['etcd', 'etcdctl'] : []),
        );
        const labStore = store === 'kubernetes' ? KubernetesLabStore.maker(nodes) : store;
        lab = await Lab.create({ ...options, networkConfig, nodes, store: labStore, families, datapath });
        if (idle) return;
        await lab.startDaemons();
        await cluster.settled();
        for (const node of lab.nodes) for (let i = 0; i < pods; i++) await node.attachPod();
      });
      afterEach(async function () {
        if (this.currentTest?.state === 'failed' && lab !== undefined) await printState(lab);
      });
      body.call(this, cluster);
      // The last of the suite's hooks: those of the body still need it.
      after(() => lab?.close());
    });
  }
}

function firstPod(node: LabNode): Pod {
  const [pod] = node.pods;
  if (pod === undefined) throw new Error(`${node.name} has no pod`);
  return pod;
}

async function settle(lab: Lab): Promise<void> {
  const running = lab.nodes.filter(({ daemon }) => daemon?.running);
  await Promise.all(running.map((node) => node.untilProgrammed(running.length - 1)));
}

async function printState(lab: Lab): Promise<void> {
  for (const node of lab.nodes) {
    console.log(`---- ${node.name} (${node.namespace})\n${await kernelDump(node.namespace)}`);
    const log = (await node.daemon?.log().catch(() => '')) ?? '';
    console.log(`---- ${node.name}: the end of its log\n${log.split('\n').slice(-40).join('\n')}`);
  }
}

/** Echo requests to every address of a pod: what was sent, received and lost in sum. @throws CommandError */
export async function pingPod(from: Pod, to: Pod, options: PingOptions): Promise<PingReport> {
  return sumOf(await Promise.all(to.addresses.map((address) => ping(from.namespace, address, options))));
}

/** What a ping of 100 a second, to every address of a pod, lost while something was done. */
export async function pingDuring(from: Pod, to: Pod, action: () => Promise<void>): Promise<PingReport> {
  const start = (address: Address) => RunningPing.start(from.namespace, address, 10);
  return during(to.addresses, start, sumOf, async (all) => {
    await Promise.all(all.map((running) => running.untilAnswered(5)));
    await action();
    await Promise.all(all.map((running) => running.untilAnswered(running.answered + 20)));
  });
}

/** How TCP connections to every address of a pod fared while something was done: a line every 5 ms. */
export async function streamDuring(from: Pod, to: Pod, action: () => Promise<void>): Promise<StreamReport> {
  const start = (address: Address, at: number) =>
    RunningStream.start({ from: from.namespace, to: to.namespace, address, port: STREAM_PORT + at }, 5);
  return during(to.addresses, start, worstOf, action);
}

/** Nobody else's in a pod. */
const STREAM_PORT = 5300;

/** Starts one a address, does something, and stops them all, whatever happens. */
async function during<R extends { stop(): Promise<S> }, S>(
  addresses: readonly Address[],
  start: (address: Address, at: number) => Promise<R>,
  result: (reports: readonly S[]) => S,
  action: (running: readonly R[]) => Promise<void>,
): Promise<S> {
  const all: R[] = [];
  let reports: S[];
  try {
    for (const [at, address] of addresses.entries()) all.push(await start(address, at));
    await action(all);
  } finally {
    reports = await Promise.all(all.map((running) => running.stop()));
  }
  return result(reports);
}

const sumOf = (reports: readonly PingReport[]): PingReport => {
  const sum = (of: (report: PingReport) => number) =>
    reports.reduce((total, report) => total + of(report), 0);
  return {
    sent: sum(({ sent }) => sent),
    received: sum(({ received }) => received),
    lost: sum(({ lost }) => lost),
    lostPlaces: reports.flatMap(({ lostPlaces }) => lostPlaces ?? []),
  };
};

/** One that broke, if one did. */
function worstOf(reports: readonly StreamReport[]): StreamReport {
  const worst = reports.find(({ whole }) => !whole) ?? reports[0];
  if (worst === undefined) throw new Error('the pod has no address');
  return worst;
}
