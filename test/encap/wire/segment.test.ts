import { expect } from 'chai';
import fc from 'fast-check';
import { onesComplementSum } from '../../../encap/wire/checksum.ts';
import { plainSum } from '../../../encap/wire/fast-sum.ts';
import { packetMemory } from '../../../encap/wire/memory.ts';
import { MALFORMED, SENT, Segmenter, TOO_BIG } from '../../../encap/wire/segment.ts';
import { joined } from './frames.ts';
import { CollectingSink, cut, frameOf, headerBytes, packet, vnetHeader } from './offload.ts';

const VNI = 0x00ab_cdef;
const VXLAN = [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0];
const FRAME_AT = 4096;
const HEADERS_AT = 128 * 1024;

const memory = packetMemory(1 << 20);
const segmenter = new Segmenter(memory, VNI);

/** Segments what is written into memory that is full of `garbage` elsewhere. */
function segment(vnet: Uint8Array, frame: Uint8Array, limit = 65_535, garbage = 0xa5) {
  memory.bytes.fill(garbage, 0, HEADERS_AT);
  memory.bytes.set(vnet, FRAME_AT);
  memory.bytes.set(frame, FRAME_AT + 10);
  const sink = new CollectingSink(memory, HEADERS_AT);
  const result = segmenter.send(FRAME_AT, 10 + frame.length, limit, sink);
  return { result, packets: sink.packets };
}

const hex = (packets: readonly Uint8Array[]): string[] =>
  packets.map((each) => Buffer.from(each).toString('hex'));

describe('encap/wire segmentation', () => {
  it('a large frame becomes the packets that hardware would make of it, to the byte', () => {
    fc.assert(
      fc.property(
        packet(fc.uint8Array({ minLength: 1, maxLength: 6000, size: 'max' })),
        fc.integer({ min: 1, max: 1500 }),
        (large, asked) => {
          const size = Math.max(asked, Math.ceil(large.payload.length / 60));
          const wanted = cut(large, size).map((part) => joined(VXLAN, frameOf(part)));
          const { result, packets } = segment(vnetHeader(large, size), frameOf(large, 'partial'));
          expect(result).to.equal(SENT);
          expect(hex(packets)).to.deep.equal(hex(wanted));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('TCP is cut to what the path takes, however large the parts were to be; UDP is not', () => {
    fc.assert(
      fc.property(
        packet(fc.uint8Array({ minLength: 300, maxLength: 3000, size: 'max' })),
        fc.integer({ min: 200, max: 1000 }),
        (large, limit) => {
          const { result, packets } = segment(vnetHeader(large, 1400), frameOf(large, 'partial'), limit);
          if (large.protocol === 17) {
            const fits = headerBytes(large) + Math.min(1400, large.payload.length) <= limit;
            expect(result).to.equal(fits ? SENT : TOO_BIG);
            return;
          }
          const size = Math.min(1400, limit - headerBytes(large));
          expect(hex(packets)).to.deep.equal(
            hex(cut(large, size).map((part) => joined(VXLAN, frameOf(part)))),
          );
        },
      ),
      { numRuns: 100 },
    );
  });

  it('a frame that is not cut gets its checksum completed and goes as it is', () => {
    fc.assert(
      fc.property(packet(fc.uint8Array({ maxLength: 1500 })), (small) => {
        const { packets } = segment(vnetHeader(small, 0), frameOf(small, 'partial'));
        expect(hex(packets)).to.deep.equal(hex([joined(VXLAN, frameOf(small))]));
        const untouched = segment(new Uint8Array(10), frameOf(small, 'wrong'));
        expect(hex(untouched.packets)).to.deep.equal(hex([joined(VXLAN, frameOf(small, 'wrong'))]));
        const tooBig = segment(vnetHeader(small, 0), frameOf(small, 'partial'), 13);
        expect(tooBig.result).to.equal(TOO_BIG);
        expect(tooBig.packets).to.have.length(0);
      }),
    );
  });

  it('any offload header over any frame: no error, and nothing but the frame has a say', () => {
    const anyFrame = fc.oneof(
      fc.uint8Array({ minLength: 14, maxLength: 200 }),
      packet(fc.uint8Array({ maxLength: 200 })).map((each) => frameOf(each)),
    );
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 10, maxLength: 10 }), anyFrame, (vnet, frame) => {
        const first = segment(vnet, frame, 1500, 0x00);
        const second = segment(vnet, frame, 1500, 0xff);
        expect(second.result).to.equal(first.result);
        expect(hex(second.packets)).to.deep.equal(hex(first.packets));
        if (first.result === MALFORMED) expect(first.packets).to.have.length(0);
        for (const each of first.packets) expect(each.length).to.be.at.most(8 + 1500);
      }),
      { numRuns: 2000 },
    );
  });

  it('the fast sum is the textbook’s, at every alignment and length', () => {
    const plain = plainSum(memory.view);
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 3000, size: 'max' }),
        fc.integer({ min: 0, max: 63 }),
        (bytes, at) => {
          memory.bytes.fill(0xff, 0, 4096);
          memory.bytes.set(bytes, at);
          const textbook = onesComplementSum(bytes);
          const swapped = ((textbook & 255) << 8) | (textbook >> 8);
          for (const sum of [memory.sum, plain]) {
            const raw = sum(at, bytes.length);
            expect(raw).to.be.below(2 ** 17);
            expect(raw % 0xffff).to.equal(swapped % 0xffff);
            expect(raw === 0).to.equal(swapped === 0);
          }
        },
      ),
    );
    memory.bytes.fill(0xff, 0, 65_536);
    expect(memory.sum(0, 65_535)).to.equal(plain(0, 65_535));
    expect(packetMemory(10, 'plain').sum(0, 10)).to.equal(0);
  });
});
