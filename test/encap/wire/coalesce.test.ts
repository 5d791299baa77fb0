import { expect } from 'chai';
import fc from 'fast-check';
import { Coalescer, type FrameSink } from '../../../encap/wire/coalesce.ts';
import { packetMemory } from '../../../encap/wire/memory.ts';
import { joined, word } from './frames.ts';
import { type Checksum, cut, frameOf, headerBytes, type Packet, packet } from './offload.ts';

const memory = packetMemory(1 << 20);
const FRAMES_AT = 4096;

interface Passed {
  readonly frame: Uint8Array;
  /** Of a merged frame: the offload header, and how many packets and bytes it was said to be. */
  readonly vnet?: Uint8Array;
  readonly packets: number;
  readonly wireBytes: number;
}

class CollectingFrames implements FrameSink {
  readonly passed: Passed[] = [];
  #vnet = new Uint8Array(0);
  #pieces: Uint8Array[] = [];

  single(frame: number, lengthBytes: number): void {
    const bytes = memory.bytes.slice(frame, frame + lengthBytes);
    this.passed.push({ frame: bytes, packets: 1, wireBytes: lengthBytes });
  }

  begin(vnet: number): void {
    this.#vnet = memory.bytes.slice(vnet, vnet + 10);
    this.#pieces = [];
  }

  piece(offset: number, lengthBytes: number): void {
    this.#pieces.push(memory.bytes.slice(offset, offset + lengthBytes));
  }

  end(packets: number, wireBytes: number): void {
    this.passed.push({ vnet: this.#vnet, frame: joined(...this.#pieces), packets, wireBytes });
  }
}

/** What the coalescer makes of one batch, lying in memory that is `garbage` elsewhere. */
function coalesce(frames: readonly Uint8Array[], mergesUdp = true, garbage = 0xa5): Passed[] {
  memory.bytes.fill(garbage);
  const sink = new CollectingFrames();
  const coalescer = new Coalescer(memory, sink, 64, mergesUdp);
  let at = FRAMES_AT;
  for (const frame of frames) {
    memory.bytes.set(frame, at);
    coalescer.add(at, frame.length);
    // At any alignment, as within a train.
    at += frame.length + 13;
  }
  coalescer.flush();
  return sink.passed;
}

/** The merged frame taken apart again, by its own bytes alone. */
function decode(frame: Uint8Array): Packet {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const version = view.getUint16(12) === 0x0800 ? 4 : 6;
  const transport = version === 4 ? 34 : 54;
  const protocol = view.getUint8(version === 4 ? 23 : 20) as 6 | 17;
  const header = protocol === 6 ? (view.getUint8(transport + 12) >> 4) * 4 : 8;
  const length = version === 4 ? view.getUint16(16) + 14 : view.getUint16(18) + 54;
  expect(length, 'IP length').to.equal(frame.length);
  if (protocol === 17) expect(view.getUint16(transport + 4), 'UDP length').to.equal(length - transport);
  return {
    version,
    protocol,
    macs: frame.slice(0, 12),
    source: version === 4 ? frame.slice(26, 30) : frame.slice(22, 38),
    destination: version === 4 ? frame.slice(30, 34) : frame.slice(38, 54),
    ports: frame.slice(transport, transport + 4),
    tos: version === 4 ? view.getUint8(15) : (view.getUint16(14) >> 4) & 255,
    ttl: view.getUint8(version === 4 ? 22 : 21),
    identification: version === 4 ? view.getUint16(18) : 0,
    dontFragment: version === 4 && (view.getUint16(20) & 0x4000) !== 0,
    flowLabel: version === 4 ? 0 : view.getUint32(14) & 0xfffff,
    sequence: protocol === 6 ? view.getUint32(transport + 4) : 0,
    acknowledgement: protocol === 6 ? view.getUint32(transport + 8) : 0,
    flags: protocol === 6 ? view.getUint8(transport + 13) : 0,
    window: protocol === 6 ? view.getUint16(transport + 14) : 0,
    options: protocol === 6 ? frame.slice(transport + 20, transport + header) : new Uint8Array(0),
    payload: frame.slice(transport + header),
  };
}

/** What a kernel that cuts the frame again makes of it. Checks that the frame is what its offload header says. */
function expand({ frame, vnet, packets, wireBytes }: Passed): Uint8Array[] {
  // Alone, with a checksum that happens to look begun (see begun-checksum.test.ts).
  if (vnet === undefined || vnet[1] === 0) return [frame];
  const whole = decode(frame);
  const [flags, type, header, size, start, offset] = [
    vnet[0],
    vnet[1],
    ...[2, 4, 6, 8].map((at) => (vnet[at] ?? 0) | ((vnet[at + 1] ?? 0) << 8)),
  ];
  expect(flags).to.equal(1);
  expect(type).to.equal(whole.protocol === 17 ? 5 : whole.version === 4 ? 1 : 4);
  expect(header).to.equal(headerBytes(whole));
  expect(start).to.equal(whole.version === 4 ? 34 : 54);
  expect(offset).to.equal(whole.protocol === 17 ? 6 : 16);
  expect(Buffer.from(frame).equals(Buffer.from(frameOf(whole, 'partial'))), 'headers').to.equal(true);
  const parts = cut(whole, size ?? 0).map((part) => frameOf(part));
  expect(parts.length).to.equal(packets);
  expect(parts.reduce((sum, part) => sum + part.length, 0)).to.equal(wireBytes);
  return parts;
}

/** Where "don't fragment" is set, the identification means nothing (RFC 6864), and cutting may count it anew. */
function comparable(frame: Uint8Array): string {
  const copy = Uint8Array.from(frame);
  const isIpv4 = copy[12] === 8 && copy[13] === 0 && copy.length >= 34;
  if (isIpv4 && ((copy[20] ?? 0) & 0x40) !== 0) copy.set([0, 0, ...copy.slice(20, 24), 0, 0], 18);
  return Buffer.from(copy).toString('hex');
}

/** MACs to ports: the same for all packets of a flow. */
const flowOf = (frame: Uint8Array): string =>
  Buffer.from(
    frame[12] === 8
      ? joined(frame.slice(0, 12), frame.slice(26, 38))
      : joined(frame.slice(0, 12), frame.slice(22, 58)),
  ).toString('hex');

/** What may happen to a packet of a flow that is otherwise a clean run. */
type Change = (packet: Packet) => Packet;
const CHANGES: Record<string, Change> = {
  none: (each) => each,
  gap: (each) => ({ ...each, sequence: (each.sequence + 7) % 2 ** 32 }),
  acknowledgement: (each) => ({ ...each, acknowledgement: each.acknowledgement + 1 }),
  window: (each) => ({ ...each, window: each.window ^ 1 }),
  push: (each) => ({ ...each, flags: each.flags | 0x08 }),
  finish: (each) => ({ ...each, flags: each.flags | 0x01 }),
  reset: (each) => ({ ...each, flags: each.flags | 0x04 }),
  reduced: (each) => ({ ...each, flags: each.flags | 0x80 }),
  echo: (each) => ({ ...each, flags: each.flags ^ 0x40 }),
  noAck: (each) => ({ ...each, flags: each.flags & ~0x10 }),
  empty: (each) => ({ ...each, payload: new Uint8Array(0) }),
  short: (each) => ({ ...each, payload: each.payload.slice(0, -1) }),
  long: (each) => ({ ...each, payload: joined(each.payload, [7]) }),
  congestion: (each) => ({ ...each, tos: each.tos ^ 3 }),
  ttl: (each) => ({ ...each, ttl: each.ttl ^ 1 }),
  identification: (each) => ({ ...each, identification: (each.identification + 5) % 65_536 }),
  fragment: (each) => ({ ...each, dontFragment: !each.dontFragment }),
  label: (each) => ({ ...each, flowLabel: each.flowLabel ^ 1 }),
  options: (each) => ({ ...each, options: each.options.map((byte) => byte ^ 1) }),
};

/** A run of packets of one flow, with something wrong here and there. */
const run = fc
  .record({
    first: packet(fc.uint8Array({ minLength: 8, maxLength: 60 })),
    length: fc.integer({ min: 1, max: 12 }),
    changes: fc.array(
      fc.tuple(
        fc.nat({ max: 11 }),
        fc.constantFrom(...Object.keys(CHANGES)),
        fc.constantFrom<Checksum>('right', 'right', 'right', 'wrong'),
      ),
      { maxLength: 3 },
    ),
    idStays: fc.boolean(),
  })
  .map(({ first, length, changes, idStays }) => {
    const clean = { ...first, flags: 0x10, identification: first.identification };
    return Array.from({ length }, (_, i) => {
      const at: Packet = {
        ...clean,
        sequence: (clean.sequence + i * clean.payload.length) % 2 ** 32,
        identification: (clean.identification + (idStays ? 0 : i)) % 65_536,
        payload: clean.payload.map((byte) => byte ^ i),
      };
      const here = changes.filter(([place]) => place === i);
      const changed = here.reduce((each, [, name]) => CHANGES[name]?.(each) ?? each, at);
      return frameOf(changed, here.some(([, , checksum]) => checksum === 'wrong') ? 'wrong' : 'right');
    });
  });

describe('encap/wire merging', () => {
  it('what was merged, cut again, is what came, in the order of each flow', () => {
    fc.assert(
      fc.property(fc.array(run, { minLength: 1, maxLength: 4 }), fc.boolean(), (runs, mergesUdp) => {
        // In turns, so that flows interleave.
        const longest = Math.max(...runs.map((each) => each.length));
        const frames = Array.from({ length: longest }, (_, i) =>
          runs.flatMap((each) => each[i] ?? []),
        ).flat();
        const out = coalesce(frames, mergesUdp).flatMap(expand);
        expect(out.length).to.equal(frames.length);
        for (const flow of new Set(frames.map(flowOf))) {
          const of = (list: readonly Uint8Array[]) => list.filter((f) => flowOf(f) === flow).map(comparable);
          expect(of(out)).to.deep.equal(of(frames));
        }
      }),
      { numRuns: 1500 },
    );
  });

  it('a clean run becomes one frame; its last packet may be smaller, and PSH or FIN end it', () => {
    fc.assert(
      fc.property(
        packet(fc.uint8Array({ minLength: 100, maxLength: 5000, size: 'max' })),
        fc.integer({ min: 100, max: 1400 }),
        fc.constantFrom(0x10, 0x18, 0x11),
        (large, size, flags) => {
          const parts = cut({ ...large, flags }, size);
          const passed = coalesce(parts.map((part) => frameOf(part)));
          expect(passed.length).to.equal(1);
          expect(passed[0]?.packets).to.equal(parts.length);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('64 KiB and no more; UDP as many as every kernel takes; a stream goes on in the next frame', () => {
    const base = fc.sample(packet(fc.constant(new Uint8Array(1400 * 60).fill(7))), { numRuns: 40, seed: 1 });
    for (const protocol of [6, 17] as const) {
      for (const version of [4, 6] as const) {
        const large = base.find((each) => each.protocol === protocol && each.version === version);
        if (large === undefined) throw new Error('no sample');
        const passed = coalesce(cut({ ...large, flags: 0x10 }, 1400).map((part) => frameOf(part)));
        expect(passed.map(({ packets }) => packets)).to.deep.equal([46, 14]);
        for (const { frame } of passed) expect(frame.length).to.be.at.most(65_535 + 14);
      }
    }
    const small = base.find((each) => each.protocol === 17);
    const tiny = cut({ ...(small as Packet), payload: new Uint8Array(100 * 18) }, 18);
    expect(coalesce(tiny.map((part) => frameOf(part))).map(({ packets }) => packets)).to.deep.equal([64, 36]);
    expect(
      coalesce(
        tiny.map((part) => frameOf(part)),
        false,
      ).length,
    ).to.equal(100);
  });

  it('a UDP checksum of zero (none), and IPv4 fragments and options, go as they came', () => {
    const [udp] = fc
      .sample(packet(fc.constant(new Uint8Array(100))), { numRuns: 60, seed: 2 })
      .filter((each) => each.protocol === 17 && each.version === 4);
    if (udp === undefined) throw new Error('no sample');
    const frames = cut({ ...udp, payload: new Uint8Array(300) }, 100).map((part) => frameOf(part));
    const withoutSum = frames.map((frame) => Uint8Array.from(frame.with(40, 0).with(41, 0)));
    const fragments = frames.map((frame) => joined(frame.slice(0, 20), word(0x2000), frame.slice(22)));
    for (const list of [withoutSum, fragments]) {
      const passed = coalesce(list);
      expect(passed.map(({ frame }) => frame)).to.deep.equal(list);
    }
  });

  it('any bytes: passed on whole and unchanged, whatever lies behind them', () => {
    const anyFrame = fc.oneof(
      fc.uint8Array({ minLength: 14, maxLength: 120 }),
      fc
        .tuple(packet(fc.uint8Array({ maxLength: 40 })), fc.nat({ max: 80 }), fc.nat({ max: 255 }))
        .map(([each, at, value]) => {
          const frame = frameOf(each);
          frame[12 + (at % (frame.length - 12))] = value;
          return frame;
        }),
    );
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 6 }), (frames) => {
        const first = coalesce(frames, true, 0x00);
        const second = coalesce(frames, true, 0xff);
        expect(second).to.deep.equal(first);
        const bytes = (list: readonly { readonly length: number }[]) =>
          list.reduce((sum, { length }) => sum + length, 0);
        expect(first.reduce((sum, { wireBytes }) => sum + wireBytes, 0)).to.equal(bytes(frames));
      }),
      { numRuns: 2000 },
    );
  });
});
