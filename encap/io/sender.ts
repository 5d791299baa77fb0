/** One queue's way out: frames are read from the device, and leave as VXLAN packets. */
import { hrtime } from 'node:process';
import { connect } from '../../overlay/kernel/libc.ts';
import { flowHash } from '../wire/flow.ts';
import { Layout } from '../wire/memory.ts';
import { PeerTable } from '../wire/peer-table.ts';
import { MALFORMED, Segmenter, TOO_BIG } from '../wire/segment.ts';
import { sendFragments, TOO_BIG_BYTES, writeTooBig } from '../wire/too-big.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import {
  EACCES,
  EADDRNOTAVAIL,
  EAGAIN,
  EBADFD,
  EHOSTUNREACH,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  EPERM,
  lastErrno,
  POLLOUT,
  poll,
  read,
  write,
} from './calls.ts';
import { type Counters, sendDrop } from './counters.ts';
import { MappedMemory } from './memory-map.ts';
import { UNDERLAY_MTU, type WorkerSockets, type WorkerStart } from './shared.ts';
import { pathMtuOf } from './sockets.ts';
import { layOutTrains, type SendFailures, Trains } from './trains.ts';

/** The largest frame: an IP packet of 64 KiB. */
const FRAME_ROOM_BYTES = VNET_HEADER_BYTES + 18 + 65_535 + 7;
/** Frames that are read before what they became is sent. */
const BATCH_FRAMES = 128;
const BATCH_BYTES = 256 * 1024;

/** How long a full socket may keep us, once a step: longer, and packets are better dropped than others kept waiting. */
const SOCKET_FULL_WAIT_MS = 2;
/** A path that was found narrow is tried in full again so often: the kernel may know better by then. */
const RETRY_PATH_S = 2;
/** "Too big" answers a second, as kernels limit theirs. */
const ANSWERS_PER_S = 1000;

const MALFORMED_DROP = sendDrop('malformed');
const GROUP_DROP = sendDrop('group');
const NO_PEER_DROP = sendDrop('no_peer');
const TOO_BIG_DROP = sendDrop('too_big');
const UNREACHABLE_DROP = sendDrop('unreachable');
const REFUSED_DROP = sendDrop('refused');
const SOCKET_FULL_DROP = sendDrop('socket_full');
const FAILED_DROP = sendDrop('failed');

export class Sender implements SendFailures {
  readonly #map: MappedMemory;
  readonly #trains: Trains;
  readonly #segmenter: Segmenter;
  readonly #counters: Counters;
  readonly #steering: Int32Array;
  readonly #queue: number;
  readonly #isIpv4: boolean;
  /** From the underlay's MTU to the largest inner frame. */
  readonly #overheadBytes: number;
  readonly #frames: number;
  readonly #answer: number;
  readonly #pollEntry: number;
  readonly #name: number;
  #sockets: WorkerSockets;
  #table: PeerTable;

  // The peer of the last frame: most often it is the next one's, too. Good for one batch.
  #peerLow = 0;
  #peerHigh = -1;
  #peer = -1;
  #generation = 0;

  #mayWait = true;

  #answersSecond = 0;
  #answers = 0;

  constructor(start: WorkerStart, counters: Counters) {
    const layout = new Layout();
    this.#frames = layout.take(BATCH_BYTES + FRAME_ROOM_BYTES);
    const trains = layOutTrains(layout);
    this.#answer = layout.take(TOO_BIG_BYTES);
    this.#pollEntry = layout.take(8);
    this.#name = layout.take(32);
    this.#map = new MappedMemory(layout.sizeBytes);
    this.#counters = counters;
    this.#steering = new Int32Array(start.steering);
    this.#queue = start.queue;
    this.#isIpv4 = start.isIpv4;
    this.#overheadBytes = (start.isIpv4 ? 20 : 40) + 8 + 8;
    this.#sockets = start.sockets;
    this.#table = new PeerTable(start.destinations);
    this.#segmenter = new Segmenter(this.#map.memory, start.vni);
    this.#trains = new Trains({
      map: this.#map,
      layout: trains,
      counters,
      failures: this,
      sockets: start.sockets.senders,
      table: this.#table,
      isIpv4: start.isIpv4,
      trains: start.sockets.trains,
    });
  }

  /** Call it between two steps. */
  use(table: SharedArrayBuffer | undefined, sockets: WorkerSockets | undefined): void {
    if (table !== undefined) this.#table = new PeerTable(table);
    if (sockets !== undefined) this.#sockets = sockets;
    this.#trains.use(this.#table, this.#sockets.senders);
  }

  /** Forwards what waits, as far as one batch goes. @returns frames read; -1: the device is gone */
  step(): number {
    this.#peerHigh = -1;
    this.#mayWait = true;
    let frames = 0;
    let used = 0;
    while (frames < BATCH_FRAMES && used < BATCH_BYTES) {
      const vnet = this.#frames + used;
      const length = read(this.#queue, this.#map.address + vnet, FRAME_ROOM_BYTES);
      if (length <= 0) {
        if (length < 0 && lastErrno() === EBADFD) return -1;
        break;
      }
      frames++;
      used += (length + 7) & ~7;
      this.#forward(vnet, length);
    }
    if (frames > 0) this.#trains.flush();
    return frames;
  }

  #forward(vnet: number, length: number): void {
    const { view } = this.#map.memory;
    const frame = vnet + VNET_HEADER_BYTES;
    const frameBytes = length - VNET_HEADER_BYTES;
    if (frameBytes < 14) {
      this.#counters.drop(MALFORMED_DROP);
      return;
    }
    if ((view.getUint8(frame) & 1) !== 0) {
      this.#counters.drop(GROUP_DROP);
      return;
    }
    const low = view.getUint32(frame, true);
    const high = view.getUint16(frame + 4, true);
    if (low !== this.#peerLow || high !== this.#peerHigh) {
      this.#peerLow = low;
      this.#peerHigh = high;
      this.#peer = this.#table.find(low, high, 0, 0);
      // What becomes another peer's entry after this is not sent to: the trains look at the generation again.
      this.#generation = this.#table.generation;
    }
    if (this.#peer < 0) {
      this.#counters.drop(NO_PEER_DROP);
      return;
    }
    const limit = this.#limit(this.#peer);
    this.#trains.to(this.#peer, this.#generation, flowHash(view, frame, frameBytes));
    const result = this.#segmenter.send(vnet, length, limit, this.#trains);
    if (result === MALFORMED) this.#counters.drop(MALFORMED_DROP);
    else if (result === TOO_BIG) this.#tooBig(frame, frameBytes, limit);
  }

  /** The largest inner frame for a peer. */
  #limit(peer: number): number {
    const underlay = Atomics.load(this.#steering, UNDERLAY_MTU);
    const path = this.#table.pathMtu(peer);
    if (path === 0) return underlay - this.#overheadBytes;
    if (seconds() - this.#table.learnedAt(peer) >= RETRY_PATH_S) this.#table.learn(peer, 0, 0);
    return Math.min(underlay, path) - this.#overheadBytes;
  }

  #tooBig(frame: number, frameBytes: number, limit: number): void {
    const { memory, address } = this.#map;
    if (sendFragments(memory, frame, frameBytes, limit, this.#trains)) return;
    this.#counters.drop(TOO_BIG_DROP);
    const second = seconds();
    if (second !== this.#answersSecond) {
      this.#answersSecond = second;
      this.#answers = 0;
    }
    if (this.#answers++ >= ANSWERS_PER_S) return;
    const length = writeTooBig(memory, frame, frameBytes, limit - 14, this.#answer);
    // A device that does not take it is down, and its sender gone.
    if (length > 0) write(this.#queue, address + this.#answer, length);
  }

  mayRetry(errno: number, socket: number): boolean {
    if (!this.#mayWait || (errno !== EAGAIN && errno !== ENOBUFS)) return false;
    this.#mayWait = false;
    const { view } = this.#map.memory;
    view.setInt32(this.#pollEntry, socket, true);
    view.setInt32(this.#pollEntry + 4, POLLOUT, true);
    return poll(this.#map.address + this.#pollEntry, 1, SOCKET_FULL_WAIT_MS) > 0;
  }

  lost(errno: number, peer: number, generation: number, packets: number): void {
    this.#counters.drop(this.#reason(errno, peer, generation), packets);
  }

  #reason(errno: number, peer: number, generation: number): number {
    switch (errno) {
      case EMSGSIZE:
      case EINVAL:
        // For a train that is too wide for the path, older kernels say EINVAL.
        this.#learnPath(peer, generation);
        return TOO_BIG_DROP;
      case EIO:
        // The interface has no checksum offload, which kernels before 6.11 want for trains.
        if (this.#trains.hasTrains) this.#trains.withoutTrains();
        return FAILED_DROP;
      case EAGAIN:
      case ENOBUFS:
        return SOCKET_FULL_DROP;
      case EPERM:
      case EACCES:
        return REFUSED_DROP;
      case ENETUNREACH:
      case EHOSTUNREACH:
      case ENETDOWN:
      case EADDRNOTAVAIL:
        return UNREACHABLE_DROP;
      default:
        return FAILED_DROP;
    }
  }

  /** Asks the kernel what it knows of the path: by its routes, and by ICMP that came. */
  #learnPath(peer: number, generation: number): void {
    const { words, bytes } = this.#map.memory;
    if (!this.#table.copyAddress(peer, generation, words, this.#name >> 2)) return;
    const address = bytes.subarray(this.#name, this.#name + (this.#isIpv4 ? 16 : 28));
    if (connect(this.#sockets.pathProbe, address, address.length) < 0) return;
    const mtu = pathMtuOf(this.#sockets.pathProbe, this.#isIpv4);
    if (mtu > 0 && mtu < Atomics.load(this.#steering, UNDERLAY_MTU)) this.#table.learn(peer, mtu, seconds());
  }
}

/** Of the machine's monotonic clock, which all threads share. */
const seconds = (): number => hrtime()[0] | 0;
