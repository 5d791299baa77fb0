/**
 * Tells the store, once, that pods of this node work, where the store has somebody to tell (on Kubernetes the
 * scheduler, by the Node's condition). Tried again until it succeeds; the store sees to it that it stays told.
 */
import { Backoff, type Sleep } from '../../store/backoff.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import type { Random } from '../../store/subnet-choice.ts';
import type { Log } from '../ops/log.ts';

export interface ReadyAnnouncementOptions {
  readonly store: Pick<LeaseStore, 'announceReady' | 'kind'>;
  readonly log: Log;
  readonly sleep: Sleep;
  readonly random: Random;
}

const BACKOFF = { minMs: 500, maxMs: 30_000 };

export class ReadyAnnouncement {
  readonly #options: ReadyAnnouncementOptions;
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: ReadyAnnouncementOptions) {
    this.#options = options;
  }

  /** Pods work; cheap from the second call on. */
  ready(): void {
    this.#running ??= this.#announce();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #announce(): Promise<void> {
    const { store, log, sleep, random } = this.#options;
    const { signal } = this.#closing;
    const backoff = new Backoff({ ...BACKOFF, random });
    let said: string | undefined;
    while (!signal.aborted) {
      try {
        await store.announceReady?.(signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const message = error instanceof Error ? error.message : String(error);
        if (message !== said) {
          log.warn('the store cannot be told that pods work here; trying again', {
            store: store.kind,
            error,
          });
        }
        said = message;
        await sleep(backoff.next(), signal).catch(() => {});
      }
    }
  }
}
