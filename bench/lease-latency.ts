/**
 * Lease event to kernel: in a running daemon, one node comes or goes; until the kernel announces its route.
 *
 * The write is made by a process of its own, the announcement seen by this one. One change at a time, so no
 * figure holds a wait for the change before. Both stores, and several numbers of other leases, in turns.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { readRoute } from '../overlay/kernel/route.ts';
import { RTM_DELROUTE, RTM_NEWROUTE } from '../overlay/kernel/rtnetlink.ts';
import type { LabNode } from '../overlay/lab/lab-node.ts';
import type { LabStoreKind } from '../overlay/lab/lab-store.ts';
import { type Aim, type Bench, type BenchIo, numberOf, runBench } from './harness/bench.ts';
import { requireEntries } from './harness/kernel-counts.ts';
import { KernelWatch } from './harness/kernel-watch.ts';
import { benchLab, timedStart } from './harness/node-run.ts';
import { numberedPeer } from './harness/peers.ts';
import {
  type Buckets,
  bucketQuantile,
  bucketsSince,
  distribution,
  inTurns,
  readBuckets,
} from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';
import type { OwnQuantity, Place, Recorder } from './run/recorder.ts';

const METRIC = 'vtepd_lease_to_kernel_seconds';
/** Between two changes, so that none comes at a fixed time of the embedded store's polling (10 ms). */
const PAUSES_MS = [1, 8, 4, 11, 6, 2, 9, 5, 12, 3, 10, 7];
const OTHERS = [0, 1000, 10_000];
const CHANGES = 1000;
const QUICK_CHANGES = 200;
/** Not counted: the code is not compiled yet. */
const WARM_UP = 50;
/** Numbers of the peers that come and go: beyond all the others. */
const FIRST_COMING = 50_000;
const DISTINCT_COMING = 500;

interface Samples {
  /** From the write's begin and from its return to the announcement; a negative one overtook the return. */
  readonly fromBegin: number[];
  readonly fromReturn: number[];
  /** The store's own time, of which fromBegin holds a part. */
  readonly write: number[];
  readonly daemon: Map<number, number>;
}

const OTHER_LEASES = { title: 'other leases', unit: 'count' } as const;
const FROM_BEGIN: OwnQuantity = {
  id: 'from-begin',
  title: 'from the write’s begin to the kernel',
  unit: 's',
  axis: OTHER_LEASES,
};
const FROM_RETURN: OwnQuantity = {
  id: 'from-return',
  title: 'from the write’s return to the kernel',
  unit: 's',
  // It may be before the return.
  compareBy: 'difference',
  axis: OTHER_LEASES,
};
const WRITE: OwnQuantity = { id: 'write', title: 'the write', unit: 's', axis: OTHER_LEASES };

const bench: Bench = {
  name: 'lease-latency',
  about: [
    'How long after a change of a lease in the store the kernel holds it, in a running daemon with 0, 1,000 and 10,000 other leases: from the write to the kernel’s announcement of the route as another process sees it, and from the event’s arrival as the daemon measures it.',
    'The embedded store is polled by its reader every 10 ms, which its figures hold; etcd pushes.',
  ],
  rounds: 3,
  quickRounds: 1,
  flags: [
    {
      name: 'changes',
      placeholder: 'N',
      help: 'How many changes a case and round.',
      defaultText: `${CHANGES}; ${QUICK_CHANGES} with --quick`,
    },
  ],
  programs: ['etcd', 'etcdctl', 'busybox'],
  async run(io) {
    const changes = numberOf(io.given, 'changes') ?? (io.quick ? QUICK_CHANGES : CHANGES);
    const cases = (['embedded', 'etcd'] as const).flatMap((store) =>
      OTHERS.map((others) => ({ store, others, samples: noSamples() })),
    );
    for (let round = 0; round < io.rounds; round++) {
      for (const { store, others, samples } of inTurns(cases, round)) {
        await measure(store, others, changes, samples, io);
        recordRound(io.recorder, store, { round, at: others }, samples, changes);
        const { p50, p99 } = distribution(samples.fromBegin);
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${store}, ${others} others: p50 ${p50} ms, p99 ${p99} ms from the write`,
        );
      }
    }
    const aims: Aim[] = [];
    for (const { store, others, samples } of cases) {
      const of = `of a lease event to the kernel, p99 ms (${store}, ${others} others)`;
      aims.push({
        what: `from arrival ${of}`,
        atMost: 5,
        measured: 1000 * bucketQuantile(samples.daemon, 0.99),
      });
      if (store === 'etcd') {
        const measured = distribution(samples.fromReturn).p99;
        aims.push({ what: `from the store ${of}`, atMost: 5, measured });
      }
    }
    return { aims };
  },
};

const noSamples = (): Samples => ({ fromBegin: [], fromReturn: [], write: [], daemon: new Map() });

async function measure(
  store: LabStoreKind,
  others: number,
  changes: number,
  samples: Samples,
  { signal }: BenchIo,
): Promise<void> {
  await using lab = await benchLab(store, 1, signal);
  const node = lab.node(1);
  await using writer = await StoreWriter.start(lab);
  if (others > 0) await writer.write({ verb: 'fill', count: others });
  await timedStart(node, signal);
  requireEntries(node.namespace, others);
  await using watch = KernelWatch.open(node.namespace);
  for (let change = 0; change < WARM_UP; change++) await changeOne(change, writer, watch);
  const before = await leaseBuckets(node);
  for (let change = WARM_UP; change < WARM_UP + changes; change++) {
    await delay(PAUSES_MS[change % PAUSES_MS.length], undefined, { signal });
    const { begunMs, returnedMs, seenMs } = await changeOne(change, writer, watch);
    samples.fromBegin.push(seenMs - begunMs);
    samples.fromReturn.push(seenMs - returnedMs);
    samples.write.push(returnedMs - begunMs);
  }
  for (const [bound, count] of bucketsSince(before, await leaseBuckets(node))) {
    samples.daemon.set(bound, (samples.daemon.get(bound) ?? 0) + count);
  }
}

/** A node comes; with the next change it goes again. */
async function changeOne(change: number, writer: StoreWriter, watch: KernelWatch) {
  const coming = change % 2 === 0;
  const number = FIRST_COMING + ((change >> 1) % DISTINCT_COMING);
  const { address } = numberedPeer(number).subnet;
  const type = coming ? RTM_NEWROUTE : RTM_DELROUTE;
  const seen = watch.next(
    `the route of ${address}`,
    (message) => message.type === type && readRoute(message)?.destination.address === address,
  );
  const [answer, seenMs] = await Promise.all([
    writer.write({ verb: coming ? 'put' : 'delete', number }),
    seen,
  ]);
  return { ...answer, seenMs };
}

async function leaseBuckets(node: LabNode): Promise<Buckets> {
  const { stdout } = await node.exec(['busybox', 'wget', '-qO-', 'http://127.0.0.1:9472/metrics']);
  return readBuckets(stdout, METRIC);
}

/** What the round added. */
function recordRound(
  recorder: Recorder,
  store: LabStoreKind,
  place: Place,
  { fromBegin, fromReturn, write }: Samples,
  changes: number,
): void {
  const ofRound = (values: readonly number[]): number[] => values.slice(-changes).map((ms) => ms / 1000);
  recorder.recordSamples(store, FROM_BEGIN, place, ofRound(fromBegin));
  recorder.recordSamples(store, FROM_RETURN, place, ofRound(fromReturn));
  recorder.recordSamples(store, WRITE, place, ofRound(write));
}

await runBench(bench);
