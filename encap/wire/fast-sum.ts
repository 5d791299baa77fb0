/**
 * The Internet checksum over payloads: what the user-space path spends most of its own time on, so it is done
 * 16 bytes at a time by a function of WebAssembly, put together below (measured: 64 KiB in 2.3 µs, against 15 µs in
 * JavaScript). Where there is no WebAssembly or no SIMD, JavaScript does it.
 *
 * One's complement sums do not depend on byte order (RFC 1071, section 2): words are added as the processor reads
 * them, little-endian, and only a number that goes into such a sum from outside has to be swapped.
 */

/**
 * The sum of the 16-bit little-endian words from `offset`, an odd last byte padded with zero; folded once, so below
 * 2^17. For at most 64 KiB.
 */
export type Sum = (offset: number, lengthBytes: number) => number;

/** To 16 bits; for sums below 2^32. */
export function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** A 16-bit number as it stands in a sum of little-endian words. */
export const swap16 = (value: number): number => ((value & 0xff) << 8) | ((value >>> 8) & 0xff);

/** The same in JavaScript. */
export function plainSum(view: DataView): Sum {
  return (offset, lengthBytes) => {
    let even = 0;
    let odd = 0;
    let at = offset;
    const end = offset + lengthBytes;
    for (; at + 4 <= end; at += 4) {
      const word = view.getUint32(at, true);
      even += word & 0xffff;
      odd += word >>> 16;
    }
    if (at + 2 <= end) {
      even += view.getUint16(at, true);
      at += 2;
    }
    if (at < end) even += view.getUint8(at);
    const sum = even + odd;
    return (sum & 0xffff) + (sum >>> 16);
  };
}

// The WebAssembly half. lib.dom is not among the compiler's libraries, so what is used of the API is named here.
interface WasmMemory {
  readonly buffer: ArrayBuffer;
}
interface WasmApi {
  readonly Memory: new (size: { initial: number; maximum: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { env: { memory: WasmMemory } },
  ) => { readonly exports: { readonly sum: Sum } };
}

const api = (): WasmApi | undefined => (globalThis as { WebAssembly?: WasmApi }).WebAssembly;

/** Undefined where it cannot be had: no WebAssembly, or a limit on address space. */
export function wasmMemory(pages: number): WasmMemory | undefined {
  try {
    const wasm = api();
    return wasm && new wasm.Memory({ initial: pages, maximum: pages });
  } catch {
    return undefined;
  }
}

/** Undefined where the processor or the engine has no SIMD. */
export function wasmSum(memory: WasmMemory): Sum | undefined {
  try {
    const wasm = api();
    return wasm && new wasm.Instance(new wasm.Module(sumModule()), { env: { memory } }).exports.sum;
  } catch {
    return undefined;
  }
}

// Opcodes (WebAssembly core specification 2.0, "Index of Instructions").
const I32 = 0x7f;
const V128 = 0x7b;
const VOID = 0x40;
const LOOP = 0x03;
const IF = 0x04;
const END = 0x0b;
const BR_IF = 0x0d;
const I32_LOAD8_U = 0x2d;
const I32_LOAD16_U = 0x2f;
const I32_GE_U = 0x4f;
const I32_ADD = 0x6a;
const I32_SUB = 0x6b;
const I32_AND = 0x71;
const I32_SHR_U = 0x76;

const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const tee = (local: number): number[] => [0x22, local];
/** Small non-negative numbers as signed LEB128. */
const i32 = (value: number): number[] => (value < 64 ? [0x41, value] : [0x41, ...signed(value)]);
const signed = (value: number): number[] =>
  value < 64 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >> 7)];
const simd = (opcode: number, ...rest: number[]): number[] => [0xfd, ...unsigned(opcode), ...rest];
const unsigned = (value: number): number[] =>
  value < 128 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >> 7)];
/** At any address: alignment 1. */
const load128 = (offset: number): number[] => simd(0x00, 0, offset);
/** Neighbouring 16-bit lanes added into four 32-bit ones. */
const PAIRS_ADDED = simd(0x7f);
const ADD_LANES = simd(0xae);
const lane = (index: number): number[] => simd(0x1b, index);

const [AT, LEFT, RESULT, ACC0, ACC1] = [0, 1, 2, 3, 4];

/** `while (LEFT >= step) { body; AT += step; LEFT -= step }`, as a loop inside an if. */
const whileLeft = (step: number, body: readonly number[]): number[] => [
  ...[...get(LEFT), ...i32(step), I32_GE_U, IF, VOID, LOOP, VOID],
  ...body,
  ...[...get(AT), ...i32(step), I32_ADD, ...set(AT)],
  ...[...get(LEFT), ...i32(step), I32_SUB, ...tee(LEFT), ...i32(step), I32_GE_U, BR_IF, 0, END, END],
];

const accumulate = (accumulator: number, offset: number): number[] => [
  ...[...get(AT), ...load128(offset), ...PAIRS_ADDED, ...get(accumulator), ...ADD_LANES, ...set(accumulator)],
];

/** A lane takes 2 × 65,535 each 16 bytes: 64 KiB stay far below 2^32. */
function sumModule(): Uint8Array {
  const code = [
    // Locals after the two parameters: one i32, two v128.
    ...[2, 1, I32, 2, V128],
    ...whileLeft(64, [
      ...accumulate(ACC0, 0),
      ...accumulate(ACC1, 16),
      ...accumulate(ACC0, 32),
      ...accumulate(ACC1, 48),
    ]),
    ...whileLeft(16, accumulate(ACC0, 0)),
    ...[...get(ACC0), ...get(ACC1), ...ADD_LANES, ...set(ACC0)],
    ...[...get(ACC0), ...lane(0), ...get(ACC0), ...lane(1), I32_ADD],
    ...[...get(ACC0), ...lane(2), I32_ADD, ...get(ACC0), ...lane(3), I32_ADD, ...set(RESULT)],
    ...whileLeft(2, [...get(RESULT), ...get(AT), I32_LOAD16_U, 0, 0, I32_ADD, ...set(RESULT)]),
    ...whileLeft(1, [...get(RESULT), ...get(AT), I32_LOAD8_U, 0, 0, I32_ADD, ...set(RESULT)]),
    // (result & 0xffff) + (result >>> 16)
    ...[...get(RESULT), 0x41, 0xff, 0xff, 0x03, I32_AND, ...get(RESULT), ...i32(16), I32_SHR_U, I32_ADD, END],
  ];
  const name = (text: string): number[] => [text.length, ...[...text].map((c) => c.charCodeAt(0))];
  const section = (id: number, content: readonly number[]): number[] => [
    id,
    ...unsigned(content.length),
    ...content,
  ];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 2, I32, I32, 1, I32]),
    // The memory is imported without a maximum stated, which takes one with any.
    ...section(2, [1, ...name('env'), ...name('memory'), 2, 0, 0]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('sum'), 0, 0]),
    ...section(10, [1, ...unsigned(code.length), ...code]),
  ]);
}
