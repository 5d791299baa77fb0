/**
 * Holds this node's lease: claims it, keeps it alive well before it expires, rewrites it when our attributes
 * change, and claims again when it is lost or when the network has no place for it any more.
 *
 *     CLAIM --held--> HOLD --due, woken or changed--> RENEW --ok--> HOLD
 *       ^ |            |                               | |
 *       | '-- failed: wait (backoff), CLAIM            | '-- failed: wait (backoff), RENEW
 *       |              '-- outside the network --.     |
 *       '----------------------------------------+-----'-- lost: expired or taken
 *
 * The store is told once for each step and tries once; waiting and trying again is done here, and an abort
 * ends every wait. Where no subnet was free, a lease that goes ends the wait too. A lease that is another's now
 * is never renewed or deleted: the store sees to that.
 */
import { sameSubnet } from '../../store/address.ts';
import { Backoff, type Sleep } from '../../store/backoff.ts';
import { LeaseLostError, NoFreeSubnetError } from '../../store/errors.ts';
import { type LeaseAttributes, type NetworkConfig, sameAttributes } from '../../store/lease.ts';
import type { HeldLease, LeaseStore, RememberedLease } from '../../store/lease-store.ts';
import { fitsNetwork, type Random } from '../../store/subnet-choice.ts';
import type { Log } from '../ops/log.ts';
import type { LeaseOperation } from '../ops/recorder.ts';

export interface LeaseTimes {
  readonly ttlMs: number;
  /** The lease is renewed at the latest this long before its end. */
  readonly renewMarginMs: number;
}

export interface KeeperOptions extends LeaseTimes {
  readonly store: LeaseStore;
  readonly random: Random;
  readonly sleep: Sleep;
  readonly log: Log;
  /** The lease is held, again or with other attributes. */
  readonly onHeld: (held: HeldLease) => void;
  readonly onFailure: (operation: LeaseOperation, error: Error) => void;
}

const BACKOFF = { minMs: 200, maxMs: 15_000 };
/** A third of the time to live: two renewals may fail before anything is in danger. */
const RENEWALS_A_LIFE = 3;
/** setTimeout takes no longer wait than 24 days, and no lease is hurt by being renewed sooner. */
const LONGEST_WAIT_MS = 12 * 3_600_000;

export class LeaseKeeper {
  readonly #options: KeeperOptions;
  #times: LeaseTimes;
  /** Both are set before anything is claimed. */
  #network: NetworkConfig | undefined;
  #attributes: LeaseAttributes | undefined;
  #held: HeldLease | undefined;
  /** What the store was last asked to hold, and holds: an operator may have told it to hold another address. */
  #asked: LeaseAttributes | undefined;
  #failure: Error | undefined;
  #taken: LeaseLostError | undefined;
  #wake = new AbortController();

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#times = options;
  }

  get held(): HeldLease | undefined {
    return this.#held;
  }

  /** Why the lease could not be claimed or renewed, while that is so. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Another node holds the lease that was ours, and we hold no other yet: its addresses are not ours to give. */
  get taken(): LeaseLostError | undefined {
    return this.#taken;
  }

  /** Our public address or VTEP changed: the lease follows. */
  setAttributes(attributes: LeaseAttributes): void {
    if (this.#attributes !== undefined && sameAttributes(attributes, this.#attributes)) return;
    this.#attributes = attributes;
    this.checkNow();
  }

  /** The network changed: a lease that it has no place for is left as it is, and another one claimed. */
  setNetwork(network: NetworkConfig): void {
    this.#network = network;
    this.checkNow();
  }

  /** From the next renewal on, which is now. */
  setTimes(times: LeaseTimes): void {
    this.#times = times;
    this.checkNow();
  }

  /** The stored lease is not what it should be, or the store is back: look at once. */
  checkNow(): void {
    this.#wake.abort();
  }

  /** Another node's lease has gone from the store: whoever waits for a free subnet looks at once. */
  subnetFreed(): void {
    if (this.#failure instanceof NoFreeSubnetError) this.checkNow();
  }

  /** Runs until the signal aborts. What goes wrong is reported and tried again; nothing is thrown. */
  async run(
    network: NetworkConfig,
    attributes: LeaseAttributes,
    remembered: RememberedLease | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    this.#network = network;
    this.#attributes = attributes;
    let last = remembered;
    while (!signal.aborted) {
      const held = await this.#claim(last, signal);
      if (held === undefined) return;
      last = await this.#hold(held, signal);
    }
  }

  /** Gives the lease back. @throws StoreError */
  async release(signal: AbortSignal): Promise<void> {
    if (this.#held !== undefined) await this.#options.store.release(this.#held, signal);
    this.#held = undefined;
  }

  async #claim(remembered: RememberedLease | undefined, signal: AbortSignal): Promise<HeldLease | undefined> {
    const { store } = this.#options;
    return this.#untilDone('claim', signal, () =>
      store.claim(
        {
          network: this.#wantedNetwork(),
          attributes: this.#wantedAttributes(),
          remembered,
          ttlMs: this.#times.ttlMs,
        },
        signal,
      ),
    );
  }

  /**
   * Keeps a lease until it is lost, has no place in the network, or the signal aborts.
   * @returns what to ask for in its place
   */
  async #hold(first: HeldLease, signal: AbortSignal): Promise<RememberedLease> {
    let held: HeldLease | undefined = first;
    this.#take(first, undefined);
    for (;;) {
      const current: HeldLease = held;
      await this.#untilDue(current, signal);
      if (signal.aborted || !this.#hasPlace(current)) return current.lease;
      held = await this.#untilDone('renew', signal, () =>
        this.#options.store.renew(this.#withTimes(current), this.#wantedAttributes(), signal),
      );
      if (held === undefined) {
        if (!signal.aborted) this.#held = undefined;
        return current.lease;
      }
      this.#take(held, current);
    }
  }

  #take(held: HeldLease, before: HeldLease | undefined): void {
    this.#held = held;
    this.#taken = undefined;
    const same =
      before !== undefined &&
      sameAttributes(before.lease.attributes, held.lease.attributes) &&
      sameSubnets(before, held);
    if (!same) this.#options.onHeld(held);
  }

  /** @returns undefined after an abort, and when the lease is lost */
  async #untilDone(
    operation: 'claim' | 'renew',
    signal: AbortSignal,
    attempt: () => Promise<HeldLease>,
  ): Promise<HeldLease | undefined> {
    const { log, onFailure, random } = this.#options;
    const backoff = new Backoff({ ...BACKOFF, random });
    while (!signal.aborted) {
      try {
        const asked = this.#attributes;
        const held = await attempt();
        this.#asked = asked;
        if (this.#failure !== undefined) log.info('the lease is held again', { subnet: held.lease.key });
        this.#failure = undefined;
        return held;
      } catch (error) {
        if (signal.aborted) return undefined;
        const failure = error instanceof Error ? error : new Error(String(error));
        onFailure(operation, failure);
        if (failure instanceof LeaseLostError) {
          log.error('this node lost its lease; claiming again', { error: failure });
          if (failure.how === 'taken') this.#taken = failure;
          return undefined;
        }
        // Said once, not at every attempt.
        if (this.#failure?.message !== failure.message) {
          log.error(`cannot ${operation} the lease; trying again`, { error: failure });
        }
        this.#failure = failure;
        await this.#waitOrWake(backoff.next(), signal);
      }
    }
    return undefined;
  }

  #wantedAttributes(): LeaseAttributes {
    if (this.#attributes === undefined) throw new Error('a lease was kept before it was known what to write');
    return this.#attributes;
  }

  #wantedNetwork(): NetworkConfig {
    if (this.#network === undefined) throw new Error('a lease was claimed before the network was known');
    return this.#network;
  }

  #hasPlace(held: HeldLease): boolean {
    return fitsNetwork(this.#wantedNetwork(), held.lease.subnets);
  }

  /** A reservation has no time and gets none. */
  #withTimes(held: HeldLease): HeldLease {
    return held.ttlMs === 0 ? held : { ...held, ttlMs: this.#times.ttlMs };
  }

  async #untilDue(held: HeldLease, signal: AbortSignal): Promise<void> {
    if (!this.#hasPlace(held)) return;
    if (this.#asked === undefined || !sameAttributes(this.#asked, this.#wantedAttributes())) return;
    const { renewMarginMs } = this.#times;
    // A reservation does not end, but is looked at like the others.
    const lifeMs = held.ttlMs || this.#times.ttlMs;
    const latestMs = Math.max(lifeMs - renewMarginMs, lifeMs / 2);
    await this.#waitOrWake(Math.min(lifeMs / RENEWALS_A_LIFE, latestMs, LONGEST_WAIT_MS), signal);
  }

  async #waitOrWake(ms: number, signal: AbortSignal): Promise<void> {
    try {
      await this.#options.sleep(ms, AbortSignal.any([signal, this.#wake.signal]));
    } catch {
      // Woken, or aborted: the caller looks at its signal.
    }
    if (this.#wake.signal.aborted) this.#wake = new AbortController();
  }
}

function sameSubnets(a: HeldLease, b: HeldLease): boolean {
  return (['ipv4', 'ipv6'] as const).every((family) => {
    const [x, y] = [a.lease.subnets[family], b.lease.subnets[family]];
    return x === undefined || y === undefined ? x === y : sameSubnet(x, y);
  });
}
