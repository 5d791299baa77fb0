/**
 * Memory of the daemon, and what it is made of: Node alone, Node with the libraries, the daemon with no
 * peers, with 10,000; on both stores.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, start, stop } from '../overlay/lab/command.ts';
import type { LabStoreKind } from '../overlay/lab/lab-store.ts';
import { type Aim, type Bench, type BenchIo, numberOf, runBench } from './harness/bench.ts';
import { requireEntries } from './harness/kernel-counts.ts';
import { benchLab, timedStart } from './harness/node-run.ts';
import { type Memory, memoryMiB } from './harness/process.ts';
import { inTurns, median, rounded } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';
import type { OwnQuantity } from './run/recorder.ts';

/** V8 gives back what the start took some time after; and one resync, every 30 s, belongs to a daemon's life. */
const STEADY_S = 45;
const QUICK_STEADY_S = 10;
const PEERS = 10_000;

/** What a bare Node with these loaded has. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  node: [],
  'node, koffi': ['koffi'],
  'node, koffi, zod, winston, prom-client': ['koffi', 'zod', 'winston', 'prom-client'],
  'node, lmdb': ['lmdb'],
  'node, etcd3': ['etcd3'],
};

const PARTS: readonly (readonly [keyof Memory, OwnQuantity])[] = [
  ['rss', { id: 'resident', title: 'resident memory at rest', unit: 'MiB' }],
  ['peak', { id: 'peak', title: 'its greatest since the start', unit: 'MiB' }],
  ['anonymous', { id: 'anonymous', title: 'of the resident: heaps and stacks', unit: 'MiB' }],
  ['file', { id: 'file', title: 'of the resident: programs and libraries, shared', unit: 'MiB' }],
];

const bench: Bench = {
  name: 'memory',
  about: [
    'The daemon’s resident memory in MiB with 10,000 peers, once it is at rest and at its peak, beside the same with none, and beside Node with the libraries loaded and nothing else.',
    'Resident is what `ps` and a container’s limit see; of it, file pages are shared by all processes of the same program.',
  ],
  rounds: 3,
  quickRounds: 1,
  flags: [
    { name: 'peers', placeholder: 'N', help: 'The peers of the full daemon.', defaultText: `${PEERS}` },
    {
      name: 'steady-s',
      placeholder: 'N',
      help: 'Seconds between ready and the measurement.',
      defaultText: `${STEADY_S}; ${QUICK_STEADY_S} with --quick`,
    },
  ],
  programs: ['etcd', 'etcdctl'],
  baseline: 'node',
  async run(io) {
    const peers = numberOf(io.given, 'peers') ?? PEERS;
    const steadyMs = 1000 * (numberOf(io.given, 'steady-s') ?? (io.quick ? QUICK_STEADY_S : STEADY_S));
    const found = new Map<string, Memory[]>();
    const contestants = [
      ...Object.entries(LIBRARIES).map(([name, names]) => ({ name, measure: () => libraries(names) })),
      ...(['embedded', 'etcd'] as const).flatMap((store) =>
        [0, peers].map((count) => ({
          name: `daemon, ${store}, ${count} peers`,
          measure: () => daemon(store, count, steadyMs, io),
        })),
      ),
    ];
    for (let round = 0; round < io.rounds; round++) {
      for (const { name, measure } of inTurns(contestants, round)) {
        io.signal.throwIfAborted();
        const memory = await measure();
        found.set(name, [...(found.get(name) ?? []), memory]);
        for (const [part, quantity] of PARTS) io.recorder.record(name, quantity, { round }, memory[part]);
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${name}: ${rounded(memory.rss)} MiB (${rounded(memory.anonymous)} of it anonymous), peak ${rounded(memory.peak)}`,
        );
      }
    }
    const aims: Aim[] = (['embedded', 'etcd'] as const).map((store) => ({
      what: `resident memory, ${peers} peers, MiB (${store})`,
      atMost: 100,
      measured: median((found.get(`daemon, ${store}, ${peers} peers`) ?? []).map(({ rss }) => rss)),
    }));
    return { aims };
  },
};

async function daemon(
  store: LabStoreKind,
  peers: number,
  steadyMs: number,
  { signal }: BenchIo,
): Promise<Memory> {
  await using lab = await benchLab(store, 1, signal);
  const node = lab.node(1);
  await using writer = await StoreWriter.start(lab);
  if (peers > 0) await writer.write({ verb: 'fill', count: peers });
  await timedStart(node, signal);
  requireEntries(node.namespace, peers);
  await delay(steadyMs, undefined, { signal });
  return memoryMiB(node.daemon?.pid ?? 0);
}

/** Node with the libraries, a second later. */
async function libraries(names: readonly string[]): Promise<Memory> {
  const imports = names.map((name) => `await import(${JSON.stringify(import.meta.resolve(name))});`).join('');
  const program = `${imports}setTimeout(()=>process.stdout.write('x'),1000);setInterval(()=>{},1000)`;
  const child: Child = await start(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await new Promise((resolve) => child.process.stdout?.once('data', resolve));
    return memoryMiB(child.pid);
  } finally {
    await stop(child, 'SIGKILL');
  }
}

await runBench(bench);
