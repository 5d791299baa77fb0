/**
 * A report made from nothing but a seed: for whoever draws or compares reports and has no machine at hand.
 * Its numbers are of the size of real ones, and nothing more.
 */
import { QUANTITIES } from '../run/catalogue.ts';
import { seeded } from '../statistics/random.ts';
import { differencesFrom, distributionOf, summarize } from '../statistics/summarize.ts';
import { type BenchReport, type Contestant, type Overhead, type Result, SCHEMA } from './schema.ts';

export interface SampleOptions {
  readonly seed?: number;
  /** 5 unless told. */
  readonly rounds?: number;
  /** How far a round strays from another, as a share; 0.03 unless told. */
  readonly noise?: number;
  /** Times as slow as the usual sample, all but the underlay: a regression. */
  readonly slower?: number;
  /** As if interrupted: only the first quantities, and two rounds. */
  readonly partial?: boolean;
}

/** How much slower than the bare underlay each is. */
const COSTS: Readonly<Record<string, number>> = {
  underlay: 1,
  vxlan: 1.45,
  userspace: 6.5,
  direct: 1.02,
  bridge: 0.9,
  wireguard: 9,
  tinc: 40,
};

const CONTESTANTS: readonly Contestant[] = [
  {
    id: 'underlay',
    title: 'bare underlay',
    about: 'Node to node over a veth pair and a bridge, no overlay.',
    mtuBytes: 1500,
    offloads: {
      'eth0 in node 1': ['tx-checksumming', 'tcp-segmentation-offload', 'generic-receive-offload'],
    },
  },
  {
    id: 'vxlan',
    title: 'pod to pod, kernel vxlan',
    about: 'Through the bridge, the kernel’s vxlan device and the underlay.',
    mtuBytes: 1450,
    offloads: {
      'eth0 in node 1': ['tx-checksumming', 'tcp-segmentation-offload', 'generic-receive-offload'],
      'vtep.1 in node 1': ['tx-checksumming', 'tcp-segmentation-offload'],
    },
  },
  {
    id: 'userspace',
    title: 'pod to pod, user space',
    about: 'The daemon carries the packets itself: TAP and UDP.',
    mtuBytes: 1450,
  },
  { id: 'direct', title: 'pod to pod, direct routes', about: 'No encapsulation.', mtuBytes: 1450 },
  { id: 'bridge', title: 'pod to pod on one node', about: 'The bridge alone.', mtuBytes: 1450 },
  { id: 'wireguard', title: 'WireGuard (wireguard-go)', about: 'Node to node, encrypted.', mtuBytes: 1420 },
  { id: 'tinc', title: 'tinc, no cipher', about: 'Node to node.', mtuBytes: 1448 },
  {
    id: 'fastd',
    title: 'fastd, null method',
    about: 'Node to node.',
    skipped: 'fastd is not installed: apt-get install fastd',
  },
];

const VXLAN_LAYERS: Overhead['layers'] = [
  { name: 'Ethernet', bytes: 14, role: 'outer' },
  { name: 'IPv4', bytes: 20, role: 'added' },
  { name: 'UDP', bytes: 8, role: 'added' },
  { name: 'VXLAN', bytes: 8, role: 'added' },
  { name: 'Ethernet', bytes: 14, role: 'added' },
  { name: 'IPv4', bytes: 20, role: 'inner' },
  { name: 'TCP', bytes: 32, role: 'inner' },
  { name: 'payload', bytes: 1398, role: 'inner' },
];

const PLAIN_LAYERS: Overhead['layers'] = [
  { name: 'Ethernet', bytes: 14, role: 'outer' },
  { name: 'IPv4', bytes: 20, role: 'inner' },
  { name: 'TCP', bytes: 32, role: 'inner' },
  { name: 'payload', bytes: 1448, role: 'inner' },
];

export function sampleReport(options: SampleOptions = {}): BenchReport {
  const { seed = 7, rounds = 5, noise = 0.03, slower = 1, partial = false } = options;
  const random = seeded(seed);
  const measured = CONTESTANTS.filter(({ skipped }) => skipped === undefined);
  const quantities = partial ? QUANTITIES.slice(0, 2) : QUANTITIES;
  const results: Result[] = [];
  for (const quantity of quantities) {
    for (const contestant of measured) {
      const usual = usualValue(quantity.id, contestant.id, contestant.id === 'underlay' ? 1 : slower);
      if (usual === undefined) continue;
      for (const direction of DIRECTIONS[quantity.group] ?? ['forward']) {
        for (const at of placesOf(quantity.id)) {
          const values = Array.from({ length: partial ? 2 : rounds }, (_, round) => {
            const stray = 1 + noise * (random() * 2 - 1) + (round === 3 && random() < 0.1 ? 8 * noise : 0);
            const value = usual(at ?? 0) * stray;
            return quantity.unit === '%' ? Math.min(100, value) : value;
          });
          // Only what is sampled draws them: thousands for each of hundreds of results take their time.
          const distribution = /\.p50$/.test(quantity.id)
            ? distributionOf(
                Float64Array.from({ length: 4000 }, () => usual(0) * (0.85 + random() ** 8)).sort(),
              )
            : undefined;
          results.push(
            summarize(
              { contestant: contestant.id, quantity: quantity.id, direction, at },
              values,
              distribution,
            ),
          );
        }
      }
    }
  }
  return {
    schema: SCHEMA,
    bench: 'encapsulation',
    title: 'What does encapsulation cost, here?',
    vtepd: '0.1.0',
    startedAt: '2026-11-21T11:40:00.000Z',
    durationS: 412.7,
    complete: !partial,
    quick: false,
    plannedRounds: rounds,
    seed,
    method: [
      'A warm-up of every path first, not counted.',
      `${rounds} rounds; in each, every path has its turn at every measurement, in an order that changes.`,
    ],
    machine: {
      cpu: 'AMD EPYC',
      cores: 2,
      memoryMiB: 24_000,
      system: 'Debian GNU/Linux 12 (bookworm)',
      kernel: '6.18.44',
      node: 'v22.12.0',
      governor: null,
      load: 0.42,
      stealPercent: 0.3,
      backgroundPercent: 4.2,
      tcpCongestionControl: 'cubic',
      programs: { iperf3: '3.12', sockperf: '3.7', vtepd: '0.1.0' },
    },
    baseline: 'underlay',
    contestants: [...CONTESTANTS],
    quantities: [...quantities],
    results,
    differences: differencesFrom('underlay', results, quantities, CONTESTANTS),
    overheads: [
      {
        contestant: 'underlay',
        layers: PLAIN_LAYERS,
        computedBytes: 0,
        innerMtuBytes: 1500,
        efficiency: 1448 / 1538,
      },
      {
        contestant: 'vxlan',
        layers: VXLAN_LAYERS,
        computedBytes: 50,
        innerMtuBytes: 1450,
        efficiency: 1398 / 1538,
        captured: { innerBytes: 84, frameBytes: 148, overheadBytes: 50, agrees: true, hex: '0a'.repeat(64) },
      },
    ],
    aims: [],
    problems: ['others’ programs used 4.2 % of the machine between measurements'],
    commands: [
      {
        what: 'vxlan: tcp-1.throughput',
        argv: 'ip netns exec vt3f9a2c-n1p1 iperf3 -c 10.244.2.2 -J -n 1200M'.split(' '),
        times: 5,
      },
    ],
  };
}

const DIRECTIONS: Readonly<Record<string, readonly ('forward' | 'reverse')[] | undefined>> = {
  throughput: ['forward', 'reverse'],
  udp: ['forward', 'reverse'],
  latency: ['forward', 'reverse'],
};

const SIZES = [64, 256, 512, 1024, 1400];

function placesOf(quantity: string): readonly (number | undefined)[] {
  if (quantity.startsWith('udp.')) return [100e6, 500e6, 1e9];
  if (quantity.startsWith('size.')) return SIZES;
  if (quantity.startsWith('mtu.')) return [1280, 1500, 9000];
  return [undefined];
}

/** A value at a place of the axis; undefined where the contestant has none. */
function usualValue(
  quantity: string,
  contestant: string,
  slower: number,
): ((at: number) => number) | undefined {
  const cost = (COSTS[contestant] ?? 1) * slower;
  const [name = '', what = '', part] = quantity.split('.');
  if (what === 'cpu') {
    const inPrograms = cost > 4 ? 0.5 : 0.05;
    const shares: Record<string, number> = { user: inPrograms, system: 0.3, softirq: 0.7 - inPrograms };
    const share = part === undefined ? 1 : (shares[part] ?? 0);
    if (name === 'size') return (size) => share * cost * (3e-6 + size * 2e-10);
    if (name === 'mtu') return (mtu) => (share * cost * 0.05 * 1500) / mtu;
    return () => share * cost * 0.045;
  }
  switch (quantity) {
    case 'tcp-1.throughput':
      return () => 28e9 / cost;
    case 'tcp-8.throughput':
      return () => 31e9 / cost;
    case 'udp.throughput':
      return (rate) => Math.min(rate, 4e9 / cost);
    case 'udp.loss':
      return (rate) => Math.max(0, 100 * (1 - 4e9 / cost / rate));
    case 'latency.p50':
    case 'loaded.p50':
      return () => 18e-6 * (1 + cost / 4);
    case 'latency.p99':
    case 'loaded.p99':
      return () => 31e-6 * (1 + cost / 4);
    case 'latency.p999':
    case 'loaded.p999':
      return () => 95e-6 * (1 + cost / 4);
    case 'connections.rate':
      return () => 21_000 / (1 + cost / 5);
    case 'size.packets':
      return (size) => 480_000 / cost / (1 + size / 4000);
    case 'size.throughput':
      return (size) => (8 * size * 480_000) / cost / (1 + size / 4000);
    case 'mtu.throughput':
      return (mtu) => (28e9 / cost) * Math.min(2, (mtu / 1500) ** 0.5);
    case 'memory.resident':
      return { vxlan: () => 68, userspace: () => 81, tinc: () => 6, wireguard: () => 14 }[contestant];
    default:
      return undefined;
  }
}
