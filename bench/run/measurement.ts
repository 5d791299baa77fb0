/** One thing to measure of one data path, in every round once. */
import type { DataPath } from '../paths/data-path.ts';
import type { Direction } from '../report/schema.ts';

export interface Reading {
  /** Quantity's id to its value. */
  readonly values: Readonly<Record<string, number>>;
  /** Of the quantity that keeps a distribution. */
  readonly samples?: { readonly quantity: string; readonly values: Float64Array } | undefined;
}

export interface MeasureContext {
  /** How long a measurement is to take. */
  readonly seconds: number;
  readonly signal: AbortSignal;
}

export interface Measurement {
  readonly path: DataPath;
  readonly direction?: Direction | undefined;
  readonly at?: number | undefined;
  /** Not counted, before the rounds: caches, neighbours, and how much to send. @throws EngineError */
  warmUp(context: MeasureContext): Promise<void>;
  /** @throws EngineError: this round has no value; the signal's reason */
  measure(context: MeasureContext): Promise<Reading>;
}

/** Measurements of a kind: all paths are measured in turns before the next place or direction. */
export interface Workload {
  readonly id: string;
  /** For progress: `TCP, 1 stream`. */
  readonly title: string;
  /** What it gives; QUANTITIES has them. */
  readonly quantities: readonly string[];
  readonly measurements: readonly Measurement[];
  /** One begins so long after the one before began, not when that has ended; milliseconds. */
  readonly staggerMs?: number | undefined;
  /** What a measurement takes besides the seconds it is told: programs starting and ending. */
  readonly overheadSeconds: number;
  /** The seconds that it is told say nothing to it. */
  readonly fixedSeconds?: number | undefined;
  /** Before the warm-up; what it returns is called after the rounds, whatever happened. */
  readonly open?: ((signal: AbortSignal) => Promise<() => Promise<void>>) | undefined;
}
