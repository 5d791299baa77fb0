/** What is compared: a way from one program to another, and how it is built on this machine. */

import type { CommandLog } from '../engine/command-log.ts';
import type { FarEnd, LocalEnd, NearEnd } from '../engine/end.ts';
import type { Contestant } from '../report/schema.ts';
import type { Encapsulation } from './overhead.ts';

export interface DataPath {
  readonly contestant: Contestant;
  readonly from: NearEnd;
  readonly to: FarEnd;
  /** The processes on the first node that it takes; none where the kernel does it all. */
  readonly programs: () => readonly number[];
  readonly encapsulation: Encapsulation;
  /** Where its packets can be seen as the underlay carries them; absent where they cannot. */
  readonly tap?: { readonly namespace: string; readonly device: string; readonly filter: string } | undefined;
}

/** One whose both ends are of this machine: it can be measured both ways by itself. */
export interface LabPath extends DataPath {
  readonly from: LocalEnd;
  readonly to: LocalEnd;
}

export interface PathPlan {
  readonly underlayMtuBytes: number;
  readonly log: CommandLog;
  readonly signal: AbortSignal;
}

/** Paths that share a lab. The owner closes them, whatever state they are in. */
export interface OpenPaths {
  readonly paths: readonly DataPath[];
  /** Those that this machine cannot have, with the reason in `skipped`. */
  readonly skipped: readonly Contestant[];
  close(): Promise<void>;
}

/** A path cannot be had on this machine. The message says why, and what to do. */
export class PathUnavailableError extends Error {
  override readonly name = 'PathUnavailableError';
  readonly code = 'VTEPD_BENCH_PATH';
}
