import { expect } from 'chai';
import fc from 'fast-check';
import { flowHash } from '../../../encap/wire/flow.ts';

/** An Ethernet frame of IPv4 or IPv6 with the fields that make a flow, and the bytes that do not. */
interface Packet {
  readonly isIpv4: boolean;
  readonly isTagged: boolean;
  readonly addresses: Uint8Array;
  readonly protocol: number;
  readonly ports: readonly [number, number];
  /** IPv4: "more fragments" and the offset. */
  readonly fragment: number;
  /** Bytes of the rest: MAC addresses, DSCP, lengths, identification, TTL, payload. */
  readonly noise: Uint8Array;
}

function frameOf({ isIpv4, isTagged, addresses, protocol, ports, fragment, noise }: Packet): DataView {
  const ip = isTagged ? 18 : 14;
  const transport = ip + (isIpv4 ? 20 : 40);
  const bytes = new Uint8Array(transport + 40).map((_, i) => noise[i % noise.length] ?? 0);
  const view = new DataView(bytes.buffer);
  if (isTagged) view.setUint16(12, 0x8100);
  view.setUint16(ip - 2, isIpv4 ? 0x0800 : 0x86dd);
  view.setUint8(ip, isIpv4 ? 0x45 : 0x60);
  if (isIpv4) view.setUint16(ip + 6, fragment);
  view.setUint8(ip + (isIpv4 ? 9 : 6), protocol);
  bytes.set(addresses.subarray(0, isIpv4 ? 8 : 32), ip + (isIpv4 ? 12 : 8));
  view.setUint16(transport, ports[0]);
  view.setUint16(transport + 2, ports[1]);
  return view;
}

const hashOf = (packet: Packet): number => {
  const view = frameOf(packet);
  return flowHash(view, 0, view.byteLength);
};

const port = fc.nat({ max: 65_535 });
const noise = fc.uint8Array({ minLength: 1, maxLength: 60 });
const packet: fc.Arbitrary<Packet> = fc.record({
  isIpv4: fc.boolean(),
  isTagged: fc.boolean(),
  addresses: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  protocol: fc.constantFrom(6, 17),
  ports: fc.tuple(port, port),
  fragment: fc.constantFrom(0, 0x4000),
  noise,
});

describe('encap/wire flow', () => {
  it('all packets of a flow have one hash, tagged or not, whatever else is in them', () => {
    fc.assert(
      fc.property(packet, noise, fc.boolean(), (one, other, isTagged) => {
        expect(hashOf({ ...one, noise: other, isTagged })).to.equal(hashOf(one));
      }),
    );
  });

  it('so have all fragments of a packet, whose ports only the first has', () => {
    fc.assert(
      fc.property(packet, fc.tuple(port, port), fc.integer({ min: 1, max: 0x1fff }), (one, ports, offset) => {
        const first = { ...one, isIpv4: true, fragment: 0x2000 };
        expect(hashOf({ ...first, fragment: offset, ports })).to.equal(hashOf(first));
      }),
    );
  });

  it('flows that differ in a port alone are spread evenly over sixteen sockets', () => {
    const counts = new Array<number>(16).fill(0);
    for (let source = 0; source < 16_000; source++) {
      const hash = hashOf({
        ...{ isIpv4: true, isTagged: false, protocol: 6, fragment: 0x4000, noise: Uint8Array.of(0) },
        ...{ addresses: Uint8Array.of(10, 244, 1, 2, 10, 244, 2, 2), ports: [32_768 + source, 80] },
      });
      counts[hash % 16] = (counts[hash % 16] ?? 0) + 1;
    }
    for (const count of counts) expect(count).to.be.within(850, 1150);
  });

  it('any bytes of any length: a number, of nothing behind them', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 14, maxLength: 80 }), noise, (frame, behind) => {
        const joined = Uint8Array.from([...frame, ...behind]);
        const alone = flowHash(new DataView(frame.buffer, frame.byteOffset, frame.length), 0, frame.length);
        expect(flowHash(new DataView(joined.buffer), 0, frame.length)).to.equal(alone);
        expect(Number.isInteger(alone) && alone >= 0 && alone < 2 ** 32).to.equal(true);
      }),
      { numRuns: 1000 },
    );
  });
});
