/**
 * Peers in shared memory: the main thread writes, the workers read while they forward, and neither waits for the
 * other. Two hash tables with open addressing: by inner MAC address (where does this frame go?), and by underlay
 * address (may this sender send to us?).
 *
 * An entry is one cache line and carries a generation, odd while it is being written: a reader looks at it before and
 * after, and takes an entry that changed meanwhile for one that is not there. That happens only to the very peer that
 * is being changed. Every word of an entry is read and written by Atomics, whose order is the same for all threads:
 * between plain reads and the look at the generation after them, an ARM processor keeps none. Entries never move; a
 * table that gets too full, or too full of deleted entries, is written anew into other memory by its owner, and
 * handed to the readers.
 *
 *   word  0 generation   1 state   2-5 key   6 path MTU, 0 while unknown   7 when that was learned
 *         8-14 socket address   15 how many peers have this underlay address
 */
import { mix } from './flow.ts';

const ENTRY_WORDS = 16;
const GENERATION = 0;
const STATE = 1;
const KEY = 2;
const KEY_WORDS = 4;
const PATH_MTU = 6;
const LEARNED = 7;
const SOCKET_ADDRESS = 8;
const SOCKET_ADDRESS_WORDS = 7;
const COUNT = 15;

const EMPTY = 0;
const USED = 1;
const DELETED = 2;

/** Before the entries: the hash's seed. */
const HEADER_WORDS = 16;
const SEED = 0;

const MIN_ENTRIES = 64;

/** A table's memory with the ways to read it: what a worker makes of what it was handed. */
export class PeerTable {
  readonly words: Int32Array;
  /** The generation in which the last `find` found its entry: `copyAddress` wants it. */
  generation = 0;
  readonly #mask: number;
  readonly #seed: number;

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
    this.#mask = (this.words.length - HEADER_WORDS) / ENTRY_WORDS - 1;
    this.#seed = this.words[SEED] ?? 0;
  }

  get capacity(): number {
    return this.#mask + 1;
  }

  /** Where in `words` the entry of this key is; -1: there is none. */
  find(key0: number, key1: number, key2: number, key3: number): number {
    const { words } = this;
    const [k0, k1, k2, k3] = [key0 | 0, key1 | 0, key2 | 0, key3 | 0];
    let slot = this.#hash(k0, k1, k2, k3);
    for (let probes = 0; probes <= this.#mask; probes++, slot = (slot + 1) & this.#mask) {
      const at = HEADER_WORDS + slot * ENTRY_WORDS;
      const generation = Atomics.load(words, at + GENERATION);
      const state = Atomics.load(words, at + STATE);
      if (state === EMPTY && (generation & 1) === 0) return -1;
      if (
        state === USED &&
        Atomics.load(words, at + KEY) === k0 &&
        Atomics.load(words, at + KEY + 1) === k1 &&
        Atomics.load(words, at + KEY + 2) === k2 &&
        Atomics.load(words, at + KEY + 3) === k3
      ) {
        this.generation = generation;
        return (generation & 1) === 0 && Atomics.load(words, at + GENERATION) === generation ? at : -1;
      }
    }
    return -1;
  }

  /**
   * Copies the entry's socket address to `to` of `target` (a word's index).
   * @param generation as it was when `find` found the entry
   * @returns whether it is still that entry
   */
  copyAddress(entry: number, generation: number, target: Uint32Array, to: number): boolean {
    const { words } = this;
    for (let i = 0; i < SOCKET_ADDRESS_WORDS; i++)
      target[to + i] = Atomics.load(words, entry + SOCKET_ADDRESS + i);
    return Atomics.load(words, entry + GENERATION) === generation;
  }

  /** The largest IP packet the path takes, if it is known to be narrower than the underlay's interface; else 0. */
  pathMtu(entry: number): number {
    return Atomics.load(this.words, entry + PATH_MTU);
  }

  /** In seconds of whatever clock the workers share. */
  learnedAt(entry: number): number {
    return Atomics.load(this.words, entry + LEARNED);
  }

  learn(entry: number, pathMtu: number, atSeconds: number): void {
    Atomics.store(this.words, entry + LEARNED, atSeconds);
    Atomics.store(this.words, entry + PATH_MTU, pathMtu);
  }

  /** The slot of the key's entry, or the one where it would be written; for the writer. */
  slotFor(key: Uint32Array): number {
    const { words } = this;
    const [k0, k1, k2, k3] = [word(key, 0), word(key, 1), word(key, 2), word(key, 3)];
    let slot = this.#hash(k0, k1, k2, k3);
    let free = -1;
    for (;;) {
      const at = HEADER_WORDS + slot * ENTRY_WORDS;
      const state = words[at + STATE];
      if (state === EMPTY) return free < 0 ? at : free;
      if (state === DELETED) {
        if (free < 0) free = at;
      } else if (
        words[at + KEY] === k0 &&
        words[at + KEY + 1] === k1 &&
        words[at + KEY + 2] === k2 &&
        words[at + KEY + 3] === k3
      ) {
        return at;
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  #hash(k0: number, k1: number, k2: number, k3: number): number {
    let hash = mix(k0 ^ this.#seed);
    hash = mix(hash ^ k1);
    if ((k2 | k3) !== 0) hash = mix(mix(hash ^ k2) ^ k3);
    return hash & this.#mask;
  }
}

const word = (words: Uint32Array, at: number): number => (words[at] ?? 0) | 0;

/** The one writer of a table. `grown` is called with new memory, after which readers are to use that. */
export class PeerTableWriter {
  #table: PeerTable;
  #memory: SharedArrayBuffer;
  #used = 0;
  /** Entries that are not empty: used and deleted. */
  #filled = 0;
  readonly #seed: number;
  readonly #grown: () => void;

  /** @param seed random, so that nobody can choose keys that collide */
  constructor(seed: number, grown: () => void) {
    this.#seed = seed;
    this.#grown = grown;
    this.#memory = this.#newMemory(MIN_ENTRIES);
    this.#table = new PeerTable(this.#memory);
  }

  get memory(): SharedArrayBuffer {
    return this.#memory;
  }

  get table(): PeerTable {
    return this.#table;
  }

  /**
   * Writes the entry of a key (4 words), with its socket address (at most 7 words). With `counted` it is shared by
   * several owners: one that stands is kept and gains an owner.
   */
  set(key: Uint32Array, socketAddress: Uint32Array, counted = false): void {
    let at = this.#table.slotFor(key);
    let state = this.#state(at);
    if (state === USED && counted) {
      Atomics.add(this.#table.words, at + COUNT, 1);
      return;
    }
    if (state === EMPTY && (this.#filled + 1) * 4 > this.#table.capacity * 3) {
      this.#rewrite();
      at = this.#table.slotFor(key);
      state = this.#state(at);
    }
    if (state !== USED) this.#used++;
    if (state === EMPTY) this.#filled++;
    this.#write(this.#table.words, at, () => {
      const { words } = this.#table;
      Atomics.store(words, at + STATE, USED);
      for (let i = 0; i < KEY_WORDS; i++) Atomics.store(words, at + KEY + i, word(key, i));
      for (let i = 0; i < SOCKET_ADDRESS_WORDS; i++)
        Atomics.store(words, at + SOCKET_ADDRESS + i, word(socketAddress, i));
      Atomics.store(words, at + PATH_MTU, 0);
      Atomics.store(words, at + COUNT, 1);
    });
  }

  /** @returns whether there was one; of a counted entry, this takes one owner away */
  delete(key: Uint32Array): boolean {
    const at = this.#table.slotFor(key);
    const { words } = this.#table;
    if (this.#state(at) !== USED) return false;
    if ((words[at + COUNT] ?? 0) > 1) {
      Atomics.sub(words, at + COUNT, 1);
      return true;
    }
    this.#used--;
    this.#write(words, at, () => {
      Atomics.store(words, at + STATE, DELETED);
    });
    return true;
  }

  /** Every entry's place in `table.words`. */
  *entries(): Generator<number> {
    for (let slot = 0; slot < this.#table.capacity; slot++) {
      const at = HEADER_WORDS + slot * ENTRY_WORDS;
      if (this.#state(at) === USED) yield at;
    }
  }

  /** The key's words of an entry, and its socket address. */
  key(entry: number): Int32Array {
    return this.#table.words.subarray(entry + KEY, entry + KEY + KEY_WORDS);
  }

  #state(at: number): number {
    return this.#table.words[at + STATE] ?? EMPTY;
  }

  #write(words: Int32Array, at: number, change: () => void): void {
    Atomics.add(words, at + GENERATION, 1);
    change();
    Atomics.add(words, at + GENERATION, 1);
  }

  /** Into new memory, at most half full. */
  #rewrite(): void {
    const old = this.#table.words;
    const entries = [...this.entries()];
    let capacity = MIN_ENTRIES;
    while (capacity < 2 * (this.#used + 1)) capacity *= 2;
    this.#memory = this.#newMemory(capacity);
    this.#table = new PeerTable(this.#memory);
    this.#filled = this.#used;
    const key = new Uint32Array(KEY_WORDS);
    for (const from of entries) {
      key.set(old.subarray(from + KEY, from + KEY + KEY_WORDS));
      const at = this.#table.slotFor(key);
      this.#table.words.set(old.subarray(from + STATE, from + ENTRY_WORDS), at + STATE);
    }
    this.#grown();
  }

  #newMemory(capacity: number): SharedArrayBuffer {
    const memory = new SharedArrayBuffer((HEADER_WORDS + capacity * ENTRY_WORDS) * 4);
    new Int32Array(memory)[SEED] = this.#seed;
    return memory;
  }
}

/** The key of an Ethernet address: its first four bytes and its last two, as a packet's are read. */
export function macKey(mac: Uint8Array): Uint32Array {
  const view = new DataView(mac.buffer, mac.byteOffset, 6);
  return Uint32Array.of(view.getUint32(0, true), view.getUint16(4, true), 0, 0);
}
