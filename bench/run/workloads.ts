/** What is measured of each data path, and with which program. */

import { connectionRate } from '../engine/connections.ts';
import { type CpuCost, type CpuTimes, costPer } from '../engine/cpu.ts';
import type { NearEnd, Server } from '../engine/end.ts';
import { type Transfer, type TransferReport, transfer } from '../engine/iperf3.ts';
import { RUN_MS, roundTrips, STAGGER_MS, sockperfServer } from '../engine/sockperf.ts';
import { memoryMiB } from '../harness/process.ts';
import type { DataPath } from '../paths/data-path.ts';
import type { Direction } from '../report/schema.ts';
import { sortedQuantile } from '../statistics/summarize.ts';
import { CPU_PARTS } from './catalogue.ts';
import type { MeasureContext, Measurement, Reading, Workload } from './measurement.ts';
import type { WorkloadId } from './names.ts';

/** A port for each kind, so that none meets what another left waiting. */
const PORTS = {
  tcp: 5201,
  udp: 5202,
  size: 5203,
  connections: 5204,
  latency: 11_111,
  loaded: 11_112,
} as const;

/** UDP at these rates: what a video call, a backup and a full link send. */
const UDP_RATES = [100e6, 500e6, 1e9];
const UDP_PAYLOAD_BYTES = 1200;
/** Payloads of the size sweep; the largest that fits the path comes after them. */
const SIZES = [64, 256, 512, 1024];
const IP_AND_UDP_BYTES = 28;
/** Messages a second under load. */
const LOAD_PER_SECOND = 10_000;
const MESSAGE_BYTES = 64;

/** Of the warm-up, before anything is known of the speed. */
const FIRST_VOLUME_BYTES = 8e6;
/** The least that is sent: what fills buffers once would say nothing. */
const LEAST_VOLUME_BYTES = 1e6;
const WARM_UP_SHARE = 0.4;

/** Of namespaces, programs and connections; seconds, on an idle machine. */
const IPERF_OVERHEAD_S = 0.15;
const CONNECTIONS_OVERHEAD_S = 0.3;

/** @param both measure both directions */
export function workload(
  id: Exclude<WorkloadId, 'mtu'>,
  paths: readonly DataPath[],
  both: boolean,
): Workload {
  const directions: readonly Direction[] = both ? ['forward', 'reverse'] : ['forward'];
  switch (id) {
    case 'tcp-1':
      return tcp(id, 'TCP, 1 stream', 1, paths, directions);
    case 'tcp-8':
      return tcp(id, 'TCP, 8 streams', 8, paths, directions);
    case 'udp':
      return udp(paths, directions);
    case 'size':
      return size(paths);
    case 'latency':
      return latency(id, 'round trips', undefined, paths, directions);
    case 'loaded':
      return latency(id, 'round trips under load', LOAD_PER_SECOND, paths, directions);
    case 'connections':
      return connections(paths);
  }
}

/** The same paths over underlays of several MTUs. @param paths by the underlay's MTU */
export function mtuWorkload(paths: ReadonlyMap<number, readonly DataPath[]>): Workload {
  const of = [...paths].map(([mtuBytes, all]) => tcp('mtu', 'TCP by MTU', 1, all, ['forward'], mtuBytes));
  return {
    id: 'mtu',
    title: 'TCP by MTU',
    quantities: ['mtu.throughput', 'mtu.cpu'],
    measurements: of.flatMap(({ measurements }) => measurements),
    overheadSeconds: IPERF_OVERHEAD_S,
  };
}

function tcp(
  id: string,
  title: string,
  streams: number,
  paths: readonly DataPath[],
  directions: readonly Direction[],
  at?: number,
): Workload {
  const memory = id === 'tcp-1';
  const measurements = directions.flatMap((direction) =>
    paths.map((path) =>
      transfers(path, { direction, at, streams, port: PORTS.tcp }, id, (report) => ({
        values: {
          [`${id}.throughput`]: report.bitsPerSecond,
          ...costs(`${id}.cpu`, report.cpu, (report.receivedBytes * 8) / 1e9),
          ...(memory && direction === 'forward' && memoryOf(path)),
        },
      })),
    ),
  );
  const quantities = [`${id}.throughput`, `${id}.cpu`, ...(memory ? ['memory.resident'] : [])];
  return { id, title, quantities, measurements, overheadSeconds: IPERF_OVERHEAD_S };
}

function udp(paths: readonly DataPath[], directions: readonly Direction[]): Workload {
  const places = directions.flatMap((direction) =>
    UDP_RATES.map((bitsPerSecond) => ({ direction, bitsPerSecond })),
  );
  const measurements = places.flatMap(({ direction, bitsPerSecond }) =>
    paths.map((path) =>
      transfers(
        path,
        {
          ...{ direction, at: bitsPerSecond, streams: 1, port: PORTS.udp },
          udp: { payloadBytes: UDP_PAYLOAD_BYTES, bitsPerSecond },
        },
        'udp',
        ({ bitsPerSecond: arrived, packets }) => {
          const { received = 0, sent = 0 } = packets ?? {};
          return {
            values: {
              'udp.throughput': arrived,
              ...(sent > 0 && { 'udp.loss': Math.max(0, (100 * (sent - received)) / sent) }),
            },
          };
        },
      ),
    ),
  );
  return {
    id: 'udp',
    title: 'UDP at given rates',
    quantities: ['udp.throughput', 'udp.loss'],
    measurements,
    overheadSeconds: IPERF_OVERHEAD_S,
  };
}

function size(paths: readonly DataPath[]): Workload {
  const one = (path: DataPath, at: number): Measurement =>
    transfers(
      path,
      {
        ...{ direction: 'forward', at, streams: 1, port: PORTS.size },
        udp: { payloadBytes: at, bitsPerSecond: 0 },
      },
      'size',
      ({ bitsPerSecond, packets, cpu, seconds }) => ({
        values: {
          'size.packets': (packets?.received ?? 0) / seconds,
          'size.throughput': bitsPerSecond,
          ...costs('size.cpu', cpu, packets?.received ?? 0),
        },
      }),
    );
  const measurements = [
    ...SIZES.flatMap((at) => paths.map((path) => one(path, at))),
    // The largest differs from path to path; where it is the same, paths are compared at it too.
    ...paths.flatMap((path) => {
      const { mtuBytes } = path.contestant;
      return mtuBytes === undefined ? [] : [one(path, mtuBytes - IP_AND_UDP_BYTES)];
    }),
  ];
  const quantities = ['size.packets', 'size.throughput', 'size.cpu'];
  return { id: 'size', title: 'UDP by size', quantities, measurements, overheadSeconds: IPERF_OVERHEAD_S };
}

type Wanted = Pick<Transfer, 'direction' | 'streams' | 'udp' | 'port'> & { readonly at?: number | undefined };

/** A transfer that adapts its volume to the speed that it last had. */
function transfers(
  path: DataPath,
  { at, ...wanted }: Wanted,
  id: string,
  read: (report: TransferReport) => Reading,
): Measurement {
  let bytesPerSecond = FIRST_VOLUME_BYTES;
  const { from, to, contestant } = path;
  const what = `${contestant.id}: ${id}`;
  // No more than the rate that is asked for; less where the path takes less.
  const rate =
    wanted.udp !== undefined && wanted.udp.bitsPerSecond > 0 ? wanted.udp.bitsPerSecond / 8 : undefined;
  const carry = async (seconds: number, signal: AbortSignal): Promise<TransferReport> => {
    const speed = Math.min(rate ?? Number.POSITIVE_INFINITY, bytesPerSecond);
    const volumeBytes = Math.max(LEAST_VOLUME_BYTES, speed * seconds);
    const report = await transfer({ ...wanted, from, to, volumeBytes, what, signal });
    // What was sent, which is more than what arrived where UDP is lost.
    bytesPerSecond = volumeBytes / report.seconds;
    return report;
  };
  return {
    path,
    direction: wanted.direction,
    at,
    async warmUp({ seconds, signal }) {
      // From a guess to a speed, and from that to the volume that takes the time.
      await carry(wanted.udp === undefined ? 1 : WARM_UP_SHARE, signal);
      await carry(seconds * WARM_UP_SHARE, signal);
    },
    measure: async ({ seconds, signal }) => read(await carry(seconds, signal)),
  };
}

function costs(quantity: string, times: CpuTimes, amount: number): Record<string, number> {
  const cost: CpuCost | undefined = costPer(times, amount);
  if (cost === undefined) return {};
  return {
    [quantity]: cost.total,
    ...Object.fromEntries(CPU_PARTS.map((part) => [`${quantity}.${part}`, cost[part]])),
  };
}

function memoryOf(path: DataPath): Record<string, number> {
  const pids = path.programs();
  if (pids.length === 0) return {};
  return { 'memory.resident': pids.reduce((sum, pid) => sum + memoryMiB(pid).rss, 0) };
}

function latency(
  id: 'latency' | 'loaded',
  title: string,
  perSecond: number | undefined,
  paths: readonly DataPath[],
  directions: readonly Direction[],
): Workload {
  const port = PORTS[id];
  const measurements: Measurement[] = [];
  const servers: { readonly path: DataPath; readonly direction: Direction }[] = [];
  for (const direction of directions) {
    for (const path of paths) {
      const client = direction === 'forward' ? path.from : nearEnd(path);
      if (client === undefined) continue;
      const address = direction === 'forward' ? path.to.address : path.from.address;
      servers.push({ path, direction });
      const what = `${path.contestant.id}: ${id}`;
      const trips = ({ signal }: MeasureContext) =>
        roundTrips({ from: client, address, port, payloadBytes: MESSAGE_BYTES, perSecond, what, signal });
      measurements.push({
        path,
        direction,
        // What runs one after the other warms up by itself: sockperf does so for 0.4 s of each run.
        warmUp: async () => {},
        async measure(context) {
          const samples = await trips(context);
          return {
            values: {
              [`${id}.p50`]: sortedQuantile(samples, 0.5),
              [`${id}.p99`]: sortedQuantile(samples, 0.99),
              [`${id}.p999`]: sortedQuantile(samples, 0.999),
            },
            samples: { quantity: `${id}.p50`, values: samples },
          };
        },
      });
    }
  }
  return {
    id,
    title,
    quantities: [`${id}.p50`, `${id}.p99`, `${id}.p999`],
    measurements,
    staggerMs: STAGGER_MS,
    overheadSeconds: 0,
    fixedSeconds: RUN_MS / 1000,
    async open(signal) {
      const open: Server[] = [];
      const close = async (): Promise<void> => {
        await Promise.all(open.map((server) => server.stop()));
      };
      try {
        const served = new Set<string>();
        for (const { path, direction } of servers) {
          const end = direction === 'forward' ? path.to : path.from;
          // Two paths may share an end; tunnels of one namespace have an address each.
          const place = `${end.id} ${end.address}`;
          if (served.has(place)) continue;
          served.add(place);
          open.push(
            await end.serve(sockperfServer(end.address, port), `${path.contestant.id}: ${id}`, signal),
          );
        }
        return close;
      } catch (error) {
        await close();
        throw error;
      }
    },
  };
}

/** The far end, where it is of this machine. */
const nearEnd = ({ to }: DataPath): NearEnd | undefined => ('local' in to ? (to as NearEnd) : undefined);

function connections(paths: readonly DataPath[]): Workload {
  const measurements = paths.map((path): Measurement => {
    const what = `${path.contestant.id}: connections`;
    const rate = (seconds: number, signal: AbortSignal) =>
      connectionRate({ from: path.from, to: path.to, port: PORTS.connections, seconds, what, signal });
    return {
      path,
      warmUp: async ({ seconds, signal }) => void (await rate(seconds * WARM_UP_SHARE, signal)),
      measure: async ({ seconds, signal }) => ({
        values: { 'connections.rate': await rate(seconds, signal) },
      }),
    };
  });
  return {
    id: 'connections',
    title: 'TCP connections',
    quantities: ['connections.rate'],
    measurements,
    overheadSeconds: CONNECTIONS_OVERHEAD_S,
  };
}
