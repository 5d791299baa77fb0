/** `vtepd demo`: a whole cluster on this machine, and the proof that it works. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isInstalled } from '../lab/command.ts';
import { isRun, sweep } from '../lab/lab.ts';
import { MAX_NODES } from '../lab/underlay.ts';
import { packageRoot } from '../ops/package.ts';
import {
  type Arguments,
  type Flag,
  isOn,
  JSON_FLAG,
  parseArguments,
  refusePositionals,
  UsageError,
} from './arguments.ts';
import { type Command, type CommandIo, EXIT_FAILED, EXIT_OK } from './command.ts';
import { type DemoWish, demonstrate } from './demo-run.ts';
import { helpText } from './help.ts';

const MAX_PODS = 50;

const FLAGS: readonly Flag[] = [
  { name: 'nodes', placeholder: 'N', help: `How many nodes, 2 to ${MAX_NODES}.`, defaultText: '3' },
  { name: 'pods', placeholder: 'N', help: `How many pods on each, 1 to ${MAX_PODS}.`, defaultText: '2' },
  {
    name: 'store',
    placeholder: 'embedded|etcd',
    help: 'Where the leases live: a directory, or an etcd started for the demo.',
    defaultText: 'embedded',
  },
  {
    name: 'datapath',
    placeholder: 'kernel|userspace|mixed',
    help: 'What carries the packets: the kernel’s vxlan, the daemons themselves, or the one and the other in turns.',
    defaultText: 'kernel',
  },
  { name: 'keep', placeholder: '', help: 'Leave everything up at the end, and say how to look around.' },
  { name: 'clean', placeholder: 'RUN', help: 'Remove what an earlier --keep left up, and do nothing else.' },
  JSON_FLAG,
];

interface Wish extends DemoWish {
  /** The run to remove. */
  readonly clean?: string | undefined;
}

/** The machine lacks something that the demo is made of. */
class DemoUnavailableError extends Error {
  override readonly name = 'DemoUnavailableError';
  readonly code = 'VTEPD_DEMO_UNAVAILABLE';
}

export const command: Command = {
  name: 'demo',
  summary: 'Build a cluster out of network namespaces here, and show that its pods reach each other',
  usage: helpText({
    forms: [
      'vtepd demo [--nodes N] [--pods N] [--store embedded|etcd] [--datapath kernel|userspace|mixed] [--keep] [--json]',
      'vtepd demo --clean RUN',
    ],
    about: [
      'Makes nodes out of network namespaces, joins them by an underlay that drops every packet that bears a pod’s address, starts a daemon on each, attaches pods through the CNI plugin, and lets every pod ping every other one. Then it takes a captured packet apart and measures TCP beside the bare underlay.',
      'Nothing outside its own namespaces is touched, and everything is removed at the end, also after a failure or Ctrl-C. Needs root. Exit code 1 if anything did not work.',
    ],
    flags: FLAGS,
  }),
  async run(argv, io) {
    const wish = read(parseArguments(argv, FLAGS));
    checkMachine(wish);
    if (wish.clean !== undefined) return clean(wish.clean, io);
    return (await demonstrate(wish, io)) ? EXIT_OK : EXIT_FAILED;
  },
};

function read(given: Arguments): Wish {
  refusePositionals(given);
  const text = (name: string) => given.flags.get(name)?.at(-1);
  const number = (name: string, usual: number, least: number, most: number) => {
    const value = text(name) === undefined ? usual : Number(text(name));
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new UsageError(`--${name} takes a number from ${least} to ${most}`);
  };
  const store = text('store') ?? 'embedded';
  if (store !== 'embedded' && store !== 'etcd') throw new UsageError('--store takes embedded or etcd');
  const datapath = text('datapath') ?? 'kernel';
  if (datapath !== 'kernel' && datapath !== 'userspace' && datapath !== 'mixed') {
    throw new UsageError('--datapath takes kernel, userspace or mixed');
  }
  const run = text('clean');
  if (run !== undefined && !isRun(run)) {
    throw new UsageError('--clean takes the name that the demo gave to its run, such as vt3f9a2c');
  }
  return {
    nodes: number('nodes', 3, 2, MAX_NODES),
    pods: number('pods', 2, 1, MAX_PODS),
    store,
    datapath,
    keep: isOn(given, 'keep'),
    json: isOn(given, 'json'),
    clean: run,
  };
}

/** Says everything that is missing at once. @throws DemoUnavailableError */
function checkMachine(wish: Wish): void {
  if (process.getuid?.() !== 0) {
    throw new DemoUnavailableError('making network namespaces needs root: run it with sudo');
  }
  const programs = { ip: 'iproute2', nft: 'nftables', busybox: 'busybox-static', tcpdump: 'tcpdump' };
  const needed =
    wish.store === 'etcd' ? { ...programs, etcd: 'etcd-server', etcdctl: 'etcd-client' } : programs;
  const missing = Object.entries(needed).filter(([program]) => !isInstalled(program));
  if (missing.length > 0) {
    const packages = missing.map(([, name]) => name).join(' ');
    throw new DemoUnavailableError(
      `this machine lacks ${missing.map(([program]) => program).join(', ')}: apt-get install ${packages}`,
    );
  }
  if (wish.datapath !== 'kernel' && !existsSync('/dev/net/tun')) {
    throw new DemoUnavailableError('this machine has no /dev/net/tun, which a data path in user space needs');
  }
  const shim = join(packageRoot, 'build', 'vtepd-cni');
  if (!existsSync(shim)) throw new DemoUnavailableError(`the CNI plugin is not built (${shim}): run make`);
}

async function clean(run: string, io: CommandIo): Promise<number> {
  const count = await sweep(run);
  io.out(count === 0 ? `nothing was left of ${run}\n` : `removed the ${count} namespaces of ${run}\n`);
  return EXIT_OK;
}
