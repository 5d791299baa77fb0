/**
 * Restart loss: packets of running flows that are lost while a node's daemon is restarted, in an upgrade
 * (SIGTERM) and in a crash (SIGKILL), beside the same time without a restart.
 *
 *   node 1, its daemon restarted    pod ---- ping, 100 a second ----> pod    node 2
 *                                   pod <--- TCP, a line every 5 ms -- pod
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { LabFamilies } from '../overlay/lab/lab-network.ts';
import type { LabNode } from '../overlay/lab/lab-node.ts';
import { RunningPing } from '../overlay/lab/ping.ts';
import type { Pod } from '../overlay/lab/pod.ts';
import { RunningStream } from '../overlay/lab/tcp.ts';
import { type Aim, type Bench, type BenchIo, type Outcome, runBench } from './harness/bench.ts';
import { aimsAgainstIpv4, FAMILIES_FLAG, familiesGiven } from './harness/families.ts';
import { BenchLabs, timedStart } from './harness/node-run.ts';
import { inTurns } from './harness/statistics.ts';
import { StoreWriter } from './harness/store-writer.ts';
import type { OwnQuantity, Recorder } from './run/recorder.ts';

const PING_INTERVAL_MS = 10;
const LINE_INTERVAL_MS = 5;
/** Other leases: a restart has to find them all standing. */
const OTHERS = 1000;
const UNDISTURBED_MS = 1000;
/** A TCP connection a family. */
const FIRST_PORT = 5300;
/** Answers before the restart and after it. */
const ANSWERS = 30;

type Way = 'undisturbed' | 'SIGTERM' | 'SIGKILL';
const WAYS: readonly Way[] = ['undisturbed', 'SIGTERM', 'SIGKILL'];

interface Losses {
  readonly sent: number[];
  readonly lost: number[];
  /** TCP: the longest time without a line at the receiver, and whether all of it arrived. */
  readonly longestGapMs: number[];
  /** From the new daemon's start until it is ready. */
  readonly readyMs: number[];
  broken: number;
}

const LOST: OwnQuantity = { id: 'lost', title: 'echo requests lost', unit: 'count', compareBy: 'difference' };
const GAP: OwnQuantity = { id: 'gap', title: 'TCP, longest time without a line', unit: 's' };
const BROKEN: OwnQuantity = {
  id: 'broken',
  title: 'TCP connections broken',
  unit: 'count',
  compareBy: 'difference',
};
const READY: OwnQuantity = { id: 'ready', title: 'from the new daemon’s start to ready', unit: 's' };

const bench: Bench = {
  name: 'restart',
  about: [
    'What running flows between pods of two nodes lose while the daemon of one is ended by SIGTERM or SIGKILL and started again: echo requests, 100 a second, and a TCP connection with a line every 5 ms.',
    'The same time without a restart is measured in turns with them: what is lost there, the machine lost. Each family in a cluster of its own, all of them running at the same time and measured in turns; in dual stack, flows of both families.',
  ],
  rounds: 10,
  quickRounds: 2,
  flags: [FAMILIES_FLAG],
  programs: ['busybox'],
  baseline: 'ipv4, undisturbed',
  async run(io) {
    await using labs = new BenchLabs();
    const all: RestartCluster[] = [];
    for (const families of familiesGiven(io.given)) all.push(await startCluster(families, labs, io));
    const cases = all.flatMap((cluster) =>
      WAYS.map((way) => {
        const losses: Losses = { sent: [], lost: [], longestGapMs: [], readyMs: [], broken: 0 };
        return { cluster, way, losses };
      }),
    );
    for (let round = 0; round < io.rounds; round++) {
      for (const { cluster, way, losses } of inTurns(cases, round)) {
        io.signal.throwIfAborted();
        const broken = losses.broken;
        await measure(cluster, way, losses, io);
        recordRound(io.recorder, `${cluster.families}, ${way}`, round, losses, losses.broken - broken);
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${cluster.families}, ${way}: ${losses.lost.at(-1)} of ${losses.sent.at(-1)} lost, TCP gap ${losses.longestGapMs.at(-1)?.toFixed()} ms`,
        );
      }
    }
    return outcome(cases.map(({ cluster: { families }, way, losses }) => ({ families, way, losses })));
  },
};

interface RestartCluster {
  readonly families: LabFamilies;
  readonly node: LabNode;
  readonly near: Pod;
  readonly far: Pod;
}

async function startCluster(
  families: LabFamilies,
  labs: BenchLabs,
  { signal, progress }: BenchIo,
): Promise<RestartCluster> {
  const lab = await labs.add('embedded', 2, signal, families);
  await using writer = await StoreWriter.start(lab, families);
  await writer.write({ verb: 'fill', count: OTHERS });
  await Promise.all(lab.nodes.map((node) => timedStart(node, signal)));
  await Promise.all(lab.nodes.map((node) => node.untilProgrammed(OTHERS + 1, signal)));
  await Promise.all(lab.nodes.map((node) => node.untilReady(signal)));
  progress(`${families}: two nodes and ${OTHERS} others are up`);
  const [near, far] = [await lab.node(1).attachPod(), await lab.node(2).attachPod()];
  return { families, node: lab.node(1), near, far };
}

async function measure(
  { node, near, far }: RestartCluster,
  way: Way,
  losses: Losses,
  io: BenchIo,
): Promise<void> {
  const pings: RunningPing[] = [];
  const streams: RunningStream[] = [];
  try {
    for (const address of far.addresses)
      pings.push(await RunningPing.start(near.namespace, address, PING_INTERVAL_MS));
    for (const [place, address] of near.addresses.entries()) {
      const route = { from: far.namespace, to: near.namespace, address, port: FIRST_PORT + place };
      streams.push(await RunningStream.start(route, LINE_INTERVAL_MS));
    }
    await Promise.all(pings.map((ping) => ping.untilAnswered(ANSWERS)));
    const readyMs = await disturb(node, way, io.signal);
    if (readyMs !== undefined) losses.readyMs.push(readyMs);
    await Promise.all(pings.map((ping) => ping.untilAnswered(ping.answered + ANSWERS)));
  } finally {
    const ended = await Promise.all(streams.map((stream) => stream.stop()));
    losses.longestGapMs.push(Math.max(...ended.map(({ sink }) => sink.longestGapMs)));
    losses.broken += ended.filter(({ whole }) => !whole).length;
    const reports = await Promise.all(pings.map((ping) => ping.stop()));
    losses.sent.push(total(reports.map(({ sent }) => sent)));
    losses.lost.push(total(reports.map(({ lost }) => lost)));
  }
}

const total = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

/** @returns how long the new daemon took until it was ready, less the time that other programs had the processor */
async function disturb(node: LabNode, way: Way, signal: AbortSignal): Promise<number | undefined> {
  if (way === 'undisturbed') {
    await delay(UNDISTURBED_MS, undefined, { signal });
    return undefined;
  }
  if (way === 'SIGTERM') await node.daemon?.terminate();
  else await node.daemon?.kill();
  const { spawnToReadyMs, waitedMs } = await timedStart(node, signal);
  await node.untilProgrammed(OTHERS + 1, signal);
  return spawnToReadyMs - waitedMs;
}

interface Measured {
  readonly families: LabFamilies;
  readonly way: Way;
  readonly losses: Losses;
}

function recordRound(recorder: Recorder, name: string, round: number, losses: Losses, broken: number): void {
  recorder.record(name, LOST, { round }, losses.lost.at(-1) ?? 0);
  recorder.record(name, GAP, { round }, (losses.longestGapMs.at(-1) ?? 0) / 1000);
  recorder.record(name, BROKEN, { round }, broken);
  // None, where no daemon was started.
  const readyMs = losses.readyMs.at(-1);
  if (readyMs !== undefined) recorder.record(name, READY, { round }, readyMs / 1000);
}

function outcome(cases: readonly Measured[]): Outcome {
  const aims: Aim[] = [];
  for (const { families, way, losses } of cases) {
    if (way === 'undisturbed') continue;
    const of = `in all restarts (${families}, ${way})`;
    aims.push({ what: `packets lost ${of}`, atMost: 0, measured: total(losses.lost) });
    aims.push({ what: `TCP connections broken ${of}`, atMost: 0, measured: losses.broken });
  }
  for (const way of WAYS.filter((each) => each !== 'undisturbed')) {
    const readyMs = new Map(
      cases.filter((each) => each.way === way).map(({ families, losses }) => [families, losses.readyMs]),
    );
    aims.push(...aimsAgainstIpv4(`ready again after ${way}`, readyMs));
  }
  return { aims };
}

await runBench(bench);
