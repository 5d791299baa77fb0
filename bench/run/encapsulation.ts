/** `vtepd bench` on one machine: labs, rounds of every workload, and the report of it. */
import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { packageVersion } from '../../overlay/ops/package.ts';
import { CommandLog } from '../engine/command-log.ts';
import { busy, cpuBetween, percentOf, readCpuTimes } from '../engine/cpu.ts';
import { rounded } from '../harness/statistics.ts';
import type { DataPath, OpenPaths, PathPlan } from '../paths/data-path.ts';
import { measureOverhead } from '../paths/measure-overhead.ts';
import { openVpnPaths, VPN_PATHS, type VpnPath } from '../paths/vpn-paths.ts';
import { OWN_PATHS, type OwnPath, openOwnPaths } from '../paths/vtepd-paths.ts';
import type { Progress } from '../report/progress.ts';
import { type BenchReport, type Contestant, type Overhead, SCHEMA } from '../report/schema.ts';
import { seeded } from '../statistics/random.ts';
import { differencesFrom } from '../statistics/summarize.ts';
import { QUANTITIES } from './catalogue.ts';
import { reportedMachine } from './describe-machine.ts';
import type { Workload } from './measurement.ts';
import { PATH_IDS, type PathId, type WorkloadId } from './names.ts';
import { runWorkload, stepsOf } from './runner.ts';
import { SeriesStore } from './series-store.ts';
import { durationSeconds, secondsEach, type Timed } from './time-plan.ts';
import { mtuWorkload, workload } from './workloads.ts';

const isOwn = (id: PathId): id is OwnPath => id in OWN_PATHS;
const isVpn = (id: PathId): id is VpnPath => id in VPN_PATHS;

const UNDERLAY_MTU_BYTES = 1500;
const MTU_SWEEP = [1280, 1500, 9000];
/** What the underlay's MTU matters to. */
const MTU_PATHS: readonly PathId[] = ['underlay', 'vxlan', 'userspace', 'direct'];

export interface BenchWish {
  readonly workloads: readonly WorkloadId[];
  readonly rounds: number;
  readonly quick: boolean;
  /** All of it should be over after this; seconds. */
  readonly budgetSeconds: number;
  /** Of the order of measurements; a random one unless told. */
  readonly seed?: number | undefined;
}

/** Where the paths come from. */
export interface PathSource {
  readonly title: string;
  /** How they are made, in sentences. */
  readonly method: readonly string[];
  /** @throws the signal's reason */
  open(plan: PathPlan): Promise<OpenPaths>;
  /** The same over an underlay of another MTU; absent where that cannot be had. */
  openForMtu?: ((plan: PathPlan) => Promise<OpenPaths>) | undefined;
  /** How many those are. */
  readonly mtuPaths: number;
}

/** Labs of this machine. */
export const labSource = (wanted: readonly PathId[]): PathSource => {
  const forMtu = wanted.filter((id) => MTU_PATHS.includes(id));
  return {
    title: 'What does encapsulation cost, here?',
    method: LAB_METHOD,
    open: (plan) => openPaths(wanted, plan),
    openForMtu: forMtu.length > 0 ? (plan) => openPaths(forMtu, plan) : undefined,
    mtuPaths: forMtu.length,
  };
};

/** Labs and their ends take so much of the budget, for each group of paths; seconds. */
const SET_UP_S = 4;
const REST_S = 0.25;
/** Others' work from here on is worth a word. */
const NOISY_BACKGROUND_PERCENT = 10;
const NOISY_STEAL_PERCENT = 2;

/** Everything that a run gathers, until its report is made of it. */
class Gathered {
  readonly log = new CommandLog();
  readonly store = new SeriesStore();
  readonly contestants = new Map<string, Contestant>();
  readonly overheads: Overhead[] = [];
  readonly background: number[] = [];
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
    await measureAll(wish, source, gathered, seeded(seed), begin.ms, progress, signal);
  } catch (error) {
    if (!signal.aborted || gathered.store.isEmpty) throw error;
    complete = false;
  } finally {
    progress.end();
  }
  const contestants = [...gathered.contestants.values()].sort((a, b) => placeOf(a) - placeOf(b));
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
    problems: [...noise(machine), ...gathered.problems],
    commands: gathered.log.commands,
  };
}

const LAB_METHOD = [
  'Two nodes in network namespaces of one machine, joined by veth pairs and a bridge. Both ends, and the tunnel’s work, share its processors: throughput is what they make of it, not what a network card could carry.',
];

const METHOD = [
  'Each measurement is warmed up first, which is not counted. Then follow the rounds; in each, all paths are measured one after the other at one place and direction before the next, in an order that is drawn anew each time.',
  'Throughput is what arrived. iperf3 sends as much as took the wanted time at the speed seen before. Round trips are sockperf’s, of which each run measures for 0.55 s after its own warm-up of 0.4 s. Connections are made one after the other by a program of vtepd’s, each with a byte there and back.',
  'Processor time is the whole machine’s (/proc/stat, ticks of 10 ms), from before the sending program’s start to its end: it holds what other programs did meanwhile. Time that a hypervisor took counts for nobody.',
  'A value’s interval is where its median lies with the stated probability, by order statistics. Differences are taken round by round against the baseline; where the interval of a difference holds “the same”, no difference can be seen. Outliers (1.5 interquartile ranges beyond the quartiles) are marked and stay in.',
];

function noise({ backgroundPercent, stealPercent }: BenchReport['machine']): string[] {
  const found: string[] = [];
  if (backgroundPercent !== null && backgroundPercent > NOISY_BACKGROUND_PERCENT) {
    found.push(
      `other programs kept ${backgroundPercent.toFixed(0)} % of the processors busy between measurements: throughput is lower, and processor time higher, than on an idle machine`,
    );
  }
  if (stealPercent > NOISY_STEAL_PERCENT) {
    found.push(`a hypervisor gave ${stealPercent.toFixed(1)} % of the time to other machines`);
  }
  return found;
}

async function measureAll(
  wish: BenchWish,
  source: PathSource,
  gathered: Gathered,
  random: () => number,
  beginMs: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const plan: PathPlan = { underlayMtuBytes: UNDERLAY_MTU_BYTES, log: gathered.log, signal };
  const { openForMtu } = source;
  const withMtu = wish.workloads.includes('mtu') && openForMtu !== undefined;
  const ids = wish.workloads.filter((id) => id !== 'mtu');
  // The sweep opens labs of its own, when the others are gone; until then its part of the time is kept for it.
  const later = withMtu ? placeholder(source.mtuPaths * MTU_SWEEP.length) : [];
  let doneSeconds = 0;

  const runAll = async (workloads: readonly Workload[], after: readonly Timed[]): Promise<void> => {
    for (const [place, each] of workloads.entries()) {
      const left = [...workloads.slice(place), ...after];
      const passed = (performance.now() - beginMs) / 1000;
      const seconds = secondsEach(left, wish.rounds, wish.budgetSeconds - passed);
      const leftSeconds = durationSeconds(left, wish.rounds, seconds);
      const own = durationSeconds([each], wish.rounds, seconds);
      progress.phase(`${each.title}: about ${Math.ceil(own)} s of ${Math.ceil(leftSeconds)} s that are left`);
      gathered.background.push(await backgroundPercent(signal));
      const steps = stepsOf(each, wish.rounds);
      let stepped = 0;
      await runWorkload(each, seconds, {
        rounds: wish.rounds,
        random,
        store: gathered.store,
        begun: (text) => progress.begun(text),
        stepped: () => progress.done((doneSeconds + (own * ++stepped) / steps) / (doneSeconds + leftSeconds)),
        problem: (text) => gathered.problems.add(text),
        signal,
      });
      doneSeconds += own;
    }
  };

  if (ids.length > 0) {
    progress.phase('making the paths');
    const open = await source.open(plan);
    try {
      note(gathered, open);
      for (const path of open.paths) {
        const overhead = await measureOverhead(path, signal);
        if (overhead !== undefined) gathered.overheads.push(overhead);
      }
      await runAll(
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
    await runAll([mtuWorkload(byMtu)], []);
  } finally {
    await closeAll(opened);
  }
}

/** Stands for measurements that are not made yet, when time is shared out. */
const placeholder = (length: number): Timed[] => [
  { measurements: { length }, overheadSeconds: 0.15 + SET_UP_S / Math.max(1, length) },
];

/** The order of PATH_IDS; what is none of these comes last. */
function placeOf({ id }: Contestant): number {
  const known: readonly string[] = PATH_IDS;
  return known.includes(id) ? known.indexOf(id) : known.length;
}

function note(gathered: Gathered, { paths, skipped }: OpenPaths): void {
  for (const contestant of [...paths.map((path) => path.contestant), ...skipped]) {
    if (!gathered.contestants.has(contestant.id)) gathered.contestants.set(contestant.id, contestant);
  }
}

/** In the order of `wanted`. @throws the signal's reason */
async function openPaths(wanted: readonly PathId[], plan: PathPlan): Promise<OpenPaths> {
  const opened: OpenPaths[] = [];
  try {
    opened.push(await openOwnPaths(wanted.filter(isOwn), plan));
    opened.push(await openVpnPaths(wanted.filter(isVpn), plan));
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
  const paths = opened.flatMap((each) => each.paths);
  const places = new Map(wanted.map((id, place) => [id as string, place]));
  paths.sort((a, b) => (places.get(a.contestant.id) ?? 0) - (places.get(b.contestant.id) ?? 0));
  return { paths, skipped: opened.flatMap((each) => each.skipped), close: () => closeAll(opened) };
}

async function closeAll(opened: readonly OpenPaths[]): Promise<void> {
  const ends = await Promise.allSettled(opened.map((open) => open.close()));
  const failed = ends.find(({ status }) => status === 'rejected');
  if (failed?.status === 'rejected') throw failed.reason;
}

/** How busy others keep the processors while nothing is measured. */
async function backgroundPercent(signal: AbortSignal): Promise<number> {
  const before = readCpuTimes();
  await delay(REST_S * 1000, undefined, { signal });
  const passed = cpuBetween(before, readCpuTimes());
  return percentOf(busy(passed), passed);
}
