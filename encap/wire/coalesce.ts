/**
 * From the wire to the device: consecutive packets of one flow become one large frame with an offload header, which
 * crosses the kernel's whole network stack at the price of one packet. The rules are those of the kernel's own
 * receive offload (tcp_gro_receive, udp_gro_receive, inet_gro_receive), so that what comes out, cut again, is what
 * came in:
 *
 * - IPv4 without options and not a fragment; identifications that count up, or stay where "don't fragment" is set;
 *   the same TTL, DSCP, ECN and flags. IPv6 without extension headers; the same class, label and hop limit.
 * - TCP: data with ACK and no SYN, RST, URG or CWR; the next sequence number; the same acknowledgement, window, options
 *   and other flags; all packets of one size, only the last may be smaller; PSH and FIN end a frame.
 * - UDP, where the kernel takes it: all datagrams of one size, only the last may be smaller; with a checksum.
 * - every checksum is verified first, for the kernel writes new ones. What is not merged goes on untouched, a wrong
 *   checksum included: the receiver's kernel judges it. One that is only begun (see BEGUN) counts as right, and the
 *   kernel is told.
 *
 * Packets of one flow never overtake each other: a frame that is being collected is passed on before a packet of its
 * flow that does not fit. There is one such frame a bucket; a flow that needs the bucket ends the other's frame.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from './ethernet.ts';
import { fold, swap16 } from './fast-sum.ts';
import { mix } from './flow.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from './ipv4.ts';
import type { PacketMemory } from './memory.ts';
import {
  ACK,
  CWR,
  FIN,
  PSH,
  RST,
  SYN,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_HEADER_BYTES,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_LENGTH,
  URG,
} from './tcp.ts';
import {
  GSO_ECN,
  GSO_NONE,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP,
  NEEDS_CHECKSUM,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAGS,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
} from './vnet.ts';

/** Takes frames in the order in which they are to reach the device. */
export interface FrameSink {
  /** A frame as it came. */
  single(frame: number, lengthBytes: number): void;
  /** A frame of several packets: begin with its offload header, then its pieces, then end. */
  begin(vnet: number): void;
  piece(offset: number, lengthBytes: number): void;
  /** @param wireBytes of the packets' frames as they came */
  end(packets: number, wireBytes: number): void;
}

/** Flows that are collected at a time. Enough for what arrives in one batch; a power of two. */
const BUCKETS = 32;
/** Packets in one frame: UDP_MAX_SEGMENTS of older kernels, and for TCP what 64 KiB hold at 536 bytes each. */
const MAX_UDP = 64;
const MAX_TCP = 120;
const MAX_IP_BYTES = 65_535;

/** Identifications of an IPv4 frame's packets, known from its second packet on. */
const ID_UNKNOWN = 0;
const ID_COUNTS = 1;
const ID_STAYS = 2;

/** What a packet's checksums say of it. */
const BROKEN = 0;
const INTACT = 1;
/**
 * The field holds the sum of the pseudo header and no more: the sender left the rest to its network card, and the
 * packet never met one (a veth, a virtual machine on the same host). The kernel of the sender has it so, kernel vxlan
 * passes it on so, and the kernel here completes it where it has to, being told that it is so.
 */
const BEGUN = 2;

/**
 * Payload of the packets that a large send which was never cut is said to consist of. The true size is not in the
 * packet; it must not be larger than the MTU of any way from here, and a pod's TCP takes it for nothing but a hint.
 */
const UNCUT_SEGMENT_BYTES = 1200;

/** A frame that is being collected. Fields of all of them in typed arrays would be faster by nothing measurable. */
class Bucket {
  /** Packets collected; 0: the bucket is empty. */
  count = 0;
  frame = 0;
  lengthBytes = 0;
  transport = 0;
  payload = 0;
  /** Payload of every packet but the last. */
  sizeBytes = 0;
  payloadBytes = 0;
  sequence = 0;
  identification = 0;
  idRule = ID_UNKNOWN;
  isTcp = false;
  /** Its first packet's checksum is only begun: see BEGUN. */
  isBegun = false;
  /** PSH and FIN of the packets after the first. */
  lateFlags = 0;
  lastBytes = 0;
  /** Where the payload of each packet is. */
  readonly payloads = new Int32Array(MAX_TCP);
}

export class Coalescer {
  readonly #memory: PacketMemory;
  readonly #sink: FrameSink;
  readonly #mergesUdp: boolean;
  readonly #vnet: number;
  readonly #buckets = Array.from({ length: BUCKETS }, () => new Bucket());
  /** Bits: buckets in use. */
  #used = 0;

  /** @param vnet where offload headers are written: VNET_HEADER_BYTES in the memory */
  constructor(memory: PacketMemory, sink: FrameSink, vnet: number, mergesUdp: boolean) {
    this.#memory = memory;
    this.#sink = sink;
    this.#vnet = vnet;
    this.#mergesUdp = mergesUdp;
  }

  /**
   * The frame must stay where it lies until `flush`.
   * @param lengthBytes 14 at least
   * @param largestBytes a TCP frame above this is a large send that was never cut, if its checksum says so
   * @returns false: it is larger than that and no such send; it went nowhere
   */
  add(frame: number, lengthBytes: number, largestBytes = Number.POSITIVE_INFINITY): boolean {
    if (lengthBytes <= largestBytes) {
      this.#add(frame, lengthBytes);
      return true;
    }
    return this.#addUncut(frame, lengthBytes, largestBytes);
  }

  #add(frame: number, lengthBytes: number): void {
    const { view } = this.#memory;
    const end = frame + lengthBytes;
    const type = view.getUint16(frame + 12);
    const ip = frame + 14;
    let transport: number;
    let protocol: number;
    let hash: number;
    let isWhole: boolean;
    if (type === ETHERTYPE_IPV4 && ip + 20 + 8 <= end) {
      transport = ip + 20;
      protocol = view.getUint8(ip + 9);
      isWhole =
        view.getUint8(ip) === 0x45 &&
        (view.getUint16(ip + 6) & 0xbfff) === 0 &&
        view.getUint16(ip + 2) === end - ip;
      hash = view.getUint32(ip + 12) ^ Math.imul(view.getUint32(ip + 16), 0x9e37_79b1);
    } else if (type === ETHERTYPE_IPV6 && ip + 40 + 8 <= end) {
      transport = ip + 40;
      protocol = view.getUint8(ip + 6);
      isWhole = view.getUint8(ip) >> 4 === 6 && view.getUint16(ip + 4) === end - transport;
      hash = view.getUint32(ip + 20) ^ Math.imul(view.getUint32(ip + 36), 0x9e37_79b1);
    } else {
      this.#sink.single(frame, lengthBytes);
      return;
    }
    // A fragment or a packet with options is no part of a flow whose packets are collected, as far as order goes.
    if (!isWhole || (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP)) {
      this.#sink.single(frame, lengthBytes);
      return;
    }
    if (protocol === PROTOCOL_UDP && !this.#mergesUdp) {
      this.#alone(frame, lengthBytes, transport, this.#isBegun(ip, transport, end, protocol));
      return;
    }
    const index = mix(hash ^ view.getUint32(transport)) & (BUCKETS - 1);
    const bucket = this.#buckets[index] as Bucket;
    const payload =
      protocol === PROTOCOL_TCP ? this.#tcpPayload(transport, end) : this.#udpPayload(transport, end);
    const state = payload === 0 ? BROKEN : this.#checksums(ip, transport, end, protocol);
    if (state === BROKEN) {
      if (bucket.count > 0) this.#pass(index);
      this.#alone(
        frame,
        lengthBytes,
        transport,
        payload === 0 && this.#isBegun(ip, transport, end, protocol),
      );
      return;
    }
    if (bucket.count > 0) {
      if (this.#fits(bucket, frame, transport, payload, end)) {
        this.#append(bucket, index, transport, payload, end);
        return;
      }
      this.#pass(index);
    }
    if (protocol === PROTOCOL_TCP && (view.getUint8(transport + 13) & (PSH | FIN)) !== 0) {
      this.#alone(frame, lengthBytes, transport, state === BEGUN);
      return;
    }
    bucket.count = 1;
    bucket.isBegun = state === BEGUN;
    bucket.frame = frame;
    bucket.lengthBytes = lengthBytes;
    bucket.transport = transport;
    bucket.payload = payload;
    bucket.sizeBytes = end - payload;
    bucket.lastBytes = end - payload;
    bucket.payloadBytes = end - payload;
    bucket.isTcp = protocol === PROTOCOL_TCP;
    bucket.sequence = bucket.isTcp ? (view.getUint32(transport + TCP_SEQUENCE) + end - payload) >>> 0 : 0;
    bucket.identification = view.getUint16(ip + 4);
    bucket.idRule = ID_UNKNOWN;
    bucket.lateFlags = 0;
    this.#used |= 1 << index;
  }

  /** Passes everything on that is being collected. */
  flush(): void {
    while (this.#used !== 0) this.#pass(31 - Math.clz32(this.#used));
  }

  /** Where the payload of TCP that can be merged begins; 0: it cannot. */
  #tcpPayload(tcp: number, end: number): number {
    const { view } = this.#memory;
    if (tcp + TCP_HEADER_BYTES > end) return 0;
    const flags = view.getUint16(tcp + TCP_FLAGS);
    const payload = tcp + (flags >> 12) * 4;
    if ((flags & (ACK | SYN | RST | URG | CWR)) !== ACK) return 0;
    return payload >= tcp + TCP_HEADER_BYTES && payload < end ? payload : 0;
  }

  #udpPayload(udp: number, end: number): number {
    const { view } = this.#memory;
    const isMergeable =
      view.getUint16(udp + UDP_LENGTH) === end - udp && view.getUint16(udp + UDP_CHECKSUM) !== 0;
    return isMergeable && udp + 8 < end ? udp + 8 : 0;
  }

  /** IPv4's checksum and the transport's. */
  #checksums(ip: number, transport: number, end: number, protocol: number): number {
    const { view, sum } = this.#memory;
    const isIpv4 = transport === ip + 20;
    if (isIpv4 && fold(sum(ip, 20)) !== 0xffff) return BROKEN;
    const pseudo = this.#pseudoSum(isIpv4, ip, protocol, end - transport);
    if (fold(pseudo + sum(transport, end - transport)) === 0xffff) return INTACT;
    return view.getUint16(transport + checksumOffsetOf(protocol), true) === fold(pseudo) ? BEGUN : BROKEN;
  }

  /** Of a whole TCP or UDP packet. One in 65,536 that is complete looks so too: completing it changes nothing. */
  #isBegun(ip: number, transport: number, end: number, protocol: number): boolean {
    const at = transport + checksumOffsetOf(protocol);
    if (at + 2 > end) return false;
    const pseudo = fold(this.#pseudoSum(transport === ip + 20, ip, protocol, end - transport));
    return this.#memory.view.getUint16(at, true) === pseudo;
  }

  /** @param isBegun as in BEGUN */
  #alone(frame: number, lengthBytes: number, transport: number, isBegun: boolean): void {
    if (!isBegun) {
      this.#sink.single(frame, lengthBytes);
      return;
    }
    const { view } = this.#memory;
    const ip = frame + 14;
    const protocol = view.getUint8(transport === ip + 20 ? ip + 9 : ip + 6);
    this.#offloadHeader(frame, transport, 0, 0, GSO_NONE, checksumOffsetOf(protocol));
    this.#sink.begin(this.#vnet);
    this.#sink.piece(frame, lengthBytes);
    this.#sink.end(1, lengthBytes);
  }

  /** A large send that was never cut: kernel vxlan has it so as well, and passes it on. */
  #addUncut(frame: number, lengthBytes: number, largestBytes: number): boolean {
    const { view } = this.#memory;
    const ip = frame + 14;
    const end = frame + lengthBytes;
    const isIpv4 = view.getUint16(frame + 12) === ETHERTYPE_IPV4;
    if (!isIpv4 && view.getUint16(frame + 12) !== ETHERTYPE_IPV6) return false;
    if (lengthBytes > MAX_IP_BYTES + 14) return false;
    const transport = ip + (isIpv4 ? 20 : 40);
    if (view.getUint8(isIpv4 ? ip + 9 : ip + 6) !== PROTOCOL_TCP) return false;
    const isWhole = isIpv4
      ? view.getUint8(ip) === 0x45 &&
        (view.getUint16(ip + 6) & 0xbfff) === 0 &&
        view.getUint16(ip + 2) === end - ip &&
        fold(this.#memory.sum(ip, 20)) === 0xffff
      : view.getUint8(ip) >> 4 === 6 && view.getUint16(ip + 4) === end - transport;
    const headerBytes = (view.getUint16(transport + TCP_FLAGS) >> 12) * 4;
    if (!isWhole || headerBytes < TCP_HEADER_BYTES) return false;
    if (!this.#isBegun(ip, transport, end, PROTOCOL_TCP)) return false;
    // What came before it goes before it.
    this.flush();
    const payload = transport + headerBytes;
    const hasEcn = (view.getUint16(transport + TCP_FLAGS) & CWR) !== 0;
    const type = (isIpv4 ? GSO_TCP4 : GSO_TCP6) | (hasEcn ? GSO_ECN : 0);
    const segmentBytes = Math.max(Math.min(UNCUT_SEGMENT_BYTES, largestBytes - (payload - frame)), 1);
    this.#offloadHeader(frame, transport, payload - frame, segmentBytes, type, TCP_CHECKSUM);
    this.#sink.begin(this.#vnet);
    this.#sink.piece(frame, lengthBytes);
    this.#sink.end(Math.ceil((end - payload) / segmentBytes), lengthBytes);
    return true;
  }

  #offloadHeader(
    frame: number,
    transport: number,
    headerBytes: number,
    segmentBytes: number,
    type: number,
    checksumOffset: number,
  ): void {
    const { view } = this.#memory;
    const vnet = this.#vnet;
    view.setUint8(vnet + VNET_FLAGS, NEEDS_CHECKSUM);
    view.setUint8(vnet + VNET_GSO_TYPE, type);
    view.setUint16(vnet + VNET_HEADER_LENGTH, headerBytes, true);
    view.setUint16(vnet + VNET_GSO_SIZE, segmentBytes, true);
    view.setUint16(vnet + VNET_CHECKSUM_START, transport - frame, true);
    view.setUint16(vnet + VNET_CHECKSUM_OFFSET, checksumOffset, true);
  }

  #pseudoSum(isIpv4: boolean, ip: number, protocol: number, transportBytes: number): number {
    const addresses = isIpv4 ? this.#memory.sum(ip + 12, 8) : this.#memory.sum(ip + 8, 32);
    return addresses + swap16(protocol) + swap16(transportBytes);
  }

  #fits(bucket: Bucket, frame: number, transport: number, payload: number, end: number): boolean {
    const { view } = this.#memory;
    const first = bucket.frame;
    const [ip, firstIp] = [frame + 14, first + 14];
    if (transport - frame !== bucket.transport - first || payload - frame !== bucket.payload - first)
      return false;
    if (view.getUint32(frame) !== view.getUint32(first)) return false;
    if (view.getUint32(frame + 4) !== view.getUint32(first + 4)) return false;
    if (view.getUint32(frame + 8) !== view.getUint32(first + 8)) return false;
    // The EtherType, and IP's first two bytes.
    if (view.getUint32(frame + 12) !== view.getUint32(first + 12)) return false;
    if (transport === ip + 20) {
      if (view.getUint16(ip + 6) !== view.getUint16(firstIp + 6)) return false;
      if (view.getUint16(ip + 8) !== view.getUint16(firstIp + 8)) return false;
      if (view.getUint32(ip + 12) !== view.getUint32(firstIp + 12)) return false;
      if (view.getUint32(ip + 16) !== view.getUint32(firstIp + 16)) return false;
      if (!this.#identificationFits(bucket, ip)) return false;
    } else {
      if (view.getUint16(ip + 2) !== view.getUint16(firstIp + 2)) return false;
      if (view.getUint16(ip + 6) !== view.getUint16(firstIp + 6)) return false;
      for (let at = 8; at < 40; at += 4) {
        if (view.getUint32(ip + at) !== view.getUint32(firstIp + at)) return false;
      }
    }
    if (view.getUint32(transport) !== view.getUint32(bucket.transport)) return false;
    const bytes = end - payload;
    if (bytes > bucket.sizeBytes || bucket.lastBytes < bucket.sizeBytes) return false;
    if (bucket.payload - firstIp + bucket.payloadBytes + bytes > MAX_IP_BYTES) return false;
    return bucket.isTcp
      ? bucket.count < MAX_TCP && this.#tcpFits(bucket, transport, payload)
      : bucket.count < MAX_UDP;
  }

  #identificationFits(bucket: Bucket, ip: number): boolean {
    const { view } = this.#memory;
    const ahead = (view.getUint16(ip + 4) - bucket.identification) & 0xffff;
    const mayStay = (view.getUint16(ip + 6) & 0x4000) !== 0;
    if (bucket.idRule === ID_UNKNOWN) return ahead === 1 || (ahead === 0 && mayStay);
    return bucket.idRule === ID_STAYS ? ahead === 0 : ahead === (bucket.count & 0xffff);
  }

  #tcpFits(bucket: Bucket, tcp: number, payload: number): boolean {
    const { view } = this.#memory;
    const first = bucket.transport;
    if (view.getUint32(tcp + TCP_SEQUENCE) !== bucket.sequence) return false;
    if (view.getUint32(tcp + TCP_ACKNOWLEDGEMENT) !== view.getUint32(first + TCP_ACKNOWLEDGEMENT))
      return false;
    // Header length, flags and window in one word; the two flags are its bits 19 and 16.
    const changed = view.getUint32(tcp + TCP_FLAGS) ^ view.getUint32(first + TCP_FLAGS);
    if ((changed & ~((PSH | FIN) << 16)) !== 0) return false;
    for (let at = TCP_HEADER_BYTES; tcp + at < payload; at += 4) {
      if (view.getUint32(tcp + at) !== view.getUint32(first + at)) return false;
    }
    return true;
  }

  #append(bucket: Bucket, index: number, transport: number, payload: number, end: number): void {
    const { view } = this.#memory;
    const bytes = end - payload;
    if (bucket.count === 1 && bucket.transport === bucket.frame + 34) {
      const second = view.getUint16(transport - 20 + 4);
      bucket.idRule = second === bucket.identification ? ID_STAYS : ID_COUNTS;
    }
    bucket.payloads[bucket.count++] = payload;
    bucket.payloadBytes += bytes;
    bucket.lastBytes = bytes;
    bucket.sequence = (bucket.sequence + bytes) >>> 0;
    if (bucket.isTcp) bucket.lateFlags |= view.getUint8(transport + 13) & (PSH | FIN);
    if (bytes < bucket.sizeBytes || bucket.lateFlags !== 0) this.#pass(index);
  }

  #pass(index: number): void {
    const bucket = this.#buckets[index] as Bucket;
    this.#used &= ~(1 << index);
    const { count } = bucket;
    bucket.count = 0;
    if (count === 1) {
      this.#alone(bucket.frame, bucket.lengthBytes, bucket.transport, bucket.isBegun);
      return;
    }
    this.#finishHeaders(bucket);
    this.#sink.begin(this.#vnet);
    this.#sink.piece(bucket.frame, bucket.lengthBytes);
    for (let i = 1; i < count - 1; i++) this.#sink.piece(bucket.payloads[i] ?? 0, bucket.sizeBytes);
    this.#sink.piece(bucket.payloads[count - 1] ?? 0, bucket.lastBytes);
    const headerBytes = bucket.payload - bucket.frame;
    this.#sink.end(count, count * headerBytes + bucket.payloadBytes);
  }

  /** The first packet's headers become the large frame's; the transport's checksum is left to whoever cuts it. */
  #finishHeaders(bucket: Bucket): void {
    const { view, sum } = this.#memory;
    const { frame, transport, payload, isTcp } = bucket;
    const ip = frame + 14;
    const isIpv4 = transport === ip + 20;
    const transportBytes = payload - transport + bucket.payloadBytes;
    if (isIpv4) {
      view.setUint16(ip + 2, 20 + transportBytes);
      view.setUint16(ip + 10, 0);
      view.setUint16(ip + 10, ~fold(sum(ip, 20)), true);
    } else {
      view.setUint16(ip + 4, transportBytes);
    }
    const protocol = isTcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    const checksumOffset = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    view.setUint16(
      transport + checksumOffset,
      fold(this.#pseudoSum(isIpv4, ip, protocol, transportBytes)),
      true,
    );
    if (isTcp) view.setUint8(transport + 13, view.getUint8(transport + 13) | bucket.lateFlags);
    else view.setUint16(transport + UDP_LENGTH, transportBytes);

    const type = isTcp ? (isIpv4 ? GSO_TCP4 : GSO_TCP6) : GSO_UDP;
    this.#offloadHeader(frame, transport, payload - frame, bucket.sizeBytes, type, checksumOffset);
  }
}

const checksumOffsetOf = (protocol: number): number =>
  protocol === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
