/**
 * What a kernel's vxlan sends over a virtual cable: transport checksums that a network card was to complete, and large
 * sends that it was to cut. Neither has met one.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import { Coalescer, type FrameSink } from '../../../encap/wire/coalesce.ts';
import { packetMemory } from '../../../encap/wire/memory.ts';
import { joined } from './frames.ts';
import { cut, frameOf, headerBytes, type Packet, packet } from './offload.ts';

const memory = packetMemory(1 << 16);
const FRAMES_AT = 4096;
const LARGEST_BYTES = 1464;

interface Passed {
  /** Undefined: untouched, with an offload header of zeros. */
  readonly vnet: Uint8Array | undefined;
  readonly frame: Uint8Array;
}

class CollectingFrames implements FrameSink {
  readonly passed: Passed[] = [];
  #vnet = new Uint8Array(0);
  #pieces: Uint8Array[] = [];

  single(frame: number, lengthBytes: number): void {
    this.passed.push({ vnet: undefined, frame: memory.bytes.slice(frame, frame + lengthBytes) });
  }
  begin(vnet: number): void {
    this.#vnet = memory.bytes.slice(vnet, vnet + 10);
    this.#pieces = [];
  }
  piece(offset: number, lengthBytes: number): void {
    this.#pieces.push(memory.bytes.slice(offset, offset + lengthBytes));
  }
  end(): void {
    this.passed.push({ vnet: this.#vnet, frame: joined(...this.#pieces) });
  }
}

/** @returns what was passed on, and which frames were refused */
function pass(frames: readonly Uint8Array[], mergesUdp = true): { passed: Passed[]; refused: number[] } {
  memory.bytes.fill(0xa5);
  const sink = new CollectingFrames();
  const coalescer = new Coalescer(memory, sink, 64, mergesUdp);
  const refused: number[] = [];
  let at = FRAMES_AT;
  for (const [place, frame] of frames.entries()) {
    memory.bytes.set(frame, at);
    if (!coalescer.add(at, frame.length, LARGEST_BYTES)) refused.push(place);
    at += frame.length + 13;
  }
  coalescer.flush();
  return { passed: sink.passed, refused };
}

const field = (vnet: Uint8Array | undefined, at: number): number =>
  (vnet?.[at] ?? 0) | ((vnet?.[at + 1] ?? 0) << 8);

const transportOf = ({ version }: Packet): number => (version === 4 ? 34 : 54);
const payload = (minLength: number, maxLength: number) =>
  packet(fc.uint8Array({ minLength, maxLength, size: 'max' }));

describe('encap/wire begun checksums', () => {
  it('a packet alone goes on as it came, and the kernel is told what to complete', () => {
    fc.assert(
      fc.property(payload(0, 1300), fc.boolean(), (each, mergesUdp) => {
        const frame = frameOf(each, 'partial');
        const { passed } = pass([frame], mergesUdp);
        expect(passed).to.have.length(1);
        expect(Buffer.from(passed[0]?.frame ?? []).equals(Buffer.from(frame))).to.equal(true);
        const { vnet } = passed[0] ?? {};
        expect([vnet?.[0], vnet?.[1]]).to.deep.equal([1, 0]);
        expect(field(vnet, 6)).to.equal(transportOf(each));
        expect(field(vnet, 8)).to.equal(each.protocol === 17 ? 6 : 16);
      }),
      { numRuns: 100 },
    );
  });

  it('a wrong checksum is not taken for one that is begun', () => {
    fc.assert(
      fc.property(payload(0, 1300), (each) => {
        expect(pass([frameOf(each, 'wrong')]).passed[0]?.vnet).to.equal(undefined);
      }),
      { numRuns: 100 },
    );
  });

  it('a run of them is merged like one of complete ones', () => {
    fc.assert(
      fc.property(payload(2000, 4000), fc.integer({ min: 200, max: 1300 }), (large, size) => {
        const parts = cut({ ...large, flags: 0x10 }, size);
        const merged = (checksum: 'partial' | 'right') =>
          pass(parts.map((part) => frameOf(part, checksum))).passed;
        expect(merged('partial')).to.deep.equal(merged('right'));
        expect(merged('partial')).to.have.length(1);
      }),
      { numRuns: 30 },
    );
  });

  it('a large TCP send that was never cut goes on whole, in segments that fit; nothing else of that size does', () => {
    fc.assert(
      fc.property(payload(LARGEST_BYTES, 6000), (each) => {
        const frame = frameOf(each, 'partial');
        const { passed, refused } = pass([frame]);
        if (each.protocol === 17) {
          expect(refused).to.deep.equal([0]);
          expect(passed).to.deep.equal([]);
          return;
        }
        expect(refused).to.deep.equal([]);
        const { vnet } = passed[0] ?? {};
        expect(Buffer.from(passed[0]?.frame ?? []).equals(Buffer.from(frame))).to.equal(true);
        const ecn = (each.flags & 0x80) === 0 ? 0 : 0x80;
        expect([vnet?.[0], vnet?.[1]]).to.deep.equal([1, (each.version === 4 ? 1 : 4) | ecn]);
        expect(field(vnet, 2)).to.equal(headerBytes(each));
        expect(field(vnet, 4)).to.be.at.least(1);
        expect(field(vnet, 2) + field(vnet, 4)).to.be.at.most(LARGEST_BYTES);
        expect(field(vnet, 6)).to.equal(transportOf(each));
        expect(pass([frameOf(each, 'right')]).refused).to.deep.equal([0]);
        expect(pass([frameOf(each, 'wrong')]).refused).to.deep.equal([0]);
      }),
      { numRuns: 60 },
    );
  });

  it('what came before a large send goes before it', () => {
    const [large] = fc
      .sample(payload(20_000, 20_000), { numRuns: 40, seed: 3 })
      .filter(({ protocol }) => protocol === 6);
    if (large === undefined) throw new Error('no sample');
    const small = { ...large, flags: 0x10, payload: large.payload.slice(0, 500) };
    const { passed } = pass([frameOf(small), frameOf({ ...large, flags: 0x10 }, 'partial')]);
    expect(passed.map(({ frame }) => frame.length)).to.deep.equal([
      headerBytes(small) + 500,
      headerBytes(large) + 20_000,
    ]);
  });

  it('any bytes whatever of any size: no throw, and each is passed on or refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 14, maxLength: 3000, size: 'max' }), (bytes) => {
        const { passed, refused } = pass([bytes]);
        expect(passed.length + refused.length).to.equal(1);
      }),
      { numRuns: 500 },
    );
  });
});
