/**
 * Restart loss: packets of running flows that are lost while a node's daemon is restarted, in an upgrade
 * (SIGTERM) and in a crash (SIGKILL), beside the same time without a restart.
 *
 *   node 1, its daemon restarted    pod ---- ping, 100 a second ----> pod    node 2
 *                                   pod <--- TCP, a line every 5 ms -- pod
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { LabNode } from '../overlay/lab/lab-node.ts';
import { RunningPing } from '../overlay/lab/ping.ts';
import type { Pod } from '../overlay/lab/pod.ts';
import { RunningStream } from '../overlay/lab/tcp.ts';
import { type Aim, type Bench, type BenchIo, runBench } from './harness/bench.ts';
import { benchLab, timedStart } from './harness/node-run.ts';
import { inTurns, type Spread, spread } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';

const PING_INTERVAL_MS = 10;
const LINE_INTERVAL_MS = 5;
/** Other leases: a restart has to find them all standing. */
const OTHERS = 1000;
const UNDISTURBED_MS = 1000;
/** Answers before the restart and after it. */
const ANSWERS = 30;

type Way = 'undisturbed' | 'SIGTERM' | 'SIGKILL';
const WAYS: readonly Way[] = ['undisturbed', 'SIGTERM', 'SIGKILL'];

interface Losses {
  readonly sent: number[];
  readonly lost: number[];
  /** TCP: the longest time without a line at the receiver, and whether all of it arrived. */
  readonly longestGapMs: number[];
  broken: number;
}

interface RestartFigures {
  readonly pingsSent: number;
  readonly pingsLost: number;
  readonly pingsLostARound: Spread;
  readonly tcpLongestGapMs: Spread;
  readonly tcpConnectionsBroken: number;
}

const bench: Bench = {
  name: 'restart',
  about: [
    'What running flows between pods of two nodes lose while the daemon of one is ended by SIGTERM or SIGKILL and started again: echo requests, 100 a second, and a TCP connection with a line every 5 ms.',
    'The same time without a restart is measured in turns with them: what is lost there, the machine lost.',
  ],
  rounds: 10,
  quickRounds: 2,
  programs: ['busybox'],
  async run(io) {
    await using lab = await benchLab('embedded', 2, io.signal);
    await using writer = await StoreWriter.start(lab);
    await writer.write({ verb: 'fill', count: OTHERS });
    await Promise.all(lab.nodes.map((node) => timedStart(node, io.signal)));
    await Promise.all(lab.nodes.map((node) => node.untilProgrammed(OTHERS + 1, io.signal)));
    await Promise.all(lab.nodes.map((node) => node.untilReady(io.signal)));
    const [near, far] = [await lab.node(1).attachPod(), await lab.node(2).attachPod()];
    const losses = new Map<Way, Losses>();
    for (let round = 0; round < io.rounds; round++) {
      for (const way of inTurns(WAYS, round)) {
        io.signal.throwIfAborted();
        const of = losses.get(way) ?? { sent: [], lost: [], longestGapMs: [], broken: 0 };
        losses.set(way, of);
        await measure(lab.node(1), near, far, way, of, io);
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${way}: ${of.lost.at(-1)} of ${of.sent.at(-1)} lost, TCP gap ${of.longestGapMs.at(-1)?.toFixed()} ms`,
        );
      }
    }
    return outcome(losses);
  },
};

async function measure(
  node: LabNode,
  near: Pod,
  far: Pod,
  way: Way,
  losses: Losses,
  io: BenchIo,
): Promise<void> {
  const ping = await RunningPing.start(near.namespace, far.address, PING_INTERVAL_MS);
  try {
    const route = { from: far.namespace, to: near.namespace, address: near.address };
    const stream = await RunningStream.start(route, LINE_INTERVAL_MS);
    try {
      await ping.untilAnswered(ANSWERS);
      await disturb(node, way, io.signal);
      await ping.untilAnswered(ping.answered + ANSWERS);
    } finally {
      const { sink, whole } = await stream.stop();
      losses.longestGapMs.push(sink.longestGapMs);
      if (!whole) losses.broken++;
    }
  } finally {
    const { sent, lost } = await ping.stop();
    losses.sent.push(sent);
    losses.lost.push(lost);
  }
}

async function disturb(node: LabNode, way: Way, signal: AbortSignal): Promise<void> {
  if (way === 'undisturbed') return delay(UNDISTURBED_MS, undefined, { signal });
  if (way === 'SIGTERM') await node.daemon?.terminate();
  else await node.daemon?.kill();
  await timedStart(node, signal);
  await node.untilProgrammed(OTHERS + 1, signal);
}

function outcome(losses: ReadonlyMap<Way, Losses>) {
  const figures: Record<string, RestartFigures> = {};
  const aims: Aim[] = [];
  for (const [way, { sent, lost, longestGapMs, broken }] of losses) {
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    figures[way] = {
      pingsSent: sum(sent),
      pingsLost: sum(lost),
      pingsLostARound: spread(lost),
      tcpLongestGapMs: spread(longestGapMs),
      tcpConnectionsBroken: broken,
    };
    if (way === 'undisturbed') continue;
    aims.push({ what: `packets lost in all restarts (${way})`, atMost: 0, measured: sum(lost) });
    aims.push({ what: `TCP connections broken in all restarts (${way})`, atMost: 0, measured: broken });
  }
  return { figures, aims };
}

await runBench(bench);
