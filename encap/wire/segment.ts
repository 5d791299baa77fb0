/**
 * From the device to the wire: a frame with its offload header becomes one VXLAN packet or many, with the checksums
 * that the kernel left to the "hardware", which is us.
 *
 * Payload is never copied. A packet that need not be cut is sent as it lies, its VXLAN header written over the
 * offload header before it. A large one gives each packet a header of its own, copied from the first's, and a
 * piece of the payload where it lies: the kernel gathers both when it copies them into its buffer.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from './ethernet.ts';
import { fold, swap16 } from './fast-sum.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from './ipv4.ts';
import type { PacketMemory } from './memory.ts';
import {
  CWR,
  FIN,
  PSH,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_HEADER_BYTES,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_LENGTH,
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
  VNET_HEADER_BYTES,
} from './vnet.ts';
import { VXLAN_HEADER_BYTES } from './vxlan.ts';

/** Room for a packet's headers: VXLAN, Ethernet with a VLAN tag, and the longest IPv4 and TCP headers. */
export const HEADER_SLOT_BYTES = 192;

/** Takes packets, each in one piece or two; they stay where they lie until it has sent them. */
export interface PacketSink {
  /** A packet of `lengthBytes` that lies whole at `offset`. */
  whole(offset: number, lengthBytes: number): void;
  /**
   * A packet whose headers are still to be written, to the offset that is returned (2 past a multiple of 4, with room
   * for HEADER_SLOT_BYTES), and whose payload lies at `payload`.
   */
  split(headerBytes: number, payload: number, payloadBytes: number): number;
}

export const SENT = 0;
export const MALFORMED = 1;
export const TOO_BIG = 2;
export type SegmentResult = typeof SENT | typeof MALFORMED | typeof TOO_BIG;

export class Segmenter {
  readonly #memory: PacketMemory;
  readonly #vni: number;

  constructor(memory: PacketMemory, vni: number) {
    this.#memory = memory;
    this.#vni = vni;
  }

  /**
   * @param vnet where the offload header lies; a multiple of 4
   * @param lengthBytes of it and the frame
   * @param limitBytes the largest Ethernet frame that the path takes; TCP is cut to fit it, whatever size it was to
   * be cut to
   * @returns with TOO_BIG the frame's checksums are complete all the same
   */
  send(vnet: number, lengthBytes: number, limitBytes: number, sink: PacketSink): SegmentResult {
    const { view } = this.#memory;
    const frame = vnet + VNET_HEADER_BYTES;
    const frameBytes = lengthBytes - VNET_HEADER_BYTES;
    const type = view.getUint8(vnet + VNET_GSO_TYPE) & ~GSO_ECN;
    if (type === GSO_TCP4 || type === GSO_TCP6) {
      return this.#sendTcp(vnet, frame + frameBytes, limitBytes, sink);
    }
    if (type === GSO_UDP) return this.#sendUdp(vnet, frame + frameBytes, limitBytes, sink);
    if (type !== GSO_NONE) return MALFORMED;
    if ((view.getUint8(vnet + VNET_FLAGS) & NEEDS_CHECKSUM) !== 0) {
      const start = view.getUint16(vnet + VNET_CHECKSUM_START, true);
      const field = start + view.getUint16(vnet + VNET_CHECKSUM_OFFSET, true);
      if (field + 2 > frameBytes) return MALFORMED;
      this.#complete(frame + start, frame + field, frame + frameBytes);
    }
    this.#writeVxlan(frame - VXLAN_HEADER_BYTES);
    if (frameBytes > limitBytes) return TOO_BIG;
    sink.whole(frame - VXLAN_HEADER_BYTES, VXLAN_HEADER_BYTES + frameBytes);
    return SENT;
  }

  /** The field holds the pseudo header's sum and is part of what is summed. A sum of zero is written as 0xffff. */
  #complete(start: number, field: number, end: number): void {
    const sum = ~fold(this.#memory.sum(start, end - start)) & 0xffff;
    this.#memory.view.setUint16(field, sum === 0 ? 0xffff : sum, true);
  }

  #writeVxlan(at: number): void {
    this.#memory.view.setUint32(at, 0x0800_0000);
    this.#memory.view.setUint32(at + 4, this.#vni << 8);
  }

  #sendTcp(vnet: number, end: number, limitBytes: number, sink: PacketSink): SegmentResult {
    const { view, sum } = this.#memory;
    const frame = vnet + VNET_HEADER_BYTES;
    const ip = this.#ipHeader(frame, end);
    const tcp = frame + view.getUint16(vnet + VNET_CHECKSUM_START, true);
    if (ip === 0 || tcp + TCP_HEADER_BYTES > end) return MALFORMED;
    const isIpv4 = view.getUint8(ip) >> 4 === 4;
    if (!this.#transportFits(isIpv4, ip, tcp, PROTOCOL_TCP)) return MALFORMED;
    const payload = tcp + (view.getUint8(tcp + TCP_FLAGS) >> 4) * 4;
    const headerBytes = payload - frame;
    const asked = view.getUint16(vnet + VNET_GSO_SIZE, true);
    if (payload < tcp + TCP_HEADER_BYTES || payload >= end || asked === 0) return MALFORMED;
    if (headerBytes + VNET_HEADER_BYTES > HEADER_SLOT_BYTES) return MALFORMED;
    const size = Math.min(asked, limitBytes - headerBytes);
    if (size <= 0) return TOO_BIG;

    let sequence = view.getUint32(tcp + TCP_SEQUENCE);
    const flags = view.getUint16(tcp + TCP_FLAGS);
    let identification = isIpv4 ? view.getUint16(ip + 4) : 0;
    // What differs between the packets is made zero in the first's header, which the others copy: what is left
    // is summed once.
    view.setUint32(tcp + TCP_SEQUENCE, 0);
    view.setUint16(tcp + TCP_FLAGS, 0);
    view.setUint16(tcp + TCP_CHECKSUM, 0);
    const tcpSum = fold(this.#pseudoSum(isIpv4, ip, PROTOCOL_TCP) + sum(tcp, payload - tcp));
    const ipSum = isIpv4 ? this.#zeroedIpv4Sum(ip) : 0;
    this.#writeVxlan(frame - VXLAN_HEADER_BYTES);

    for (let at = payload; at < end; at += size) {
      const bytes = Math.min(size, end - at);
      const isLast = at + bytes === end;
      const copy = this.#header(vnet, payload, at, bytes, sink) - frame;
      const own = flags & (at === payload ? 0xffff : 0xffff ^ CWR) & (isLast ? 0xffff : 0xffff ^ (FIN | PSH));
      const tcpBytes = payload - tcp + bytes;
      this.#finishIp(isIpv4, ip + copy, payload - ip + bytes, identification, ipSum);
      view.setUint32(tcp + copy + TCP_SEQUENCE, sequence);
      view.setUint16(tcp + copy + TCP_FLAGS, own);
      const total =
        tcpSum + swap16(tcpBytes) + swap16(sequence >>> 16) + swap16(sequence) + swap16(own) + sum(at, bytes);
      view.setUint16(tcp + copy + TCP_CHECKSUM, ~fold(total), true);
      sequence = (sequence + bytes) >>> 0;
      identification = (identification + 1) & 0xffff;
    }
    return SENT;
  }

  #sendUdp(vnet: number, end: number, limitBytes: number, sink: PacketSink): SegmentResult {
    const { view, sum } = this.#memory;
    const frame = vnet + VNET_HEADER_BYTES;
    const ip = this.#ipHeader(frame, end);
    const udp = frame + view.getUint16(vnet + VNET_CHECKSUM_START, true);
    const payload = udp + 8;
    if (ip === 0 || payload >= end) return MALFORMED;
    const isIpv4 = view.getUint8(ip) >> 4 === 4;
    const headerBytes = payload - frame;
    const size = view.getUint16(vnet + VNET_GSO_SIZE, true);
    if (size === 0 || !this.#transportFits(isIpv4, ip, udp, PROTOCOL_UDP)) return MALFORMED;
    if (headerBytes + VNET_HEADER_BYTES > HEADER_SLOT_BYTES) return MALFORMED;
    // Datagrams keep their borders: unlike TCP's, they cannot be cut smaller.
    if (headerBytes + Math.min(size, end - payload) > limitBytes) return TOO_BIG;

    let identification = isIpv4 ? view.getUint16(ip + 4) : 0;
    view.setUint16(udp + UDP_LENGTH, 0);
    view.setUint16(udp + UDP_CHECKSUM, 0);
    const udpSum = fold(this.#pseudoSum(isIpv4, ip, PROTOCOL_UDP) + sum(udp, 8));
    const ipSum = isIpv4 ? this.#zeroedIpv4Sum(ip) : 0;
    this.#writeVxlan(frame - VXLAN_HEADER_BYTES);

    for (let at = payload; at < end; at += size) {
      const bytes = Math.min(size, end - at);
      const copy = this.#header(vnet, payload, at, bytes, sink) - frame;
      this.#finishIp(isIpv4, ip + copy, payload - ip + bytes, identification, ipSum);
      view.setUint16(udp + copy + UDP_LENGTH, 8 + bytes);
      // The length counts twice: in the pseudo header and in UDP's own.
      const checksum = ~fold(udpSum + 2 * swap16(8 + bytes) + sum(at, bytes)) & 0xffff;
      view.setUint16(udp + copy + UDP_CHECKSUM, checksum === 0 ? 0xffff : checksum, true);
      identification = (identification + 1) & 0xffff;
    }
    return SENT;
  }

  /** Where IP begins behind Ethernet and at most one VLAN tag; 0: not IP, or cut short. */
  #ipHeader(frame: number, end: number): number {
    const { view } = this.#memory;
    if (frame + 14 + 20 > end) return 0;
    const type = view.getUint16(frame + 12);
    const isTagged = type === 0x8100 || type === 0x88a8;
    const ip = frame + (isTagged ? 18 : 14);
    if (ip + 20 > end) return 0;
    const inner = isTagged ? view.getUint16(frame + 16) : type;
    const version = view.getUint8(ip) >> 4;
    if (inner === ETHERTYPE_IPV4) return version === 4 ? ip : 0;
    return inner === ETHERTYPE_IPV6 && version === 6 && ip + 40 <= end ? ip : 0;
  }

  /** The transport header is where IP's says it is; IPv6's extension headers are the kernel's word. */
  #transportFits(isIpv4: boolean, ip: number, transport: number, protocol: number): boolean {
    const { view } = this.#memory;
    if (!isIpv4) return transport >= ip + 40;
    return (
      transport === ip + (view.getUint8(ip) & 15) * 4 &&
      transport >= ip + 20 &&
      view.getUint8(ip + 9) === protocol
    );
  }

  /** Of the addresses and the protocol; without the length. */
  #pseudoSum(isIpv4: boolean, ip: number, protocol: number): number {
    return (isIpv4 ? this.#memory.sum(ip + 12, 8) : this.#memory.sum(ip + 8, 32)) + swap16(protocol);
  }

  /** Makes length, identification and checksum zero and sums the rest. */
  #zeroedIpv4Sum(ip: number): number {
    const { view, sum } = this.#memory;
    view.setUint32(ip + 2, 0);
    view.setUint16(ip + 10, 0);
    return fold(sum(ip, (view.getUint8(ip) & 15) * 4));
  }

  #finishIp(
    isIpv4: boolean,
    ip: number,
    totalBytes: number,
    identification: number,
    zeroedSum: number,
  ): void {
    const { view } = this.#memory;
    if (!isIpv4) {
      view.setUint16(ip + 4, totalBytes - 40);
      return;
    }
    view.setUint16(ip + 2, totalBytes);
    view.setUint16(ip + 4, identification);
    view.setUint16(ip + 10, ~fold(zeroedSum + swap16(totalBytes) + swap16(identification)), true);
  }

  /** A copy of the first packet's headers for the payload at `at`. @returns where its Ethernet header is */
  #header(vnet: number, payload: number, at: number, payloadBytes: number, sink: PacketSink): number {
    const { words } = this.#memory;
    // Both are 2 past a multiple of 4, so whole words are copied, the offload header's first two bytes among them.
    const slot = sink.split(payload - vnet - 2, at, payloadBytes);
    let to = (slot - 2) >> 2;
    const last = (payload + 3) >> 2;
    for (let from = vnet >> 2; from < last; from++) words[to++] = words[from] ?? 0;
    return slot + VXLAN_HEADER_BYTES;
  }
}
