/** The kernel's descriptors of memory: struct iovec, msghdr and mmsghdr of 64-bit Linux, written in place. */
import { type PacketMemory, packetMemory } from '../wire/memory.ts';
import { addressOf } from './calls.ts';

export const IOVEC_BYTES = 16;
/** struct mmsghdr: a msghdr of 56 bytes and the length that came or went. */
export const MMSGHDR_BYTES = 64;

/** A packet memory that the kernel can be pointed into. */
export class MappedMemory {
  readonly memory: PacketMemory;
  /** Where offset 0 is. The memory neither moves nor goes while this object is referenced. */
  readonly address: number;
  readonly #low: number;
  readonly #high: number;

  constructor(sizeBytes: number) {
    this.memory = packetMemory(sizeBytes);
    this.address = addressOf(this.memory.bytes);
    this.#low = this.address % 2 ** 32;
    this.#high = Math.floor(this.address / 2 ** 32);
  }

  /** Writes the address of `offset` to 8 bytes at `at` (a multiple of 4). */
  point(at: number, offset: number): void {
    const { words } = this.memory;
    const low = this.#low + offset;
    words[at >> 2] = low;
    words[(at >> 2) + 1] = low > 0xffff_ffff ? this.#high + 1 : this.#high;
  }

  iovec(at: number, offset: number, lengthBytes: number): void {
    this.point(at, offset);
    this.memory.words[(at >> 2) + 2] = lengthBytes;
    this.memory.words[(at >> 2) + 3] = 0;
  }

  /** A msghdr: name, iovecs and control data. */
  message(
    at: number,
    name: number,
    nameBytes: number,
    iovecs: number,
    iovecCount: number,
    control: number,
    controlBytes: number,
  ): void {
    const { words } = this.memory;
    const word = at >> 2;
    this.point(at, name);
    words[word + 2] = nameBytes;
    this.point(at + 16, iovecs);
    words[word + 6] = iovecCount;
    words[word + 7] = 0;
    this.point(at + 32, control);
    words[word + 10] = controlBytes;
    words[word + 11] = 0;
    words[word + 12] = 0;
  }
}
