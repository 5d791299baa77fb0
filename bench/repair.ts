/**
 * Repair: one object of the daemon's is taken away by hand; until the kernel announces that it is back.
 *
 * Struck and seen by this process, with sockets of its own, one object at a time when the daemon is at rest;
 * all kinds in turns, on a node with 100 peers and on one with 10,000.
 */

import { Nftables } from '../overlay/kernel/nftables.ts';
import { namespacePath } from '../overlay/lab/namespace.ts';
import { until } from '../overlay/lab/wait.ts';
import { type Aim, type Bench, type BenchIo, runBench } from './harness/bench.ts';
import { SINGLE_OBJECTS, type Victim, WHOLE_DEVICES } from './harness/breakages.ts';
import { netlinkInside, requireEntries } from './harness/kernel-counts.ts';
import { AnnouncementsLostError, KernelWatch } from './harness/kernel-watch.ts';
import { monotonicMs } from './harness/machine.ts';
import { benchLab, timedStart } from './harness/node-run.ts';
import { untilIdle } from './harness/process.ts';
import { distribution, inTurns, spread } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';
import type { OwnQuantity } from './run/recorder.ts';

const PEERS = [100, 10_000];
/** Of each round: with 10,000 peers a device takes a second to be filled again. */
const SINGLE_REPEATS = 10;
/** What the daemon still has to say about a device before the next strike. */
const SETTLE_DEADLINE_MS = 30_000;

const bench: Bench = {
  name: 'repair',
  about: [
    'How long an object of the kernel that somebody takes away is missing: a route, a neighbour, an FDB entry, a nexthop object, the bridge’s address and MTU, an element and a table of nftables; and the VXLAN device, set down or deleted, with all of its peers.',
    'Each is taken away by this process, which also hears the kernel’s announcement that it is back.',
  ],
  rounds: 10,
  quickRounds: 2,
  programs: ['nft'],
  async run(io) {
    const aims: Aim[] = [];
    for (const peers of PEERS) {
      for (const [kind, values] of Object.entries(await measure(peers, io))) {
        const what = `one object deleted to back, p99 ms (${kind}, ${peers} peers)`;
        aims.push({ what, atMost: 50, measured: distribution(values).p99 });
      }
    }
    return { aims };
  },
};

type Times = Record<string, number[]>;

/** @returns of single objects, by kind; milliseconds */
async function measure(peers: number, io: BenchIo): Promise<Times> {
  await using lab = await benchLab('embedded', 1, io.signal);
  const node = lab.node(1);
  await using writer = await StoreWriter.start(lab);
  await writer.write({ verb: 'fill', count: peers });
  await timedStart(node, io.signal);
  requireEntries(node.namespace, peers);
  const status = await node.status();
  const pid = node.daemon?.pid ?? 0;
  using netlink = netlinkInside(node.namespace);
  using nftables = Nftables.open({ namespace: namespacePath(node.namespace) });
  await using watch = KernelWatch.open(node.namespace);
  const victim: Victim = { netlink, nftables, status, peers };

  const once = async (kinds: typeof SINGLE_OBJECTS, kind: string, turn: number): Promise<number> => {
    const breakage = kinds[kind]?.(victim, turn);
    if (breakage === undefined) throw new Error(`unreachable: ${kind} is one of the kinds`);
    await untilIdle(pid, io.signal);
    const back = watch.next(`${kind} to be back`, breakage.back);
    const struckMs = monotonicMs();
    const [backMs] = await Promise.all([back, breakage.strike()]);
    return backMs - struckMs;
  };
  const timesOf = (kinds: typeof SINGLE_OBJECTS): Times =>
    Object.fromEntries(Object.keys(kinds).map((kind) => [kind, []]));
  const single = timesOf(SINGLE_OBJECTS);
  const devices = timesOf(WHOLE_DEVICES);
  let turn = 0;
  for (let round = 0; round < io.rounds; round++) {
    for (let repeat = 0; repeat < SINGLE_REPEATS; repeat++) {
      for (const kind of inTurns(Object.keys(single), round + repeat)) {
        io.signal.throwIfAborted();
        single[kind]?.push(await once(SINGLE_OBJECTS, kind, turn++));
      }
    }
    for (const [kind, values] of Object.entries(single)) {
      const ofRound = values.slice(-SINGLE_REPEATS).map((ms) => ms / 1000);
      io.recorder.recordSamples('vtepd', quantityOf(kind), { round, at: peers }, ofRound);
    }
    for (const kind of inTurns(Object.keys(devices), round)) {
      try {
        const backMs = await once(WHOLE_DEVICES, kind, turn++);
        devices[kind]?.push(backMs);
        io.recorder.record('vtepd', quantityOf(kind), { round, at: peers }, backMs / 1000);
      } catch (error) {
        if (!(error instanceof AnnouncementsLostError)) throw error;
        io.progress(`${kind}: ${error.message}; this one does not count`);
      }
      const settled = { what: 'all entries to be back', deadlineMs: SETTLE_DEADLINE_MS, signal: io.signal };
      await until(() => isWhole(node.namespace, peers), settled);
    }
    const medians = Object.entries({ ...single, ...devices }).map(
      ([kind, values]) => `${kind} ${values.length > 0 ? spread(values).median : '-'}`,
    );
    io.progress(`${peers} peers, round ${round + 1} of ${io.rounds}: ${medians.join(', ')} ms`);
  }
  return single;
}

const quantityOf = (kind: string): OwnQuantity => ({
  id: kind,
  title: `${kind}: taken away until it is back`,
  unit: 's',
  axis: { title: 'peers', unit: 'count' },
});

function isWhole(namespace: string, peers: number): boolean {
  try {
    requireEntries(namespace, peers);
    return true;
  } catch {
    return false;
  }
}

await runBench(bench);
