/**
 * One kind of entry on one device: what is wanted, what the kernel (or the user-space tunnel, whose FDB is its own)
 * was last seen to hold, and the keys at which the two may differ. Keys and values are text, so comparing is `===`.
 *
 * `observed` is a mirror: a dump fills it, our own successful requests and the kernel's announcements keep
 * it current, and the next dump corrects it. So one lease event costs one look-up a table, not a dump.
 */
import type { NetlinkRequest } from '../kernel/netlink-message.ts';

/** What carries a change out: a request to the kernel, or a call where the entries are not the kernel's; it cannot fail. */
export type EntryRequest = NetlinkRequest | (() => void);

export interface Way {
  readonly open: NetlinkRequest;
  readonly close: NetlinkRequest;
}

export interface EntryKind {
  /** `neighbour`, `fdb`, `nexthop`, `route`: for logs and metrics. */
  readonly name: string;
  wanted(key: string): string | undefined;
  wantedKeys(): Iterable<string>;
  /** Adds the entry, or replaces the one from `before` without a moment of absence. */
  set(key: string, value: string, before: string | undefined): EntryRequest;
  /** Where the kernel refuses `set` for what stands in the way: what lets it through, for as long as it takes. */
  wayFor?(key: string, value: string): Way | undefined;
  remove(key: string, value: string): EntryRequest;
  /** After the new value stands: what takes the one before away, where `set` has not. */
  removeReplaced?(key: string, before: string, value: string): NetlinkRequest | undefined;
}

export interface EntryChange {
  readonly table: EntryTable;
  readonly key: string;
  /** Undefined: the entry goes. */
  readonly value: string | undefined;
  readonly before: string | undefined;
  /** The kernel departed from what was wanted, rather than the wish from what the kernel holds. */
  readonly repair: boolean;
}

export class EntryTable {
  readonly kind: EntryKind;
  #seen = false;
  readonly observed = new Map<string, string>();
  /** By key: whether it is a repair. */
  readonly #dirty = new Map<string, boolean>();

  constructor(kind: EntryKind) {
    this.kind = kind;
  }

  /** The wish for this key changed. */
  markDirty(key: string): void {
    this.#dirty.set(key, false);
  }

  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** A dump: everything the kernel holds of this kind. The first one of a table finds nothing to repair. */
  replaceObserved(entries: Iterable<readonly [string, string]>): void {
    this.observed.clear();
    for (const [key, value] of entries) this.observed.set(key, value);
    for (const key of this.observed.keys()) if (this.#differs(key)) this.#found(key);
    for (const key of this.kind.wantedKeys()) if (!this.observed.has(key)) this.#found(key);
    this.#seen = true;
  }

  /** An announcement. @returns whether the kernel now differs from what is wanted */
  announced(key: string, value: string | undefined): boolean {
    if (value === undefined) this.observed.delete(key);
    else this.observed.set(key, value);
    if (!this.#differs(key)) return false;
    this.#found(key);
    return true;
  }

  /** The differences; the keys stay dirty until `done`. */
  changes(): EntryChange[] {
    const changes: EntryChange[] = [];
    for (const [key, repair] of this.#dirty) {
      const value = this.kind.wanted(key);
      const before = this.observed.get(key);
      if (value === before) this.#dirty.delete(key);
      else changes.push({ table: this, key, value, before, repair });
    }
    return changes;
  }

  /** A change was carried out. */
  done({ key, value }: EntryChange): void {
    if (value === undefined) this.observed.delete(key);
    else this.observed.set(key, value);
    if (!this.#differs(key)) this.#dirty.delete(key);
  }

  #found(key: string): void {
    if (!this.#dirty.has(key)) this.#dirty.set(key, this.#seen);
  }

  #differs(key: string): boolean {
    return this.kind.wanted(key) !== this.observed.get(key);
  }
}
