/**
 * Which Node has which lease. Leases are known by their subnets, events come by Node: so it is remembered what a
 * Node had, that it can be told gone, and two Nodes with one podCIDR (which a controller never makes, but a
 * careless operator can) do not take turns in being believed: the first one has it, and ours before all.
 */
import { HistoryLostError } from '../errors.ts';
import type { Lease, MalformedLease } from '../lease.ts';
import { leaseName } from '../lease-codec.ts';
import type { LeaseChange } from '../lease-store.ts';
import { isMalformedLease } from './node-lease.ts';

export class LeaseTable {
  readonly #ownName: string;
  /** What each Node has in the view: the key of a lease, or of what cannot be read. */
  readonly #keyOf = new Map<string, string>();
  readonly #nodeOf = new Map<string, string>();
  /** Keys that more than one Node claims to have. */
  readonly #contested = new Set<string>();

  constructor(ownName: string) {
    this.#ownName = ownName;
  }

  /** What changes in the view when a Node is so. @throws HistoryLostError when only a list can tell */
  put(name: string, read: Lease | MalformedLease | undefined): LeaseChange[] {
    if (read === undefined) return this.delete(name);
    const holder = this.#nodeOf.get(read.key);
    if (holder === undefined || holder === name)
      return [...this.#leave(name, read.key), this.#take(name, read)];
    this.#contested.add(read.key);
    if (name !== this.#ownName) return [...this.#leave(name, name), this.#refuse(name, read.key)];
    this.#keyOf.delete(holder);
    return [...this.#leave(name, read.key), this.#refuse(holder, read.key), this.#take(name, read)];
  }

  /** @param otherwise the key to be told gone where it is not known what the Node had */
  delete(name: string, otherwise?: string): LeaseChange[] {
    const gone = this.#leave(name, undefined);
    return gone.length > 0 || otherwise === undefined || this.#nodeOf.has(otherwise)
      ? gone
      : [{ type: 'delete', key: otherwise }];
  }

  #take(name: string, read: Lease | MalformedLease): LeaseChange {
    this.#keyOf.set(name, read.key);
    this.#nodeOf.set(read.key, name);
    return isMalformedLease(read) ? { type: 'malformed', malformed: read } : { type: 'put', lease: read };
  }

  #refuse(name: string, key: string): LeaseChange {
    const reason = `its podCIDR is that of Node ${leaseName(this.#nodeOf.get(key) ?? '')} too`;
    const shown = leaseName(name);
    this.#keyOf.set(name, shown);
    this.#nodeOf.set(shown, name);
    return { type: 'malformed', malformed: { key: shown, reason } };
  }

  /** The Node has another key from now on, or none. */
  #leave(name: string, next: string | undefined): LeaseChange[] {
    const before = this.#keyOf.get(name);
    if (before === undefined || before === next) return [];
    if (this.#contested.has(before)) {
      throw new HistoryLostError(`of the Nodes with the podCIDR ${before} one has it no more`, 'gap');
    }
    this.#keyOf.delete(name);
    this.#nodeOf.delete(before);
    return [{ type: 'delete', key: before }];
  }
}
