/**
 * The user-space data path: a TAP device joined to UDP sockets, with kernel vxlan's packets on the wire (RFC 7348).
 *
 * How a packet travels, and why each step is there:
 *
 *   pod -> bridge -> route -> TAP device
 *     1. A worker reads a frame. The device offers the kernel checksum and segmentation offload, so what it reads is up
 *        to 64 KiB of one flow: the kernel's whole stack was crossed once for some 45 packets.
 *     2. The destination MAC address names the peer (wire/peer-table.ts), as the FDB does for kernel vxlan. There is no
 *        flooding: broadcast and multicast have no entry and are dropped, as there.
 *     3. The frame is cut into packets, each with headers of its own and its payload where it lies (wire/segment.ts).
 *        Checksums of the inner packets are completed here, for on the wire they must be right.
 *     4. The flow's hash names a socket, and so the outer source port (wire/flow.ts): routers and network cards spread
 *        flows, and never split one.
 *     5. Packets of one size to one peer are one message, which the kernel cuts once it has crossed the stack
 *        (UDP_SEGMENT), and the messages of one socket are one system call (io/trains.ts).
 *   underlay
 *     6. A worker receives: one call takes many messages, and each can be a train of packets of one sender that
 *        the kernel or the network card put together (UDP_GRO).
 *     7. A packet must come from a peer's address, with our VNI and flags, and not out of the tunnel itself
 *        (io/receiver.ts). Everything else is counted by reason, never logged.
 *     8. Consecutive packets of one flow, their checksums verified, become one large frame (wire/coalesce.ts), which
 *        crosses the receiver's stack once.
 *     9. It is written to the TAP device, as if a network card had received it.
 *
 * Threads: one a queue, for both directions in turns. Each has its own memory, made once; peers lie in shared memory
 * that only the main thread writes. Workers wait in poll(2) when there is nothing to do. The kernel sends a flow to the
 * queue that its answers were written to, so one thread has both.
 *
 * What was tried and measured, on two cores shared by both nodes and the programs that talk (bench/datapath.ts has the
 * comparison with kernel vxlan and other tunnels):
 *
 * - Checksums are what this code itself spends most on, so they are WebAssembly's (wire/fast-sum.ts): 2.3 us for 64 KiB
 *   instead of 15. Of a busy worker's time about seven parts of ten are the kernel's: copying, which alone is a quarter,
 *   and its network stack.
 * - One thread for both directions instead of one for each: 9 to 14 % less processor time a gigabit, the median round
 *   trip three quarters and the 99th percentile a half or less. An acknowledgement is written and what it releases is
 *   read without another thread being woken; and fewer threads look for packets at once.
 * - Looking again 20 times before blocking, giving the processor away each time, took a round trip from some 95 us to 70.
 *   Looking without giving it away made it several times longer: the one that would answer does not get to run. Looking
 *   60 times gained nothing; where others keep both cores busy, 20 times gains less, or nothing.
 * - A shorter slice of the processor (sched_setattr) and a higher priority (setpriority) for these threads changed nothing
 *   beyond the noise.
 * - On AMD's Zen 3 the kernel copies four times slower to a place that is 1 to 31 bytes further into its page than the
 *   source is into its own. Frames lie one behind the other here, so no such distance lasts.
 * - V8's flags for compiling sooner changed nothing: a worker's own part of a small packet is 1 to 2 us either way.
 */
import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { checked, close, eventfd } from '../overlay/kernel/libc.ts';
import { socketAddress } from '../overlay/kernel/socket-address.ts';
import { type Address, addressBytes, familyOf, type Mac, macBytes, macFromBytes } from '../store/address.ts';
import { interfaceIndex } from './io/calls.ts';
import { COUNTER_NUMBERS, directionStats, RECEIVE_DROP_NAMES, SEND_DROP_NAMES } from './io/counters.ts';
import { type Holder, startHolder } from './io/holder.ts';
import { deviceDrops, type OpenedTunnel, openTunnel, socketParameters } from './io/open.ts';
import {
  MAC_HIGH,
  MAC_LOW,
  MAX_WORKERS,
  STEERING_NUMBERS,
  UNDERLAY_MTU,
  type WorkerSockets,
  type WorkerStart,
} from './io/shared.ts';
import { closeSockets, droppedByKernel, openSockets, type TunnelSockets } from './io/sockets.ts';
import { removeWithLastQueue, type Tap } from './io/tap.ts';
import { Workers } from './io/workers.ts';
import {
  type NarrowPath,
  type Tunnel,
  TunnelError,
  type TunnelOptions,
  type TunnelStats,
} from './tunnel-types.ts';
import { macKey, PeerTableWriter } from './wire/peer-table.ts';

export { endHolder } from './io/holder.ts';
export * from './tunnel-types.ts';

const EFD_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000;
/** Queues, and threads, unless told: half the cores, for the others are whose packets these are. */
const MAX_DEFAULT_QUEUES = 8;

export class UserSpaceTunnel implements Tunnel {
  readonly device: string;
  readonly resumed: boolean;
  readonly #options: TunnelOptions;
  readonly #isIpv4: boolean;
  readonly #tap: Tap;
  readonly #deviceIndex: number;
  readonly #steering = new Int32Array(new SharedArrayBuffer(STEERING_NUMBERS * 4));
  readonly #counters: SharedArrayBuffer;
  readonly #wakes: readonly number[];
  readonly #workers: Workers;
  readonly #peers = new Map<Mac, Address>();
  readonly #destinations: PeerTableWriter;
  readonly #sources: PeerTableWriter;
  #local: Address;
  #sockets: TunnelSockets;
  #holder: Holder | undefined;
  #fault: Error | undefined;
  /** Dropped at sockets that are closed by now. */
  #formerSocketDrops = 0;
  readonly #deviceDropsBefore: number;

  /**
   * Opens device and sockets, in the network namespace of the calling thread, and starts forwarding.
   * @throws TunnelError: nothing is left open
   */
  static async open(options: TunnelOptions): Promise<UserSpaceTunnel> {
    const queues = options.queues ?? Math.min(MAX_DEFAULT_QUEUES, availableParallelism() >> 1);
    const opened = openTunnel(options, Math.min(Math.max(queues, 1), MAX_WORKERS));
    try {
      return new UserSpaceTunnel(options, opened);
    } catch (error) {
      closeSockets(opened.sockets);
      for (const queue of opened.tap.queues) close(queue);
      throw error;
    }
  }

  private constructor(options: TunnelOptions, { tap, sockets, resumed }: OpenedTunnel) {
    this.device = options.device;
    this.resumed = resumed;
    this.#options = options;
    this.#local = options.local;
    this.#isIpv4 = familyOf(options.local) === 'ipv4';
    this.#tap = tap;
    this.#sockets = sockets;
    this.#deviceIndex = interfaceIndex(options.device);
    this.#deviceDropsBefore = deviceDrops(options.device);
    const seed = randomBytes(4).readInt32LE();
    this.#destinations = new PeerTableWriter(seed, () =>
      this.#workers.change({ destinations: this.#destinations.memory }),
    );
    this.#sources = new PeerTableWriter(seed, () => this.#workers.change({ sources: this.#sources.memory }));
    this.setUnderlayMtu(options.underlayMtuBytes);
    this.setMac(options.mac);
    const count = tap.queues.length;
    this.#counters = new SharedArrayBuffer(2 * count * COUNTER_NUMBERS * 8);
    this.#wakes = Array.from({ length: count }, () => checked('eventfd', eventfd(0, EFD_CLOEXEC_NONBLOCK)));
    this.#renewHolder();
    this.#workers = new Workers({
      count,
      steering: this.#steering,
      wakes: this.#wakes,
      startOf: (index) => this.#startOf(index),
      log: options.log,
      now: () => performance.now(),
      onFault: (fault) => {
        this.#fault ??= fault;
        options.onFault?.(fault);
      },
    });
    // Before any of the threads has begun: it takes them tens of milliseconds.
    if (options.peers !== undefined) this.replacePeers(options.peers);
  }

  get fault(): Error | undefined {
    return this.#fault;
  }

  get peers(): ReadonlyMap<Mac, Address> {
    return this.#peers;
  }

  setPeer(mac: Mac, remote: Address): void {
    const before = this.#peers.get(mac);
    if (before === remote) return;
    if ((familyOf(remote) === 'ipv4') !== this.#isIpv4) {
      throw new TunnelError(
        'VTEPD_TUNNEL_PEER',
        `${remote} cannot be a peer's address: packets of this tunnel leave from ${this.#local}`,
      );
    }
    this.#peers.set(mac, remote);
    // Who may send is known before anybody is sent to, and forgotten after.
    this.#sources.set(addressKey(remote), NO_ADDRESS, true);
    this.#destinations.set(macKey(macBytes(mac)), words(socketAddress(remote, this.#options.port)));
    if (before !== undefined) this.#sources.delete(addressKey(before));
  }

  deletePeer(mac: Mac): boolean {
    const remote = this.#peers.get(mac);
    if (remote === undefined) return false;
    this.#peers.delete(mac);
    this.#destinations.delete(macKey(macBytes(mac)));
    this.#sources.delete(addressKey(remote));
    return true;
  }

  replacePeers(peers: Iterable<readonly [mac: Mac, remote: Address]>): void {
    const wanted = new Map(peers);
    for (const mac of [...this.#peers.keys()]) if (!wanted.has(mac)) this.deletePeer(mac);
    for (const [mac, remote] of wanted) this.setPeer(mac, remote);
  }

  setUnderlayMtu(bytes: number): void {
    Atomics.store(this.#steering, UNDERLAY_MTU, bytes);
  }

  setMac(mac: Mac): void {
    const [low = 0, high = 0] = macKey(macBytes(mac));
    Atomics.store(this.#steering, MAC_LOW, low | 0);
    Atomics.store(this.#steering, MAC_HIGH, high);
  }

  setLocal(local: Address): void {
    if (local === this.#local) return;
    if (familyOf(local) !== familyOf(this.#local)) {
      throw new TunnelError('VTEPD_TUNNEL_SOCKET', `${local} is of another family than ${this.#local}`);
    }
    const before = this.#sockets;
    this.#sockets = openSockets(socketParameters(this.#options, local), this.#tap.queues.length);
    this.#local = local;
    this.#renewHolder();
    // The old ones are closed when no worker can be in a call with them any more.
    let using = this.#tap.queues.length;
    const done = (): void => {
      if (--using > 0) return;
      this.#formerSocketDrops += socketDrops(before);
      closeSockets(before);
    };
    for (const queue of this.#tap.queues.keys()) {
      this.#workers.change({ sockets: this.#socketsOf(queue) }, (index) => index === queue, done);
    }
  }

  stats(): TunnelStats {
    const counters = (direction: 0 | 1): Float64Array[] =>
      this.#wakes.map((_, index) => {
        const block = 2 * index + direction;
        return new Float64Array(this.#counters, block * COUNTER_NUMBERS * 8, COUNTER_NUMBERS);
      });
    const sent = directionStats(counters(0), SEND_DROP_NAMES);
    const received = directionStats(counters(1), RECEIVE_DROP_NAMES);
    return {
      sent: {
        ...sent,
        drops: { ...sent.drops, device_queue: deviceDrops(this.device) - this.#deviceDropsBefore },
      },
      received: {
        ...received,
        drops: { ...received.drops, socket_queue: this.#formerSocketDrops + socketDrops(this.#sockets) },
      },
      narrowPaths: this.#narrowPaths(),
      workerRestarts: this.#workers.restarts,
    };
  }

  async close({ keep }: { readonly keep: boolean }): Promise<void> {
    await this.#workers.stop();
    if (keep) this.#holder?.leave();
    else {
      removeWithLastQueue(this.#tap);
      this.#holder?.release();
    }
    closeSockets(this.#sockets);
    for (const fd of [...this.#wakes, ...this.#tap.queues]) close(fd);
  }

  /** For tests: the thread of this queue dies, and is started again. */
  failWorker(queue: number): void {
    this.#workers.fail(queue);
  }

  #startOf(index: number): WorkerStart {
    return {
      index,
      queue: this.#tap.queues[index] ?? -1,
      wake: this.#wakes[index] ?? -1,
      sockets: this.#socketsOf(index),
      steering: this.#steering.buffer,
      counters: this.#counters,
      destinations: this.#destinations.memory,
      sources: this.#sources.memory,
      isIpv4: this.#isIpv4,
      vni: this.#options.vni,
      deviceIndex: this.#deviceIndex,
      largeUdp: this.#tap.largeUdp,
    };
  }

  #socketsOf(queue: number): WorkerSockets {
    const { receivers, ...others } = this.#sockets;
    return { ...others, receiver: receivers[queue] ?? -1 };
  }

  #renewHolder(): void {
    const { holderFile } = this.#options;
    if (holderFile === undefined) return;
    const before = this.#holder;
    try {
      this.#holder = startHolder(holderFile, this.#tap.queues, this.#sockets.receivers);
    } catch (error) {
      // The tunnel goes on all the same.
      this.#holder = undefined;
      this.#options.log.warn('nothing holds the queues while the daemon restarts: packets are lost then', {
        device: this.device,
        error,
      });
    }
    before?.release();
  }

  #narrowPaths(): NarrowPath[] {
    const underlay = Atomics.load(this.#steering, UNDERLAY_MTU);
    const paths: NarrowPath[] = [];
    for (const entry of this.#destinations.entries()) {
      const mtuBytes = this.#destinations.table.pathMtu(entry);
      if (mtuBytes === 0 || mtuBytes >= underlay) continue;
      const remote = this.#peers.get(macOf(this.#destinations.key(entry)));
      if (remote !== undefined) paths.push({ remote, mtuBytes });
    }
    return paths;
  }
}

const NO_ADDRESS = new Uint32Array(0);

const socketDrops = (sockets: TunnelSockets): number =>
  sockets.receivers.reduce((sum, fd) => sum + droppedByKernel(fd), 0);

/** The words of a copy, as the workers read them out of a packet's or a socket address's bytes. */
function words(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(Uint8Array.from(bytes).buffer);
}

const addressKey = (address: Address): Uint32Array => {
  const key = new Uint32Array(4);
  key.set(words(addressBytes(address)));
  return key;
};

function macOf(key: Int32Array): Mac {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setInt32(0, key[0] ?? 0, true);
  new DataView(bytes.buffer).setInt32(4, key[1] ?? 0, true);
  return macFromBytes(bytes.subarray(0, 6));
}
