/**
 * Claims: so many nodes ask for a subnet at the same moment, as after a power cut; until each has its own.
 *
 * All nodes are of one process, which is busy with them too; on both stores, in turns, each in a store that
 * is made anew.
 */
import { join } from 'node:path';
import type { LabStoreKind } from '../overlay/lab/lab-store.ts';
import { runInside } from '../overlay/lab/namespace.ts';
import { type Bench, type BenchIo, numberOf, runBench } from './harness/bench.ts';
import type { ClaimsRun } from './harness/claims-program.ts';
import { benchLab } from './harness/node-run.ts';
import { inTurns } from './harness/statistics.ts';
import type { OwnQuantity } from './run/recorder.ts';

const PROGRAM = join(import.meta.dirname, 'harness', 'claims-program.js');
const PROGRAM_TIMEOUT_MS = 120_000;
const SIZES = [10, 100, 1000];
const QUICK_SIZES = [10, 100];

const CLAIMS = { title: 'claims at once', unit: 'count' } as const;
const ALL: OwnQuantity = { id: 'all', title: 'until every node has its subnet', unit: 's', axis: CLAIMS };
const ONE: OwnQuantity = { id: 'one', title: 'a node’s own claim', unit: 's', axis: CLAIMS };

const bench: Bench = {
  name: 'claims',
  about: [
    'How long 10, 100 and 1,000 nodes take that claim a subnet at the same moment, until each has its own, on the embedded store and on etcd.',
    'Every claim is checked to have a subnet of its own.',
  ],
  rounds: 5,
  quickRounds: 2,
  flags: [
    { name: 'nodes', placeholder: 'N', help: 'This many nodes only.', defaultText: '10, 100 and 1000' },
  ],
  programs: ['etcd', 'etcdctl'],
  async run(io) {
    const only = numberOf(io.given, 'nodes');
    const sizes = only === undefined ? (io.quick ? QUICK_SIZES : SIZES) : [only];
    const cases = sizes.flatMap((count) =>
      (['embedded', 'etcd'] as const).map((store) => ({ count, store })),
    );
    for (let round = 0; round < io.rounds; round++) {
      for (const { count, store } of inTurns(cases, round)) {
        io.signal.throwIfAborted();
        const { totalMs, claimMs } = await claim(store, count, io);
        const place = { round, at: count };
        io.recorder.record(store, ALL, place, totalMs / 1000);
        const seconds = claimMs.map((ms) => ms / 1000);
        io.recorder.recordSamples(store, ONE, place, seconds);
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${store}: ${count} claims in ${totalMs.toFixed()} ms`,
        );
      }
    }
    return { aims: [] };
  },
};

async function claim(store: LabStoreKind, count: number, { signal }: BenchIo): Promise<ClaimsRun> {
  await using lab = await benchLab(store, 1, signal);
  const command = [process.execPath, PROGRAM, `${count}`, ...lab.store.arguments];
  const { stdout } = await runInside(lab.underlay.namespace, command, {
    signal,
    timeoutMs: PROGRAM_TIMEOUT_MS,
  });
  return JSON.parse(stdout) as ClaimsRun;
}

await runBench(bench);
