/**
 * A pod of a lab: a namespace that is attached as a container runtime would do it, with the CNI configuration
 * and the plugin binary that the daemon installed on the node.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Address, parseAddress } from '../../store/address.ts';
import { type CommandResult, run } from './command.ts';
import { addNamespace, deleteNamespace, namespacePath } from './namespace.ts';

/** The plugin answered with a CNI error. `cniCode` is the specification's. */
export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code = 'VTEPD_LAB_CNI';
  readonly cniCode: number;
  constructor(message: string, cniCode: number) {
    super(message);
    this.cniCode = cniCode;
  }
}

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** Where a node's runtime finds its CNI configuration and plugins. */
export interface CniFolders {
  readonly confDir: string;
  readonly binDir: string;
}

export interface CniCall {
  readonly containerId?: string | undefined;
  readonly namespace?: string | undefined;
  readonly interfaceName?: string | undefined;
  /** `KEY=value;KEY=value` */
  readonly args?: string | undefined;
  /** Merged over the installed configuration: `prevResult`, `runtimeConfig`, another `cniVersion`. */
  readonly extra?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * Calls our plugin as the first of the node's installed list, and gives what it printed, parsed.
 * @throws CniError; an Error when nothing is installed (the daemon is not ready)
 */
export async function callPlugin(folders: CniFolders, command: CniCommand, call: CniCall): Promise<unknown> {
  const configuration = await installedConfiguration(folders.confDir);
  if (configuration === undefined) throw new Error(`no CNI configuration in ${folders.confDir}`);
  const { type, ...own } = configuration;
  const result = await run(join(folders.binDir, type), [], {
    input: JSON.stringify({ ...own, type, ...call.extra }),
    env: {
      CNI_COMMAND: command,
      CNI_PATH: folders.binDir,
      ...(call.containerId !== undefined && { CNI_CONTAINERID: call.containerId }),
      ...(call.namespace !== undefined && { CNI_NETNS: namespacePath(call.namespace) }),
      ...(call.interfaceName !== undefined && { CNI_IFNAME: call.interfaceName }),
      ...(call.args !== undefined && { CNI_ARGS: call.args }),
    },
    tolerant: true,
  });
  if (result.status !== 0) throw cniError(command, result);
  return result.stdout.trim() === '' ? undefined : JSON.parse(result.stdout);
}

export interface PluginConfiguration {
  readonly name: string;
  readonly cniVersion: string;
  readonly type: string;
  readonly [key: string]: unknown;
}

/** What a runtime hands to the first plugin of the first list in the folder; undefined when there is none. */
export async function installedConfiguration(confDir: string): Promise<PluginConfiguration | undefined> {
  const names = (await readdir(confDir).catch(() => [])).filter((name) => name.endsWith('.conflist')).sort();
  if (names[0] === undefined) return undefined;
  const list: unknown = JSON.parse(await readFile(join(confDir, names[0]), 'utf8'));
  if (!isRecord(list) || !Array.isArray(list.plugins) || !isRecord(list.plugins[0])) {
    throw new Error(`${join(confDir, names[0])} is not a CNI configuration list`);
  }
  const { name, cniVersion } = list;
  const { type } = list.plugins[0];
  if (typeof name !== 'string' || typeof cniVersion !== 'string' || typeof type !== 'string') {
    throw new Error(`${join(confDir, names[0])} lacks a name, a cniVersion or a plugin's type`);
  }
  return { ...list.plugins[0], name, cniVersion, type };
}

export interface PodPlan {
  /** The namespace's name; also the container id. */
  readonly name: string;
  readonly folders: CniFolders;
  /** Kubernetes' name for it, shown in status and logs. */
  readonly pod?: string | undefined;
}

const INTERFACE = 'eth0';

export class Pod {
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly Address[];
  /** How long the plugin took, from starting it to its end. */
  readonly addMs: number;
  /** The CNI result. */
  readonly result: unknown;
  private readonly folders: CniFolders;

  private constructor(plan: PodPlan, result: unknown, addMs: number) {
    this.name = plan.name;
    this.namespace = plan.name;
    this.folders = plan.folders;
    this.addresses = addressesOf(result);
    this.addMs = addMs;
    this.result = result;
  }

  /** Makes the namespace and attaches it (ADD). On failure nothing is left. @throws CniError */
  static async attach(plan: PodPlan): Promise<Pod> {
    await addNamespace(plan.name);
    try {
      const begin = performance.now();
      const result = await callPlugin(plan.folders, 'ADD', {
        ...attachment(plan.name),
        args: plan.pod === undefined ? undefined : kubernetesArguments(plan.pod),
      });
      return new Pod(plan, result, performance.now() - begin);
    } catch (error) {
      await deleteNamespace(plan.name);
      throw error;
    }
  }

  /** Its first address. */
  get address(): Address {
    const [first] = this.addresses;
    if (first === undefined) throw new Error(`${this.name} has no address`);
    return first;
  }

  /** DEL, then the namespace goes, which happens even if DEL fails. @throws CniError */
  async detach(): Promise<void> {
    try {
      await callPlugin(this.folders, 'DEL', attachment(this.name));
    } finally {
      await deleteNamespace(this.namespace);
    }
  }

  /** CHECK against what ADD answered. @throws CniError */
  async check(): Promise<void> {
    await callPlugin(this.folders, 'CHECK', { ...attachment(this.name), extra: { prevResult: this.result } });
  }
}

const attachment = (name: string): CniCall => ({
  containerId: name,
  namespace: name,
  interfaceName: INTERFACE,
});

function kubernetesArguments(pod: string): string {
  const [namespace, name] = pod.split('/');
  return `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name}`;
}

function addressesOf(result: unknown): Address[] {
  const ips = isRecord(result) && Array.isArray(result.ips) ? result.ips : [];
  return ips.map((ip) => {
    const text = isRecord(ip) && typeof ip.address === 'string' ? ip.address : '';
    return parseAddress(text.slice(0, text.indexOf('/')));
  });
}

function cniError(command: CniCommand, { stdout, stderr, status }: CommandResult): CniError {
  let said: unknown;
  try {
    said = JSON.parse(stdout);
  } catch {
    said = undefined;
  }
  if (!isRecord(said)) return new CniError(`CNI ${command}: status ${status}: ${stdout}${stderr}`, 0);
  const text = [said.msg, said.details].filter(Boolean).join(': ');
  return new CniError(`CNI ${command}: ${text}`, Number(said.code));
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
