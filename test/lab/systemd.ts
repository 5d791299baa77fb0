/**
 * A machine that systemd runs, out of namespaces: systemd as the first process of its own PID, mount and cgroup
 * namespaces, in the network namespace of a lab's node, over this machine's files, which it cannot change.
 *
 *     /            overlay: this machine's root below, a tmpfs above
 *     /usr/local   vtepd as `make install` puts it in place
 *     /run, /tmp   tmpfs; /run/lab holds the units of the test
 *     /sys         its own, with a group of its own as the root of each cgroup hierarchy
 *
 * Only what is named is started: the targets that a service depends on by default are empty here.
 */
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Child, type CommandResult, run, start } from '../../overlay/lab/command.ts';
import { namespacePath } from '../../overlay/lab/namespace.ts';
import { until } from '../../overlay/lab/wait.ts';
import type { Installation } from './installed.ts';

export const SYSTEMD = '/lib/systemd/systemd';
export const SYSTEMD_PROGRAMS = ['systemctl', 'unshare', 'nsenter', 'mount', 'make'];

const TARGETS = ['sysinit', 'basic', 'shutdown', 'sockets', 'network-online', 'multi-user'];
const JOURNALD = ['systemd-journald.socket', 'systemd-journald.service'];
const DEADLINE_MS = 30_000;

const BOOT = `
  set -e
  dir=$1 installed=$2
  mkdir "$dir/above" "$dir/root"
  mount -t tmpfs tmpfs "$dir/above"
  mkdir "$dir/above/upper" "$dir/above/work"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/above/upper,workdir=$dir/above/work" "$dir/root"
  cd "$dir/root"
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount -t tmpfs tmpfs sys/fs/cgroup
  shift 2
  for group; do
    hierarchy=sys/fs/cgroup/$(basename "$(dirname "$group")")
    [ "$(dirname "$group")" = /sys/fs/cgroup ] && hierarchy=sys/fs/cgroup
    mkdir -p "$hierarchy"
    mount --bind "$group" "$hierarchy"
  done
  mount --rbind /dev dev
  mount -t tmpfs tmpfs run
  mount -t tmpfs tmpfs tmp
  mkdir -p usr/local/lib/vtepd usr/local/lib/systemd/system etc/vtepd run/lab
  rm -rf usr/local/bin/vtepd var/lib/vtepd
  mount --bind "$installed/usr/local/lib/vtepd" usr/local/lib/vtepd
  cp -P "$installed/usr/local/bin/vtepd" usr/local/bin
  cp "$installed"/usr/local/lib/systemd/system/* usr/local/lib/systemd/system
  cp "$installed"/etc/vtepd/* etc/vtepd
  cp -R "$dir"/units/* run/lab
  exec env -i container=lab SYSTEMD_UNIT_PATH=/run/lab:/usr/local/lib/systemd/system \\
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    chroot . ${SYSTEMD} --system --unit=lab.target --show-status=0 --log-target=journal`;

/** Into its groups first: they are the root of the cgroup namespace that is made then. */
const ENTER = `
  while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done
  shift
  exec "$@"`;

export interface SystemdPlan {
  /** Of the network. */
  readonly namespace: string;
  /** A folder of its own, not there yet. */
  readonly dir: string;
  readonly installation: Installation;
  /** By name, to their text: drop-ins (`vtepd.service.d/10-lab.conf`) and more. */
  readonly units: Readonly<Record<string, string>>;
  /** Started at boot, with the journal. */
  readonly wants: readonly string[];
}

export class SystemdMachine {
  private readonly child: Child;
  private readonly pid: number;
  private readonly cgroups: readonly string[];

  private constructor(child: Child, pid: number, cgroups: readonly string[]) {
    this.child = child;
    this.pid = pid;
    this.cgroups = cgroups;
  }

  static async boot({ namespace, dir, installation, units, wants }: SystemdPlan): Promise<SystemdMachine> {
    await mkdir(join(dir, 'units'), { recursive: true });
    const all = {
      ...Object.fromEntries(TARGETS.map((name) => [`${name}.target`, '[Unit]\nDefaultDependencies=no\n'])),
      'lab.target': `[Unit]\nDefaultDependencies=no\nWants=${[...JOURNALD, ...wants].join(' ')}\n`,
      ...units,
    };
    for (const name of JOURNALD) {
      await writeFile(join(dir, 'units', name), await readFile(`/lib/systemd/system/${name}`));
    }
    for (const [name, text] of Object.entries(all)) {
      const path = join(dir, 'units', name);
      await mkdir(join(path, '..'), { recursive: true });
      await writeFile(path, text);
    }
    const cgroups = await cgroupsOfOwn(namespace);
    const unshare = ['unshare', '-m', '-p', '-C', '--fork', '--kill-child', '--mount-proc'];
    const boot = ['sh', '-c', BOOT, 'sh', dir, installation.root, ...cgroups];
    // Not by `ip netns exec`, which hides what is mounted below /sys.
    const there = ['nsenter', `--net=${namespacePath(namespace)}`, ...unshare, ...boot];
    const child = await start('sh', ['-c', ENTER, 'sh', ...cgroups, '--', ...there], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const pid = await until(() => onlyChildOf(child.pid), { what: 'systemd', deadlineMs: DEADLINE_MS });
    const machine = new SystemdMachine(child, pid, cgroups);
    try {
      const answers = async () => (await machine.exec(['systemctl', 'is-system-running'])).stdout !== '';
      await until(answers, { what: 'systemd to answer', deadlineMs: DEADLINE_MS });
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  /** Runs a command there; a failure is an answer. */
  exec(command: readonly string[]): Promise<CommandResult> {
    const target = ['--target', String(this.pid), '--mount', '--pid', '--net', '--cgroup', '--root', '--wd'];
    return run('nsenter', [...target, ...command], { tolerant: true });
  }

  /** `systemctl show` */
  async property(unit: string, name: string): Promise<string> {
    return (await this.exec(['systemctl', 'show', unit, '--property', name, '--value'])).stdout.trim();
  }

  async journal(...args: readonly string[]): Promise<string> {
    return (await this.exec(['journalctl', '--no-pager', '--output=cat', ...args])).stdout;
  }

  /** The machine is switched off. */
  async close(): Promise<void> {
    this.child.process.kill('SIGKILL');
    await this.child.exited;
    for (const cgroup of this.cgroups) {
      await until(() => removed(cgroup), { what: `${cgroup} to be empty`, deadlineMs: DEADLINE_MS });
    }
  }
}

/** A group in each hierarchy that this machine has; what systemd makes lies below them. */
async function cgroupsOfOwn(name: string): Promise<string[]> {
  const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').map((line) => line.split(' '));
  const hierarchies = mounts
    .filter(([, , type = '']) => /^cgroup2?$/.test(type))
    .map(([, path = '']) => path);
  const made: string[] = [];
  for (const hierarchy of hierarchies) {
    // A process cannot be put into a group of this one before it has been given processors.
    if (hierarchy.endsWith('/cpuset')) continue;
    const group = join(hierarchy, name);
    await mkdir(group);
    made.push(group);
  }
  return made;
}

async function removed(cgroup: string): Promise<boolean> {
  try {
    const below = await readdir(cgroup, { withFileTypes: true });
    for (const entry of below) if (entry.isDirectory()) await removed(join(cgroup, entry.name));
    await rmdir(cgroup);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT';
  }
}

async function onlyChildOf(pid: number): Promise<number | undefined> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  const [first] = children.split(' ').filter(Boolean);
  return first === undefined ? undefined : Number(first);
}
