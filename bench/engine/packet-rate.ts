/**
 * How many small packets a second get through a path: sockperf sends as fast as it can, and what is counted is what came
 * out at the far end, whether or not the program there had time to read it.
 */
import { readFileSync } from 'node:fs';
import { type Child, start, stop } from '../../overlay/lab/command.ts';
import { inside } from '../../overlay/lab/namespace.ts';
import { until } from '../../overlay/lab/wait.ts';
import { EngineError, type LocalEnd } from './end.ts';

export interface PacketRate {
  readonly from: LocalEnd;
  readonly to: LocalEnd;
  /** Of UDP. */
  readonly payloadBytes: number;
  readonly seconds: number;
  readonly port: number;
  readonly what: string;
  readonly signal: AbortSignal;
}

const READY_DEADLINE_MS = 10_000;
/** It sends a little before and after the time that is measured. */
const AROUND_S = 2;
/** What must have arrived before it is measured. */
const UNDER_WAY = 1000;

/** Packets a second. @throws EngineError, CommandError, the signal's reason */
export async function packetRate(wanted: PacketRate): Promise<number> {
  const { from, to, payloadBytes, seconds, port, what, signal } = wanted;
  const children: Child[] = [];
  const startIn = async (end: LocalEnd, argv: readonly string[]): Promise<Child> => {
    const child = await start(...inside(end.namespace ?? '', argv), { stdio: ['ignore', 'pipe', 'ignore'] });
    children.push(child);
    return child;
  };
  try {
    const server = await startIn(to, ['sockperf', 'server', '-i', to.address, '-p', `${port}`]);
    let said = '';
    server.process.stdout?.on('data', (chunk) => {
      said = `${said}${chunk}`.slice(-2000);
    });
    await until(() => said.includes('to block on socket'), {
      ...{ what: `${what}: sockperf’s server`, deadlineMs: READY_DEADLINE_MS, signal },
    });
    const before = arrived(server.pid);
    const client = await startIn(from, [
      ...['sockperf', 'throughput', '-i', to.address, '-p', `${port}`, '-m', `${payloadBytes}`],
      ...['-t', `${Math.ceil(seconds) + AROUND_S}`],
    ]);
    client.process.stdout?.resume();
    await until(() => arrived(server.pid) > before + UNDER_WAY, {
      ...{ what: `${what}: packets`, deadlineMs: READY_DEADLINE_MS, everyMs: 5, signal },
    });
    const [begin, first] = [performance.now(), arrived(server.pid)];
    await until(() => performance.now() - begin >= seconds * 1000, {
      ...{ what: 'the time to pass', deadlineMs: seconds * 1000 + READY_DEADLINE_MS, everyMs: 10, signal },
    });
    const last = arrived(server.pid);
    return ((last - first) / (performance.now() - begin)) * 1000;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new EngineError(`${what}: no packet rate: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  } finally {
    for (const child of children) await stop(child, 'SIGKILL');
  }
}

/** UDP datagrams that reached sockets of a process's network namespace, those included that found no room there. */
function arrived(pid: number): number {
  const [names, values] = readFileSync(`/proc/${pid}/net/snmp`, 'latin1')
    .split('\n')
    .filter((line) => line.startsWith('Udp:'))
    .map((line) => line.split(' '));
  const value = (name: string): number => Number(values?.[names?.indexOf(name) ?? -1] ?? 0);
  return value('InDatagrams') + value('RcvbufErrors');
}
