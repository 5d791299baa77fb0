/**
 * One call of the shim, seen from the daemon: the request with its descriptors comes in, the answer goes
 * out, and the shim's end of the connection says whether the answer was read.
 */
import { closeSync, fstatSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetlinkSocket } from '../overlay/kernel/netlink-socket.ts';
import { type ReceivedWithDescriptors, receiveWithDescriptors } from '../overlay/kernel/unix-descriptors.ts';
import { CNI_CODES, CniError } from './cni-error.ts';
import { decodeRequest, encodeAnswer, FrameError, type RequestFrame, requestLength } from './frames.ts';
import type { PodHandles } from './verbs/context.ts';

/** A shim sends its request at once; one that does not is stopped or is not a shim. */
const REQUEST_LIMIT_MS = 10_000;
/** A shim reads the answer and ends at once; one that does not is stopped: nobody knows if it ever goes on. */
const DELIVERY_LIMIT_MS = 5_000;
/** How soon to look again for the first bytes. They are there already, nearly always. */
const FIRST_BYTES_RETRY_MS = 1;

export class Connection {
  readonly #socket: Socket;
  readonly #gone = new AbortController();
  readonly #closed: Promise<boolean>;
  #descriptors: readonly number[] = [];
  #pod: PodHandles | undefined;

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
    const limit = AbortSignal.any([stopping, this.gone, AbortSignal.timeout(REQUEST_LIMIT_MS)]);
    const first = await this.#firstBytes(limit);
    this.#descriptors = first.descriptors;
    if (first.bytes.length === 0) return undefined;
    const frame = await this.#whole(first.bytes, limit);
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

  /** Lets go of the pod's namespace, which would live on while we hold it. */
  releasePod(): void {
    this.#pod?.netlink.close();
    const netlinkFd = this.#pod?.netlink.fd;
    this.#pod = undefined;
    for (const fd of this.#descriptors) if (fd !== netlinkFd) closeSync(fd);
    this.#descriptors = [];
  }

  close(): void {
    this.releasePod();
    this.#socket.destroy();
  }

  async #firstBytes(limit: AbortSignal): Promise<ReceivedWithDescriptors> {
    for (;;) {
      limit.throwIfAborted();
      const fd = descriptorOf(this.#socket);
      if (fd === undefined) return { bytes: Buffer.alloc(0), descriptors: [] };
      const received = receiveWithDescriptors(fd);
      if (received !== undefined) return received;
      await sleep(FIRST_BYTES_RETRY_MS, undefined, { signal: limit });
    }
  }

  /** The rest of a request longer than one read, by Node's own way. */
  async #whole(first: Buffer, limit: AbortSignal): Promise<Buffer> {
    let frame = first;
    if (frame.length === requestLength(frame)) return frame;
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
    this.#pod = { namespaceFd, netlink: new NetlinkSocket(netlinkFd) };
  }
}

/** The descriptor of a connected socket. Node has it on its handle, undocumented but there since ever. */
function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = '_handle' in socket ? socket._handle : undefined;
  const fd = typeof handle === 'object' && handle !== null && 'fd' in handle ? handle.fd : undefined;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}
