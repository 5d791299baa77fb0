/** Waiting: a delay that an AbortSignal ends, and how long to wait before trying again. */
import type { Random } from './subnet-choice.ts';

/** Resolves after so many milliseconds; rejects with the signal's reason as soon as it aborts. */
export type Sleep = (ms: number, signal: AbortSignal) => Promise<void>;

/** Monotonic milliseconds. */
export type Clock = () => number;

export const delay: Sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal.addEventListener('abort', abort, { once: true });
  });

export interface BackoffOptions {
  /** The first delay is between half of this and this. */
  readonly minMs: number;
  readonly maxMs: number;
  readonly random: Random;
}

/** Capped exponential backoff: doubling, each delay between a half and the whole of its step. */
export class Backoff {
  readonly #options: BackoffOptions;
  #stepMs: number;

  constructor(options: BackoffOptions) {
    this.#options = options;
    this.#stepMs = options.minMs;
  }

  /** How long to wait now, in milliseconds. */
  next(): number {
    const stepMs = this.#stepMs;
    this.#stepMs = Math.min(stepMs * 2, this.#options.maxMs);
    return stepMs / 2 + (this.#options.random() * stepMs) / 2;
  }

  /** After a success: the next failure starts over. */
  reset(): void {
    this.#stepMs = this.#options.minMs;
  }
}
