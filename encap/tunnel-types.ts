/**
 * What the user-space data path looks like from outside: what it is opened with, what it is told while it
 * runs, and what it tells. The thing itself is UserSpaceTunnel in tunnel.ts.
 */
import type { Log } from '../overlay/ops/log.ts';
import type { Address, Mac } from '../store/address.ts';

export interface TunnelOptions {
  /**
   * The TAP device. Made when there is none (persistent, multi-queue, so it outlives every process), taken
   * over when there is one. MAC address, MTU, addresses and "up" are the caller's, over rtnetlink.
   */
  readonly device: string;
  /** The device's own: a packet from outside that claims it as its sender is dropped, as kernel vxlan does. */
  readonly mac: Mac;
  readonly vni: number;
  /** UDP port of the VXLAN packets, ours and the peers'. */
  readonly port: number;
  /** The underlay address packets leave from and arrive at. Its family is the outer header's. */
  readonly local: Address;
  /** MTU of the underlay's interface: no IP packet larger than this is sent. */
  readonly underlayMtuBytes: number;
  /** SO_MARK of all sockets; 0: none. By it the firewall knows the data path's own packets. */
  readonly mark: number;
  /**
   * The table to begin with, in place before the first packet is read: what waited in descriptors that are taken
   * over is neither a stranger's nor for nobody.
   */
  readonly peers?: Iterable<readonly [mac: Mac, remote: Address]> | undefined;
  /** Of the device, each with a thread. Unless told, by the machine's cores. */
  readonly queues?: number | undefined;
  /**
   * A file that names the process which holds the descriptors while no daemon runs. With it, a tunnel that is
   * closed with `keep` or dies in any way goes on collecting packets for HOLD_SECONDS, and the next one that is
   * opened with the same file takes them over. Without it there is no holder.
   */
  readonly holderFile?: string | undefined;
  readonly log: Log;
  /**
   * The tunnel cannot go on: the device was taken away, or its threads die as soon as they are started. Told once;
   * `fault` says so from then on, and what remains is to close it and open another.
   */
  readonly onFault?: ((fault: Error) => void) | undefined;
}

export interface Tunnel {
  readonly device: string;
  /** Why it does not carry packets; undefined while it does. */
  readonly fault: Error | undefined;
  /** Whether descriptors of an earlier tunnel were taken over, with the packets waiting in them. */
  readonly resumed: boolean;

  /** Packets to this inner destination go to that underlay address: `bridge fdb replace MAC dst REMOTE`. */
  setPeer(mac: Mac, remote: Address): void;
  /** @returns whether there was such a peer */
  deletePeer(mac: Mac): boolean;
  /** The whole table at once; a peer that is in both keeps its packets going. */
  replacePeers(peers: Iterable<readonly [mac: Mac, remote: Address]>): void;
  /** What the table holds: a view, good until the next change. */
  readonly peers: ReadonlyMap<Mac, Address>;

  setUnderlayMtu(bytes: number): void;
  /** Moves to another underlay address (of the same family); the table stays. @throws TunnelError */
  setLocal(local: Address): void;
  /** The device's MAC address was changed. */
  setMac(mac: Mac): void;

  stats(): TunnelStats;
  /**
   * Stops the threads and gives everything back. `keep`: the device stays, and where there is a holder, it keeps the
   * queues open for the next one; otherwise the device goes too.
   */
  close(how: { readonly keep: boolean }): Promise<void>;
}

export interface TunnelStats {
  /** From the device to the underlay. */
  readonly sent: DirectionStats;
  /** From the underlay to the device. */
  readonly received: DirectionStats;
  /** Peers whose path carries less than the underlay's interface, by what ICMP or a route said. */
  readonly narrowPaths: readonly NarrowPath[];
  /** Threads that died and were started again. */
  readonly workerRestarts: number;
}

export interface NarrowPath {
  readonly remote: Address;
  /** The largest IP packet it takes. */
  readonly mtuBytes: number;
}

export interface DirectionStats {
  /** VXLAN packets on the wire. */
  readonly packets: number;
  /** Of the Ethernet frames in them. */
  readonly bytes: number;
  /** How many packets one system call on the socket carried: BATCH_BOUNDS' histogram, and all calls. */
  readonly batches: readonly number[];
  /** Packets that went no further; every reason is present, also those at 0. */
  readonly drops: Readonly<Record<string, number>>;
}

/** Upper bounds of `batches`; the last count is of those above them all. */
export const BATCH_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128] as const;

/** Why a frame of the device was not sent. In this order in the workers' counters. */
export const SEND_DROPS = {
  malformed: 'neither an Ethernet frame nor what its offload header says',
  group: 'broadcast or multicast: there is no peer to send it to, as with kernel vxlan',
  no_peer: 'no peer has the destination MAC address',
  too_big: 'larger than the path to the peer carries; the sender was told where its protocol can be',
  unreachable: 'the underlay has no route, or its interface is down',
  refused: "the firewall or the system's policy refused it",
  socket_full: "the socket's buffer or the interface's queue is full",
  failed: 'another error of the system call',
  device_queue: 'the kernel dropped it before we read it: the queue of the device was full',
} as const;
export type SendDrop = keyof typeof SEND_DROPS;

/** Why a packet of the underlay did not get to the device. */
export const RECEIVE_DROPS = {
  stranger: 'from an address that is no peer',
  short: 'less than a VXLAN and an Ethernet header',
  flags: 'not the flags of RFC 7348, or reserved bits that are not zero',
  vni: 'another VNI',
  giant: 'larger than the device takes',
  nested: 'it came out of the tunnel itself: a packet of a pod that pretends to be a peer',
  loop: "its inner sender is this device's own MAC address",
  device_down: 'the device is down',
  device_full: 'the device took no more',
  failed: 'another error of the system call',
  socket_queue: 'the kernel dropped it before we read it: the receive buffer was full',
} as const;
export type ReceiveDrop = keyof typeof RECEIVE_DROPS;

/**
 * Ends the holder that a file names, and removes the file: whoever takes the kernel's vxlan instead needs the port,
 * and a clean-up leaves nothing. tunnel.ts has it as `endHolder`; a process that is no holder is never touched.
 * @returns whether there was one
 */
export type EndHolder = (holderFile: string) => Promise<boolean>;

/** How long a holder keeps queues and sockets after their daemon has gone. */
export const HOLD_SECONDS = 30;

/** The tunnel cannot be opened or changed: the message says what to do. */
export class TunnelError extends Error {
  override readonly name = 'TunnelError';
  readonly code: TunnelErrorCode;
  constructor(code: TunnelErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export type TunnelErrorCode =
  /** /dev/net/tun is missing or not allowed. */
  | 'VTEPD_TUNNEL_NO_TUN'
  /** A device of another kind has the name, or another process holds it. */
  | 'VTEPD_TUNNEL_DEVICE'
  /** The socket cannot be had: the port is taken, the mark not allowed. */
  | 'VTEPD_TUNNEL_SOCKET'
  /** A peer's address is of another family than ours. */
  | 'VTEPD_TUNNEL_PEER'
  /** The device was taken away while we ran. */
  | 'VTEPD_TUNNEL_DEVICE_GONE'
  /** Its threads die as soon as they are started. */
  | 'VTEPD_TUNNEL_WORKERS';
