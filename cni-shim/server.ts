/**
 * The daemon's side of the CNI plugin: a unix socket, on which each call of vtepd-cni is one connection.
 * Calls about one attachment take turns; all others run side by side.
 */
import { fstatSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import type { PodNetwork } from '../overlay/desired/pods.ts';
import { NetlinkSocket } from '../overlay/kernel/netlink-socket.ts';
import type { Log } from '../overlay/ops/log.ts';
import { delay, type Sleep } from '../store/backoff.ts';
import { attachmentText, hostInterfaceName } from './attachment.ts';
import { CNI_CODES, CniError, formatError } from './cni-error.ts';
import { Connection } from './connection.ts';
import { FrameError, type RequestFrame } from './frames.ts';
import { KeyedQueue } from './keyed-queue.ts';
import { LinkReaper } from './link-reaper.ts';
import { SocketListener } from './listener.ts';
import type { AttachmentRegistry } from './registry.ts';
import {
  type AttachmentRequest,
  answerVersion,
  CNI_VERBS,
  type CniRequest,
  type CniVerb,
  keyOf,
  parseRequest,
} from './request.ts';
import { Spool } from './spool.ts';
import { add } from './verbs/add.ts';
import { check } from './verbs/check.ts';
import type { Checkpoint, VerbContext } from './verbs/context.ts';
import { del } from './verbs/del.ts';
import { gc } from './verbs/gc.ts';
import { status } from './verbs/status.ts';
import { CNI_VERSIONS } from './versions.ts';

/** One call, for whoever counts them. */
export interface VerbReport {
  readonly verb: CniVerb | 'unknown';
  readonly result: 'success' | 'failure';
  /** The CNI error code of a failure. */
  readonly code: number | undefined;
  readonly durationMs: number;
}

export interface CniObserver {
  onVerb(report: VerbReport): void;
}

export interface CniServerOptions {
  readonly socketPath: string;
  /** Default: `spool` beside the socket, where the shim puts its files. */
  readonly spoolDir?: string | undefined;
  readonly network: PodNetwork;
  readonly registry: AttachmentRegistry;
  readonly log: Log;
  readonly observer?: CniObserver | undefined;
  /** A netlink socket in the node's namespace; default: the calling thread's. */
  readonly openNetlink?: (() => NetlinkSocket) | undefined;
  /** Milliseconds of a monotonic clock. */
  readonly now?: (() => number) | undefined;
  readonly sleep?: Sleep | undefined;
  /** How long an ADD waits for the pod's interface to carry packets; 5,000 unless told. */
  readonly carrierDeadlineMs?: number | undefined;
  readonly checkpoint?: ((step: Checkpoint) => void) | undefined;
}

/** Milliseconds are usual; linkwatch puts what is not urgent off by a second, and a machine may be busy. */
const CARRIER_DEADLINE_MS = 5_000;
/** How often the spool directory is looked at, and whether the socket is still there: 20 µs each time. */
const UPKEEP_INTERVAL_MS = 1_000;

/**
 * Carries out the DELs kept while no daemon was there, then listens.
 * @throws SocketInUseError when another daemon serves the socket; NodeJS.ErrnoException
 */
export async function createCniServer(options: CniServerOptions): Promise<CniServer> {
  const server = new CniServer(options);
  try {
    await server.start();
    return server;
  } catch (error) {
    await server.close();
    throw error;
  }
}

export class CniServer {
  readonly #log: Log;
  readonly #options: CniServerOptions;
  readonly #context: VerbContext;
  readonly #turns = new KeyedQueue();
  readonly #spool: Spool;
  readonly #listener: SocketListener;
  readonly #stopping = new AbortController();
  readonly #serving = new Set<Promise<void>>();
  readonly #ownNamespace: number;
  readonly #now: () => number;
  #upkeep: NodeJS.Timeout | undefined;

  constructor(options: CniServerOptions) {
    const { registry, network, log, socketPath } = options;
    const openNetlink = options.openNetlink ?? (() => NetlinkSocket.open());
    this.#options = options;
    this.#log = log;
    this.#listener = new SocketListener(socketPath, (socket) => this.#accept(socket));
    this.#now = options.now ?? (() => performance.now());
    this.#ownNamespace = statSync('/proc/self/ns/net').ino;
    this.#context = {
      network,
      registry,
      log,
      netlink: openNetlink(),
      reaper: new LinkReaper(openNetlink),
      now: this.#now,
      sleep: options.sleep ?? delay,
      carrierDeadlineMs: options.carrierDeadlineMs ?? CARRIER_DEADLINE_MS,
      checkpoint: options.checkpoint ?? (() => {}),
    };
    this.#spool = new Spool({
      directory: options.spoolDir ?? join(dirname(socketPath), 'spool'),
      log,
      carryOut: (request) => this.#carryOutLate(request),
    });
  }

  /** See createCniServer. */
  async start(): Promise<void> {
    await this.#spool.drain();
    await this.#listener.listen();
    this.#upkeep = setInterval(() => void this.#keepUp(), UPKEEP_INTERVAL_MS);
    this.#upkeep.unref();
  }

  /** Takes no more calls; those under way end (an ADD is undone and answered with 11). The registry stays open. */
  async close(): Promise<void> {
    clearInterval(this.#upkeep);
    this.#stopping.abort(new CniError(CNI_CODES.tryAgainLater, 'vtepd is stopping'));
    this.#listener.close();
    await Promise.all(this.#serving);
    await this.#turns.idle();
    await this.#context.reaper.close();
    this.#context.netlink.close();
  }

  async #keepUp(): Promise<void> {
    try {
      await this.#spool.drain();
      if (!this.#stopping.signal.aborted && (await this.#listener.restore())) {
        this.#log.warn('the CNI socket was removed by somebody; listening again', {
          path: this.#options.socketPath,
        });
      }
    } catch (error) {
      this.#log.warn('upkeep of the CNI socket failed; it is tried again', { error });
    }
  }

  #accept(socket: Socket): void {
    const connection = new Connection(socket);
    const serving = this.#serve(connection)
      .catch((error: unknown) => {
        // The client has gone, or spoke no sense: there is nobody to tell.
        if (!this.#stopping.signal.aborted)
          this.#log.debug('a call to the CNI socket came to nothing', { error });
      })
      .finally(() => {
        connection.close();
        this.#serving.delete(serving);
      });
    this.#serving.add(serving);
  }

  async #serve(connection: Connection): Promise<void> {
    const frame = await connection.receive(this.#stopping.signal);
    if (frame === undefined) return;
    const startedMs = this.#now();
    try {
      this.#stopping.signal.throwIfAborted();
      const request = parseRequest(frame);
      if (request.verb === 'ADD') {
        await this.#add(connection, request, startedMs);
        return;
      }
      const answer = await this.#carryOut(request, connection);
      connection.releasePod();
      this.#report(frame, startedMs, undefined);
      await connection.answer(0, answer);
    } catch (thrown) {
      const error = this.#cniError(frame, thrown);
      connection.releasePod();
      this.#report(frame, startedMs, error);
      await connection.answer(1, formatError(answerVersion(frame), error));
    }
  }

  /** ADD alone has something to do after its answer, and keeps its turn until then. */
  async #add(connection: Connection, request: AttachmentRequest, startedMs: number): Promise<void> {
    const pod = this.#podOf(connection);
    const hostInterface = hostInterfaceName(keyOf(request));
    if ((await this.#spool.drain()).has(hostInterface)) {
      throw new CniError(CNI_CODES.tryAgainLater, 'an earlier DEL of this attachment has not succeeded yet');
    }
    await this.#turns.run(hostInterface, async () => {
      const signal = AbortSignal.any([this.#stopping.signal, connection.gone]);
      const pending = await add(this.#context, request, pod, signal);
      connection.releasePod();
      const durationMs = this.#now() - startedMs;
      const delivered = await connection.answer(0, pending.answer);
      this.#context.checkpoint('add:answered');
      if (delivered === false) {
        await pending.withdraw();
        throw new CniError(CNI_CODES.tryAgainLater, 'the plugin went away before it had its answer');
      }
      // Not known: it stays `standing`, so that an ADD again is not refused.
      if (delivered === true) pending.confirm();
      this.#context.checkpoint('add:confirmed');
      this.#options.observer?.onVerb({ verb: 'ADD', result: 'success', code: undefined, durationMs });
      this.#log.info('pod attached', {
        attachment: attachmentText(keyOf(request)),
        pod: request.pod,
        device: hostInterface,
        durationMs,
      });
    });
  }

  /** @returns what the plugin prints */
  async #carryOut(request: Exclude<CniRequest, { verb: 'ADD' }>, connection: Connection): Promise<string> {
    const context = this.#context;
    switch (request.verb) {
      case 'VERSION':
        return JSON.stringify({ cniVersion: request.version, supportedVersions: CNI_VERSIONS });
      case 'STATUS':
        status(context);
        return '';
      case 'GC':
        await this.#spool.drain();
        await gc(context, request, this.#turns);
        return '';
      case 'CHECK': {
        const pod = this.#podOf(connection);
        await this.#turn(request, async () => check(context, request, pod));
        return '';
      }
      default: {
        // A runtime that says the pod is in the node's own namespace has lost the pod's.
        const pod = this.#isOwnNamespace(connection) ? undefined : connection.pod;
        await this.#turn(request, () => del(context, request, pod));
        return '';
      }
    }
  }

  #turn<T>(request: AttachmentRequest, work: () => Promise<T>): Promise<T> {
    return this.#turns.run(hostInterfaceName(keyOf(request)), work);
  }

  #podOf(connection: Connection): NonNullable<Connection['pod']> {
    const { pod } = connection;
    if (pod === undefined) {
      throw new CniError(CNI_CODES.invalidEnvironment, 'CNI_NETNS: the plugin sent no namespace');
    }
    if (this.#isOwnNamespace(connection)) {
      throw new CniError(CNI_CODES.invalidEnvironment, "CNI_NETNS: is the node's own network namespace");
    }
    return pod;
  }

  #isOwnNamespace = ({ pod }: Connection): boolean =>
    pod !== undefined && fstatSync(pod.namespaceFd).ino === this.#ownNamespace;

  /** A DEL from the spool. @returns the attachment's name when it has to wait */
  async #carryOutLate(frame: RequestFrame): Promise<string | undefined> {
    const startedMs = this.#now();
    let request: CniRequest | undefined;
    try {
      request = parseRequest(frame);
      if (request.verb !== 'DEL') throw new FrameError(`only a DEL can be late, not ${request.verb}`);
      const late = request;
      await this.#turn(late, () => del(this.#context, late, undefined));
      this.#report(frame, startedMs, undefined);
      return undefined;
    } catch (thrown) {
      this.#report(frame, startedMs, this.#cniError(frame, thrown));
      return request?.verb === 'DEL' ? hostInterfaceName(keyOf(request)) : undefined;
    }
  }

  #cniError(frame: RequestFrame, thrown: unknown): CniError {
    if (thrown instanceof CniError) return thrown;
    this.#log.error('a CNI call failed', { verb: frame.command.slice(0, 16), error: thrown });
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new CniError(CNI_CODES.internal, message, { cause: thrown });
  }

  #report(frame: RequestFrame, startedMs: number, error: CniError | undefined): void {
    const durationMs = this.#now() - startedMs;
    const verb = CNI_VERBS.find((known) => known === frame.command) ?? 'unknown';
    const result = error === undefined ? 'success' : 'failure';
    this.#options.observer?.onVerb({ verb, result, code: error?.cniCode, durationMs });
    if (error === undefined) return;
    // STATUS is asked again and again while the daemon is not ready, which it says elsewhere.
    this.#log[verb === 'STATUS' ? 'debug' : 'warn']('a CNI call was refused', {
      verb,
      attachment: `${frame.containerID.slice(0, 64)}:${frame.ifname.slice(0, 16)}`,
      code: error.cniCode,
      reason: error.details ?? error.message,
    });
  }
}
