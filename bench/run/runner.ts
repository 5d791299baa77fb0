/**
 * Measures in rounds. A round takes every measurement of a workload once; all paths have their turn at one
 * place and direction before the next, so that what the machine does meanwhile falls on all alike, and the
 * order changes from round to round.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { messageWithCauses } from '../../overlay/ops/log.ts';
import { EngineError } from '../engine/end.ts';
import { shuffled } from '../statistics/random.ts';
import type { Series } from '../statistics/summarize.ts';
import type { MeasureContext, Measurement, Workload } from './measurement.ts';
import type { SeriesStore } from './series-store.ts';

export interface RunContext {
  readonly rounds: number;
  /** For the order of things. */
  readonly random: () => number;
  readonly store: SeriesStore;
  /** A measurement has begun: `TCP, 1 stream, round 2 of 5: pod to pod`. */
  readonly begun: (text: string) => void;
  /** One more of `stepsOf` is done. */
  readonly stepped: () => void;
  /** No further round, please: those that were made are what there is. */
  readonly isTimeUp: () => boolean;
  readonly problem: (text: string) => void;
  readonly signal: AbortSignal;
}

/** A series that failed so often in a row is left alone: each failure may take its whole time limit. */
const MOST_FAILURES = 2;

/** For progress: warm-ups and measurements. */
export const stepsOf = ({ measurements, staggerMs }: Workload, rounds: number): number =>
  measurements.length * (rounds + (staggerMs === undefined ? 1 : 0));

/**
 * A problem of one measurement is told and leaves its round empty. What was measured before an abort is in
 * the store. @throws the signal's reason
 */
export async function runWorkload(workload: Workload, seconds: number, context: RunContext): Promise<void> {
  if (workload.measurements.length === 0) return;
  let close: (() => Promise<void>) | undefined;
  try {
    close = await workload.open?.(context.signal);
    const tries = new Tries(workload, { seconds, signal: context.signal }, context);
    if (workload.staggerMs === undefined) await oneByOne(workload, tries, context);
    else await staggered(workload, workload.staggerMs, tries, context);
  } catch (error) {
    context.signal.throwIfAborted();
    // Its servers: the other workloads have their own.
    if (!(error instanceof EngineError)) throw error;
    context.problem(`${workload.title}: not measured: ${messageWithCauses(error)}`);
  } finally {
    await close?.();
  }
}

async function oneByOne(workload: Workload, tries: Tries, context: RunContext): Promise<void> {
  for (const measurement of workload.measurements) {
    context.signal.throwIfAborted();
    context.begun(`${workload.title}, warm-up: ${nameOf(measurement)}`);
    await tries.warmUp(measurement);
  }
  for (let round = 0; round < context.rounds && !isOver(workload, round, context); round++) {
    for (const measurement of orderOf(workload.measurements, context.random)) {
      context.signal.throwIfAborted();
      context.begun(`${roundName(workload, round, context)}: ${nameOf(measurement)}`);
      await tries.measure(measurement, round);
    }
  }
}

/** Each begins at its time, whether the one before has ended or not. */
async function staggered(
  workload: Workload,
  staggerMs: number,
  tries: Tries,
  context: RunContext,
): Promise<void> {
  const running: Promise<void>[] = [];
  try {
    const begin = performance.now();
    for (let round = 0; round < context.rounds && !isOver(workload, round, context); round++) {
      for (const measurement of orderOf(workload.measurements, context.random)) {
        const waitMs = begin + running.length * staggerMs - performance.now();
        if (waitMs > 0) await delay(waitMs, undefined, { signal: context.signal });
        context.begun(`${roundName(workload, round, context)}: ${nameOf(measurement)}`);
        const one = tries.measure(measurement, round);
        // It is waited for below; until then its fault must not count as unhandled.
        one.catch(() => {});
        running.push(one);
      }
    }
    await Promise.all(running);
  } catch (error) {
    context.signal.throwIfAborted();
    throw error;
  } finally {
    // Those that were aborted end too, before their servers go.
    await Promise.allSettled(running);
  }
}

/** Before a round: whether it is one too many. The first is always made. */
function isOver({ title }: Workload, round: number, { isTimeUp, rounds, problem }: RunContext): boolean {
  if (round === 0 || !isTimeUp()) return false;
  problem(`${title}: ${round} of ${rounds} rounds, for the time was up: this machine is busy`);
  return true;
}

const roundName = ({ title }: Workload, round: number, { rounds }: RunContext): string =>
  `${title}, round ${round + 1} of ${rounds}`;

function nameOf({ path, direction, at }: Measurement): string {
  const where = [path.contestant.title];
  if (direction === 'reverse') where.push('back');
  if (at !== undefined) where.push(`at ${at}`);
  return where.join(', ');
}

/** Places and directions in a random order, and within each the paths. */
export function orderOf(measurements: readonly Measurement[], random: () => number): Measurement[] {
  const groups = new Map<string, Measurement[]>();
  for (const measurement of measurements) {
    const key = `${measurement.direction} ${measurement.at}`;
    groups.set(key, [...(groups.get(key) ?? []), measurement]);
  }
  return shuffled([...groups.values()], random).flatMap((group) => shuffled(group, random));
}

/** What became of each measurement, so that one that keeps failing is given up. */
class Tries {
  private readonly failures = new Map<Measurement, number>();
  private readonly workload: Workload;
  private readonly measuring: MeasureContext;
  private readonly context: RunContext;

  constructor(workload: Workload, measuring: MeasureContext, context: RunContext) {
    this.workload = workload;
    this.measuring = measuring;
    this.context = context;
  }

  async warmUp(measurement: Measurement): Promise<void> {
    await this.attempt(measurement, () => measurement.warmUp(this.measuring));
  }

  async measure(measurement: Measurement, round: number): Promise<void> {
    const { path, direction, at } = measurement;
    const seriesOf = (quantity: string): Series => ({
      contestant: path.contestant.id,
      quantity,
      direction,
      at,
    });
    const reading = await this.attempt(measurement, () => measurement.measure(this.measuring));
    const { store } = this.context;
    if (reading === undefined) {
      for (const quantity of this.workload.quantities) store.add(seriesOf(quantity), round, null);
      return;
    }
    const { values, samples } = reading;
    for (const [quantity, value] of Object.entries(values)) {
      store.add(
        seriesOf(quantity),
        round,
        value,
        samples?.quantity === quantity ? samples.values : undefined,
      );
    }
  }

  private async attempt<T>(measurement: Measurement, work: () => Promise<T>): Promise<T | undefined> {
    const failed = this.failures.get(measurement) ?? 0;
    try {
      if (failed >= MOST_FAILURES) return undefined;
      const value = await work();
      this.failures.set(measurement, 0);
      return value;
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      this.failures.set(measurement, failed + 1);
      const given = failed + 1 >= MOST_FAILURES ? '; given up' : '';
      this.context.problem(`${this.workload.title}: ${messageWithCauses(error)}${given}`);
      return undefined;
    } finally {
      this.context.stepped();
    }
  }
}
