/**
 * containerd as a kubelet drives it, on a node of a lab: its CRI plugin, with the node's CNI folders, called over gRPC.
 * A pod of the host network is in the node's namespace, for that is where containerd runs.
 */
import { copyFile, mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Client, credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { type Child, run, start, stop } from '../../overlay/lab/command.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import { until } from '../../overlay/lab/wait.ts';
import { CRI } from './cri-schema.ts';
import { IMAGE, makeImage } from './image.ts';

export const CRI_PROGRAMS = [
  'containerd',
  'ctr',
  'runc',
  'containerd-shim-runc-v2',
  'nsenter',
  'tar',
  'iptables',
];

/** Of Debian's containernetworking-plugins. The runtime sets up the loopback interface by the first. */
export const REFERENCE_PLUGINS = ['/usr/lib/cni/loopback', '/usr/lib/cni/portmap'];

/** The loader's type wants each method to have a comment. */
const SCHEMA = CRI as unknown as Parameters<typeof fromJSON>[0];

const NODE_NAMESPACE = 2;
const CONTAINER_NAMESPACE = 1;
const DEADLINE_MS = 30_000;

const config = ({ confDir, binDir }: LabNode['cni'], dir: string): string => `version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${IMAGE}"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${confDir}"
    bin_dir = "${binDir}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "${dir}/runc"
`;

export interface PodPlan {
  readonly name: string;
  /** In the node's own network. */
  readonly hostNetwork?: boolean;
  /** Of the node, to its port 80. */
  readonly hostPort?: number;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly mounts?: readonly {
    readonly container_path: string;
    readonly host_path: string;
    readonly readonly?: boolean;
  }[];
  /** CRI's LinuxContainerSecurityContext; that of a plain pod unless told. */
  readonly securityContext?: object;
  /** Unlimited unless told. */
  readonly memoryLimitBytes?: number;
}

export interface CriPod {
  readonly sandbox: string;
  readonly container: string;
  /** None for one in the node's network. */
  readonly addresses: readonly string[];
}

export class CriRuntime {
  private readonly node: LabNode;
  private readonly dir: string;
  private readonly server: Child;
  private readonly client: Client;
  private readonly pods = new Set<string>();

  private constructor(node: LabNode, dir: string, server: Child) {
    this.node = node;
    this.dir = dir;
    this.server = server;
    const loaded = loadPackageDefinition(fromJSON(SCHEMA, { keepCase: true, defaults: true, longs: Number }));
    const Service = lookUp(loaded, 'runtime', 'v1', 'RuntimeService');
    this.client = Reflect.construct(Service, [`unix:${this.socket}`, credentials.createInsecure()]);
  }

  /** @param page what containers of the image have to serve */
  static async start(node: LabNode, page: string): Promise<CriRuntime> {
    const dir = join(node.dir, 'cri');
    await mkdir(dir);
    const archive = await makeImage(join(dir, 'image'), page);
    for (const plugin of REFERENCE_PLUGINS) await copyFile(plugin, join(node.cni.binDir, basename(plugin)));
    await writeFile(join(dir, 'config.toml'), config(node.cni, dir));
    const log = await open(join(dir, 'containerd.log'), 'a');
    const places = [
      '--address',
      join(dir, 'c.sock'),
      '--root',
      join(dir, 'root'),
      '--state',
      join(dir, 'state'),
    ];
    const command = ['containerd', '--config', join(dir, 'config.toml'), ...places];
    const server = await start('nsenter', [`--net=${namespacePath(node.namespace)}`, ...command], {
      stdio: ['ignore', log.fd, log.fd],
    }).finally(() => log.close());
    const runtime = new CriRuntime(node, dir, server);
    try {
      const imported = async () => (await runtime.ctr(['image', 'import', archive])).status === 0;
      await until(imported, { what: 'containerd to take the image', deadlineMs: DEADLINE_MS, everyMs: 200 });
      return runtime;
    } catch (error) {
      await runtime.close();
      throw error;
    }
  }

  private get socket(): string {
    return join(this.dir, 'c.sock');
  }

  /** Waits until containerd says that its network works: it has found a configuration. */
  async untilNetworkReady(): Promise<void> {
    const ready = async () => {
      const { status } = await this.call<{ status: { conditions: { type: string; status: boolean }[] } }>(
        'Status',
        {},
      );
      return status.conditions.some(({ type, status: isTrue }) => type === 'NetworkReady' && isTrue);
    };
    await until(ready, { what: 'NetworkReady', deadlineMs: DEADLINE_MS });
  }

  /** A pod with one container, started, as the kubelet does it. */
  async runPod({
    name,
    hostNetwork = false,
    hostPort,
    command,
    env = {},
    ...plan
  }: PodPlan): Promise<CriPod> {
    const uid = `${this.node.namespace}-${name}`;
    const network = hostNetwork ? NODE_NAMESPACE : 0;
    const namespaces = { network, pid: CONTAINER_NAMESPACE, ipc: 0 };
    const sandboxConfig = {
      metadata: { name, uid, namespace: 'lab' },
      hostname: hostNetwork ? '' : name,
      log_directory: join(this.dir, 'logs', name),
      port_mappings: hostPort === undefined ? [] : [{ protocol: 0, container_port: 80, host_port: hostPort }],
      linux: { security_context: { namespace_options: namespaces }, cgroup_parent: `/${uid}` },
    };
    await mkdir(sandboxConfig.log_directory, { recursive: true });
    const { pod_sandbox_id: sandbox } = await this.call<{ pod_sandbox_id: string }>('RunPodSandbox', {
      config: sandboxConfig,
    });
    this.pods.add(sandbox);
    const { container_id: container } = await this.call<{ container_id: string }>('CreateContainer', {
      pod_sandbox_id: sandbox,
      sandbox_config: sandboxConfig,
      config: {
        metadata: { name: 'main' },
        image: { image: IMAGE },
        command,
        envs: Object.entries(env).map(([key, value]) => ({ key, value })),
        mounts: plan.mounts ?? [],
        log_path: 'main.log',
        linux: {
          resources: { memory_limit_in_bytes: plan.memoryLimitBytes ?? 0 },
          security_context: { ...plan.securityContext, namespace_options: namespaces },
        },
      },
    });
    await this.call('StartContainer', { container_id: container });
    const { status } = await this.call<{
      status: { network: { ip: string; additional_ips: { ip: string }[] } | null };
    }>('PodSandboxStatus', { pod_sandbox_id: sandbox });
    const { ip = '', additional_ips: more = [] } = status.network ?? {};
    return {
      sandbox,
      container,
      addresses: [ip, ...more.map((each) => each.ip)].filter((address) => address !== ''),
    };
  }

  /** What its container has written, line by line: the runtime puts time, stream and a letter before each. */
  async logOf(name: string): Promise<string[]> {
    const text = await readFile(join(this.dir, 'logs', name, 'main.log'), 'utf8');
    return text
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/^\S+ std(out|err) [FP] /, ''));
  }

  /** Runs a command in a container. */
  async exec({ container }: CriPod, command: readonly string[]): Promise<{ status: number; output: string }> {
    const result = await this.call<{ stdout: Buffer; stderr: Buffer; exit_code: number }>('ExecSync', {
      container_id: container,
      cmd: command,
      timeout: 20,
    });
    return { status: result.exit_code, output: `${result.stdout}${result.stderr}` };
  }

  /** SIGTERM, and SIGKILL when it has not ended in this many seconds. @returns its exit code */
  async stopContainer({ container }: CriPod, graceSeconds: number): Promise<number> {
    await this.call('StopContainer', { container_id: container, timeout: graceSeconds });
    const { status } = await this.call<{ status: { exit_code: number } }>('ContainerStatus', {
      container_id: container,
    });
    return status.exit_code;
  }

  /** Stopped and removed: its containers, its network, its namespace. */
  async removePod({ sandbox }: Pick<CriPod, 'sandbox'>): Promise<void> {
    await this.call('StopPodSandbox', { pod_sandbox_id: sandbox });
    await this.call('RemovePodSandbox', { pod_sandbox_id: sandbox });
    this.pods.delete(sandbox);
  }

  async close(): Promise<void> {
    for (const sandbox of this.pods) await this.removePod({ sandbox }).catch(() => {});
    this.client.close();
    await stop(this.server, 'SIGTERM', 15_000);
  }

  private ctr(args: readonly string[]) {
    return run('ctr', ['--address', this.socket, '--namespace', 'k8s.io', ...args], { tolerant: true });
  }

  private call<T>(method: string, request: object): Promise<T> {
    const deadline = Date.now() + 2 * DEADLINE_MS;
    return new Promise((resolve, reject) => {
      const done = (error: Error | null, response: T) => (error === null ? resolve(response) : reject(error));
      const bound: unknown = Reflect.get(this.client, method);
      if (typeof bound !== 'function') throw new Error(`CRI has no ${method}`);
      Reflect.apply(bound, this.client, [request, { deadline }, done]);
    });
  }
}

/** What the loader has made of the schema is typed as anything that a schema may hold. */
function lookUp(root: object, ...path: readonly string[]): new (...args: unknown[]) => Client {
  let found: unknown = root;
  for (const name of path) found = Reflect.get(Object(found), name);
  if (typeof found !== 'function') throw new Error(`no ${path.join('.')} in the schema`);
  return found as new (
    ...args: unknown[]
  ) => Client;
}
