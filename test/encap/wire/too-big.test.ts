import { expect } from 'chai';
import fc from 'fast-check';
import { onesComplementSum, pseudoHeaderSum } from '../../../encap/wire/checksum.ts';
import { decodeEthernet } from '../../../encap/wire/ethernet.ts';
import { decodeIcmp } from '../../../encap/wire/icmp.ts';
import { decodeIpv4 } from '../../../encap/wire/ipv4.ts';
import { decodeIpv6 } from '../../../encap/wire/ipv6.ts';
import { packetMemory } from '../../../encap/wire/memory.ts';
import { sendFragments, TOO_BIG_BYTES, writeTooBig } from '../../../encap/wire/too-big.ts';
import { joined } from './frames.ts';
import { CollectingSink, frameOf, packet } from './offload.ts';

const FRAME_AT = 4096 + 10;
const ANSWER_AT = 100_000;
const memory = packetMemory(1 << 20);

function place(frame: Uint8Array, garbage = 0xa5): void {
  memory.bytes.fill(garbage);
  memory.bytes.set(frame, FRAME_AT);
}

function answerTo(frame: Uint8Array, mtu: number, garbage?: number): Uint8Array {
  place(frame, garbage);
  const length = writeTooBig(memory, FRAME_AT, frame.length, mtu, ANSWER_AT);
  return memory.bytes.slice(ANSWER_AT, ANSWER_AT + length);
}

/** Unicast ends, as a packet that is answered has. */
const unicast = packet(fc.uint8Array({ minLength: 8, maxLength: 1800, size: 'max' })).map((each) => ({
  ...each,
  source: each.source.with(0, 10),
  destination: each.destination.with(0, 10),
}));

describe('encap/wire, what is too big', () => {
  it('is answered with its beginning and the MTU, from where it was to go, with right checksums', () => {
    fc.assert(
      fc.property(unicast, fc.integer({ min: 1280, max: 9000 }), (large, mtu) => {
        const frame = frameOf(large);
        const answer = answerTo(frame, mtu);
        expect(answer.length).to.be.at.most(TOO_BIG_BYTES);
        expect(Array.from(answer.subarray(0, 10))).to.deep.equal(new Array(10).fill(0));
        const ethernet = decodeEthernet(answer.subarray(10));
        if (ethernet.fault !== undefined) throw new Error(ethernet.fault);
        expect(ethernet.header.destination).to.deep.equal(frame.slice(6, 12));
        expect(ethernet.header.source).to.deep.equal(frame.slice(0, 6));
        const isIpv4 = large.version === 4;
        const ip = isIpv4 ? decodeIpv4(ethernet.payload) : decodeIpv6(ethernet.payload);
        if (ip.fault !== undefined) throw new Error(ip.fault);
        expect(ip.header.source).to.deep.equal(large.destination);
        expect(ip.header.destination).to.deep.equal(large.source);
        if ('checksumRight' in ip.header) expect(ip.header.checksumRight).to.equal(true);
        const pseudo = isIpv4 ? 0 : pseudoHeaderSum(large.destination, large.source, 58, ip.payload.length);
        expect(onesComplementSum(ip.payload, pseudo)).to.equal(0xffff);
        const icmp = decodeIcmp(ip.payload);
        if (icmp.fault !== undefined) throw new Error(icmp.fault);
        expect([icmp.header.type, icmp.header.code]).to.deep.equal(isIpv4 ? [3, 4] : [2, 0]);
        expect(icmp.header.sequence).to.equal(mtu);
        const quoted = frame.slice(14, 14 + (isIpv4 ? 548 : 1232));
        expect(Array.from(icmp.payload)).to.deep.equal(Array.from(quoted));
      }),
      { numRuns: 200 },
    );
  });

  it('is not answered where that is forbidden: group addresses, later fragments, errors', () => {
    const sample = (version: 4 | 6) =>
      frameOf(
        fc.sample(
          unicast.filter((each) => each.version === version),
          { numRuns: 1, seed: 3 },
        )[0] as never,
      );
    const [ipv4, ipv6] = [sample(4), sample(6)];
    expect(answerTo(ipv4, 1400).length).to.be.greaterThan(0);
    expect(answerTo(ipv6, 1400).length).to.be.greaterThan(0);
    expect(answerTo(ipv4.with(30, 224), 1400).length).to.equal(0);
    expect(answerTo(ipv4.with(21, 1), 1400).length).to.equal(0);
    // ICMP "destination unreachable" and ICMPv6 "packet too big".
    expect(answerTo(ipv4.with(23, 1).with(34, 3), 1400).length).to.equal(0);
    expect(answerTo(ipv4.with(23, 1).with(34, 8), 1400).length).to.be.greaterThan(0);
    expect(answerTo(ipv6.with(38, 0xff), 1400).length).to.equal(0);
    expect(answerTo(ipv6.with(20, 58).with(54, 2), 1400).length).to.equal(0);
    expect(answerTo(ipv6.with(20, 58).with(54, 128), 1400).length).to.be.greaterThan(0);
    expect(answerTo(joined(new Uint8Array(12), [8, 6], new Uint8Array(100)), 1400).length).to.equal(0);
  });

  it('is sent in fragments where it may be, which are the packet when put together again', () => {
    fc.assert(
      fc.property(unicast, fc.integer({ min: 62, max: 1400 }), (large, limit) => {
        const frame = frameOf(large);
        place(frame);
        const sink = new CollectingSink(memory, 200_000);
        const sent = sendFragments(memory, FRAME_AT, frame.length, limit, sink);
        expect(sent).to.equal(large.version === 4 && !large.dontFragment);
        if (!sent) {
          expect(sink.packets).to.have.length(0);
          return;
        }
        const payload = new Uint8Array(frame.length - 34);
        for (const [place, each] of sink.packets.entries()) {
          expect(each.length).to.be.at.most(8 + limit);
          const ip = decodeIpv4(each.subarray(8 + 14));
          if (ip.fault !== undefined) throw new Error(ip.fault);
          expect(ip.header.checksumRight).to.equal(true);
          expect(ip.header.identification).to.equal(large.identification);
          expect(ip.header.moreFragments).to.equal(place < sink.packets.length - 1);
          payload.set(ip.payload, ip.header.fragmentOffsetBytes);
        }
        expect(Array.from(payload)).to.deep.equal(Array.from(frame.slice(34)));
      }),
      { numRuns: 200 },
    );
  });

  it('any bytes: no error, and nothing but the frame has a say', () => {
    const anyFrame = fc.oneof(
      fc.uint8Array({ minLength: 14, maxLength: 200 }),
      fc
        .tuple(unicast, fc.nat({ max: 60 }), fc.nat({ max: 255 }))
        .map(([each, at, value]) => frameOf(each).with(12 + (at % 30), value)),
    );
    fc.assert(
      fc.property(anyFrame, fc.integer({ min: 14, max: 1500 }), (frame, limit) => {
        expect(answerTo(frame, 1400, 0x00)).to.deep.equal(answerTo(frame, 1400, 0xff));
        const fragments = [0x00, 0xff].map((garbage) => {
          place(frame, garbage);
          const sink = new CollectingSink(memory, 200_000);
          sendFragments(memory, FRAME_AT, frame.length, limit, sink);
          // The VXLAN header is written before, by who calls.
          return sink.packets.map((each) => each.slice(8));
        });
        expect(fragments[1]).to.deep.equal(fragments[0]);
      }),
      { numRuns: 500 },
    );
  });
});
