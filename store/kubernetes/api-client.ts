/**
 * Requests to the Kubernetes API, each one attempt within a bounded time. What is waited for within a call:
 * a server that is too busy and says for how long (429 and 503 with Retry-After: nothing has been done then),
 * while that is short; and a token that was rotated, which is read anew once.
 */
import type { Sleep } from '../backoff.ts';
import { isStoreError, StoreUnavailableError } from '../errors.ts';
import { connectionError, type Operation, statusError } from './api-errors.ts';
import { ListSplitter } from './list-splitter.ts';
import type { ApiRequest, ApiResponse, KubernetesTransport } from './transport.ts';

export interface ApiClientOptions {
  readonly transport: KubernetesTransport;
  readonly sleep: Sleep;
  /** How long one request may take, its answer included. */
  readonly callTimeoutMs: number;
}

/** A server that wants to be left alone for longer is the caller's to wait for, who says so. */
const LONGEST_RETRY_AFTER_SECONDS = 5;
const BUSY_TRIES = 3;
const [UNAUTHORIZED, TOO_MANY_REQUESTS, UNAVAILABLE] = [401, 429, 503];
/** A Status is some hundred bytes; a proxy's page may be longer than anybody wants to read. */
const LONGEST_ERROR = 16_384;

export class ApiClient {
  readonly #options: ApiClientOptions;
  readonly #closing = new AbortController();

  constructor(options: ApiClientOptions) {
    this.#options = options;
  }

  get server(): string {
    return this.#options.transport.server;
  }

  /** The parsed answer. @throws ApiStatusError, StoreAccessError, LostAnswerError, the signal's reason */
  call(operation: Operation, request: ApiRequest, signal: AbortSignal): Promise<unknown> {
    return this.#bounded(operation, signal, async (bounded) => {
      let text = '';
      await readWhole(await this.#answer(operation, request, bounded), bounded, (piece) => {
        text += piece;
      });
      return JSON.parse(text);
    });
  }

  /** The parsed list without its items, of which each is told by itself, as it comes. @throws as `call` */
  list(
    operation: Operation,
    request: ApiRequest,
    onItem: (item: unknown) => void,
    signal: AbortSignal,
  ): Promise<unknown> {
    return this.#bounded(operation, signal, async (bounded) => {
      const splitter = new ListSplitter(onItem);
      await readWhole(await this.#answer(operation, request, bounded), bounded, (piece) => {
        splitter.push(piece);
      });
      return splitter.end();
    });
  }

  /** The answer of which only the head has come yet; closing ends it. @throws as `call` */
  async open(operation: Operation, request: ApiRequest, signal: AbortSignal): Promise<ApiResponse> {
    return this.#bounded(operation, signal, async (bounded) => {
      const response = await this.#answer(operation, request, bounded);
      const end = (): void => response.cancel();
      this.#closing.signal.addEventListener('abort', end, { once: true });
      signal.addEventListener('abort', end, { once: true });
      const cancel = (): void => {
        this.#closing.signal.removeEventListener('abort', end);
        signal.removeEventListener('abort', end);
        response.cancel();
      };
      return { ...response, body: this.#guarded(operation, response.body, signal), cancel };
    });
  }

  close(): void {
    this.#closing.abort(new StoreUnavailableError('the Kubernetes store is closed'));
    this.#options.transport.close();
  }

  /** Runs a request under one signal that the caller's, closing and the time all abort. */
  async #bounded<T>(
    operation: Operation,
    signal: AbortSignal,
    request: (bounded: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const bounded = new AbortController();
    const sources = [signal, this.#closing.signal];
    const abort = (): void => bounded.abort();
    const timer = setTimeout(() => bounded.abort(new Error(TIMED_OUT)), this.#options.callTimeoutMs);
    for (const source of sources) source.addEventListener('abort', abort, { once: true });
    try {
      this.throwIfEnded(signal);
      return await request(bounded.signal);
    } catch (error) {
      this.throwIfEnded(signal);
      if (bounded.signal.aborted) throw connectionError(this.server, operation, bounded.signal.reason);
      throw this.#typed(operation, error);
    } finally {
      clearTimeout(timer);
      for (const source of sources) source.removeEventListener('abort', abort);
    }
  }

  async #answer(operation: Operation, request: ApiRequest, signal: AbortSignal): Promise<ApiResponse> {
    const { transport, sleep } = this.#options;
    let isRenewed = false;
    for (let tries = 1; ; tries++) {
      const response = await transport.request(request, signal);
      const { status, retryAfterSeconds } = response;
      if (status >= 200 && status < 300) return response;
      const body = await errorText(response, signal);
      if (status === UNAUTHORIZED) transport.forgetCredentials();
      if (status === UNAUTHORIZED && !isRenewed) {
        isRenewed = true;
        continue;
      }
      const isBusy = status === TOO_MANY_REQUESTS || status === UNAVAILABLE;
      const waitSeconds = retryAfterSeconds ?? Number.POSITIVE_INFINITY;
      if (!isBusy || tries >= BUSY_TRIES || waitSeconds > LONGEST_RETRY_AFTER_SECONDS) {
        throw statusError(this.server, operation, status, body);
      }
      await sleep(waitSeconds * 1000, signal);
    }
  }

  async *#guarded(
    operation: Operation,
    body: AsyncIterable<string>,
    signal: AbortSignal,
  ): AsyncGenerator<string, void> {
    try {
      yield* body;
    } catch (error) {
      this.throwIfEnded(signal);
      throw this.#typed(operation, error);
    }
    this.throwIfEnded(signal);
  }

  /** @throws the signal's reason, or StoreUnavailableError once this is closed */
  throwIfEnded(signal: AbortSignal): void {
    if (signal.aborted) throw signal.reason;
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
  }

  #typed(operation: Operation, error: unknown): Error {
    return isStoreError(error) ? error : connectionError(this.server, operation, error);
  }
}

const TIMED_OUT = 'no answer in time';

/** Reads a body to its end, or until the signal aborts: a server may begin an answer and fall silent. */
async function readWhole(
  { body, cancel }: ApiResponse,
  signal: AbortSignal,
  onPiece: (piece: string) => void,
): Promise<void> {
  const abort = (): void => cancel();
  signal.addEventListener('abort', abort, { once: true });
  try {
    if (signal.aborted) cancel();
    for await (const piece of body) onPiece(piece);
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

async function errorText(response: ApiResponse, signal: AbortSignal): Promise<string> {
  let text = '';
  await readWhole(response, signal, (piece) => {
    text += piece;
    // A proxy's page may have no end.
    if (text.length > LONGEST_ERROR) response.cancel();
  }).catch((error: unknown) => {
    if (signal.aborted) throw error;
  });
  return text.slice(0, LONGEST_ERROR);
}
