/** Waiting for a condition, with a deadline and a name: never a sleep for luck. */
import { setTimeout as delay } from 'node:timers/promises';

/** The condition did not come true in time. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
  readonly code = 'VTEPD_LAB_DEADLINE';
}

export interface UntilOptions {
  /** What is waited for, after "waited N ms for". */
  readonly what: string;
  readonly deadlineMs: number;
  /** Between two looks; 20 unless told. */
  readonly everyMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Looks until the condition gives something (neither false nor undefined) and returns that.
 * @throws DeadlineError; what the condition throws; the signal's reason
 */
export async function until<T>(
  condition: () => Promise<T | false | undefined> | T | false | undefined,
  { what, deadlineMs, everyMs = 20, signal }: UntilOptions,
): Promise<T> {
  const begin = performance.now();
  for (;;) {
    signal?.throwIfAborted();
    const found = await condition();
    if (found !== false && found !== undefined) return found;
    if (performance.now() - begin > deadlineMs) {
      throw new DeadlineError(`waited ${deadlineMs} ms for ${what}, in vain`);
    }
    await delay(everyMs, undefined, { signal }).catch(() => {});
  }
}
