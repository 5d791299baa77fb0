/**
 * Packets to be sent, gathered into trains: packets of one size (the last may be smaller) from one socket to one peer
 * go to the kernel as one message that it cuts (UDP_SEGMENT), or, over interfaces that can, that the hardware cuts.
 * Trains of one socket go together in one sendmmsg.
 *
 * Order: a socket has at most one train that packets can still join, and its trains are sent in the order in which
 * they were begun. A flow always has the same socket, so its packets keep their order.
 *
 * Everything lies in the worker's memory: what a packet points to must stay until `flush`, which happens by itself when
 * there is no room for another train or header.
 */

import type { Layout } from '../wire/memory.ts';
import type { PeerTable } from '../wire/peer-table.ts';
import { HEADER_SLOT_BYTES, type PacketSink } from '../wire/segment.ts';
import { VXLAN_HEADER_BYTES } from '../wire/vxlan.ts';
import { EINTR, lastErrno, MSG_DONTWAIT, sendmmsg } from './calls.ts';
import { type Counters, sendDrop } from './counters.ts';
import { IOVEC_BYTES, type MappedMemory, MMSGHDR_BYTES } from './memory-map.ts';

/** UDP_MAX_SEGMENTS of kernels before 6.9. */
const MAX_PACKETS = 64;
/** What the kernel takes as one message: an IP packet of 64 KiB, less the longest headers. */
const MAX_BYTES = 65_535 - 48;
const TRAINS = 64;
const HEADERS = 1024;
const SOCKET_ADDRESS_BYTES = 32;
const CONTROL_BYTES = 24;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;

/** What becomes of a message that the kernel did not take. */
export interface SendFailures {
  /** Asked once a message. */
  mayRetry(errno: number, socket: number): boolean;
  /** The message is given up: count it. */
  lost(errno: number, peer: number, generation: number, packets: number): void;
}

/** Where its parts lie in the worker's memory. */
export interface TrainsLayout {
  readonly headers: number;
  readonly iovecs: number;
  readonly messages: number;
  readonly names: number;
  readonly controls: number;
}

export const layOutTrains = (layout: Layout): TrainsLayout => ({
  headers: layout.take(HEADERS * HEADER_SLOT_BYTES),
  iovecs: layout.take(TRAINS * 2 * MAX_PACKETS * IOVEC_BYTES),
  messages: layout.take(TRAINS * MMSGHDR_BYTES),
  names: layout.take(TRAINS * SOCKET_ADDRESS_BYTES),
  controls: layout.take(TRAINS * CONTROL_BYTES),
});

export class Trains implements PacketSink {
  readonly #map: MappedMemory;
  readonly #counters: Counters;
  readonly #failures: SendFailures;
  readonly #nameBytes: number;
  #sockets: readonly number[];
  #maxPackets: number;
  #table: PeerTable;

  readonly #headers: number;
  readonly #iovecs: number;
  readonly #messages: number;
  readonly #names: number;
  readonly #controls: number;

  #count = 0;
  #headersUsed = 0;
  /** Of each train. */
  readonly #socketOf = new Int32Array(TRAINS);
  readonly #peerOf = new Int32Array(TRAINS);
  readonly #generationOf = new Int32Array(TRAINS);
  readonly #sizeOf = new Int32Array(TRAINS);
  readonly #bytesOf = new Int32Array(TRAINS);
  readonly #packetsOf = new Int32Array(TRAINS);
  readonly #iovecsOf = new Int32Array(TRAINS);
  /** The train of each socket that packets can join; -1: none. */
  readonly #open: Int32Array;
  /** The trains that one call sends, in order. */
  readonly #sending = new Int32Array(TRAINS);

  // Where the packets that come go to.
  #socket = 0;
  #peer = 0;
  #generation = 0;

  constructor(parts: {
    readonly map: MappedMemory;
    readonly layout: TrainsLayout;
    readonly counters: Counters;
    readonly failures: SendFailures;
    readonly sockets: readonly number[];
    readonly table: PeerTable;
    readonly isIpv4: boolean;
    readonly trains: boolean;
  }) {
    this.#map = parts.map;
    this.#counters = parts.counters;
    this.#failures = parts.failures;
    this.#sockets = parts.sockets;
    this.#table = parts.table;
    this.#nameBytes = parts.isIpv4 ? 16 : 28;
    this.#maxPackets = parts.trains ? MAX_PACKETS : 1;
    this.#headers = parts.layout.headers;
    this.#iovecs = parts.layout.iovecs;
    this.#messages = parts.layout.messages;
    this.#names = parts.layout.names;
    this.#controls = parts.layout.controls;
    this.#open = new Int32Array(parts.sockets.length).fill(-1);
    const { view } = parts.map.memory;
    for (let train = 0; train < TRAINS; train++) {
      const at = this.#controls + train * CONTROL_BYTES;
      view.setUint32(at, 18, true);
      view.setUint32(at + 8, SOL_UDP, true);
      view.setUint32(at + 12, UDP_SEGMENT, true);
    }
  }

  /** Other memory for the peers, or other sockets (as many as before). Call it with nothing gathered. */
  use(table: PeerTable, sockets: readonly number[]): void {
    this.#table = table;
    this.#sockets = sockets;
  }

  /** One packet a message from here on: the kernel or the interface turns out to have no UDP_SEGMENT. */
  withoutTrains(): void {
    this.#maxPackets = 1;
  }

  get hasTrains(): boolean {
    return this.#maxPackets > 1;
  }

  /** The packets that come now are for this entry of the table. @param hash the flow's */
  to(peer: number, generation: number, hash: number): void {
    this.#peer = peer;
    this.#generation = generation;
    this.#socket = hash % this.#sockets.length;
  }

  whole(offset: number, lengthBytes: number): void {
    const train = this.#board(lengthBytes);
    this.#iovec(train, offset, lengthBytes);
  }

  split(headerBytes: number, payload: number, payloadBytes: number): number {
    if (this.#headersUsed === HEADERS) this.flush();
    const train = this.#board(headerBytes + payloadBytes);
    // A flush in between has made the headers free as well.
    const header = this.#headers + this.#headersUsed++ * HEADER_SLOT_BYTES + 2;
    this.#iovec(train, header, headerBytes);
    this.#iovec(train, payload, payloadBytes);
    return header;
  }

  /** The train that a packet of this size joins, or a new one. */
  #board(lengthBytes: number): number {
    const open = this.#open[this.#socket] ?? -1;
    if (open >= 0) {
      const size = this.#sizeOf[open] ?? 0;
      const bytes = (this.#bytesOf[open] ?? 0) + lengthBytes;
      const packets = this.#packetsOf[open] ?? 0;
      if (
        this.#peerOf[open] === this.#peer &&
        this.#generationOf[open] === this.#generation &&
        lengthBytes <= size &&
        bytes <= MAX_BYTES &&
        packets < this.#maxPackets
      ) {
        this.#bytesOf[open] = bytes;
        this.#packetsOf[open] = packets + 1;
        if (lengthBytes < size) this.#open[this.#socket] = -1;
        return open;
      }
    }
    if (this.#count === TRAINS) this.flush();
    const train = this.#count++;
    this.#socketOf[train] = this.#socket;
    this.#peerOf[train] = this.#peer;
    this.#generationOf[train] = this.#generation;
    this.#sizeOf[train] = lengthBytes;
    this.#bytesOf[train] = lengthBytes;
    this.#packetsOf[train] = 1;
    this.#iovecsOf[train] = 0;
    this.#open[this.#socket] = train;
    return train;
  }

  #iovec(train: number, offset: number, lengthBytes: number): void {
    const used = this.#iovecsOf[train] ?? 0;
    this.#map.iovec(this.#iovecs + (train * 2 * MAX_PACKETS + used) * IOVEC_BYTES, offset, lengthBytes);
    this.#iovecsOf[train] = used + 1;
  }

  /** Sends everything; what cannot be sent is dropped and counted. */
  flush(): void {
    const count = this.#count;
    let left = count;
    for (let first = 0; left > 0 && first < count; first++) {
      const socket = this.#socketOf[first] ?? -1;
      if (socket < 0) continue;
      let messages = 0;
      for (let train = first; train < count; train++) {
        if (this.#socketOf[train] !== socket) continue;
        this.#socketOf[train] = -1;
        left--;
        if (this.#prepare(train, messages)) this.#sending[messages++] = train;
      }
      this.#send(this.#sockets[socket] ?? -1, messages);
      this.#open[socket] = -1;
    }
    this.#count = 0;
    this.#headersUsed = 0;
  }

  /** Writes a train's message. @returns false: its peer is gone meanwhile */
  #prepare(train: number, message: number): boolean {
    const name = this.#names + train * SOCKET_ADDRESS_BYTES;
    const { words, view } = this.#map.memory;
    const packets = this.#packetsOf[train] ?? 0;
    const generation = this.#generationOf[train] ?? 0;
    if (!this.#table.copyAddress(this.#peerOf[train] ?? 0, generation, words, name >> 2)) {
      this.#counters.drop(sendDrop('no_peer'), packets);
      return false;
    }
    const control = this.#controls + train * CONTROL_BYTES;
    view.setUint16(control + 16, this.#sizeOf[train] ?? 0, true);
    this.#map.message(
      this.#messages + message * MMSGHDR_BYTES,
      name,
      this.#nameBytes,
      this.#iovecs + train * 2 * MAX_PACKETS * IOVEC_BYTES,
      this.#iovecsOf[train] ?? 0,
      control,
      packets > 1 ? CONTROL_BYTES : 0,
    );
    return true;
  }

  #send(socket: number, count: number): void {
    let done = 0;
    let isRepeated = false;
    while (done < count) {
      const sent = sendmmsg(
        socket,
        this.#map.address + this.#messages + done * MMSGHDR_BYTES,
        count - done,
        MSG_DONTWAIT,
      );
      if (sent > 0) {
        let packets = 0;
        let bytes = 0;
        for (let i = done; i < done + sent; i++) {
          const train = this.#sending[i] ?? 0;
          packets += this.#packetsOf[train] ?? 0;
          bytes += (this.#bytesOf[train] ?? 0) - VXLAN_HEADER_BYTES * (this.#packetsOf[train] ?? 0);
        }
        this.#counters.carried(packets, bytes);
        this.#counters.batch(packets);
        done += sent;
        isRepeated = false;
        continue;
      }
      const errno = lastErrno();
      if (errno === EINTR) continue;
      if (!isRepeated && this.#failures.mayRetry(errno, socket)) {
        isRepeated = true;
        continue;
      }
      isRepeated = false;
      const train = this.#sending[done++] ?? 0;
      this.#failures.lost(
        errno,
        this.#peerOf[train] ?? 0,
        this.#generationOf[train] ?? 0,
        this.#packetsOf[train] ?? 0,
      );
    }
  }
}
