/**
 * The embedded store's database: LMDB in a directory that several processes open at once.
 *
 *   meta    revision -> number            one more with every change
 *   texts   key -> {text, revision}       `config`, and `subnets/10.244.5.0-24` as in etcd, with the same text
 *   expiry  key -> milliseconds           wall clock, which all processes share; renewing is no change
 *   log     revision -> key               which key a revision changed; the newest `historyLength` are kept
 *
 * Every write is one LMDB transaction, so exactly one process writes at a time and readers see all of a
 * change or nothing. Reads within one synchronous stretch after `refresh` see one state.
 */
import { type Database, open, type RootDatabase } from 'lmdb';

export interface StoredText {
  readonly text: string;
  /** The revision at which it was written. */
  readonly revision: number;
}

/** Address space, not memory: 50,000 leases take 30 MB. */
const MAP_SIZE_BYTES = 2 ** 28;

export class EmbeddedDatabase {
  readonly #root: RootDatabase<never, string>;
  readonly #meta: Database<number, string>;
  readonly #texts: Database<StoredText, string>;
  readonly #expiry: Database<number, string>;
  readonly #log: Database<string, number>;
  readonly #historyLength: number;

  constructor(path: string, historyLength: number) {
    this.#historyLength = historyLength;
    // A directory whatever its name looks like; on disk when a write returns.
    this.#root = open({ path, noSubdir: false, maxDbs: 4, mapSize: MAP_SIZE_BYTES, overlappingSync: false });
    const table = <V, K extends string | number>(name: string) =>
      this.#root.openDB<V, K>({ name, encoding: 'json' }) as Database<V, K>;
    this.#meta = table('meta');
    this.#texts = table('texts');
    this.#expiry = table('expiry');
    this.#log = table('log');
  }

  /** Reads after this see what every process has committed until now. */
  refresh(): void {
    this.#root.resetReadTxn();
  }

  revision(): number {
    return this.#meta.get('revision') ?? 0;
  }

  /** Runs to its end with nobody else writing, or, if it throws, has never run. */
  write<T>(action: () => T): T {
    return this.#root.transactionSync(action);
  }

  get(key: string): StoredText | undefined {
    return this.#texts.get(key);
  }

  *entries(prefix: string): Generator<readonly [string, StoredText]> {
    for (const { key, value } of this.#texts.getRange({ start: prefix, end: `${prefix}\uffff` })) {
      yield [key, value];
    }
  }

  expiresAt(key: string): number | undefined {
    return this.#expiry.get(key);
  }

  *expiries(): Generator<readonly [string, number]> {
    for (const { key, value } of this.#expiry.getRange({})) yield [key, value];
  }

  /** Within `write`. */
  put(key: string, text: string): number {
    const revision = this.#changed(key);
    this.#texts.putSync(key, { text, revision });
    return revision;
  }

  /** Within `write`. */
  remove(key: string): void {
    if (this.get(key) === undefined) return;
    this.#changed(key);
    this.#texts.removeSync(key);
    this.#expiry.removeSync(key);
  }

  /** Within `write`; undefined: it never expires. */
  setExpiry(key: string, expiresAtMs: number | undefined): void {
    if (expiresAtMs === undefined) this.#expiry.removeSync(key);
    else this.#expiry.putSync(key, expiresAtMs);
  }

  /** The keys that changed after a revision, or undefined if the log does not reach back so far. */
  changedSince(revision: number): ReadonlySet<string> | undefined {
    const [oldest] = this.#log.getKeys({ limit: 1 });
    if (revision < this.revision() && (oldest === undefined || oldest > revision + 1)) return undefined;
    return new Set(this.#log.getRange({ start: revision + 1 }).map(({ value }) => value));
  }

  close(): Promise<void> {
    return this.#root.close();
  }

  #changed(key: string): number {
    const revision = this.revision() + 1;
    this.#meta.putSync('revision', revision);
    this.#log.putSync(revision, key);
    for (const old of [...this.#log.getKeys({ end: revision - this.#historyLength + 1 })])
      this.#log.removeSync(old);
    return revision;
  }
}
