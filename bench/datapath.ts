/**
 * The user-space data path against what else carries packets between two nodes: a bare wire, kernel vxlan, and the
 * classic user-space tunnels, where they are installed, without their ciphers.
 */
import { CommandLog } from './engine/command-log.ts';
import { busy } from './engine/cpu.ts';
import { LocalEnd, type Server } from './engine/end.ts';
import { transfer } from './engine/iperf3.ts';
import { packetRate } from './engine/packet-rate.ts';
import { roundTrips, sockperfServer } from './engine/sockperf.ts';
import { type Aim, type Bench, type BenchIo, runBench } from './harness/bench.ts';
import { inTurns, median } from './harness/statistics.ts';
import type { LabPath } from './paths/data-path.ts';
import { openLonePaths } from './paths/lone-paths.ts';
import { closeAll } from './paths/path-source.ts';
import { openVpnPaths } from './paths/vpn-paths.ts';
import type { OwnQuantity } from './run/recorder.ts';

const UNDERLAY_MTU_BYTES = 1500;
const PORTS = { tcp: 5201, rate: 11_110, latency: 11_111 } as const;
/** With IPv4's and UDP's headers, 64 bytes. */
const SMALL_PAYLOAD_BYTES = 36;
const MESSAGE_BYTES = 64;
/** Of one transfer; the first is smaller, for nothing is known of the path's speed. */
const SECONDS = 1.5;
const FIRST_BYTES = 8e6;

const STREAMS = { title: 'streams', unit: 'count' } as const;
const TCP: OwnQuantity = { id: 'tcp', title: 'TCP', unit: 'bit/s', better: 'more', axis: STREAMS };
const COST: OwnQuantity = {
  ...{ id: 'cpu', title: 'processor time of the whole machine, TCP', unit: 's/Gbit', axis: STREAMS },
};
const RATE: OwnQuantity = { id: 'rate', title: 'packets of 64 bytes', unit: 'packets/s', better: 'more' };
const LATENCY: OwnQuantity = { id: 'latency', title: 'a round trip of 64 bytes', unit: 's' };

const bench: Bench = {
  name: 'datapath',
  about: [
    'What the user-space data path carries between two nodes without daemons and pods, beside a bare wire, kernel vxlan, tinc without cipher and digest, and fastd with the method "null": TCP throughput of one and eight streams with the processor time it takes, packets of 64 bytes a second, and round trips.',
    'All of it, senders and receivers included, shares this machine’s processors.',
  ],
  rounds: 5,
  quickRounds: 2,
  programs: ['iperf3', 'sockperf'],
  baseline: 'vxlan',
  async run(io) {
    const plan = { underlayMtuBytes: UNDERLAY_MTU_BYTES, log: new CommandLog(), signal: io.signal };
    const own = await openLonePaths(plan);
    const opened: { close(): Promise<void> }[] = [own];
    try {
      const vpn = await openVpnPaths(['tinc', 'fastd'], plan);
      opened.push(vpn);
      for (const { title, skipped } of vpn.skipped) io.progress(`${title} is left out: ${skipped}`);
      const paths = [...own.paths, ...vpn.paths.filter(isLocal)];
      for (const { contestant } of paths) io.recorder.describe(contestant.id, contestant.about);
      return { aims: await measure(paths, io) };
    } finally {
      await closeAll(opened.map((each) => ({ paths: [], skipped: [], close: () => each.close() })));
    }
  },
};

const isLocal = (path: { readonly from: unknown; readonly to: unknown }): path is LabPath =>
  path.from instanceof LocalEnd && path.to instanceof LocalEnd;

/** What was measured of a path, a value a round. */
interface Values {
  readonly tcp: number[];
  readonly rate: number[];
  readonly latency: number[];
}

async function measure(paths: readonly LabPath[], io: BenchIo): Promise<Aim[]> {
  const values = new Map<string, Values>(
    paths.map(({ contestant }) => [contestant.id, { tcp: [], rate: [], latency: [] }]),
  );
  const speeds = new Map<string, number>();
  // Once around before anything counts: programs are loaded, code is compiled, tunnels know their path.
  for (const path of paths)
    speeds.set(path.contestant.id, (await tcp(path, 1, FIRST_BYTES, io)).bitsPerSecond);
  for (let round = 0; round < io.rounds; round++) {
    for (const path of inTurns(paths, round)) {
      const { id } = path.contestant;
      const found = values.get(id);
      const said: string[] = [];
      for (const streams of [1, 8]) {
        const volumeBytes = ((speeds.get(id) ?? 0) / 8) * SECONDS;
        const { bitsPerSecond, cpu, receivedBytes } = await tcp(path, streams, volumeBytes, io);
        speeds.set(id, bitsPerSecond);
        io.recorder.record(id, TCP, { round, at: streams }, bitsPerSecond);
        io.recorder.record(id, COST, { round, at: streams }, busy(cpu) / ((receivedBytes * 8) / 1e9));
        if (streams === 1) found?.tcp.push(bitsPerSecond);
        said.push(`${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s of ${streams}`);
      }
      const rate = await packetRate({
        ...{ from: path.from, to: path.to, payloadBytes: SMALL_PAYLOAD_BYTES, seconds: SECONDS },
        ...{ port: PORTS.rate, what: `${id}: packets`, signal: io.signal },
      });
      io.recorder.record(id, RATE, { round }, rate);
      found?.rate.push(rate);
      const samples = await latency(path, io);
      io.recorder.recordSamples(id, LATENCY, { round }, Array.from(samples));
      const middle = samples[samples.length >> 1] ?? 0;
      found?.latency.push(middle);
      said.push(`${(rate / 1000).toFixed()} kpps`, `${(middle * 1e6).toFixed(1)} us`);
      io.progress(`round ${round + 1} of ${io.rounds}, ${id}: ${said.join(', ')}`);
    }
  }
  return aimsOf(values);
}

const tcp = ({ from, to, contestant }: LabPath, streams: number, volumeBytes: number, { signal }: BenchIo) =>
  transfer({
    ...{ from, to, direction: 'forward', streams, volumeBytes, port: PORTS.tcp, signal },
    what: `${contestant.id}: TCP`,
  });

async function latency({ from, to, contestant }: LabPath, { signal }: BenchIo): Promise<Float64Array> {
  const what = `${contestant.id}: round trips`;
  let server: Server | undefined;
  try {
    server = await to.serve(sockperfServer(to.address, PORTS.latency), what, signal);
    return await roundTrips({
      ...{ from, address: to.address, port: PORTS.latency, payloadBytes: MESSAGE_BYTES, what, signal },
    });
  } finally {
    await server?.stop();
  }
}

/** As shares, so that less is better: an eighth of ours is what tinc may reach. */
function aimsOf(values: ReadonlyMap<string, Values>): Aim[] {
  const [ours, tinc, vxlan] = ['userspace', 'tinc', 'vxlan'].map((id) => values.get(id));
  const share = (what: string, atMost: number, part?: readonly number[], whole?: readonly number[]): Aim[] =>
    part === undefined || whole === undefined || part.length === 0
      ? []
      : [{ what, atMost, measured: median(part) / median(whole) }];
  return [
    ...share('tinc’s TCP, one stream, as a share of the user-space path’s', 1 / 8, tinc?.tcp, ours?.tcp),
    ...share('tinc’s packets of 64 bytes as a share of the user-space path’s', 1 / 2, tinc?.rate, ours?.rate),
    ...share(
      'the user-space path’s median round trip, in those of kernel vxlan',
      2,
      ours?.latency,
      vxlan?.latency,
    ),
  ];
}

await runBench(bench);
