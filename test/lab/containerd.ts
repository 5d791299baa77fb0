/**
 * A real container runtime on a node of a lab: Debian's containerd with everything of its own (root, state,
 * socket), and `ctr run --cni`, which reads /etc/cni/net.d and /opt/cni/bin: in a mount namespace where those
 * are the node's. `nsenter` rather than `ip netns exec`, which would hide the cgroups.
 */
import { copyFile, mkdir, open, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Child, run, start, stop } from '../../overlay/lab/command.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import { until } from '../../overlay/lab/wait.ts';

export const CONTAINERD_PROGRAMS = ['containerd', 'ctr', 'runc', 'containerd-shim-runc-v2', 'nsenter'];

/** Debian's, which the installed list names after ours. */
const PORTMAP = '/usr/lib/cni/portmap';

/** Nothing but what runs a container from a folder. */
const CONFIG = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]
`;

export class NodeContainerd {
  private readonly node: LabNode;
  private readonly dir: string;
  private readonly rootfs: string;
  private readonly server: Child;

  private constructor(node: LabNode, dir: string, server: Child) {
    this.node = node;
    this.dir = dir;
    this.rootfs = join(dir, 'rootfs');
    this.server = server;
  }

  /** @param page what containers have as /www/index.html */
  static async start(node: LabNode, page: string): Promise<NodeContainerd> {
    const dir = join(node.dir, 'containerd');
    await mkdir(join(dir, 'rootfs', 'bin'), { recursive: true });
    await mkdir(join(dir, 'rootfs', 'www'));
    await mkdir(join(dir, 'fifo'));
    await mkdir(join(dir, 'etc', 'cni'), { recursive: true });
    await mkdir(join(dir, 'opt', 'cni', 'bin'), { recursive: true });
    await mkdir(join(dir, 'etc', 'cni', 'net.d'));
    const { stdout } = await run('sh', ['-c', 'command -v busybox']);
    await copyFile(stdout.trim(), join(dir, 'rootfs', 'bin', 'busybox'));
    await copyFile(PORTMAP, join(node.cni.binDir, basename(PORTMAP)));
    await writeFile(join(dir, 'rootfs', 'www', 'index.html'), page);
    await writeFile(join(dir, 'config.toml'), CONFIG);
    const log = await open(join(dir, 'containerd.log'), 'a');
    try {
      const server = await start(
        'nsenter',
        [
          ...[`--net=${namespacePath(node.namespace)}`, 'containerd', '--config', join(dir, 'config.toml')],
          ...['--address', join(dir, 'c.sock'), '--root', join(dir, 'root'), '--state', join(dir, 'state')],
        ],
        { stdio: ['ignore', log.fd, log.fd] },
      );
      const containerd = new NodeContainerd(node, dir, server);
      const answers = async () => (await containerd.ctr(['version'])).status === 0;
      await until(answers, { what: 'containerd to answer', deadlineMs: 20_000 });
      return containerd;
    } finally {
      await log.close();
    }
  }

  /** A container's id: runc and its cgroups know nothing of nodes, so it has the node's name in it. */
  containerId(name: string): string {
    return `${this.node.namespace}-${name}`;
  }

  /** `ctr run --cni` in the foreground: ends with the container, which a SIGTERM to it reaches. */
  runContainer(name: string, command: readonly string[]): Promise<Child> {
    const { confDir, binDir } = this.node.cni;
    const script = `
      mount -t overlay overlay -o "lowerdir=$1:/etc" /etc
      mount --bind "$2" /opt
      mount --bind "$3" /etc/cni/net.d
      mount --bind "$4" /opt/cni/bin
      shift 4
      exec ctr "$@"`;
    return start(
      'nsenter',
      [
        ...[`--net=${namespacePath(this.node.namespace)}`, 'unshare', '-m', 'sh', '-ec', script, 'sh'],
        ...[join(this.dir, 'etc'), join(this.dir, 'opt'), confDir, binDir],
        ...['--address', join(this.dir, 'c.sock'), 'run', '--rm', '--cni'],
        ...['--fifo-dir', join(this.dir, 'fifo'), '--runc-root', join(this.dir, 'runc')],
        ...['--rootfs', this.rootfs],
        ...[this.containerId(name), ...command],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
  }

  /** Ends whatever containers are left, then the runtime. */
  async close(): Promise<void> {
    const { stdout } = await this.ctr(['task', 'ls', '-q']);
    for (const id of stdout.split('\n').filter(Boolean)) await this.ctr(['task', 'rm', '--force', id]);
    await stop(this.server, 'SIGTERM', 15_000);
  }

  private ctr(args: readonly string[]) {
    return run('ctr', ['--address', join(this.dir, 'c.sock'), ...args], { tolerant: true });
  }
}
