/**
 * iperf3: TCP and UDP throughput. It counts time in whole seconds, so a run is bounded by its volume instead:
 * as much as takes the wanted time at the speed that was seen before. A server of its own for every run.
 */
import { z } from 'zod';
import { CommandError } from '../../overlay/lab/command.ts';
import { type CpuTimes, cpuBetween, cpuSum } from './cpu.ts';
import { EngineError, type FarEnd, type NearEnd, type Server, type ServerProgram } from './end.ts';

export interface Transfer {
  readonly from: NearEnd;
  readonly to: FarEnd;
  /** `reverse`: the far end sends. */
  readonly direction: 'forward' | 'reverse';
  readonly streams: number;
  /** TCP without it. */
  readonly udp?: {
    readonly payloadBytes: number /** 0: as fast as it goes. */;
    readonly bitsPerSecond: number;
  };
  readonly volumeBytes: number;
  readonly port: number;
  /** For messages and the log of commands. */
  readonly what: string;
  readonly signal: AbortSignal;
}

export interface TransferReport {
  /** Payload that arrived. */
  readonly bitsPerSecond: number;
  readonly receivedBytes: number;
  readonly seconds: number;
  /** UDP: datagrams that arrived and were sent. */
  readonly packets?: { readonly received: number; readonly sent: number } | undefined;
  /** Of all machines that took part, from before the client's start to its end. */
  readonly cpu: CpuTimes;
}

export const iperf3Server = (port: number): ServerProgram => ({
  name: 'iperf3',
  port,
  argv: ['iperf3', '-s', '-1', '--forceflush', '-p', `${port}`],
  ready: /Server listening/,
});

/** A transfer that is this much slower than expected is given up. */
const GIVE_UP_MS = 20_000;

const sum = z.object({ bytes: z.number(), seconds: z.number(), bits_per_second: z.number() });
const output = z.object({
  error: z.string().optional(),
  end: z
    .object({
      sum: z.object({ packets: z.number(), lost_packets: z.number() }).partial().optional(),
      sum_received: sum.optional(),
    })
    .optional(),
});

/** The client's command. */
export function iperf3Client(transfer: Omit<Transfer, 'from' | 'signal'>): string[] {
  const { to, direction, streams, udp, volumeBytes, port } = transfer;
  return [
    ...['iperf3', '-c', to.address, '-p', `${port}`, '-J', '-n', `${Math.max(1, Math.round(volumeBytes))}`],
    ...(streams > 1 ? ['-P', `${streams}`] : []),
    ...(direction === 'reverse' ? ['-R'] : []),
    ...(udp === undefined
      ? []
      : ['-u', '--udp-counters-64bit', '-l', `${udp.payloadBytes}`, '-b', `${udp.bitsPerSecond}`]),
  ];
}

/** @throws EngineError, the signal's reason */
export async function transfer(wanted: Transfer): Promise<TransferReport> {
  const { from, to, what, signal } = wanted;
  let server: Server | undefined;
  try {
    server = await to.serve(iperf3Server(wanted.port), what, signal);
    const before = await cpuOf(from, to);
    const { stdout } = await from.run(iperf3Client(wanted), what, {
      signal,
      timeoutMs: GIVE_UP_MS,
      tolerant: true,
    });
    const after = await cpuOf(from, to);
    return { ...parseIperf3(stdout, what, wanted.udp !== undefined), cpu: cpuBetween(before, after) };
  } catch (error) {
    if (error instanceof CommandError) throw new EngineError(`${what}: ${error.message}`, { cause: error });
    throw error;
  } finally {
    await server?.stop();
  }
}

/** @throws EngineError */
export function parseIperf3(json: string, what: string, udp: boolean): Omit<TransferReport, 'cpu'> {
  let parsed: z.infer<typeof output>;
  try {
    parsed = output.parse(JSON.parse(json));
  } catch (error) {
    const said = json.trim().slice(0, 300) || 'nothing: it was ended';
    throw new EngineError(`${what}: iperf3 printed no report: ${said}`, { cause: error });
  }
  const received = parsed.end?.sum_received;
  if (parsed.error !== undefined) throw new EngineError(`${what}: iperf3: ${parsed.error}`);
  // An end that got nothing has zero seconds.
  if (received === undefined || received.seconds <= 0) throw new EngineError(`${what}: nothing arrived`);
  const { packets = 0, lost_packets: lost = 0 } = parsed.end?.sum ?? {};
  return {
    bitsPerSecond: (received.bytes * 8) / received.seconds,
    receivedBytes: received.bytes,
    seconds: received.seconds,
    packets: udp ? { received: packets - lost, sent: packets } : undefined,
  };
}

async function cpuOf(from: NearEnd, to: FarEnd): Promise<CpuTimes> {
  const near = await from.cpu();
  return 'local' in to ? near : cpuSum(near, await to.cpu());
}
