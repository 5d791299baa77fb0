/**
 * Start to ready: a daemon that held a lease before is started again; until pods can be attached.
 *
 * In turns: after SIGTERM with the data path standing (an upgrade), after the data path was taken away as a
 * reboot does, on both stores, with no and with 1,000 other leases; beside what Node alone takes to start.
 */
import type { Lab } from '../overlay/lab/lab.ts';
import type { LabNode } from '../overlay/lab/lab-node.ts';
import type { LabStoreKind } from '../overlay/lab/lab-store.ts';
import { type Bench, type BenchIo, type Outcome, runBench } from './harness/bench.ts';
import { requireEntries } from './harness/kernel-counts.ts';
import { benchLab, timedStart } from './harness/node-run.ts';
import { cpuMs } from './harness/process.ts';
import { inTurns, median } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';
import type { OwnQuantity } from './run/recorder.ts';

const OTHERS = [0, 1000];

interface Case {
  readonly name: string;
  readonly lab: Lab;
  readonly others: number;
  readonly afterReboot: boolean;
  readonly readyMs: number[];
}

const READY: OwnQuantity = { id: 'ready', title: 'from its start to ready', unit: 's' };
const UNDISTURBED: OwnQuantity = {
  id: 'undisturbed',
  title: 'the same, less the time in which others had the processor',
  unit: 's',
};
const CPU: OwnQuantity = { id: 'cpu', title: 'processor time of the daemon until then', unit: 's' };
const NODE_ALONE = 'Node, with nothing to do';

const bench: Bench = {
  name: 'start',
  about: [
    'How long a daemon takes from its start until pods can be attached (subnet.env is written), when the node holds a lease already: with its data path still standing, as in an upgrade, and with everything to be made, as after a reboot.',
  ],
  rounds: 10,
  quickRounds: 3,
  programs: ['etcd', 'etcdctl'],
  async run(io) {
    const labs: Lab[] = [];
    try {
      const cases: Case[] = [];
      for (const store of ['embedded', 'etcd'] as const) {
        for (const others of OTHERS) {
          const lab = await prepared(store, others, io);
          labs.push(lab);
          for (const afterReboot of [false, true]) {
            const how = afterReboot ? 'after a reboot' : 'data path standing';
            cases.push({ name: `${store}, ${others} others, ${how}`, lab, others, afterReboot, readyMs: [] });
          }
        }
      }
      return await measure(cases, io);
    } finally {
      for (const lab of labs) await lab.close();
    }
  },
};

/** A node that has had a lease, and is down. */
async function prepared(store: LabStoreKind, others: number, { signal }: BenchIo): Promise<Lab> {
  const lab = await benchLab(store, 1, signal);
  try {
    await using writer = await StoreWriter.start(lab);
    if (others > 0) await writer.write({ verb: 'fill', count: others });
    await timedStart(lab.node(1), signal);
    await lab.node(1).daemon?.terminate();
    return lab;
  } catch (error) {
    await lab.close();
    throw error;
  }
}

async function measure(cases: readonly Case[], io: BenchIo): Promise<Outcome> {
  for (let round = 0; round < io.rounds; round++) {
    for (const { name, lab, others, afterReboot, readyMs } of inTurns(cases, round)) {
      io.signal.throwIfAborted();
      const node = lab.node(1);
      if (afterReboot) await takeDown(node);
      const { spawnToReadyMs, waitedMs } = await timedStart(node, io.signal);
      const { user, system } = cpuMs(node.daemon?.pid ?? 0);
      readyMs.push(spawnToReadyMs);
      io.recorder.record(name, READY, { round }, spawnToReadyMs / 1000);
      io.recorder.record(name, UNDISTURBED, { round }, (spawnToReadyMs - waitedMs) / 1000);
      io.recorder.record(name, CPU, { round }, (user + system) / 1000);
      requireEntries(node.namespace, others);
      await node.daemon?.terminate();
      io.progress(
        `round ${round + 1} of ${io.rounds}, ${name}: ${spawnToReadyMs.toFixed()} ms, others had the processor for ${waitedMs.toFixed()} ms`,
      );
    }
    io.recorder.record(NODE_ALONE, READY, { round }, (await nodeInside(cases[0]?.lab)) / 1000);
  }
  const aims = cases.map(({ name, readyMs }) => ({
    what: `start with an existing lease to ready, ms (${name})`,
    atMost: 500,
    measured: median(readyMs),
  }));
  return { aims };
}

/** Node with nothing to do, in a namespace, as the daemons are started. */
async function nodeInside(lab: Lab | undefined): Promise<number> {
  const begin = performance.now();
  await lab?.node(1).exec([process.execPath, '-e', '0']);
  return performance.now() - begin;
}

/** What a reboot takes: every device and rule. The state directory stays; the store plays no part. */
async function takeDown(node: LabNode): Promise<void> {
  await node.vtepd([
    'cleanup',
    '--state-dir',
    node.stateDir,
    '--run-dir',
    node.runDir,
    '--store',
    'embedded',
  ]);
}

await runBench(bench);
