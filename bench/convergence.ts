/**
 * Convergence: so many leases are in the store when the daemon starts; until all are in the kernel.
 *
 * In turns, each in a cluster of its own that is made anew every round, in each of the families:
 *   embedded, etcd        the real daemon on a real store, from outside
 *   reconciler            the reconciler alone, the leases in memory
 *   reconcilerGateways    the same with a gateway in each route instead of nexthop objects; first family only
 *   batch                 `ip -batch` and `bridge -batch` of the same objects
 */

import { join } from 'node:path';
import type { LabFamilies } from '../overlay/lab/lab-network.ts';
import type { LabStoreKind } from '../overlay/lab/lab-store.ts';
import { type BatchTimes, programByBatch } from './harness/batch.ts';
import { type Aim, type Bench, type BenchIo, numberOf, type Outcome, runBench } from './harness/bench.ts';
import { aimsAgainstIpv4, type ByFamilies, FAMILIES_FLAG, familiesGiven } from './harness/families.ts';
import { requireEntries } from './harness/kernel-counts.ts';
import { benchLab, type TimedStart, timedStart } from './harness/node-run.ts';
import { MAX_PEERS } from './harness/peers.ts';
import type { ReconcilerRun } from './harness/reconciler-program.ts';
import { inTurns, median } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';
import type { OwnQuantity } from './run/recorder.ts';

const PROGRAM = join(import.meta.dirname, 'harness', 'reconciler-program.js');
const PROGRAM_TIMEOUT_MS = 180_000;
/** Quadratic: with more it would only be waited for. */
const MOST_GATEWAY_ROUNDS_AT_50K = 1;

const BATCH = 'ip -batch and bridge -batch';

const bench: Bench = {
  name: 'convergence',
  about: [
    'How long it takes from leases in the store to all of their entries in the kernel, at the start of a daemon, for 1,000, 10,000 and 50,000 leases; beside `ip -batch` and `bridge -batch` of the same objects, and beside routes that name their gateway instead of a nexthop object.',
    'The daemon is timed from outside, from the moment it is started and from its log’s line that the store answers, until it writes subnet.env; then the kernel’s tables are counted.',
  ],
  rounds: 5,
  quickRounds: 1,
  flags: [
    { name: 'peers', placeholder: 'N', help: 'This many leases only.', defaultText: '1000, 10000 and 50000' },
    FAMILIES_FLAG,
  ],
  programs: ['bridge', 'nft', 'etcd', 'etcdctl'],
  baseline: `${BATCH}, ipv4`,
  async run(io) {
    const only = numberOf(io.given, 'peers');
    const sizes = only === undefined ? (io.quick ? [1000, 10_000] : [1000, 10_000, 50_000]) : [only];
    const families = familiesGiven(io.given);
    const aims: Aim[] = [];
    const daemons: Sizes = new Map();
    for (const size of sizes) {
      const rounds = await measureSize(Math.min(size, MAX_PEERS), families, io);
      daemons.set(size, rounds);
      for (const [name, of] of COMPARED) {
        aims.push(...aimsAgainstIpv4(`${size} leases at start (${name})`, map(rounds, of)));
      }
    }
    return { aims: [...aimsOf(daemons), ...aims] } satisfies Outcome;
  },
};

/** What the families are compared by; of daemons without the time that other programs had the processor. */
const COMPARED: readonly (readonly [string, (rounds: Rounds) => readonly number[]])[] = [
  ['embedded, from its start', ({ embedded }) => embedded.map(undisturbedMs)],
  ['etcd, from its start', ({ etcd }) => etcd.map(undisturbedMs)],
  ['reconciler alone', ({ reconciler }) => reconciler.map(({ convergeMs }) => convergeMs)],
  ['reconciler alone, CPU', ({ reconciler }) => reconciler.map(({ cpuMs }) => cpuMs.user + cpuMs.system)],
  ['batch', ({ batch }) => batch.map(({ totalMs }) => totalMs)],
];

const map = <T, U>(each: ByFamilies<T>, of: (one: T) => U): ByFamilies<U> =>
  new Map(Array.from(each, ([families, one]) => [families, of(one)]));

/** By the number of leases. */
type Sizes = Map<number, ByFamilies<Rounds>>;

const LEASES = { title: 'leases', unit: 'count' } as const;
const PROGRAMMED: OwnQuantity = {
  id: 'programmed',
  title: 'until all entries are in the kernel',
  unit: 's',
  axis: LEASES,
};
const FROM_STORE: OwnQuantity = {
  id: 'from-store',
  title: 'from the store’s answer to ready',
  unit: 's',
  axis: LEASES,
};
const UNDISTURBED: OwnQuantity = {
  id: 'undisturbed',
  title: 'from its start to ready, less the time in which others had the processor',
  unit: 's',
  axis: LEASES,
};
const USER: OwnQuantity = { id: 'user', title: 'processor time in the program', unit: 's', axis: LEASES };
const SYSTEM: OwnQuantity = { id: 'system', title: 'processor time in the kernel', unit: 's', axis: LEASES };
const NFT: OwnQuantity = {
  id: 'nft',
  title: 'the peer filter’s set, by nft (in the reconciler’s time, not in the batch’s)',
  unit: 's',
  axis: LEASES,
};

interface Rounds {
  readonly embedded: TimedStart[];
  readonly etcd: TimedStart[];
  readonly reconciler: ReconcilerRun[];
  readonly reconcilerGateways: ReconcilerRun[];
  readonly batch: BatchTimes[];
}

async function measureSize(
  size: number,
  families: readonly LabFamilies[],
  io: BenchIo,
): Promise<ByFamilies<Rounds>> {
  const done = new Map<LabFamilies, Rounds>();
  const contestants: { readonly name: string; readonly measure: Measure; rare: boolean }[] = [];
  for (const [index, of] of families.entries()) {
    const all: Rounds = { embedded: [], etcd: [], reconciler: [], reconcilerGateways: [], batch: [] };
    done.set(of, all);
    const contestant = (kind: keyof Rounds, measure: (record: Note) => Promise<string>): void => {
      const name = `${TITLES[kind]}, ${of}`;
      const recorded: Measure = (round) =>
        measure((quantity, ms) => io.recorder.record(name, quantity, { round, at: size }, ms / 1000));
      contestants.push({ name, measure: recorded, rare: kind === 'reconcilerGateways' });
    };
    for (const store of ['embedded', 'etcd'] as const) {
      contestant(store, async (record) => daemonLine(all[store], await startOn(store, size, of, io), record));
    }
    contestant('reconciler', async (record) =>
      reconcilerLine(all.reconciler, await reconcilerAlone(size, true, of, io), record),
    );
    contestant('batch', async (record) => batchLine(all.batch, await batchAlone(size, of, io), record));
    if (index > 0) continue;
    contestant('reconcilerGateways', async (record) =>
      reconcilerLine(all.reconcilerGateways, await reconcilerAlone(size, false, of, io), record),
    );
  }
  for (let round = 0; round < io.rounds; round++) {
    for (const { name, measure, rare } of inTurns(contestants, round)) {
      if (rare && size > 20_000 && round >= MOST_GATEWAY_ROUNDS_AT_50K) continue;
      io.signal.throwIfAborted();
      io.progress(`${size} leases, round ${round + 1} of ${io.rounds}, ${name}: ${await measure(round)}`);
    }
  }
  return done;
}

/** Of a quantity in seconds, the milliseconds. */
type Note = (quantity: OwnQuantity, ms: number) => void;
/** What it found, for whoever watches. */
type Measure = (round: number) => Promise<string>;

const TITLES: Readonly<{ [kind in keyof Rounds]: string }> = {
  embedded: 'daemon, embedded store',
  etcd: 'daemon, etcd',
  reconciler: 'reconciler alone',
  reconcilerGateways: 'reconciler, gateways for nexthops',
  batch: BATCH,
};

async function startOn(
  store: LabStoreKind,
  size: number,
  families: LabFamilies,
  { signal }: BenchIo,
): Promise<TimedStart> {
  await using lab = await benchLab(store, 1, signal, families);
  const node = lab.node(1);
  await using writer = await StoreWriter.start(lab, families);
  await writer.write({ verb: 'fill', count: size });
  const start = await timedStart(node, signal);
  requireEntries(node.namespace, size, { families });
  return start;
}

async function reconcilerAlone(
  size: number,
  withNexthops: boolean,
  families: LabFamilies,
  { signal }: BenchIo,
): Promise<ReconcilerRun> {
  await using lab = await benchLab('embedded', 1, signal, families);
  const node = lab.node(1);
  const command = [process.execPath, PROGRAM, `${size}`, withNexthops ? 'nexthops' : 'gateways', families];
  const { stdout } = await node.exec(command, { signal, timeoutMs: PROGRAM_TIMEOUT_MS });
  requireEntries(node.namespace, size, { families, nexthops: withNexthops ? size : 0 });
  return JSON.parse(stdout) as ReconcilerRun;
}

async function batchAlone(size: number, families: LabFamilies, { signal }: BenchIo): Promise<BatchTimes> {
  await using lab = await benchLab('embedded', 1, signal, families);
  const node = lab.node(1);
  const times = await programByBatch(node.namespace, node.addresses, size, families, true);
  requireEntries(node.namespace, size, { families });
  return times;
}

const undisturbedMs = ({ spawnToReadyMs, waitedMs }: TimedStart): number => spawnToReadyMs - waitedMs;

function daemonLine(all: TimedStart[], one: TimedStart, record: Note): string {
  all.push(one);
  const { spawnToReadyMs, storeToReadyMs, waitedMs } = one;
  record(PROGRAMMED, spawnToReadyMs);
  record(FROM_STORE, storeToReadyMs);
  record(UNDISTURBED, spawnToReadyMs - waitedMs);
  return `${spawnToReadyMs.toFixed()} ms from its start, ${storeToReadyMs} ms from the store's answer; others had the processor for ${waitedMs.toFixed()} ms`;
}

function reconcilerLine(all: ReconcilerRun[], one: ReconcilerRun, record: Note): string {
  all.push(one);
  record(PROGRAMMED, one.convergeMs);
  record(USER, one.cpuMs.user);
  record(SYSTEM, one.cpuMs.system);
  return `${one.convergeMs.toFixed()} ms`;
}

function batchLine(all: BatchTimes[], one: BatchTimes, record: Note): string {
  all.push(one);
  record(PROGRAMMED, one.totalMs);
  record(NFT, one.nftMs);
  return `${one.totalMs.toFixed()} ms`;
}

function aimsOf(sizes: Sizes): Aim[] {
  const aims: Aim[] = [];
  for (const [families, ten] of sizes.get(10_000) ?? []) {
    const fifty = sizes.get(50_000)?.get(families);
    for (const store of ['embedded', 'etcd'] as const) {
      const measured = median(ten[store].map(({ spawnToReadyMs }) => spawnToReadyMs));
      aims.push({ what: `10,000 leases at start (${families}, ${store}), ms`, atMost: 1000, measured });
      if (fifty === undefined) continue;
      const storeToReady = (rounds: Rounds): number =>
        median(rounds[store].map(({ storeToReadyMs }) => storeToReadyMs));
      const growth = storeToReady(fifty) / storeToReady(ten);
      const what = `50,000 leases against 10,000 (${families}, ${store}), times`;
      aims.push({ what, atMost: 6, measured: growth });
    }
  }
  return aims;
}

await runBench(bench);
