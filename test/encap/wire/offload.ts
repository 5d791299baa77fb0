/**
 * The slow and obvious oracle of segmentation: packets as plain objects, put together and cut byte by byte, with the
 * textbook checksum of checksum.ts. It shares no code with what it judges.
 */
import fc from 'fast-check';
import { onesComplementSum, pseudoHeaderSum } from '../../../encap/wire/checksum.ts';
import type { PacketMemory } from '../../../encap/wire/memory.ts';
import type { PacketSink } from '../../../encap/wire/segment.ts';
import { joined, word } from './frames.ts';

export interface Packet {
  readonly version: 4 | 6;
  readonly protocol: 6 | 17;
  readonly macs: Uint8Array;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly ports: Uint8Array;
  /** DSCP and ECN; IPv6's traffic class. */
  readonly tos: number;
  readonly ttl: number;
  readonly identification: number;
  readonly dontFragment: boolean;
  readonly flowLabel: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  /** The low eight bits of TCP's flags. */
  readonly flags: number;
  readonly window: number;
  /** Of TCP; a multiple of 4 bytes. */
  readonly options: Uint8Array;
  readonly payload: Uint8Array;
}

const long = (value: number): Uint8Array => joined(word((value / 65_536) & 0xffff), word(value & 0xffff));

const complement = (sum: number): number => ~sum & 0xffff;

/** The transport header and payload with this in the checksum field. */
function transportBytes(packet: Packet, checksum: number): Uint8Array {
  if (packet.protocol === 17) {
    return joined(packet.ports, word(8 + packet.payload.length), word(checksum), packet.payload);
  }
  const words = (20 + packet.options.length) / 4;
  return joined(
    packet.ports,
    long(packet.sequence),
    long(packet.acknowledgement),
    [words << 4, packet.flags],
    word(packet.window),
    word(checksum),
    word(0),
    packet.options,
    packet.payload,
  );
}

/** How the transport's checksum is written: whole, left to the hardware, or wrong. */
export type Checksum = 'right' | 'partial' | 'wrong';

/** The Ethernet frame of a packet. */
export function frameOf(packet: Packet, checksum: Checksum = 'right'): Uint8Array {
  const bare = transportBytes(packet, 0);
  const pseudo = pseudoHeaderSum(packet.source, packet.destination, packet.protocol, bare.length);
  const whole = complement(onesComplementSum(bare, pseudo));
  const right = packet.protocol === 17 && whole === 0 ? 0xffff : whole;
  // Not one that looks begun.
  const wrong = (right ^ 0x0101) === pseudo ? right ^ 0x0202 : right ^ 0x0101;
  const written = checksum === 'right' ? right : checksum === 'partial' ? pseudo : wrong;
  const transport = transportBytes(packet, written);
  if (packet.version === 6) {
    return joined(
      packet.macs,
      [0x86, 0xdd],
      [0x60 | (packet.tos >> 4), ((packet.tos & 15) << 4) | (packet.flowLabel >> 16)],
      word(packet.flowLabel & 0xffff),
      word(transport.length),
      [packet.protocol, packet.ttl],
      packet.source,
      packet.destination,
      transport,
    );
  }
  const header = (sum: number): Uint8Array =>
    joined(
      [0x45, packet.tos],
      word(20 + transport.length),
      word(packet.identification),
      word(packet.dontFragment ? 0x4000 : 0),
      [packet.ttl, packet.protocol],
      word(sum),
      packet.source,
      packet.destination,
    );
  const sum = complement(onesComplementSum(header(0)));
  return joined(packet.macs, [0x08, 0x00], header(sum), transport);
}

/** What hardware makes of a large packet: its parts of `size` bytes of payload. */
export function cut(packet: Packet, size: number): Packet[] {
  const parts: Packet[] = [];
  for (let at = 0; at < packet.payload.length; at += size) {
    const payload = packet.payload.slice(at, at + size);
    const isFirst = at === 0;
    const isLast = at + size >= packet.payload.length;
    let { flags } = packet;
    if (!isFirst) flags &= ~0x80;
    if (!isLast) flags &= ~0x09;
    parts.push({
      ...packet,
      payload,
      flags,
      sequence: (packet.sequence + at) % 2 ** 32,
      identification: (packet.identification + parts.length) % 65_536,
    });
  }
  return parts;
}

export const headerBytes = (packet: Packet): number =>
  14 + (packet.version === 4 ? 20 : 40) + (packet.protocol === 17 ? 8 : 20 + packet.options.length);

/** struct virtio_net_hdr for a packet that is to be cut (`size` > 0) or only summed. */
export function vnetHeader(packet: Packet, size: number): Uint8Array {
  const type = size === 0 ? 0 : packet.protocol === 17 ? 5 : packet.version === 4 ? 1 : 4;
  const start = 14 + (packet.version === 4 ? 20 : 40);
  const numbers = [headerBytes(packet), size, start, packet.protocol === 17 ? 6 : 16];
  return joined([1, type], ...numbers.map((n) => [n & 255, n >> 8]));
}

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

export const packet = (payload: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Packet> =>
  fc.constantFrom<4 | 6>(4, 6).chain((version) =>
    fc.record({
      version: fc.constant(version),
      protocol: fc.constantFrom<6 | 17>(6, 17),
      macs: bytes(12),
      source: bytes(version === 4 ? 4 : 16),
      destination: bytes(version === 4 ? 4 : 16),
      ports: bytes(4),
      tos: fc.nat({ max: 255 }),
      ttl: fc.nat({ max: 255 }),
      identification: fc.nat({ max: 65_535 }),
      dontFragment: fc.boolean(),
      flowLabel: fc.nat({ max: 0xfffff }),
      sequence: fc.oneof(fc.nat({ max: 2 ** 31 - 1 }), fc.constantFrom(2 ** 32 - 1, 2 ** 32 - 3000)),
      acknowledgement: fc.nat({ max: 2 ** 31 - 1 }),
      flags: fc.nat({ max: 255 }),
      window: fc.nat({ max: 65_535 }),
      options: fc.nat({ max: 10 }).chain((words) => bytes(4 * words)),
      payload,
    }),
  );

/** Keeps copies of the packets it is given: their VXLAN header and frame. */
export class CollectingSink implements PacketSink {
  readonly #memory: PacketMemory;
  readonly #headers: number;
  readonly #packets: { readonly pieces: readonly (readonly [at: number, length: number])[] }[] = [];

  /** @param headers where headers may be written, from here on */
  constructor(memory: PacketMemory, headers: number) {
    this.#memory = memory;
    this.#headers = headers;
  }

  whole(offset: number, lengthBytes: number): void {
    this.#packets.push({ pieces: [[offset, lengthBytes]] });
  }

  split(length: number, payload: number, payloadBytes: number): number {
    const header = this.#headers + this.#packets.length * 192 + 2;
    this.#packets.push({
      pieces: [
        [header, length],
        [payload, payloadBytes],
      ],
    });
    return header;
  }

  get packets(): Uint8Array[] {
    return this.#packets.map(({ pieces }) =>
      joined(...pieces.map(([at, length]) => this.#memory.bytes.slice(at, at + length))),
    );
  }
}
