/**
 * What the main thread and the workers have in common: what a worker is started with, the numbers in shared memory by
 * which a running one is steered, and the messages for what does not fit into a number.
 */

/** One worker's job: one queue, both ways. */
export interface WorkerStart {
  /** Its place among the workers: in `steering`, and in the counters, where it has two, for sending and receiving. */
  readonly index: number;
  /** Descriptors: the main thread owns them, and closes them when no worker uses them any more. */
  readonly queue: number;
  readonly wake: number;
  readonly sockets: WorkerSockets;
  readonly steering: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  /** Tables: peers by MAC to send to, and underlay addresses to receive from. */
  readonly destinations: SharedArrayBuffer;
  readonly sources: SharedArrayBuffer;
  readonly isIpv4: boolean;
  readonly vni: number;
  /** The device's interface number. */
  readonly deviceIndex: number;
  readonly largeUdp: boolean;
}

export interface WorkerSockets {
  readonly senders: readonly number[];
  readonly receiver: number;
  readonly trains: boolean;
  /** For asking the kernel what a path takes. */
  readonly pathProbe: number;
}

/** To a worker. It takes it up between two batches and answers with `took`. */
export interface WorkerChange {
  readonly destinations?: SharedArrayBuffer;
  readonly sources?: SharedArrayBuffer;
  readonly sockets?: WorkerSockets;
  readonly number: number;
}

/** From a worker. */
export type WorkerReport =
  | { readonly kind: 'took'; readonly number: number }
  /** The device is gone: it ends. */
  | { readonly kind: 'gone' };

// Places in `steering`, an Int32Array.
/** 1: end. */
export const STOP = 0;
/** Of the underlay's interface. */
export const UNDERLAY_MTU = 1;
/** The device's MAC address, as macKey reads it. */
export const MAC_LOW = 2;
export const MAC_HIGH = 3;
/** Messages sent to all workers until now: one that has seen fewer looks for them. */
export const MESSAGES = 4;
/** From here on, one number a worker: 1: fail, as if by a fault of ours; for tests. */
export const FAIL = 16;
export const STEERING_NUMBERS = FAIL + 64;
/** So many workers at most. */
export const MAX_WORKERS = STEERING_NUMBERS - FAIL;
