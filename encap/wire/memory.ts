/**
 * The memory that one worker works in: one block, made once, in which packets, their headers and the kernel's
 * descriptors of them lie at offsets that never move. Nothing in the fast path is an object of its own.
 *
 * The block is a WebAssembly memory where there is WebAssembly with SIMD: that is plain memory to the kernel and to
 * JavaScript, and lets checksums be taken 16 bytes at a time (fast-sum.ts).
 */
import { plainSum, type Sum, wasmMemory, wasmSum } from './fast-sum.ts';

const WASM_PAGE_BYTES = 65_536;

export interface PacketMemory {
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly view: DataView;
  /** See fast-sum.ts. */
  readonly sum: Sum;
}

/** At least `sizeBytes` zero bytes. @param how `plain`: without WebAssembly, for its test and as its oracle */
export function packetMemory(sizeBytes: number, how: 'fast' | 'plain' = 'fast'): PacketMemory {
  const pages = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
  const memory = how === 'fast' ? wasmMemory(pages) : undefined;
  const buffer = memory?.buffer ?? new ArrayBuffer(pages * WASM_PAGE_BYTES);
  const view = new DataView(buffer);
  return {
    bytes: new Uint8Array(buffer),
    words: new Uint32Array(buffer),
    view,
    sum: (memory && wasmSum(memory)) ?? plainSum(view),
  };
}

/** Hands out parts of a memory, one after the other; none is ever given back. */
export class Layout {
  #end = 0;

  /** @returns the offset of `sizeBytes` bytes, a multiple of 64: a cache line */
  take(sizeBytes: number): number {
    const offset = this.#end;
    this.#end = (offset + sizeBytes + 63) & ~63;
    return offset;
  }

  get sizeBytes(): number {
    return this.#end;
  }
}
