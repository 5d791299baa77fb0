/**
 * Keeps a view of all leases in step with a store, whatever happens to the store.
 *
 *            +----------------- resync time, history lost, any doubt ----------------+
 *            v                                                                        |
 *   start -> LIST --- snapshot, compared with the view, delivered --> FOLLOW ---------+
 *            | ^                                                      | ^ |
 *            | +-- failed: wait (backoff), healthy = no               | | +-- batch: applied, delivered,
 *            |                                                        | |     then the resume point moves
 *            |                                                        | +-- stream failed: wait (backoff),
 *            +---------------- abort: end <---------------------------+     FOLLOW again from the resume point
 *
 * 1. The resume point is the revision of the last thing that was *delivered*: `deliver` returned (and what it
 *    returned has resolved). It moves in no other way, so no failure between the store and the consumer skips
 *    a change; a change that is told twice is dropped by the view, which it does not change.
 * 2. FOLLOW ends in LIST when the store says that history is lost (compacted, rewound, gap), when a batch is
 *    older than the resume point, and after `resyncIntervalMs`: a silent watch is not trusted for ever. LIST
 *    never empties the view: it is compared with the snapshot, and only the difference is delivered.
 * 3. History lost again without a batch in between waits, as a failure does: no loop runs hot.
 * 4. While the store fails, the view stays as it is; `onHealth` says since when and why. A cached snapshot
 *    from before a restart is delivered at once and then treated as any older view.
 * 5. A store whose revision went backwards (a restored backup; seen by the watch as `rewound`, by LIST as a
 *    snapshot older than the view) has forgotten leases of nodes that live. Their nodes will make them again;
 *    until `rewindGraceMs` is over nothing is withdrawn (leases that the store has not are `withheld`, which
 *    the consumer is told, so that it can make its own again). Then LIST says what remains.
 * 6. A consumer that throws ends it all: `done` rejects with its error.
 */
import { Backoff, type Clock, type Sleep } from './backoff.ts';
import { HistoryLostError, StoreUnavailableError } from './errors.ts';
import type {
  LeaseChange,
  LeaseSnapshot,
  LeaseStore,
  NetworkRecord,
  Revision,
  WatchBatch,
} from './lease-store.ts';
import { type LeaseView, LiveView } from './lease-view.ts';
import type { Random } from './subnet-choice.ts';

export interface ViewDelta {
  readonly cause: 'cache' | 'snapshot' | 'watch';
  /** What changed in the view; each has been applied to it already. */
  readonly changes: readonly LeaseChange[];
  readonly networkChanged: boolean;
  /** The store was found rewound and its grace time runs: see `view.withheld`. */
  readonly rewound: boolean;
}

export type StoreHealth =
  | { readonly healthy: true }
  /** `sinceMs` is the clock's time at which it began to fail. */
  | { readonly healthy: false; readonly error: Error; readonly sinceMs: number };

export interface FollowOptions {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly sleep: Sleep;
  readonly random: Random;
  /** What was known before this start. */
  readonly cached?: LeaseSnapshot | undefined;
  /**
   * Told of every change, after it is in the view, in order and one at a time; and once when the store first
   * answers, even if it says nothing new. The resume point moves when the returned promise has resolved.
   */
  readonly deliver: (delta: ViewDelta, view: LeaseView) => void | Promise<void>;
  /** Told when health changes, and when the error does. */
  readonly onHealth?: ((health: StoreHealth) => void) | undefined;
  readonly resyncIntervalMs?: number | undefined;
  readonly rewindGraceMs?: number | undefined;
  readonly backoff?: { readonly minMs: number; readonly maxMs: number } | undefined;
}

export interface Following {
  /** Live: changes in place, before the delta is delivered. */
  readonly view: LeaseView;
  health(): StoreHealth;
  /** Resolves after the abort; rejects only with what the consumer threw. */
  readonly done: Promise<void>;
}

/** A snapshot of 10,000 leases takes a tenth of a second: every five minutes that is a 3,000th of the time. */
const RESYNC_INTERVAL_MS = 300_000;
/** The other nodes notice by their own watch within milliseconds, by their next renewal within a minute. */
const REWIND_GRACE_MS = 90_000;
const BACKOFF = { minMs: 100, maxMs: 10_000 };

/** Follows a store until the signal aborts. See the head of this file for what is promised. */
export function followLeases(store: LeaseStore, options: FollowOptions): Following {
  const follower = new Follower(store, options);
  return { view: follower.view, health: () => follower.health, done: follower.run() };
}

/** The consumer threw: not the store's failure, and not to be retried. */
class DeliveryFailure {
  readonly reason: unknown;
  constructor(reason: unknown) {
    this.reason = reason;
  }
}

class Follower {
  readonly view = new LiveView();
  health: StoreHealth;
  readonly #store: LeaseStore;
  readonly #options: FollowOptions;
  readonly #backoff: Backoff;
  #resumePoint: Revision | undefined;
  #listDueAtMs = 0;
  #graceEndsAtMs: number | undefined;
  /** The state of the grace that the consumer knows: it is told when this changes. */
  #graceTold = 'false 0';
  #mustList = true;
  #batchSinceList = true;

  constructor(store: LeaseStore, options: FollowOptions) {
    this.#store = store;
    this.#options = options;
    this.#backoff = new Backoff({ ...(options.backoff ?? BACKOFF), random: options.random });
    this.health = {
      healthy: false,
      error: new StoreUnavailableError('the store has not answered yet'),
      sinceMs: options.clock(),
    };
  }

  async run(): Promise<void> {
    const { signal, cached } = this.#options;
    try {
      if (cached !== undefined) await this.#replaceView(cached, 'cache');
      while (!signal.aborted) {
        try {
          if (this.#mustList) await this.#list();
          await this.#follow();
        } catch (error) {
          if (error instanceof DeliveryFailure) throw error;
          await this.#recover(error);
        }
      }
    } catch (error) {
      if (error instanceof DeliveryFailure) throw error.reason;
      if (!signal.aborted) throw error;
    }
  }

  async #list(): Promise<void> {
    const snapshot = await this.#store.snapshot(this.#options.signal);
    const { revision } = this.view;
    const nowMs = this.#options.clock();
    if (revision !== undefined && this.#store.compareRevisions(snapshot.revision, revision) < 0) {
      this.#beginGrace();
    } else if (this.#graceEndsAtMs !== undefined && nowMs >= this.#graceEndsAtMs) {
      this.#graceEndsAtMs = undefined;
    }
    await this.#replaceView(snapshot, 'snapshot');
    this.#mustList = false;
    this.#batchSinceList = false;
    // Spread, so that the nodes of a cluster do not all list in the same second.
    const usualMs = this.#store.relistIntervalMs ?? RESYNC_INTERVAL_MS;
    const { random, resyncIntervalMs = usualMs } = this.#options;
    this.#listDueAtMs = nowMs + resyncIntervalMs * (0.9 + 0.2 * random());
    this.#setHealthy();
  }

  /** Returns when it is time to list again; throws what the store threw. */
  async #follow(): Promise<void> {
    const { signal, sleep } = this.#options;
    if (signal.aborted) return;
    const resumePoint = this.#resumePoint;
    if (resumePoint === undefined) throw new HistoryLostError('nothing was listed yet', 'gap');
    const watch = new AbortController();
    const abort = () => watch.abort(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    sleep(this.#msUntilList(), watch.signal).then(
      () => {
        this.#mustList = true;
        watch.abort();
      },
      () => undefined, // the watch ended first
    );
    try {
      for await (const batch of this.#store.watch(resumePoint, watch.signal)) await this.#applyBatch(batch);
      if (!watch.signal.aborted) throw new StoreUnavailableError('the store ended the watch');
    } catch (error) {
      if (error instanceof DeliveryFailure || !watch.signal.aborted) throw error;
    } finally {
      signal.removeEventListener('abort', abort);
      watch.abort();
    }
  }

  async #applyBatch(batch: WatchBatch): Promise<void> {
    if (
      this.#resumePoint !== undefined &&
      this.#store.compareRevisions(batch.revision, this.#resumePoint) < 0
    ) {
      throw new HistoryLostError(`the watch went back from ${this.#resumePoint} to ${batch.revision}`, 'gap');
    }
    const changes = this.view.apply(batch.changes, this.#inGrace());
    const networkChanged = batch.network !== undefined && this.#setNetwork(batch.network ?? undefined);
    await this.#deliver(batch.revision, {
      cause: 'watch',
      changes,
      networkChanged,
      rewound: this.#inGrace(),
    });
    this.#batchSinceList = true;
    this.#backoff.reset();
    this.#setHealthy();
  }

  async #replaceView(snapshot: LeaseSnapshot, cause: 'cache' | 'snapshot'): Promise<void> {
    const changes = this.view.replace(snapshot, this.#inGrace());
    const networkChanged = this.#setNetwork(snapshot.network);
    const source = cause === 'cache' ? 'cache' : 'store';
    const first = this.view.source !== source;
    this.view.source = source;
    const delta: ViewDelta = { cause, changes, networkChanged, rewound: this.#inGrace() };
    await this.#deliver(snapshot.revision, delta, first);
  }

  async #deliver(revision: Revision, delta: ViewDelta, always = false): Promise<void> {
    this.view.revision = revision;
    const grace = `${delta.rewound} ${this.view.withheld.size}`;
    const news = delta.changes.length > 0 || delta.networkChanged || grace !== this.#graceTold;
    if (always || news) {
      this.#graceTold = grace;
      try {
        const delivered = this.#options.deliver(delta, this.view);
        if (delivered !== undefined) await delivered;
      } catch (error) {
        throw new DeliveryFailure(error);
      }
    }
    this.#resumePoint = revision;
  }

  /** A configuration that is gone is withheld as leases are. */
  #setNetwork(network: NetworkRecord | undefined): boolean {
    const before = this.view.network;
    if (network === undefined && this.#inGrace()) return false;
    if (JSON.stringify(comparable(before)) === JSON.stringify(comparable(network))) return false;
    this.view.network = network;
    return true;
  }

  async #recover(error: unknown): Promise<void> {
    const { signal, sleep } = this.#options;
    if (signal.aborted) return;
    if (error instanceof HistoryLostError) {
      this.#mustList = true;
      if (error.how === 'rewound') this.#beginGrace();
      if (this.#batchSinceList) return;
    } else {
      // What is no StoreUnavailableError may be a half-told truth: list when it works again.
      if (!(error instanceof StoreUnavailableError)) this.#mustList = true;
      this.#setUnhealthy(error instanceof Error ? error : new Error(String(error)));
    }
    await sleep(this.#backoff.next(), signal);
  }

  #inGrace(): boolean {
    return this.#graceEndsAtMs !== undefined;
  }

  #beginGrace(): void {
    this.#graceEndsAtMs = this.#options.clock() + (this.#options.rewindGraceMs ?? REWIND_GRACE_MS);
  }

  #msUntilList(): number {
    const dueAtMs = Math.min(this.#listDueAtMs, this.#graceEndsAtMs ?? Number.POSITIVE_INFINITY);
    return Math.max(0, dueAtMs - this.#options.clock());
  }

  #setHealthy(): void {
    if (this.health.healthy) return;
    this.health = { healthy: true };
    this.#options.onHealth?.(this.health);
  }

  #setUnhealthy(error: Error): void {
    const before = this.health;
    if (!before.healthy && before.error.message === error.message) return;
    this.health = { healthy: false, error, sinceMs: before.healthy ? this.#options.clock() : before.sinceMs };
    this.#options.onHealth?.(this.health);
  }
}

const comparable = (network: NetworkRecord | undefined) =>
  network !== undefined && 'fault' in network ? { fault: network.fault.message } : network;
