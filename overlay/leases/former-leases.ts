/**
 * Leases that this node had when the network changed and that its new one replaced: each is kept alive, and
 * follows our attributes, for as long as a pod has an address of it; then it is given back. Peers so reach old
 * pods until the last of them has gone, over restarts too.
 *
 *     add --> KEPT --no pod has an address of it--> GIVEN BACK --the store has done it--> forgotten
 *              |                                        |
 *              '-- is the current lease again: forgotten '-- failed: wait (backoff), again
 */
import { type Address, FAMILIES, type Family, subnetContains } from '../../store/address.ts';
import { Backoff } from '../../store/backoff.ts';
import { NoFreeSubnetError } from '../../store/errors.ts';
import type {
  BackendConfig,
  FamilyNetwork,
  Lease,
  LeaseAttributes,
  NetworkConfig,
} from '../../store/lease.ts';
import { type KeeperOptions, LeaseKeeper, type LeaseTimes } from './lease-keeper.ts';

export interface FormerLeaseOptions extends Omit<KeeperOptions, 'onHeld'> {
  readonly signal: AbortSignal;
  /** Another lease is in use in its place. */
  readonly isReplaced: (lease: Lease) => boolean;
  /** Every address that a pod of this node has, or is about to get or to lose. */
  readonly podAddresses: () => Iterable<Address>;
  /** What a lease of these families has to say. */
  readonly attributesFor: (families: readonly Family[], written: LeaseAttributes) => LeaseAttributes;
  /** Others came to be kept, or fewer. */
  readonly onChange: () => void;
}

export interface FormerLease {
  readonly lease: Lease;
  /** Pod addresses in it. */
  readonly pods: number;
  /** Why the store does not keep it, while that is so. */
  readonly failure: string | undefined;
}

interface Kept {
  readonly lease: Lease;
  readonly keeper: LeaseKeeper;
  readonly abort: AbortController;
  /** No pod needs it any more. */
  leaving: boolean;
  running: Promise<void>;
}

const RELEASE_BACKOFF = { minMs: 500, maxMs: 60_000 };

export class FormerLeases {
  readonly #options: FormerLeaseOptions;
  readonly #kept = new Map<string, Kept>();
  #times: LeaseTimes;

  /** The signal ends the keeping; the leases stay in the store. */
  constructor(options: FormerLeaseOptions) {
    this.#options = options;
    this.#times = options;
  }

  /** Those with pods, for status and for what the kernel shall hold. */
  get all(): FormerLease[] {
    const addresses = [...this.#options.podAddresses()];
    return [...this.#kept.values()]
      .filter(({ leaving }) => !leaving)
      .map(({ lease, keeper }) => ({
        lease,
        pods: addresses.filter((address) => contains(lease, address)).length,
        failure: (keeper.failure ?? keeper.taken)?.message,
      }));
  }

  get leases(): Lease[] {
    return [...this.#kept.values()].filter(({ leaving }) => !leaving).map(({ lease }) => lease);
  }

  /** All that are in the store still, those on their way out too. */
  get stored(): Lease[] {
    return Array.from(this.#kept.values(), ({ lease }) => lease);
  }

  has(key: string): boolean {
    return this.#kept.has(key);
  }

  add(lease: Lease, backend: BackendConfig): void {
    if (this.#kept.has(lease.key)) return;
    const abort = new AbortController();
    const keeper = new LeaseKeeper({
      ...this.#options,
      ...this.#times,
      onHeld: () => this.podsChanged(),
    });
    const families = FAMILIES.filter((family) => lease.subnets[family] !== undefined);
    const attributes = this.#options.attributesFor(families, lease.attributes);
    const signal = AbortSignal.any([this.#options.signal, abort.signal]);
    const running = keeper.run(networkOf(lease, backend), attributes, lease, signal);
    this.#kept.set(lease.key, { lease, keeper, abort, leaving: false, running });
    running.catch((error: unknown) =>
      this.#options.log.error('a former lease is not kept any more', { error }),
    );
    this.#options.onChange();
  }

  /** It is the current lease again: another keeper has it. */
  forget(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#kept.delete(key);
    kept.abort.abort();
    this.#options.onChange();
  }

  /** Our public address or VTEP changed: the leases follow. */
  refreshAttributes(): void {
    for (const { lease, keeper } of this.#kept.values()) {
      const families = FAMILIES.filter((family) => lease.subnets[family] !== undefined);
      keeper.setAttributes(this.#options.attributesFor(families, lease.attributes));
    }
  }

  setTimes(times: LeaseTimes): void {
    this.#times = times;
    for (const { keeper } of this.#kept.values()) keeper.setTimes(times);
  }

  /** The store has news of one of them, or is back. */
  checkNow(): void {
    for (const { keeper } of this.#kept.values()) keeper.checkNow();
  }

  /** Pods came or went, or another lease is in use: those that nobody needs are given back. */
  podsChanged(): void {
    const unused = [...this.#kept.values()].filter((kept) => !kept.leaving && this.#isUnused(kept));
    for (const kept of unused) {
      kept.leaving = true;
      kept.abort.abort();
      kept.running = this.#giveBack(kept);
    }
    if (unused.length > 0) this.#options.onChange();
  }

  /** Gives all of them back, pods or not: the node leaves the cluster. @throws StoreError */
  async releaseAll(signal: AbortSignal): Promise<void> {
    await Promise.all(Array.from(this.#kept.values(), ({ keeper }) => keeper.release(signal)));
  }

  /** Resolves when nothing is under way any more, after the abort. */
  async ended(): Promise<void> {
    await Promise.allSettled(Array.from(this.#kept.values(), ({ running }) => running));
  }

  /** Only what the store has confirmed, or given to another, can be given up. */
  #isUnused({ lease, keeper }: Kept): boolean {
    const isSettled = keeper.held !== undefined || keeper.failure instanceof NoFreeSubnetError;
    if (!isSettled || !this.#options.isReplaced(lease)) return false;
    for (const address of this.#options.podAddresses()) if (contains(lease, address)) return false;
    return true;
  }

  async #giveBack(kept: Kept): Promise<void> {
    const { random, sleep, log } = this.#options;
    const backoff = new Backoff({ ...RELEASE_BACKOFF, random });
    await kept.running;
    while (!this.#options.signal.aborted) {
      try {
        await kept.keeper.release(this.#options.signal);
        log.info('the last pod of a former subnet is gone; gave its lease back', { subnet: kept.lease.key });
        this.#kept.delete(kept.lease.key);
        this.#options.onChange();
        return;
      } catch (error) {
        if (this.#options.signal.aborted) return;
        log.warn('a former lease could not be given back; trying again', { subnet: kept.lease.key, error });
        await sleep(backoff.next(), this.#options.signal).catch(() => {});
      }
    }
  }
}

const contains = ({ subnets }: Lease, address: Address): boolean =>
  FAMILIES.some((family) => {
    const subnet = subnets[family];
    return subnet !== undefined && subnetContains(subnet, address);
  });

/** A network with place for this very lease: what is claimed in it is this or nothing. */
function networkOf({ subnets }: Lease, backend: BackendConfig): NetworkConfig {
  const cut = (family: Family): FamilyNetwork | undefined => {
    const subnet = subnets[family];
    if (subnet === undefined) return undefined;
    return {
      network: subnet,
      subnetLength: subnet.prefixLength,
      subnetMin: subnet.address,
      subnetMax: subnet.address,
    };
  };
  const [ipv4, ipv6] = [cut('ipv4'), cut('ipv6')];
  return { networks: { ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }) }, backend };
}
