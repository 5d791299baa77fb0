/** One queue's way in: VXLAN packets are received, checked, merged and written to the device. */
import { Coalescer, type FrameSink } from '../wire/coalesce.ts';
import { Layout } from '../wire/memory.ts';
import { PeerTable } from '../wire/peer-table.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { VXLAN_HEADER_BYTES } from '../wire/vxlan.ts';
import {
  EAGAIN,
  EBADFD,
  EIO,
  ENOBUFS,
  ENOMEM,
  lastErrno,
  MSG_DONTWAIT,
  recvmmsg,
  write,
  writev,
} from './calls.ts';
import { type Counters, receiveDrop } from './counters.ts';
import { IOVEC_BYTES, MappedMemory, MMSGHDR_BYTES } from './memory-map.ts';
import { MAC_HIGH, MAC_LOW, UNDERLAY_MTU, type WorkerSockets, type WorkerStart } from './shared.ts';

/** Messages that one call takes. Each is a packet, or a train of one sender's (UDP_GRO). */
const MESSAGES = 32;
const MESSAGE_BYTES = 65_536;
/** Not a power of two, so that the first bytes of all buffers do not fall into the same sets of the cache. */
const STRIDE_BYTES = MESSAGE_BYTES + 4096 + 64;
/** Before a packet: the rest of an offload header. */
const HEADROOM_BYTES = 64;
const NAME_BYTES = 32;
const CONTROL_BYTES = 128;
/** A frame of more packets than the coalescer merges there is none. */
const MAX_PIECES = 128;

const SOL_UDP = 17;
const UDP_GRO = 104;
const IPPROTO_IP = 0;
const IP_PKTINFO = 8;
const IPPROTO_IPV6 = 41;
const IPV6_PKTINFO = 50;

/** "I" set and all else zero, as kernel vxlan demands of the reserved bits. */
const FLAGS = 0x0800_0000;
/** Larger frames than jumbo ones come from no device, whatever the underlay takes in fragments. */
const JUMBO_MTU = 9216;

const STRANGER = receiveDrop('stranger');
const SHORT = receiveDrop('short');
const WRONG_FLAGS = receiveDrop('flags');
const WRONG_VNI = receiveDrop('vni');
const GIANT = receiveDrop('giant');
const NESTED = receiveDrop('nested');
const LOOP = receiveDrop('loop');
const DEVICE_DOWN = receiveDrop('device_down');
const DEVICE_FULL = receiveDrop('device_full');
const FAILED = receiveDrop('failed');

export class Receiver implements FrameSink {
  readonly #map: MappedMemory;
  readonly #coalescer: Coalescer;
  readonly #counters: Counters;
  readonly #steering: Int32Array;
  readonly #queue: number;
  readonly #isIpv4: boolean;
  readonly #vni: number;
  readonly #deviceIndex: number;
  readonly #messages: number;
  readonly #iovecs: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #buffers: number;
  readonly #pieces: number;
  #socket: number;
  #table: PeerTable;

  // What the control data of the last message said.
  #segmentBytes = 0;
  #cameBy = 0;

  #pieceCount = 0;
  #isGone = false;

  constructor(start: WorkerStart, counters: Counters) {
    const layout = new Layout();
    this.#messages = layout.take(MESSAGES * MMSGHDR_BYTES);
    this.#iovecs = layout.take(MESSAGES * IOVEC_BYTES);
    this.#names = layout.take(MESSAGES * NAME_BYTES);
    this.#controls = layout.take(MESSAGES * CONTROL_BYTES);
    this.#pieces = layout.take((MAX_PIECES + 1) * IOVEC_BYTES);
    const vnet = layout.take(VNET_HEADER_BYTES);
    this.#buffers = layout.take(MESSAGES * STRIDE_BYTES + HEADROOM_BYTES) + HEADROOM_BYTES;
    this.#map = new MappedMemory(layout.sizeBytes);
    this.#counters = counters;
    this.#steering = new Int32Array(start.steering);
    this.#queue = start.queue;
    this.#isIpv4 = start.isIpv4;
    this.#vni = start.vni << 8;
    this.#deviceIndex = start.deviceIndex;
    this.#socket = start.sockets.receiver;
    this.#table = new PeerTable(start.sources);
    this.#coalescer = new Coalescer(this.#map.memory, this, vnet, start.largeUdp);
    for (let i = 0; i < MESSAGES; i++) {
      const iovec = this.#iovecs + i * IOVEC_BYTES;
      this.#map.iovec(iovec, this.#buffers + i * STRIDE_BYTES, MESSAGE_BYTES);
      this.#map.message(
        this.#messages + i * MMSGHDR_BYTES,
        this.#names + i * NAME_BYTES,
        NAME_BYTES,
        iovec,
        1,
        this.#controls + i * CONTROL_BYTES,
        CONTROL_BYTES,
      );
    }
  }

  /** Call it between two steps. */
  use(table: SharedArrayBuffer | undefined, sockets: WorkerSockets | undefined): void {
    if (table !== undefined) this.#table = new PeerTable(table);
    if (sockets !== undefined) this.#socket = sockets.receiver;
  }

  /** Forwards what waits, as far as one batch goes. @returns messages received; -1: the device is gone */
  step(): number {
    const { words } = this.#map.memory;
    const received = recvmmsg(this.#socket, this.#map.address + this.#messages, MESSAGES, MSG_DONTWAIT, 0);
    if (received <= 0) return 0;
    let packets = 0;
    for (let i = 0; i < received; i++) {
      const message = (this.#messages + i * MMSGHDR_BYTES) >> 2;
      const length = words[message + 14] ?? 0;
      this.#readControl(this.#controls + i * CONTROL_BYTES, words[message + 10] ?? 0, length);
      packets += this.#message(this.#buffers + i * STRIDE_BYTES, length, this.#names + i * NAME_BYTES);
      // The kernel has written how much of these it used.
      words[message + 2] = NAME_BYTES;
      words[message + 10] = CONTROL_BYTES;
    }
    this.#coalescer.flush();
    this.#counters.batch(packets);
    return this.#isGone ? -1 : received;
  }

  #readControl(control: number, controlBytes: number, lengthBytes: number): void {
    const { words } = this.#map.memory;
    this.#segmentBytes = lengthBytes;
    this.#cameBy = 0;
    const end = control + controlBytes;
    let at = control;
    // struct cmsghdr: length (8 bytes), level, type; then the data.
    while (at + 16 < end) {
      const length = words[at >> 2] ?? 0;
      if (length < 16) return;
      const level = words[(at >> 2) + 2];
      const type = words[(at >> 2) + 3];
      const data = (at >> 2) + 4;
      if (level === SOL_UDP && type === UDP_GRO) this.#segmentBytes = words[data] || lengthBytes;
      else if (level === IPPROTO_IP && type === IP_PKTINFO) this.#cameBy = words[data] ?? 0;
      else if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO) this.#cameBy = words[data + 4] ?? 0;
      at += (length + 7) & ~7;
    }
  }

  /** @returns how many packets it had */
  #message(at: number, lengthBytes: number, name: number): number {
    const segment = this.#segmentBytes;
    const packets = lengthBytes === 0 ? 1 : Math.ceil(lengthBytes / segment);
    if (this.#cameBy === this.#deviceIndex) this.#counters.drop(NESTED, packets);
    else if (!this.#isPeer(name)) this.#counters.drop(STRANGER, packets);
    else if (lengthBytes === 0) this.#counters.drop(SHORT);
    else {
      const end = at + lengthBytes;
      for (let packet = at; packet < end; packet += segment) {
        this.#packet(packet, Math.min(segment, end - packet));
      }
    }
    return packets;
  }

  #isPeer(name: number): boolean {
    const { words } = this.#map.memory;
    const word = name >> 2;
    if (this.#isIpv4) return this.#table.find(words[word + 1] ?? 0, 0, 0, 0) >= 0;
    return (
      this.#table.find(
        words[word + 2] ?? 0,
        words[word + 3] ?? 0,
        words[word + 4] ?? 0,
        words[word + 5] ?? 0,
      ) >= 0
    );
  }

  #packet(at: number, lengthBytes: number): void {
    const { view } = this.#map.memory;
    if (lengthBytes < VXLAN_HEADER_BYTES + 14) {
      this.#counters.drop(SHORT);
      return;
    }
    const vni = view.getUint32(at + 4);
    if (view.getUint32(at) !== FLAGS || (vni & 255) !== 0) {
      this.#counters.drop(WRONG_FLAGS);
      return;
    }
    if ((vni | 0) !== (this.#vni | 0)) {
      this.#counters.drop(WRONG_VNI);
      return;
    }
    const frame = at + VXLAN_HEADER_BYTES;
    const frameBytes = lengthBytes - VXLAN_HEADER_BYTES;
    const steering = this.#steering;
    if (
      view.getInt32(frame + 6, true) === steering[MAC_LOW] &&
      view.getUint16(frame + 10, true) === steering[MAC_HIGH]
    ) {
      this.#counters.drop(LOOP);
      return;
    }
    const underlayMtuBytes = steering[UNDERLAY_MTU] ?? 0;
    if (frameBytes <= underlayMtuBytes) this.#coalescer.add(frame, frameBytes);
    // A kernel on this very host, or on one behind a virtual cable, passes its large sends on as they are.
    else if (!this.#coalescer.add(frame, frameBytes, underlayMtuBytes)) {
      if (frameBytes > JUMBO_MTU + 18) this.#counters.drop(GIANT);
      else this.#coalescer.add(frame, frameBytes);
    }
  }

  // FrameSink: what the coalescer gives goes to the device at once.

  /**
   * The frame is written with an offload header of zeros before it, over the VXLAN header and the last two bytes of
   * the packet before: those get their value back.
   */
  single(frame: number, lengthBytes: number): void {
    const { view } = this.#map.memory;
    const vnet = frame - VNET_HEADER_BYTES;
    const before = view.getUint16(vnet);
    view.setUint16(vnet, 0);
    view.setUint32(vnet + 2, 0);
    view.setUint32(vnet + 6, 0);
    const written = write(this.#queue, this.#map.address + vnet, VNET_HEADER_BYTES + lengthBytes);
    view.setUint16(vnet, before);
    this.#written(written, 1, lengthBytes);
  }

  begin(vnet: number): void {
    this.#map.iovec(this.#pieces, vnet, VNET_HEADER_BYTES);
    this.#pieceCount = 1;
  }

  piece(offset: number, lengthBytes: number): void {
    this.#map.iovec(this.#pieces + this.#pieceCount++ * IOVEC_BYTES, offset, lengthBytes);
  }

  end(packets: number, wireBytes: number): void {
    const written = writev(this.#queue, this.#map.address + this.#pieces, this.#pieceCount);
    this.#written(written, packets, wireBytes);
  }

  #written(result: number, packets: number, bytes: number): void {
    if (result >= 0) {
      this.#counters.carried(packets, bytes);
      return;
    }
    switch (lastErrno()) {
      case EBADFD:
        this.#isGone = true;
        this.#counters.drop(DEVICE_DOWN, packets);
        break;
      case EIO:
        this.#counters.drop(DEVICE_DOWN, packets);
        break;
      case EAGAIN:
      case ENOBUFS:
      case ENOMEM:
        this.#counters.drop(DEVICE_FULL, packets);
        break;
      default:
        this.#counters.drop(FAILED, packets);
    }
  }
}
