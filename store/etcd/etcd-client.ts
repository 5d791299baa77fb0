/**
 * Calls to an etcd of several endpoints, one attempt at a time and never blindly repeated.
 *
 * etcd3 brings the protocol and the connections to an endpoint; its retries, circuit breakers, token cache and
 * managers are not used, because each of them repeats or hides what must be known here. grpc-js itself
 * reconnects.
 *
 * A read goes from endpoint to endpoint until one answers. A write moves on only while nothing has been sent:
 * once it may have taken effect it fails as LostAnswerError, and whoever wrote reads back. The endpoint that
 * answered last is asked first. Every attempt has a deadline, so that one that hangs costs that and no more.
 */
import {
  type Client,
  type ClientDuplexStream,
  type ClientUnaryCall,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import type {
  IAuthenticateRequest,
  IAuthenticateResponse,
  ILeaseGrantRequest,
  ILeaseGrantResponse,
  ILeaseKeepAliveRequest,
  ILeaseKeepAliveResponse,
  ILeaseRevokeRequest,
  ILeaseRevokeResponse,
  IRangeRequest,
  IRangeResponse,
  ITxnRequest,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse,
} from 'etcd3';
import type { Host } from 'etcd3/lib/connection-pool.js';
import { StoreAccessError, StoreUnavailableError } from '../errors.ts';
import { callError, RefusedCallError, wantsNewToken, wasNotSent } from './call-errors.ts';
import { connectTo, type EtcdClientOptions } from './connection-pool.ts';
import { EtcdStream } from './etcd-stream.ts';

interface Unary {
  'KV.range': [IRangeRequest, IRangeResponse];
  'KV.txn': [ITxnRequest, ITxnResponse];
  'Lease.leaseGrant': [ILeaseGrantRequest, ILeaseGrantResponse];
  'Lease.leaseRevoke': [ILeaseRevokeRequest, ILeaseRevokeResponse];
  'Auth.authenticate': [IAuthenticateRequest, IAuthenticateResponse];
}
interface Streams {
  'Watch.watch': [IWatchRequest, IWatchResponse];
  'Lease.leaseKeepAlive': [ILeaseKeepAliveRequest, ILeaseKeepAliveResponse];
}
type Service = 'KV' | 'Lease' | 'Watch' | 'Auth';
type Method = (request: unknown, metadata: Metadata, options: object, done: Callback) => ClientUnaryCall;
type StreamMethod = (metadata: Metadata, options: object) => ClientDuplexStream<unknown, unknown>;
type Callback = (error: ServiceError | null, response?: unknown) => void;

export class EtcdClient {
  readonly #options: EtcdClientOptions;
  #hosts: readonly Host[];
  /** What is under way: ended by `close`. A set, not a signal, for a thousand claims may be under way. */
  readonly #underWay = new Set<() => void>();
  #closed = false;
  #preferred = 0;
  /** Empty: authentication is off. */
  #token: string | undefined;
  #tokenRequest: Promise<string | undefined> | undefined;

  constructor(options: EtcdClientOptions) {
    this.#options = options;
    this.#hosts = this.#connect();
  }

  /** Asks endpoint after endpoint until one answers. @throws StoreUnavailableError, StoreAccessError */
  read<N extends keyof Unary>(name: N, request: Unary[N][0], signal: AbortSignal): Promise<Unary[N][1]> {
    return this.#rotate(name, request, signal, true);
  }

  /** @throws LostAnswerError when it may have taken effect; StoreUnavailableError, StoreAccessError if not */
  write<N extends keyof Unary>(name: N, request: Unary[N][0], signal: AbortSignal): Promise<Unary[N][1]> {
    return this.#rotate(name, request, signal, false);
  }

  /** Opens a stream at the preferred endpoint. The caller cancels it; a failure rotates the endpoints. */
  async stream<N extends keyof Streams>(name: N, signal: AbortSignal): Promise<EtcdStream<Streams[N]>> {
    this.#requireOpen();
    const [service, method] = name.split('.') as [Service, string];
    const index = this.#preferred;
    const { client, metadata } = this.#clientOf(index, service, await this.#currentToken(index, signal));
    // A member that lost its leader ends the stream instead of keeping it silent.
    metadata.set('hasleader', 'true');
    const open = (client as unknown as Record<string, StreamMethod>)[method];
    if (open === undefined) throw new TypeError(`etcd has no ${name}`);
    const raw = open.call(client, metadata, {}) as unknown as ClientDuplexStream<
      Streams[N][0],
      Streams[N][1]
    >;
    const endpoint = this.#urlOf(index);
    return new EtcdStream(raw, signal, this.#underWay, (error) => {
      if (this.#closed) return closedError();
      this.#rotateFrom(index);
      return callError(endpoint, method, error);
    });
  }

  /** Ends every connection, and what is under way on it; the next call connects anew. */
  reconnect(): void {
    if (this.#closed) return;
    const old = this.#hosts;
    this.#hosts = this.#connect();
    for (const cancel of [...this.#underWay]) cancel();
    for (const host of old) host.close();
  }

  close(): void {
    this.#closed = true;
    for (const cancel of [...this.#underWay]) cancel();
    for (const host of this.#hosts) host.close();
  }

  #connect(): Host[] {
    return this.#options.endpoints.map((endpoint) => connectTo(endpoint, this.#options));
  }

  async #rotate<N extends keyof Unary>(
    name: N,
    request: Unary[N][0],
    signal: AbortSignal,
    repeatable: boolean,
  ): Promise<Unary[N][1]> {
    let failure: Error | undefined;
    for (let attempt = 0; attempt < this.#hosts.length; attempt++) {
      const index = this.#preferred;
      try {
        return await this.#withToken(index, name, request, signal);
      } catch (error) {
        signal.throwIfAborted();
        this.#requireOpen();
        const typed = callError(this.#urlOf(index), name.slice(name.indexOf('.') + 1), error);
        if (typed instanceof RefusedCallError) throw typed;
        // A wrong password is wrong everywhere; a wrong certificate may be one endpoint's.
        if (typed instanceof StoreAccessError && !wasNotSent(error)) throw typed;
        this.#rotateFrom(index);
        failure = typed;
        if (!repeatable && !wasNotSent(error)) break;
      }
    }
    throw failure ?? new StoreUnavailableError('etcd: no endpoint is configured');
  }

  /** Calls once, and once more with a new token if etcd has forgotten the one it gave. */
  async #withToken<N extends keyof Unary>(
    index: number,
    name: N,
    request: Unary[N][0],
    signal: AbortSignal,
  ): Promise<Unary[N][1]> {
    const token = await this.#currentToken(index, signal);
    try {
      return await this.#once(index, name, request, token, signal);
    } catch (error) {
      if (token === undefined || !wantsNewToken(error)) throw error;
      // It was refused before it was looked at, so it is safe to send it again.
      if (this.#token === token) this.#token = undefined;
      return await this.#once(index, name, request, await this.#currentToken(index, signal), signal);
    }
  }

  async #currentToken(index: number, signal: AbortSignal): Promise<string | undefined> {
    const { username, password } = this.#options;
    if (username === undefined) return undefined;
    if (this.#token !== undefined) return this.#token;
    const ask = async () => {
      const request = { name: username, password: password ?? '' };
      const { token } = await this.#once(index, 'Auth.authenticate', request, undefined);
      this.#token = token;
      return token;
    };
    // One request for all who wait for it.
    this.#tokenRequest ??= ask().finally(() => {
      this.#tokenRequest = undefined;
    });
    try {
      return await unlessAborted(this.#tokenRequest, signal);
    } catch (error) {
      const typed = callError(this.#urlOf(index), 'authenticate', error);
      if (!(typed instanceof RefusedCallError && typed.reason === 'auth-not-enabled')) throw error;
      this.#token = '';
      return this.#token;
    }
  }

  async #once<N extends keyof Unary>(
    index: number,
    name: N,
    request: Unary[N][0],
    token: string | undefined,
    signal?: AbortSignal,
  ): Promise<Unary[N][1]> {
    signal?.throwIfAborted();
    this.#requireOpen();
    const [service, method] = name.split('.') as [Service, string];
    const { client, metadata } = this.#clientOf(index, service, token);
    const send = (client as unknown as Record<string, Method>)[method];
    if (send === undefined) throw new TypeError(`etcd has no ${name}`);
    const deadline = Date.now() + this.#options.callTimeoutMs;
    return new Promise((resolve, reject) => {
      const call = send.call(client, request, metadata, { deadline }, (error, response) => {
        signal?.removeEventListener('abort', cancel);
        this.#underWay.delete(cancel);
        if (error === null) resolve(response as Unary[N][1]);
        else reject(signal?.aborted ? signal.reason : error);
      });
      const cancel = () => call.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
      this.#underWay.add(cancel);
    });
  }

  #clientOf(index: number, service: Service, token: string | undefined) {
    const host = this.#hosts[index];
    if (host === undefined) throw new StoreUnavailableError('etcd: no endpoint is configured');
    const client: Client = host.getServiceClient(service);
    const metadata = new Metadata();
    if (token) metadata.set('token', token);
    return { client, metadata };
  }

  #rotateFrom(index: number): void {
    if (this.#preferred === index) this.#preferred = (index + 1) % this.#hosts.length;
  }

  #urlOf(index: number): string {
    return this.#options.endpoints[index]?.url ?? '';
  }

  #requireOpen(): void {
    if (this.#closed) throw closedError();
  }
}

/** For what others wait for as well, and goes on. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

const closedError = () => new StoreUnavailableError('the etcd store is closed');
