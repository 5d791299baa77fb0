/** `vtepd bench`: the paths of a source, rounds of every workload over them, and the report of it. */
import { randomInt } from 'node:crypto';
import { packageVersion } from '../../overlay/ops/package.ts';
import { CommandLog } from '../engine/command-log.ts';
import { readCpuTimes } from '../engine/cpu.ts';
import { rounded } from '../harness/statistics.ts';
import type { DataPath, OpenPaths, PathPlan } from '../paths/data-path.ts';
import { measureOverhead } from '../paths/measure-overhead.ts';
import { closeAll, type PathSource, placeOfPath } from '../paths/path-source.ts';
import { noiseOf } from '../report/noise.ts';
import type { Progress } from '../report/progress.ts';
import { type BenchReport, type Contestant, type Overhead, SCHEMA } from '../report/schema.ts';
import { seeded } from '../statistics/random.ts';
import { differencesFrom } from '../statistics/summarize.ts';
import { QUANTITIES } from './catalogue.ts';
import { reportedMachine } from './describe-machine.ts';
import type { WorkloadId } from './names.ts';
import { Schedule } from './schedule.ts';
import { SeriesStore } from './series-store.ts';
import type { Timed } from './time-plan.ts';
import { mtuWorkload, workload } from './workloads.ts';

const UNDERLAY_MTU_BYTES = 1500;
const MTU_SWEEP = [1280, 1500, 9000];

export interface BenchWish {
  readonly workloads: readonly WorkloadId[];
  readonly rounds: number;
  readonly quick: boolean;
  /** All of it should be over after this; seconds. */
  readonly budgetSeconds: number;
  /** Of each measurement, at most. */
  readonly longestSeconds: number;
  /** Of the order of measurements; a random one unless told. */
  readonly seed?: number | undefined;
}

/** Labs and their ends take so much of the budget, for each group of paths; seconds. */
const SET_UP_S = 4;

/** Everything that a run gathers, until its report is made of it. */
class Gathered {
  readonly log = new CommandLog();
  readonly store = new SeriesStore();
  readonly contestants = new Map<string, Contestant>();
  readonly overheads: Overhead[] = [];
  background: readonly number[] = [];
  readonly problems = new Set<string>();
}

/**
 * Measures, and reports what it has when it is aborted. Nothing is left afterwards, however it ends.
 * @throws CommandError, DaemonEndedError when the labs cannot be made; the signal's reason when it was aborted
 *   before anything was measured
 */
export async function measureEncapsulation(
  wish: BenchWish,
  source: PathSource,
  progress: Progress,
  signal: AbortSignal,
): Promise<BenchReport> {
  const gathered = new Gathered();
  const startedAt = new Date().toISOString();
  const begin = { ms: performance.now(), cpu: readCpuTimes() };
  const seed = wish.seed ?? randomInt(2 ** 31);
  let complete = true;
  try {
    await measureAll(wish, source, gathered, seeded(seed), progress, signal);
  } catch (error) {
    // Whatever an abort made fail: the reason is what counts.
    if (gathered.store.isEmpty) signal.throwIfAborted();
    if (!signal.aborted) throw error;
    complete = false;
  } finally {
    progress.end();
  }
  const contestants = [...gathered.contestants.values()].sort(
    (a, b) => placeOfPath(a.id) - placeOfPath(b.id),
  );
  const ids = contestants.map(({ id }) => id);
  const results = gathered.store.results(QUANTITIES, ids);
  const used = new Set(results.map(({ quantity }) => quantity));
  const quantities = QUANTITIES.filter(({ id }) => used.has(id));
  const baseline = contestants.find(({ skipped }) => skipped === undefined)?.id ?? null;
  const programs = ['iperf3', 'sockperf', 'ethtool', 'ip', 'wg', 'wireguard-go', 'tincd', 'fastd'];
  const machine = await reportedMachine(programs, {
    begin: begin.cpu,
    end: readCpuTimes(),
    background: gathered.background,
  });
  return {
    schema: SCHEMA,
    bench: 'encapsulation',
    title: source.title,
    vtepd: packageVersion,
    startedAt,
    durationS: rounded((performance.now() - begin.ms) / 1000),
    complete,
    quick: wish.quick,
    plannedRounds: wish.rounds,
    seed,
    method: [...source.method, ...METHOD],
    machine,
    baseline,
    contestants,
    quantities,
    results,
    differences: differencesFrom(baseline, results, quantities, contestants),
    overheads: gathered.overheads.toSorted((a, b) => ids.indexOf(a.contestant) - ids.indexOf(b.contestant)),
    aims: [],
    problems: [...noiseOf(machine), ...gathered.problems],
    commands: gathered.log.commands,
  };
}

const METHOD = [
  'Each measurement is warmed up first, which is not counted. Then follow the rounds; in each, all paths are measured one after the other at one place and direction before the next, in an order that is drawn anew each time.',
  'Throughput is what arrived. iperf3 sends as much as took the wanted time at the speed seen before. Round trips are sockperf’s, of which each run measures for 0.55 s after its own warm-up of 0.4 s. Connections are made one after the other by a program of vtepd’s, each with a byte there and back.',
  'Processor time is the whole machine’s (/proc/stat, ticks of 10 ms), from before the sending program’s start to its end: it holds what other programs did meanwhile. Time that a hypervisor took counts for nobody.',
  'A value’s interval is where its median lies with the stated probability, by order statistics. Differences are taken round by round against the baseline; where the interval of a difference holds “the same”, no difference can be seen. Outliers (1.5 interquartile ranges beyond the quartiles) are marked and stay in.',
];

async function measureAll(
  wish: BenchWish,
  source: PathSource,
  gathered: Gathered,
  random: () => number,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const plan: PathPlan = { underlayMtuBytes: UNDERLAY_MTU_BYTES, log: gathered.log, signal };
  const { openForMtu } = source;
  const withMtu = wish.workloads.includes('mtu') && openForMtu !== undefined;
  const ids = wish.workloads.filter((id) => id !== 'mtu');
  // The sweep opens labs of its own, when the others are gone; until then its part of the time is kept for it.
  const later = withMtu ? placeholder(source.mtuPaths * MTU_SWEEP.length) : [];
  const schedule = new Schedule({
    ...{ rounds: wish.rounds, budgetSeconds: wish.budgetSeconds, longestSeconds: wish.longestSeconds },
    ...{ random, store: gathered.store },
    ...{ progress, problem: (text) => gathered.problems.add(text), signal },
  });
  gathered.background = schedule.background;

  if (ids.length > 0) {
    progress.phase('making the paths');
    const open = await source.open(plan);
    try {
      note(gathered, open);
      for (const path of open.paths) {
        const overhead = await measureOverhead(path, signal);
        if (overhead !== undefined) gathered.overheads.push(overhead);
      }
      await schedule.run(
        ids.map((id) => workload(id, open.paths, !wish.quick)),
        later,
      );
    } finally {
      await open.close();
    }
  }
  if (!withMtu) return;
  progress.phase(`making the paths over underlays of MTU ${MTU_SWEEP.join(', ')}`);
  const byMtu = new Map<number, readonly DataPath[]>();
  const opened: OpenPaths[] = [];
  try {
    for (const underlayMtuBytes of MTU_SWEEP) {
      const open = await openForMtu({ ...plan, underlayMtuBytes });
      opened.push(open);
      byMtu.set(underlayMtuBytes, open.paths);
      if (underlayMtuBytes === UNDERLAY_MTU_BYTES) note(gathered, open);
    }
    await schedule.run([mtuWorkload(byMtu)], []);
  } finally {
    await closeAll(opened);
  }
}

/** Stands for measurements that are not made yet, when time is shared out. */
const placeholder = (length: number): Timed[] => [
  { measurements: { length }, overheadSeconds: 0.15 + SET_UP_S / Math.max(1, length) },
];

function note(gathered: Gathered, { paths, skipped }: OpenPaths): void {
  for (const contestant of [...paths.map((path) => path.contestant), ...skipped]) {
    if (!gathered.contestants.has(contestant.id)) gathered.contestants.set(contestant.id, contestant);
  }
}
