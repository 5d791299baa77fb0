/** How long each measurement may take, so that all of them fit into the time there is. Pure. */
import type { Workload } from './measurement.ts';

/** Shorter ones would measure programs starting. */
export const SHORTEST_S = 0.2;
/** Unless told: longer ones add little. */
export const LONGEST_S = 1;

/** The warm-up's part of a measurement's seconds. */
const WARM_UP_SHARE = 0.4;
/** Two transfers. */
const WARM_UPS = 2;

export interface Timed extends Pick<Workload, 'staggerMs' | 'overheadSeconds' | 'fixedSeconds'> {
  readonly measurements: { readonly length: number };
}

/** Seconds that a workload takes whatever it is told. What begins at fixed times is not slowed by a busy machine. */
function fixedSeconds(
  { measurements, staggerMs, overheadSeconds, fixedSeconds = 0 }: Timed,
  rounds: number,
  slowness: number,
): number {
  if (staggerMs !== undefined) return (measurements.length * rounds * staggerMs) / 1000 + fixedSeconds;
  return measurements.length * overheadSeconds * (rounds + WARM_UPS) * slowness;
}

/** By so much it grows with each second of a measurement. */
const weight = ({ measurements, staggerMs }: Timed, rounds: number, slowness: number): number =>
  staggerMs === undefined ? measurements.length * (rounds + WARM_UP_SHARE) * slowness : 0;

/**
 * Seconds for each measurement of what is left.
 * @param leftSeconds until it should be over
 * @param slowness how many times as long as planned things take on this machine
 * @param longestS more than this is not taken
 */
export function secondsEach(
  left: readonly Timed[],
  rounds: number,
  leftSeconds: number,
  slowness = 1,
  longestS = LONGEST_S,
): number {
  const fixed = left.reduce((sum, each) => sum + fixedSeconds(each, rounds, slowness), 0);
  const weights = left.reduce((sum, each) => sum + weight(each, rounds, slowness), 0);
  if (weights === 0) return longestS;
  return Math.min(longestS, Math.max(SHORTEST_S, (leftSeconds - fixed) / weights));
}

/** How long all of it takes with so many seconds each. */
export const durationSeconds = (
  left: readonly Timed[],
  rounds: number,
  seconds: number,
  slowness = 1,
): number =>
  left.reduce(
    (sum, each) => sum + fixedSeconds(each, rounds, slowness) + weight(each, rounds, slowness) * seconds,
    0,
  );
