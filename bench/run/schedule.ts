/**
 * Workload after workload within the time that was promised: each measurement's seconds are what is left,
 * shared out; on a machine that is slower than planned they get shorter, then rounds are left out, and that is
 * reported.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { busy, cpuBetween, percentOf, readCpuTimes } from '../engine/cpu.ts';
import type { Progress } from '../report/progress.ts';
import type { Workload } from './measurement.ts';
import { runWorkload, stepsOf } from './runner.ts';
import type { SeriesStore } from './series-store.ts';
import { durationSeconds, SHORTEST_S, secondsEach, type Timed } from './time-plan.ts';

export interface SchedulePlan {
  readonly rounds: number;
  /** Until everything should be over, from the schedule's making on; seconds. */
  readonly budgetSeconds: number;
  /** Of each measurement, at most. */
  readonly longestSeconds: number;
  readonly random: () => number;
  readonly store: SeriesStore;
  readonly progress: Progress;
  readonly problem: (text: string) => void;
  readonly signal: AbortSignal;
}

/** How busy others are is looked at for so long, before each workload. */
const REST_S = 0.25;
/** A workload that takes so many times its share of what is left loses its last rounds. */
const PATIENCE = 2;
/** A short one says little about the machine. */
const LEAST_TELLING_S = 2;

export class Schedule {
  /** Processors' share that others used in the pauses; percent. */
  readonly background: number[] = [];
  private readonly plan: SchedulePlan;
  private readonly beginMs = performance.now();
  private doneSeconds = 0;
  /** How many times as long as planned things take. */
  private slowness = 1;

  constructor(plan: SchedulePlan) {
    this.plan = plan;
  }

  /** @param later what comes after these and needs its time @throws the signal's reason */
  async run(workloads: readonly Workload[], later: readonly Timed[]): Promise<void> {
    for (const [place, each] of workloads.entries())
      await this.one(each, [...workloads.slice(place), ...later]);
  }

  private async one(each: Workload, left: readonly Timed[]): Promise<void> {
    const { rounds, longestSeconds, progress, problem, random, store, signal } = this.plan;
    const leftSeconds = this.plan.budgetSeconds - (performance.now() - this.beginMs) / 1000;
    const { slowness } = this;
    if (durationSeconds([each], 1, SHORTEST_S, slowness) > leftSeconds) {
      problem(`${each.title}: not measured, for the time was up: this machine is busy`);
      return;
    }
    const seconds = secondsEach(left, rounds, leftSeconds, slowness, longestSeconds);
    const planned = durationSeconds([each], rounds, seconds, slowness);
    const plannedLeft = durationSeconds(left, rounds, seconds, slowness);
    progress.phase(
      `${each.title}: about ${Math.ceil(planned)} s of ${Math.ceil(plannedLeft)} s that are left`,
    );
    this.background.push(await backgroundPercent(signal));
    const beginMs = performance.now();
    const share = Math.min(leftSeconds, (PATIENCE * leftSeconds * planned) / plannedLeft);
    const steps = stepsOf(each, rounds);
    let stepped = 0;
    await runWorkload(each, seconds, {
      rounds,
      random,
      store,
      begun: (text) => progress.begun(text),
      stepped: () =>
        progress.done((this.doneSeconds + (planned * ++stepped) / steps) / (this.doneSeconds + plannedLeft)),
      isTimeUp: () => performance.now() - beginMs > share * 1000,
      problem,
      signal,
    });
    this.doneSeconds += planned;
    const took = (performance.now() - beginMs) / 1000;
    // What begins at fixed times takes these on any machine: it tells nothing.
    if (took > LEAST_TELLING_S && each.staggerMs === undefined) {
      this.slowness = Math.max(1, (slowness * took) / planned);
    }
  }
}

/** How busy others keep the processors while nothing is measured. */
async function backgroundPercent(signal: AbortSignal): Promise<number> {
  const before = readCpuTimes();
  await delay(REST_S * 1000, undefined, { signal });
  const passed = cpuBetween(before, readCpuTimes());
  return percentOf(busy(passed), passed);
}
