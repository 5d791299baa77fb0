/**
 * A LeaseStore that can be exchanged for another one of the same contents while it is in use: other endpoints
 * or credentials. Whoever holds it goes on: calls under way end on the old store, which is closed then; a watch
 * ends as one whose history is lost, so that its owner lists by the new store, and applies the difference.
 */
import { delay } from './backoff.ts';
import { HistoryLostError } from './errors.ts';
import type { LeaseAttributes, NetworkConfig } from './lease.ts';
import type {
  ClaimRequest,
  HeldLease,
  LeaseSnapshot,
  LeaseStore,
  Revision,
  StoreKind,
  WatchBatch,
} from './lease-store.ts';

/** How long calls under way may take on the old store: one call's time. */
const GRACE_MS = 5000;

/** One store's time in use. */
interface Era {
  readonly store: LeaseStore;
  readonly calls: Set<Promise<unknown>>;
  readonly end: AbortController;
}

const begin = (store: LeaseStore): Era => ({ store, calls: new Set(), end: new AbortController() });

export class SwitchableStore implements LeaseStore {
  #era: Era;
  /** Old stores on their way out. */
  readonly #closing = new Set<Promise<void>>();

  constructor(store: LeaseStore) {
    this.#era = begin(store);
  }

  get kind(): StoreKind {
    return this.#era.store.kind;
  }

  get relistIntervalMs(): number | undefined {
    return this.#era.store.relistIntervalMs;
  }

  /** From now on `next` answers. Resolves when the old store is closed. */
  switchTo(next: LeaseStore): Promise<void> {
    const before = this.#era;
    this.#era = begin(next);
    before.end.abort(new HistoryLostError('the store was opened anew', 'gap'));
    const closing = this.#retire(before).finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
    return closing;
  }

  networkConfig(signal: AbortSignal): Promise<NetworkConfig | undefined> {
    return this.#call((store) => store.networkConfig(signal));
  }

  claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    return this.#call((store) => store.claim(request, signal));
  }

  renew(held: HeldLease, attributes: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    return this.#call((store) => store.renew(held, attributes, signal));
  }

  release(held: HeldLease, signal: AbortSignal): Promise<void> {
    return this.#call((store) => store.release(held, signal));
  }

  announceReady(signal: AbortSignal): Promise<void> {
    return this.#call(async (store) => store.announceReady?.(signal));
  }

  snapshot(signal: AbortSignal): Promise<LeaseSnapshot> {
    return this.#call((store) => store.snapshot(signal));
  }

  async *watch(after: Revision, signal: AbortSignal): AsyncIterable<WatchBatch> {
    const { store, end } = this.#era;
    try {
      yield* store.watch(after, AbortSignal.any([signal, end.signal]));
    } catch (error) {
      if (!end.signal.aborted || signal.aborted) throw error;
    }
    if (!signal.aborted) end.signal.throwIfAborted();
  }

  compareRevisions(a: Revision, b: Revision): number {
    return this.#era.store.compareRevisions(a, b);
  }

  reconnect(): void {
    this.#era.store.reconnect();
  }

  async close(): Promise<void> {
    await Promise.all([this.#era.store.close(), ...this.#closing]);
  }

  #call<T>(make: (store: LeaseStore) => Promise<T>): Promise<T> {
    const { store, calls } = this.#era;
    const call = make(store).finally(() => calls.delete(call));
    calls.add(call);
    return call;
  }

  async #retire({ store, calls }: Era): Promise<void> {
    const enough = new AbortController();
    const patience = delay(GRACE_MS, enough.signal).catch(() => {});
    await Promise.race([Promise.allSettled(calls), patience]);
    enough.abort();
    await store.close();
  }
}
