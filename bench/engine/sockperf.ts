/**
 * sockperf: round trips of small UDP messages, one after the other (`ping-pong`) or at a given rate whatever
 * comes back (`under-load`). Each run takes at least 3.2 seconds, of which it sleeps for two, warms up for
 * 0.4 and measures for 0.55: its runs can be started a second apart, and no two measure at the same time.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandError } from '../../overlay/lab/command.ts';
import { EngineError, type NearEnd, type ServerProgram } from './end.ts';

/**
 * From the start of one run to that of the next. A run measures from 2.4 to 2.95 s after its start; programs
 * start and end at whole seconds, which is in the other runs' warm-up.
 */
export const STAGGER_MS = 1000;
/** All of a run, when the machine is idle. */
export const RUN_MS = 3250;

export interface RoundTrips {
  readonly from: NearEnd;
  readonly address: string;
  readonly port: number;
  readonly payloadBytes: number;
  /** Messages a second; undefined: each when the one before came back. */
  readonly perSecond?: number | undefined;
  readonly what: string;
  readonly signal: AbortSignal;
}

export const sockperfServer = (address: string, port: number): ServerProgram => ({
  name: 'sockperf',
  port,
  argv: ['sockperf', 'server', '-i', address, '-p', `${port}`],
  ready: /to block on socket/,
});

export function sockperfClient(
  wanted: Omit<RoundTrips, 'from' | 'signal' | 'what'>,
  logFile: string,
): string[] {
  const { address, port, payloadBytes, perSecond } = wanted;
  const mode = perSecond === undefined ? 'ping-pong' : 'under-load';
  return [
    ...['sockperf', mode, '-i', address, '-p', `${port}`, '-t', '1', '-m', `${payloadBytes}`, '--full-rtt'],
    ...(perSecond === undefined ? [] : ['--mps', `${perSecond}`, '--reply-every', '1']),
    ...['--full-log', logFile],
  ];
}

const GIVE_UP_MS = 20_000;

/** Seconds of every round trip that was measured, ascending. @throws EngineError, the signal's reason */
export async function roundTrips(wanted: RoundTrips): Promise<Float64Array> {
  const { from, what, signal } = wanted;
  const logFile = join(tmpdir(), `vtepd-bench-${process.pid}-${randomBytes(4).toString('hex')}.csv`);
  try {
    const { stdout, stderr } = await from.run(sockperfClient(wanted, logFile), what, {
      signal,
      timeoutMs: GIVE_UP_MS,
      tolerant: true,
    });
    const samples = parseSockperfLog(await readFile(logFile, 'utf8').catch(() => ''));
    if (samples.length === 0) {
      const said = `${stdout}${stderr}`.trim().split('\n').slice(-2).join(' ');
      throw new EngineError(`${what}: sockperf measured no round trip: ${said}`);
    }
    return samples;
  } catch (error) {
    if (error instanceof CommandError) throw new EngineError(`${what}: ${error.message}`, { cause: error });
    throw error;
  } finally {
    await rm(logFile, { force: true });
  }
}

/** Lines of `number, sent (s), received (s), round trip (us)`, with headings before them; to seconds, ascending. */
export function parseSockperfLog(csv: string): Float64Array {
  const samples: number[] = [];
  for (const line of csv.split('\n')) {
    const fields = line.split(',');
    const micros = Number(fields[3]);
    if (fields.length === 4 && /^\d+$/.test(fields[0]?.trim() ?? '') && micros > 0)
      samples.push(micros / 1e6);
  }
  return Float64Array.from(samples).sort();
}
