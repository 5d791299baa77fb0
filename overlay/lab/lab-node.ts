/** One node of a lab: a namespace on the underlay, folders of its own, a daemon that may come and go, pods. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Address, PerFamily } from '../../store/address.ts';
import { connectLoopback } from '../kernel/loopback-connection.ts';
import { askStatus, StatusUnavailableError } from '../ops/ask-status.ts';
import type { StatusReport } from '../ops/status.ts';
import type { CommandOptions, CommandResult } from './command.ts';
import { LabDaemon, VTEPD } from './lab-daemon.ts';
import { addNamespace, namespacePath, runInside } from './namespace.ts';
import { CniError, type CniFolders, callPlugin, installedConfiguration, Pod } from './pod.ts';
import { nodeAddress, nodeAddress6, type Underlay } from './underlay.ts';
import { until } from './wait.ts';

export interface NodePlan {
  /** From 1; decides its address on the underlay. */
  readonly number: number;
  /** The run's prefix: namespaces are named after it. */
  readonly run: string;
  /** The lab's folder; the node's own is made in it. */
  readonly dir: string;
  readonly underlay: Underlay;
  /** What every daemon of the lab is told. */
  readonly daemonArguments: readonly string[];
  readonly datapath: 'kernel' | 'userspace';
}

const CONFIGURATION_DEADLINE_MS = 10_000;
const STATUS_TIMEOUT_MS = 10_000;
/** Where a daemon serves its status, unless told. */
const HTTP = { host: '127.0.0.1', port: 9472 };

export class LabNode {
  readonly number: number;
  /** `node-1`: how it appears in logs and status. */
  readonly name: string;
  readonly namespace: string;
  /** On the underlay, at the start. */
  readonly addresses: PerFamily<Address>;
  /** The first of them. */
  readonly address: Address;
  readonly dir: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly cni: CniFolders;
  readonly pods: Pod[] = [];
  daemon: LabDaemon | undefined;
  /** What the next daemon is told to carry its tunnels with. */
  datapath: 'kernel' | 'userspace';
  /** What its daemon is told, and commands that are to find the same. */
  readonly daemonArguments: readonly string[];
  private nextPod = 1;

  private constructor({ number, run, dir, underlay, daemonArguments, datapath }: NodePlan) {
    this.datapath = datapath;
    this.number = number;
    this.name = `node-${number}`;
    this.namespace = `${run}-n${number}`;
    const [ipv4, ipv6] = [nodeAddress(number), nodeAddress6(number)];
    this.addresses = underlay.families.includes('ipv4') ? { ipv4, ipv6 } : { ipv6 };
    this.address = this.addresses.ipv4 ?? ipv6;
    this.dir = join(dir, this.name);
    this.runDir = join(this.dir, 'run');
    this.stateDir = join(this.dir, 'state');
    this.cni = { confDir: join(this.dir, 'cni', 'net.d'), binDir: join(this.dir, 'cni', 'bin') };
    this.daemonArguments = [
      ...['--node-name', this.name, '--run-dir', this.runDir, '--state-dir', this.stateDir],
      ...['--cni-conf-dir', this.cni.confDir, '--cni-bin-dir', this.cni.binDir],
      ...daemonArguments,
    ];
  }

  /** The namespace, its folders and its cable; no daemon yet. */
  static async create(plan: NodePlan): Promise<LabNode> {
    const node = new LabNode(plan);
    await mkdir(node.cni.confDir, { recursive: true });
    await mkdir(node.cni.binDir, { recursive: true });
    await addNamespace(node.namespace);
    await plan.underlay.connect(node.number, node.namespace);
    return node;
  }

  get logFile(): string {
    return join(this.dir, 'daemon.log');
  }

  get subnetFile(): string {
    return join(this.runDir, 'subnet.env');
  }

  /** Starts a daemon; the one before it must have ended. It is not ready yet: see untilReady. */
  async startDaemon(extraArguments: readonly string[] = [], env?: NodeJS.ProcessEnv): Promise<LabDaemon> {
    if (this.daemon?.running) throw new Error(`${this.name} has a running daemon already`);
    this.daemon = await LabDaemon.start({
      namespace: this.namespace,
      arguments: [...this.daemonArguments, ...dataPathArguments(this.datapath), ...extraArguments],
      env,
      logFile: this.logFile,
    });
    return this.daemon;
  }

  /** Waits until the daemon says, through CNI's STATUS, that a pod attached now would work. */
  async untilReady(signal?: AbortSignal, deadlineMs?: number): Promise<void> {
    await this.running().until(`${this.name} to be ready`, () => this.ready(), signal, deadlineMs);
  }

  private running(): LabDaemon {
    if (this.daemon === undefined) throw new Error(`${this.name} has no daemon`);
    return this.daemon;
  }

  async ready(): Promise<boolean> {
    if ((await installedConfiguration(this.cni.confDir)) === undefined) return false;
    try {
      await callPlugin(this.cni, 'STATUS', { extra: { cniVersion: '1.1.0' } });
      return true;
    } catch (error) {
      if (error instanceof CniError) return false;
      throw error;
    }
  }

  /** A new pod, attached. @throws CniError */
  async attachPod(): Promise<Pod> {
    // As a runtime does: there are no pods before there is a configuration, which follows readiness.
    const installed = async () => (await installedConfiguration(this.cni.confDir)) !== undefined;
    await until(installed, {
      what: `${this.name}'s CNI configuration`,
      deadlineMs: CONFIGURATION_DEADLINE_MS,
    });
    const number = this.nextPod++;
    const pod = await Pod.attach({
      name: `${this.namespace}p${number}`,
      folders: this.cni,
      pod: `lab/pod-${this.number}-${number}`,
    });
    this.pods.push(pod);
    return pod;
  }

  /** Runs a command in the node's namespace. @throws CommandError */
  exec(command: readonly string[], options?: CommandOptions): Promise<CommandResult> {
    return runInside(this.namespace, command, options);
  }

  /**
   * What the daemon says of itself, ready or not: as `vtepd status --json` has it, without a process for each look.
   * @throws StatusUnavailableError
   */
  async status(): Promise<StatusReport> {
    const connect = () => connectLoopback(namespacePath(this.namespace), HTTP.port);
    return (await askStatus(HTTP, AbortSignal.timeout(STATUS_TIMEOUT_MS), connect)).report;
  }

  /**
   * Waits until the daemon is ready and holds `peers` peers, every one of them programmed, and gives the
   * status that said so. @throws DaemonEndedError, DeadlineError
   */
  untilProgrammed(peers: number, signal?: AbortSignal): Promise<StatusReport> {
    const look = async () => {
      // Until it serves HTTP there is no status, which is no reason to give up.
      const status = await this.status().catch(notYet);
      const programmed = status?.peers.filter((peer) => peer.programmed).length;
      return status?.ready === true && programmed === peers ? status : undefined;
    };
    return this.running().until(`${this.name} to have programmed ${peers} peers`, look, signal);
  }

  /** Runs `vtepd ARGS` of this build in the node's namespace. @throws CommandError */
  vtepd(args: readonly string[], options?: CommandOptions): Promise<CommandResult> {
    return this.exec([process.execPath, VTEPD, ...args], options);
  }
}

/** The kernel's is what a daemon takes when it is told nothing. */
const dataPathArguments = (path: LabNode['datapath']): string[] =>
  path === 'kernel' ? [] : ['--datapath', path];

function notYet(error: unknown): undefined {
  if (!(error instanceof StatusUnavailableError)) throw error;
}
