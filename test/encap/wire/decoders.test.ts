import { expect } from 'chai';
import fc from 'fast-check';
import { onesComplementSum, pseudoHeaderSum } from '../../../encap/wire/checksum.ts';
import type { Decoded } from '../../../encap/wire/decoded.ts';
import { decodeEthernet } from '../../../encap/wire/ethernet.ts';
import { decodeIcmp } from '../../../encap/wire/icmp.ts';
import { decodeIpv4 } from '../../../encap/wire/ipv4.ts';
import { decodeIpv6 } from '../../../encap/wire/ipv6.ts';
import { takeApart } from '../../../encap/wire/layers.ts';
import { decodePcap } from '../../../encap/wire/pcap.ts';
import { decodeUdp } from '../../../encap/wire/udp.ts';
import { decodeVxlan } from '../../../encap/wire/vxlan.ts';
import { encodeVxlanFrame, joined, pcap, VXLAN_PORT, vxlanFrame, word } from './frames.ts';

const DECODERS: Record<string, (bytes: Uint8Array) => Decoded<object>> = {
  decodeEthernet,
  decodeIpv4,
  decodeIpv6,
  decodeUdp,
  decodeVxlan,
  decodeIcmp,
};

/** Bytes in the middle of others, so that a view past either end is seen. */
const embedded = fc.uint8Array({ maxLength: 200 }).map((bytes) => {
  const around = new Uint8Array(bytes.length + 64).fill(0x45);
  around.set(bytes, 32);
  return around.subarray(32, 32 + bytes.length);
});

function expectWithin(view: Uint8Array, whole: Uint8Array): void {
  expect(view.buffer).to.equal(whole.buffer);
  expect(view.byteOffset).to.be.at.least(whole.byteOffset);
  expect(view.byteOffset + view.length).to.be.at.most(whole.byteOffset + whole.length);
}

describe('encap/wire decoders', () => {
  for (const [name, decode] of Object.entries(DECODERS)) {
    it(`${name}: any bytes give a header or a fault, and no view past them`, () => {
      fc.assert(
        fc.property(embedded, (bytes) => {
          const decoded = decode(bytes);
          if (decoded.fault !== undefined) return;
          expectWithin(decoded.payload, bytes);
          for (const value of Object.values(decoded.header)) {
            if (value instanceof Uint8Array) expectWithin(value, bytes);
          }
        }),
        { numRuns: 1000 },
      );
    });

    it(`${name}: a header cut short is truncated, at every length`, () => {
      const whole = new Uint8Array(64);
      const shortest = whole.findIndex((_, length) => {
        const { fault } = decode(whole.subarray(0, length));
        return fault !== 'truncated';
      });
      expect(shortest).to.be.greaterThan(7);
    });
  }

  it('takeApart: any bytes give layers that together are the frame, in order', () => {
    fc.assert(
      fc.property(embedded, (bytes) => {
        const layers = takeApart(bytes, VXLAN_PORT);
        for (const layer of layers) expectWithin(layer.bytes, bytes);
        const total = layers.reduce((sum, layer) => sum + layer.bytes.length, 0);
        expect(total).to.be.at.most(bytes.length);
      }),
      { numRuns: 1000 },
    );
  });

  it('takeApart: a VXLAN frame comes back as it was put together', () => {
    fc.assert(
      fc.property(vxlanFrame, (frame) => {
        const layers = takeApart(encodeVxlanFrame(frame), VXLAN_PORT);
        const kinds = ['ethernet', 'ipv4', 'udp', 'vxlan', 'ethernet', 'ipv4', 'icmp'];
        expect(layers.map(({ kind }) => kind)).to.deep.equal(
          frame.payload.length > 0 ? [...kinds, 'data'] : kinds,
        );
        expect(layers[0]?.header).to.deep.include({ ...frame.outer, etherType: 0x0800 });
        expect(layers[1]?.header).to.deep.include({ ...frame.outerIp, checksumRight: true, protocol: 17 });
        expect(layers[2]?.header).to.include({ sourcePort: frame.sourcePort, destinationPort: VXLAN_PORT });
        expect(layers[3]?.header).to.include({ vni: frame.vni });
        expect(layers[4]?.header).to.deep.include(frame.inner);
        expect(layers[5]?.header).to.deep.include({ ...frame.innerIp, checksumRight: true, protocol: 1 });
        expect(layers[6]?.header).to.include({ identifier: frame.identifier, sequence: frame.sequence });
        expect(layers.map(({ depth }) => depth).slice(0, 7)).to.deep.equal([0, 0, 0, 0, 1, 1, 1]);
      }),
    );
  });

  it('takeApart: one bit of an IPv4 header turned over makes its checksum wrong, or its form', () => {
    fc.assert(
      fc.property(vxlanFrame, fc.integer({ min: 0, max: 159 }), (frame, bit) => {
        const bytes = encodeVxlanFrame(frame);
        const at = 14 + (bit >> 3);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7));
        const layer = takeApart(bytes, VXLAN_PORT)[1];
        expect(layer?.kind === 'broken' || (layer?.kind === 'ipv4' && !layer.header.checksumRight)).to.equal(
          true,
        );
      }),
    );
  });

  it('names what is wrong with a header', () => {
    expect(decodeIpv4(new Uint8Array(20).fill(0x65)).fault).to.equal('version');
    expect(decodeIpv4(new Uint8Array(20).fill(0x44)).fault).to.equal('length');
    expect(decodeIpv6(new Uint8Array(40).fill(0x45)).fault).to.equal('version');
    expect(decodeUdp(Uint8Array.from([1, 2, 3, 4, 0, 7, 0, 0])).fault).to.equal('length');
    expect(decodeVxlan(new Uint8Array(8)).fault).to.equal('flags');
  });

  it('decodeIpv4: leaves Ethernet’s padding out of the payload', () => {
    const packet = joined([0x45, 0], word(21), [0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], [7]);
    const decoded = decodeIpv4(joined(packet, new Uint8Array(25)));
    expect(decoded.fault === undefined && Array.from(decoded.payload)).to.deep.equal([7]);
  });

  it('decodeIpv6: reads every field of RFC 8200', () => {
    const header = joined(
      [0x6a, 0xbc, 0xde, 0xf1],
      word(2),
      [58, 63],
      new Uint8Array(16).fill(1),
      new Uint8Array(16).fill(2),
    );
    const decoded = decodeIpv6(joined(header, [9, 9], [0]));
    expect(decoded.fault === undefined && decoded).to.deep.equal({
      header: {
        trafficClass: 0xab,
        flowLabel: 0xcdef1,
        payloadBytes: 2,
        nextHeader: 58,
        hopLimit: 63,
        source: new Uint8Array(16).fill(1),
        destination: new Uint8Array(16).fill(2),
      },
      payload: Uint8Array.from([9, 9]),
    });
  });

  it('onesComplementSum: RFC 1071’s own example, and any split at an even place', () => {
    expect(onesComplementSum(Uint8Array.from([0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]))).to.equal(0xddf2);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat({ max: 150 }), (bytes, half) => {
        const at = Math.min(half * 2, bytes.length & ~1);
        const inTwo = onesComplementSum(bytes.subarray(at), onesComplementSum(bytes.subarray(0, at)));
        // Zero has two spellings in one's complement, and which one a sum ends at depends on the order.
        expect(inTwo % 0xffff).to.equal(onesComplementSum(bytes) % 0xffff);
      }),
    );
  });

  it('pseudoHeaderSum: is the sum over the pseudo header written out (RFC 768)', () => {
    const [source, destination] = [Uint8Array.from([10, 0, 0, 1]), Uint8Array.from([10, 9, 8, 7])];
    const written = joined(source, destination, [0, 17], word(1234));
    expect(pseudoHeaderSum(source, destination, 17, 1234)).to.equal(onesComplementSum(written));
  });

  it('decodePcap: either byte order; a packet cut off at the end is left out; other files hold none', () => {
    const frames = [Uint8Array.from([1, 2, 3]), Uint8Array.from([4])];
    const file = pcap(frames);
    expect(decodePcap(file).map((packet) => Array.from(packet.bytes))).to.deep.equal([[1, 2, 3], [4]]);
    expect(decodePcap(file)[1]?.timeSeconds).to.equal(1.5);
    expect(decodePcap(file.subarray(0, -1))).to.have.length(1);
    expect(decodePcap(new Uint8Array(100))).to.deep.equal([]);
    fc.assert(fc.property(embedded, (bytes) => decodePcap(bytes).length >= 0));
  });
});
