/**
 * A cluster out of network namespaces on this machine: an underlay, a store, nodes. Everything of one run
 * carries its name, `vt` and six characters: namespaces `vt3f9a2c-...` and the folder /tmp/vtepd-vt3f9a2c.
 * The lab owns all of it, and `close` removes it, whatever state it is in; should the process be killed
 * before, `sweep` does so by the name alone.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatSubnet } from '../../store/address.ts';
import { LAB_NETWORKS, type LabFamilies, labNetworkConfig } from './lab-network.ts';
import { LabNode } from './lab-node.ts';
import {
  type EmbeddedLabStore,
  EtcdLabStore,
  embeddedLabStore,
  type ForeignLabStore,
  type LabStoreKind,
  type LabStoreMaker,
} from './lab-store.ts';
import { deleteNamespace, namespaces, processesIn } from './namespace.ts';
import { gatewayAddresses, Underlay } from './underlay.ts';
import { until } from './wait.ts';

export interface LabOptions {
  readonly nodes: number;
  readonly store: LabStoreKind | LabStoreMaker;
  /** Those of pods and, with IPv6 alone, of the underlay too, which has both otherwise. IPv4 unless told. */
  readonly families?: LabFamilies | undefined;
  /** flannel's JSON; LAB_NETWORKS unless told, none at all if null. */
  readonly networkConfig?: string | null | undefined;
  /** What every daemon is told besides. */
  readonly daemonArguments?: readonly string[] | undefined;
  readonly underlayMtuBytes?: number | undefined;
  /** What carries the nodes' tunnels; the kernel's unless told. */
  readonly datapath?: LabDataPath | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** `mixed`: nodes of both kinds in turns. */
export type LabDataPath = 'kernel' | 'userspace' | 'mixed';

/** The cluster network of a lab with IPv4. */
export const LAB_NETWORK = formatSubnet(LAB_NETWORKS.ipv4);

/** A killed process is gone at once, unless the kernel is busy with it. */
const END_DEADLINE_MS = 10_000;

const RUN = /^vt[0-9a-f]{6}$/;

const dirOf = (run: string): string => join(tmpdir(), `vtepd-${run}`);

export class Lab implements AsyncDisposable {
  readonly run: string;
  readonly dir: string;
  readonly underlay: Underlay;
  readonly store: EmbeddedLabStore | EtcdLabStore | ForeignLabStore;
  readonly nodes: readonly LabNode[];
  private closed: Promise<void> | undefined;

  private constructor(run: string, underlay: Underlay, store: Lab['store'], nodes: readonly LabNode[]) {
    this.run = run;
    this.dir = dirOf(run);
    this.underlay = underlay;
    this.store = store;
    this.nodes = nodes;
  }

  /** Builds it; no daemon runs yet. On failure nothing is left. @throws CommandError, the signal's reason */
  static async create(options: LabOptions): Promise<Lab> {
    const run = `vt${randomBytes(3).toString('hex')}`;
    const dir = dirOf(run);
    // Fails if the name is taken: only what is ours from here on may be swept.
    await mkdir(dir, { mode: 0o700 });
    try {
      const underlay = await Underlay.create(`${run}-net`, options.underlayMtuBytes, options.families);
      const store = await createStore(options, dir, underlay.namespace);
      const plan = {
        run,
        dir,
        underlay,
        daemonArguments: [...store.arguments, ...(options.daemonArguments ?? [])],
      };
      const nodes: LabNode[] = [];
      for (let number = 1; number <= options.nodes; number++) {
        options.signal?.throwIfAborted();
        nodes.push(await LabNode.create({ ...plan, number, datapath: dataPathOf(options, number) }));
      }
      return new Lab(run, underlay, store, nodes);
    } catch (error) {
      await sweep(run);
      throw error;
    }
  }

  /** Node `number`, from 1. */
  node(number: number): LabNode {
    const node = this.nodes[number - 1];
    if (node === undefined) throw new RangeError(`the lab has ${this.nodes.length} nodes, no node ${number}`);
    return node;
  }

  /** A daemon on every node, all ready. @throws DaemonEndedError, DeadlineError */
  async startDaemons(signal?: AbortSignal): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.startDaemon()));
    await Promise.all(this.nodes.map((node) => node.untilReady(signal)));
  }

  /** Ends the daemons and the store and removes everything of the run. Idempotent. */
  close(): Promise<void> {
    this.closed ??= this.remove();
    return this.closed;
  }

  private async remove(): Promise<void> {
    try {
      await Promise.all(this.nodes.map(({ daemon }) => daemon?.kill()));
      await this.store.close();
    } finally {
      await sweep(this.run);
    }
  }

  /** Leaves everything running when this process ends. From now on it is `sweep`'s. */
  abandon(): void {
    for (const { daemon } of this.nodes) daemon?.abandon();
    this.store.abandon();
    this.closed = Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Of a mixed cluster, the first node and every other one after it are user space's. */
function dataPathOf({ datapath = 'kernel' }: LabOptions, number: number): 'kernel' | 'userspace' {
  if (datapath !== 'mixed') return datapath;
  return number % 2 === 1 ? 'userspace' : 'kernel';
}

async function createStore(options: LabOptions, dir: string, namespace: string): Promise<Lab['store']> {
  const { families = 'ipv4', networkConfig = labNetworkConfig(families), signal } = options;
  const config = networkConfig ?? undefined;
  if (options.store === 'embedded') return embeddedLabStore(dir, config);
  const at = gatewayAddresses[families === 'ipv6' ? 'ipv6' : 'ipv4'];
  const plan = { dir, namespace, at, networkConfig: config, signal };
  return typeof options.store === 'function' ? options.store(plan) : EtcdLabStore.create(plan);
}

/** Whether the text can be a run's name. */
export const isRun = (text: string): boolean => RUN.test(text);

/**
 * Removes a run by its name: ends the processes in its namespaces, deletes those and the folder.
 * Returns how many namespaces there were.
 */
export async function sweep(run: string): Promise<number> {
  if (!isRun(run)) throw new RangeError(`"${run}" is not the name of a lab, such as vt3f9a2c`);
  const found = await namespaces(`${run}-`);
  for (const namespace of found) {
    for (const pid of await processesIn(namespace)) end(pid);
  }
  for (const namespace of found) {
    const empty = async () => (await processesIn(namespace)).every((pid) => pid === process.pid);
    await until(empty, { what: `the processes in ${namespace} to end`, deadlineMs: END_DEADLINE_MS });
    await deleteNamespace(namespace);
  }
  await rm(dirOf(run), { recursive: true, force: true });
  return found.length;
}

/** Everything in a lab's namespaces was started by the lab or in it; it may be gone by now. */
function end(pid: number): void {
  if (pid === process.pid) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
