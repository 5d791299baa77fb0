/**
 * One call of the shim, seen from the daemon: the request with its descriptors comes in, the answer goes
 * out, and the shim's end of the connection says whether the answer was read.
 */
import { closeSync, fstatSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import { getSystemErrorName } from 'node:util';
import { NetlinkSocket } from '../overlay/kernel/netlink-socket.ts';
import { type ReceivedWithDescriptors, receiveWithDescriptors } from '../overlay/kernel/unix-descriptors.ts';
import { CNI_CODES, CniError } from './cni-error.ts';
import {
  decodeReport,
  decodeRequest,
  encodeAnswer,
  encodeIpv6Wish,
  FrameError,
  type RequestFrame,
  requestLength,
} from './frames.ts';
import type { PodHandles } from './verbs/context.ts';

/** A shim sends its request at once; one that does not is stopped or is not a shim. */
const REQUEST_LIMIT_MS = 10_000;
/** A shim reads the answer and ends at once; one that does not is stopped: nobody knows if it ever goes on. */
const DELIVERY_LIMIT_MS = 5_000;
/** Turns of the event loop, some 10 µs each when it is idle. */
const EAGER_ATTEMPTS = 50;
const FIRST_BYTES_RETRY_MS = 1;

/** The shim could not write a setting in the pod's namespace. */
export class SettingRefusedError extends Error {
  override readonly name = 'SettingRefusedError';
  readonly code = 'VTEPD_CNI_SETTING';
  readonly errno: string;
  constructor(errno: number) {
    const name = getSystemErrorName(-errno);
    super(`the plugin could not write net.ipv6.conf in the pod's namespace: ${name}`);
    this.errno = name;
  }
}

export class Connection {
  readonly #socket: Socket;
  readonly #gone = new AbortController();
  readonly #closed: Promise<boolean>;
  #descriptors: readonly number[] = [];
  #pod: PodOfConnection | undefined;

  /** @param socket accepted with `pauseOnConnect`, so nothing of it has been read */
  constructor(socket: Socket) {
    this.#socket = socket;
    this.#closed = new Promise((resolve) => {
      socket.once('close', (hadError) => {
        this.#gone.abort(
          new CniError(CNI_CODES.tryAgainLater, 'the plugin went away before it had its answer'),
        );
        resolve(!hadError);
      });
    });
    // The reason is of no use: what matters is that the connection is over, which `close` says.
    socket.on('error', () => {});
  }

  /** Aborts when the shim has gone. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** The pod's namespace and netlink socket, if the shim sent them. They are this connection's. */
  get pod(): PodHandles | undefined {
    return this.#pod;
  }

  /** The request; undefined when the client closed without one. @throws FrameError, AbortError */
  async receive(stopping: AbortSignal): Promise<RequestFrame | undefined> {
    const first = this.#tryFirstBytes() ?? (await this.#firstBytes(stopping));
    this.#descriptors = first.descriptors;
    if (first.bytes.length === 0) return undefined;
    const complete = first.bytes.length === requestLength(first.bytes);
    const frame = complete ? first.bytes : await this.#whole(first.bytes, stopping);
    this.#adoptDescriptors();
    // From here on only its end is of interest.
    this.#socket.resume();
    return decodeRequest(frame);
  }

  /**
   * Sends the answer. Resolves with true when the shim has read it, false when it has not, undefined when
   * nobody knows: it neither ended nor failed in time.
   */
  async answer(exitStatus: number, text: string): Promise<boolean | undefined> {
    if (this.gone.aborted) return false;
    this.#socket.end(encodeAnswer(exitStatus, text));
    const limit = new AbortController();
    const late = sleep(DELIVERY_LIMIT_MS, undefined, { signal: limit.signal, ref: false }).catch(
      () => undefined,
    );
    try {
      return await Promise.race([this.#closed, late]);
    } finally {
      limit.abort();
    }
  }

  /**
   * Has the shim, which is in the pod's namespace as the daemon never is, switch IPv6 on for the interface of
   * the request and for the loopback. @throws SettingRefusedError; FrameError, the signal's reason
   */
  async switchIpv6On(signal: AbortSignal): Promise<void> {
    const limit = AbortSignal.any([signal, this.#limit(signal)]);
    limit.throwIfAborted();
    const reported = new Promise<number>((resolve, reject) => {
      let bytes = Buffer.alloc(0);
      const settle = (act: () => void): void => {
        this.#socket.off('data', take);
        limit.removeEventListener('abort', abort);
        act();
      };
      const abort = (): void => settle(() => reject(limit.reason));
      const take = (chunk: Buffer): void => {
        bytes = Buffer.concat([bytes, chunk]);
        try {
          const errno = decodeReport(bytes);
          if (errno !== undefined) settle(() => resolve(errno));
        } catch (error) {
          settle(() => reject(error));
        }
      };
      limit.addEventListener('abort', abort, { once: true });
      this.#socket.on('data', take);
    });
    this.#socket.write(encodeIpv6Wish());
    const errno = await reported;
    if (errno !== 0) throw new SettingRefusedError(errno);
  }

  /** Lets go of the pod's namespace, which would live on while we hold it. */
  releasePod(): void {
    this.#pod = undefined;
    for (const fd of this.#descriptors) closeSync(fd);
    this.#descriptors = [];
  }

  close(): void {
    this.releasePod();
    this.#socket.destroy();
  }

  /** Undefined: none have come yet. */
  #tryFirstBytes(): ReceivedWithDescriptors | undefined {
    const fd = descriptorOf(this.#socket);
    return fd === undefined ? { bytes: Buffer.alloc(0), descriptors: [] } : receiveWithDescriptors(fd);
  }

  /** Between a shim's connect and its first bytes are some 20 µs: looks again at once, and only later sleeps. */
  async #firstBytes(stopping: AbortSignal): Promise<ReceivedWithDescriptors> {
    const limit = this.#limit(stopping);
    for (let attempt = 0; ; attempt++) {
      if (attempt < EAGER_ATTEMPTS) await immediate();
      else await sleep(FIRST_BYTES_RETRY_MS, undefined, { signal: limit });
      limit.throwIfAborted();
      const received = this.#tryFirstBytes();
      if (received !== undefined) return received;
    }
  }

  #limit = (stopping: AbortSignal): AbortSignal =>
    AbortSignal.any([stopping, this.gone, AbortSignal.timeout(REQUEST_LIMIT_MS)]);

  /** The rest of a request longer than one read, by Node's own way. */
  async #whole(first: Buffer, stopping: AbortSignal): Promise<Buffer> {
    const limit = this.#limit(stopping);
    let frame = first;
    const chunks: Buffer[] = [first];
    let received = first.length;
    let wanted = requestLength(first);
    return new Promise((resolve, reject) => {
      const finish = (error: unknown): void => {
        this.#socket.off('data', take);
        limit.removeEventListener('abort', abort);
        if (error === undefined) resolve(frame);
        else reject(error);
      };
      const abort = (): void => finish(limit.reason);
      const take = (chunk: Buffer): void => {
        chunks.push(chunk);
        received += chunk.length;
        try {
          wanted ??= requestLength(Buffer.concat(chunks));
          if (wanted !== undefined && received > wanted)
            throw new FrameError('more bytes than the request has');
          if (received !== wanted) return;
          frame = Buffer.concat(chunks);
          finish(undefined);
        } catch (error) {
          finish(error);
        }
      };
      limit.addEventListener('abort', abort, { once: true });
      this.#socket.on('data', take);
      this.#socket.resume();
    });
  }

  /** The shim sends two descriptors or none. */
  #adoptDescriptors(): void {
    const [namespaceFd, netlinkFd] = this.#descriptors;
    if (namespaceFd === undefined) return;
    if (netlinkFd === undefined || this.#descriptors.length !== 2 || !fstatSync(netlinkFd).isSocket()) {
      throw new FrameError('a request comes with a namespace and a netlink socket, or with neither');
    }
    this.#pod = new PodOfConnection(namespaceFd, netlinkFd, (signal) => this.switchIpv6On(signal));
  }
}

/** A DEL seldom needs the socket: it is set up by the first who does. The connection closes the descriptors. */
class PodOfConnection implements PodHandles {
  readonly namespaceFd: number;
  readonly switchIpv6On: PodHandles['switchIpv6On'];
  readonly #netlinkFd: number;
  #netlink: NetlinkSocket | undefined;

  constructor(namespaceFd: number, netlinkFd: number, switchIpv6On: PodHandles['switchIpv6On']) {
    this.namespaceFd = namespaceFd;
    this.switchIpv6On = switchIpv6On;
    this.#netlinkFd = netlinkFd;
  }

  get netlink(): NetlinkSocket {
    this.#netlink ??= new NetlinkSocket(this.#netlinkFd);
    return this.#netlink;
  }
}

/** The descriptor of a connected socket. Node has it on its handle, undocumented but there since ever. */
function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = '_handle' in socket ? socket._handle : undefined;
  const fd = typeof handle === 'object' && handle !== null && 'fd' in handle ? handle.fd : undefined;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}
