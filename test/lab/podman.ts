/**
 * podman on a node of a lab: with everything of its own (images, containers, temporary files), its CNI back end on the
 * node's folders, in the node's network namespace. There is no daemon: each call is a process of its own.
 */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type CommandResult, run } from '../../overlay/lab/command.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import { REFERENCE_PLUGINS } from './cri.ts';
import { IMAGE, makeImage } from './image.ts';

export const PODMAN_PROGRAMS = ['podman', 'conmon', 'runc', 'nsenter', 'tar', 'iptables'];

const TIMEOUT_MS = 60_000;

/**
 * cgroupfs, for there is no systemd here; no journal either, and no file of events. podman's own limits are higher than
 * a machine may allow that withholds CAP_SYS_RESOURCE.
 */
const config = ({ confDir, binDir }: LabNode['cni']): string => `[containers]
log_driver = "k8s-file"
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[network]
network_backend = "cni"
cni_plugin_dirs = ["${binDir}"]
network_config_dir = "${confDir}"
`;

/** Plain folders: they need no mounts, on whatever file system the lab is. */
const storage = (dir: string): string => `[storage]
driver = "vfs"
graphroot = "${dir}/root"
runroot = "${dir}/runroot"
`;

export class NodePodman {
  private readonly node: LabNode;
  private readonly dir: string;

  /** Whoever makes one closes it, prepared or not. */
  constructor(node: LabNode) {
    this.node = node;
    this.dir = join(node.dir, 'podman');
  }

  /** Configured, with the image. @param page what its containers have to serve */
  async prepare(page: string): Promise<void> {
    const { dir } = this;
    const { cni } = this.node;
    await mkdir(dir);
    for (const plugin of REFERENCE_PLUGINS) await copyFile(plugin, join(cni.binDir, basename(plugin)));
    await writeFile(join(dir, 'containers.conf'), config(cni));
    await writeFile(join(dir, 'storage.conf'), storage(dir));
    await this.call(['load', '--quiet', '--input', await makeImage(join(dir, 'image'), page)]);
  }

  /** `podman run --detach` on vtepd's network. @returns the container's id */
  async run(name: string, command: readonly string[], options: readonly string[] = []): Promise<string> {
    const all = ['--detach', '--name', name, '--network', 'vtepd', '--no-hosts', ...options];
    const { stdout } = await this.call(['run', ...all, IMAGE, ...command]);
    return stdout.trim();
  }

  exec(name: string, command: readonly string[]): Promise<CommandResult> {
    return this.call(['exec', name, ...command], true);
  }

  /** Stopped and removed. */
  async remove(name: string): Promise<void> {
    await this.call(['stop', '--time', '10', name]);
    await this.call(['rm', name]);
  }

  /** Whatever is left ends. */
  async close(): Promise<void> {
    await this.call(['rm', '--all', '--force', '--time', '0'], true);
  }

  private call(args: readonly string[], tolerant = false): Promise<CommandResult> {
    const places = ['root', 'runroot', 'tmpdir'].flatMap((name) => [`--${name}`, join(this.dir, name)]);
    return run('nsenter', [`--net=${namespacePath(this.node.namespace)}`, 'podman', ...places, ...args], {
      tolerant,
      timeoutMs: TIMEOUT_MS,
      env: {
        ...process.env,
        CONTAINERS_CONF: join(this.dir, 'containers.conf'),
        CONTAINERS_STORAGE_CONF: join(this.dir, 'storage.conf'),
      },
    });
  }
}
