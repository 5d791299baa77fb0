/**
 * What is known of the store: one live view, changed in place. A change of one lease costs the same among ten
 * leases as among 50,000; only a snapshot is compared as a whole.
 */
import { type Lease, sameLease } from './lease.ts';
import type { LeaseChange, LeaseSnapshot, NetworkRecord, Revision } from './lease-store.ts';

export interface LeaseView {
  /** The point in the store's history that this view shows; absent while nothing is known. */
  readonly revision: Revision | undefined;
  /** `cache`: what was known before this start; the store has not answered since. */
  readonly source: 'nothing' | 'cache' | 'store';
  readonly leases: ReadonlyMap<string, Lease>;
  /** Key to reason. */
  readonly malformed: ReadonlyMap<string, string>;
  /** Absent: there is none. */
  readonly network: NetworkRecord | undefined;
  /** Keys of leases that the store has no more, and that stay in `leases` until the grace time is over. */
  readonly withheld: ReadonlySet<string>;
}

/** The view with the means to change it. Every method gives back what really changed. */
export class LiveView implements LeaseView {
  revision: Revision | undefined;
  source: LeaseView['source'] = 'nothing';
  network: NetworkRecord | undefined;
  readonly leases = new Map<string, Lease>();
  readonly malformed = new Map<string, string>();
  readonly withheld = new Set<string>();

  /**
   * Makes the view what the snapshot says. With `withhold`, leases that the snapshot has not are kept.
   * Deletions come first, so that a subnet that moved to another key is free before it is taken.
   */
  replace(snapshot: LeaseSnapshot, withhold: boolean): LeaseChange[] {
    const malformed = new Map(snapshot.malformed.map((entry) => [entry.key, entry]));
    const gone = [...this.leases.keys(), ...this.malformed.keys()].filter(
      (key) => !snapshot.leases.has(key) && !malformed.has(key),
    );
    const changes: LeaseChange[] = [
      ...gone.map((key): LeaseChange => ({ type: 'delete', key })),
      ...Array.from(malformed.values(), (entry): LeaseChange => ({ type: 'malformed', malformed: entry })),
      ...Array.from(snapshot.leases.values(), (lease): LeaseChange => ({ type: 'put', lease })),
    ];
    if (!withhold) this.withheld.clear();
    return this.apply(changes, withhold);
  }

  /** Applies changes in order; those that change nothing are left out of the answer. */
  apply(changes: readonly LeaseChange[], withhold: boolean): LeaseChange[] {
    return changes.filter((change) => this.#apply(change, withhold));
  }

  #apply(change: LeaseChange, withhold: boolean): boolean {
    switch (change.type) {
      case 'put':
        return this.#put(change.lease);
      case 'malformed':
        return this.#putMalformed(change.malformed.key, change.malformed.reason);
      case 'delete':
        return this.#delete(change.key, withhold);
    }
  }

  #put(lease: Lease): boolean {
    const before = this.leases.get(lease.key);
    this.withheld.delete(lease.key);
    if (before !== undefined && sameLease(before, lease)) return false;
    this.malformed.delete(lease.key);
    this.leases.set(lease.key, lease);
    return true;
  }

  #putMalformed(key: string, reason: string): boolean {
    this.withheld.delete(key);
    if (this.malformed.get(key) === reason) return false;
    this.leases.delete(key);
    this.malformed.set(key, reason);
    return true;
  }

  #delete(key: string, withhold: boolean): boolean {
    if (withhold && this.leases.has(key)) {
      this.withheld.add(key);
      return false;
    }
    const wasLease = this.leases.delete(key);
    return this.malformed.delete(key) || wasLease;
  }
}
