/**
 * Convergence: so many leases are in the store when the daemon starts; until all are in the kernel.
 *
 * In turns, each in a cluster of its own that is made anew every round:
 *   embedded, etcd        the real daemon on a real store, from outside
 *   reconciler            the reconciler alone, the leases in memory
 *   reconcilerGateways    the same with a gateway in each route instead of nexthop objects
 *   batch                 `ip -batch` and `bridge -batch` of the same objects
 */

import { join } from 'node:path';
import type { LabStoreKind } from '../overlay/lab/lab-store.ts';
import { type BatchTimes, programByBatch } from './harness/batch.ts';
import { type Aim, type Bench, type BenchIo, numberOf, type Outcome, runBench } from './harness/bench.ts';
import { requireEntries } from './harness/kernel-counts.ts';
import { benchLab, type TimedStart, timedStart } from './harness/node-run.ts';
import { MAX_PEERS } from './harness/peers.ts';
import type { ReconcilerRun } from './harness/reconciler-program.ts';
import { inTurns, median, pairedRatio, type Spread, spread } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';

const PROGRAM = join(import.meta.dirname, 'harness', 'reconciler-program.js');
const PROGRAM_TIMEOUT_MS = 180_000;
/** Quadratic: with more it would only be waited for. */
const MOST_GATEWAY_ROUNDS_AT_50K = 1;

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
  ],
  programs: ['bridge', 'nft', 'etcd', 'etcdctl'],
  async run(io) {
    const only = numberOf(io.given, 'peers');
    const sizes = only === undefined ? (io.quick ? [1000, 10_000] : [1000, 10_000, 50_000]) : [only];
    const figures: Record<string, SizeFigures> = {};
    for (const size of sizes) figures[size] = await measureSize(Math.min(size, MAX_PEERS), io);
    return { figures, aims: aimsOf(figures) } satisfies Outcome;
  },
};

interface SizeFigures {
  readonly embedded: DaemonFigures;
  readonly etcd: DaemonFigures;
  readonly reconcilerMs: Spread;
  readonly reconcilerCpuMs: { readonly user: Spread; readonly system: Spread };
  readonly reconcilerGatewaysMs: Spread;
  readonly batchMs: Spread;
  /** Writing the peer filter's set by nft, which the reconciler's figure includes and the batch's does not. */
  readonly batchNftMs: Spread;
  /** The reconciler alone against the batch, round by round. */
  readonly reconcilerToBatch: Spread;
}

interface DaemonFigures {
  readonly spawnToReadyMs: Spread;
  readonly storeToReadyMs: Spread;
  /** spawnToReadyMs less the time in which other programs had the processor. */
  readonly undisturbedMs: Spread;
}

interface Rounds {
  readonly embedded: TimedStart[];
  readonly etcd: TimedStart[];
  readonly reconciler: ReconcilerRun[];
  readonly reconcilerGateways: ReconcilerRun[];
  readonly batch: BatchTimes[];
}

async function measureSize(size: number, io: BenchIo): Promise<SizeFigures> {
  const done: Rounds = { embedded: [], etcd: [], reconciler: [], reconcilerGateways: [], batch: [] };
  const contestants: Readonly<Record<keyof Rounds, () => Promise<string>>> = {
    embedded: async () => daemonLine(done.embedded, await startOn('embedded', size, io)),
    etcd: async () => daemonLine(done.etcd, await startOn('etcd', size, io)),
    reconciler: async () => line(done.reconciler, await reconcilerAlone(size, true, io), 'convergeMs'),
    reconcilerGateways: async () =>
      line(done.reconcilerGateways, await reconcilerAlone(size, false, io), 'convergeMs'),
    batch: async () => line(done.batch, await batchAlone(size, io), 'totalMs'),
  };
  for (let round = 0; round < io.rounds; round++) {
    for (const name of inTurns(Object.keys(contestants) as (keyof Rounds)[], round)) {
      if (name === 'reconcilerGateways' && size > 20_000 && round >= MOST_GATEWAY_ROUNDS_AT_50K) continue;
      io.signal.throwIfAborted();
      io.progress(
        `${size} leases, round ${round + 1} of ${io.rounds}, ${name}: ${await contestants[name]()}`,
      );
    }
  }
  const reconcilerMs = done.reconciler.map(({ convergeMs }) => convergeMs);
  const batchMs = done.batch.map(({ totalMs }) => totalMs);
  return {
    embedded: daemonFigures(done.embedded),
    etcd: daemonFigures(done.etcd),
    reconcilerMs: spread(reconcilerMs),
    reconcilerCpuMs: {
      user: spread(done.reconciler.map(({ cpuMs }) => cpuMs.user)),
      system: spread(done.reconciler.map(({ cpuMs }) => cpuMs.system)),
    },
    reconcilerGatewaysMs: spread(done.reconcilerGateways.map(({ convergeMs }) => convergeMs)),
    batchMs: spread(batchMs),
    batchNftMs: spread(done.batch.map(({ nftMs }) => nftMs)),
    reconcilerToBatch: pairedRatio(reconcilerMs, batchMs),
  };
}

async function startOn(store: LabStoreKind, size: number, { signal }: BenchIo): Promise<TimedStart> {
  await using lab = await benchLab(store, 1, signal);
  const node = lab.node(1);
  await using writer = await StoreWriter.start(lab);
  await writer.write({ verb: 'fill', count: size });
  const start = await timedStart(node, signal);
  requireEntries(node.namespace, size);
  return start;
}

async function reconcilerAlone(size: number, withNexthops: boolean, io: BenchIo): Promise<ReconcilerRun> {
  await using lab = await benchLab('embedded', 1, io.signal);
  const node = lab.node(1);
  const command = [process.execPath, PROGRAM, `${size}`, withNexthops ? 'nexthops' : 'gateways'];
  const { stdout } = await node.exec(command, { signal: io.signal, timeoutMs: PROGRAM_TIMEOUT_MS });
  requireEntries(node.namespace, size, { nexthops: withNexthops ? size : 0 });
  return JSON.parse(stdout) as ReconcilerRun;
}

async function batchAlone(size: number, { signal }: BenchIo): Promise<BatchTimes> {
  await using lab = await benchLab('embedded', 1, signal);
  const node = lab.node(1);
  const times = await programByBatch(node.namespace, node.address, size, true);
  requireEntries(node.namespace, size);
  return times;
}

function daemonLine(all: TimedStart[], one: TimedStart): string {
  all.push(one);
  const { spawnToReadyMs, storeToReadyMs, waitedMs } = one;
  return `${spawnToReadyMs.toFixed()} ms from its start, ${storeToReadyMs} ms from the store's answer; others had the processor for ${waitedMs.toFixed()} ms`;
}

function line<K extends string, T extends { readonly [key in K]: number }>(all: T[], one: T, key: K): string {
  all.push(one);
  return `${one[key].toFixed()} ms`;
}

const daemonFigures = (starts: readonly TimedStart[]): DaemonFigures => ({
  spawnToReadyMs: spread(starts.map(({ spawnToReadyMs }) => spawnToReadyMs)),
  storeToReadyMs: spread(starts.map(({ storeToReadyMs }) => storeToReadyMs)),
  undisturbedMs: spread(starts.map(({ spawnToReadyMs, waitedMs }) => spawnToReadyMs - waitedMs)),
});

function aimsOf(figures: Readonly<Record<string, SizeFigures>>): Aim[] {
  const [ten, fifty] = [figures[10_000], figures[50_000]];
  const aims: Aim[] = [];
  for (const store of ['embedded', 'etcd'] as const) {
    if (ten === undefined) continue;
    const measured = ten[store].spawnToReadyMs.median;
    aims.push({ what: `10,000 leases at start (${store}), ms`, atMost: 1000, measured });
    if (fifty === undefined) continue;
    const growth = median(fifty[store].storeToReadyMs.values) / median(ten[store].storeToReadyMs.values);
    aims.push({ what: `50,000 leases against 10,000 (${store}), times`, atMost: 6, measured: growth });
  }
  return aims;
}

await runBench(bench);
