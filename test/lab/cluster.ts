/**
 * Clusters for tests. `describeCluster` makes one suite a parameter set (the store now; families and data
 * paths join there), starts the cluster once for the suite's tests and removes it afterwards. When a test
 * fails, the state of every node is printed.
 */
import type { Suite } from 'mocha';
import { Lab, type LabOptions } from '../../overlay/lab/lab.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import type { LabStoreKind } from '../../overlay/lab/lab-store.ts';
import { type PingReport, RunningPing } from '../../overlay/lab/ping.ts';
import type { Pod } from '../../overlay/lab/pod.ts';
import { RunningStream, type StreamReport } from '../../overlay/lab/tcp.ts';
import { need } from './capability.ts';
import { kernelDump } from './kernel-state.ts';

export interface ClusterParameters {
  readonly store: LabStoreKind;
}

export const EMBEDDED: ClusterParameters = { store: 'embedded' };
export const ETCD: ClusterParameters = { store: 'etcd' };
export const EVERY_STORE: readonly ClusterParameters[] = [EMBEDDED, ETCD];

export interface ClusterPlan extends Omit<LabOptions, 'store' | 'nodes' | 'signal'> {
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
  readonly lab: Lab;
  /** Node `number`, from 1. */
  node(number: number): LabNode;
  /** The first pod of node `number`. */
  pod(number: number): Pod;
  /** Every daemon that runs knows all `nodes` others that do. */
  settled(): Promise<void>;
}

const LAB_PROGRAMS = ['root', 'ip', 'nft', 'busybox'];

/** One suite for each set of parameters. */
export function describeCluster(
  title: string,
  every: readonly ClusterParameters[],
  plan: ClusterPlan,
  body: (this: Suite, cluster: Cluster) => void,
): void {
  for (const parameters of every) {
    describe(`${title} (${parameters.store} store)`, function () {
      this.timeout(60_000);
      const { nodes = 2, pods = 1, idle = false, programs = [], ...options } = plan;
      let lab: Lab | undefined;
      const cluster: Cluster = {
        parameters,
        get lab() {
          if (lab === undefined) throw new Error('the cluster is not there outside of tests and hooks');
          return lab;
        },
        node: (number) => cluster.lab.node(number),
        pod: (number) => firstPod(cluster.node(number)),
        settled: () => settle(cluster.lab),
      };
      before(async function () {
        need(this, ...LAB_PROGRAMS, ...programs, ...(parameters.store === 'etcd' ? ['etcd', 'etcdctl'] : []));
        lab = await Lab.create({ ...options, nodes, store: parameters.store });
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

/** What a ping of 100 a second from one pod to another lost while something was done. */
export async function pingDuring(from: Pod, to: Pod, action: () => Promise<void>): Promise<PingReport> {
  const running = await RunningPing.start(from.namespace, to.address, 10);
  let report: PingReport;
  try {
    await running.untilAnswered(5);
    await action();
    await running.untilAnswered(running.answered + 20);
  } finally {
    report = await running.stop();
  }
  return report;
}

/** How a TCP connection from one pod to another fared while something was done: a line every 5 ms. */
export async function streamDuring(from: Pod, to: Pod, action: () => Promise<void>): Promise<StreamReport> {
  const route = { from: from.namespace, to: to.namespace, address: to.address };
  const running = await RunningStream.start(route, 5);
  let report: StreamReport;
  try {
    await action();
  } finally {
    report = await running.stop();
  }
  return report;
}
