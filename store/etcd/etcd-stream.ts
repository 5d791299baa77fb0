/** A stream of gRPC as something to write to and to iterate, with an end that has one meaning. */
import type { ClientDuplexStream } from '@grpc/grpc-js';

/** A duplex stream as something to write to and to iterate. Ends quietly when its signal aborts. */
export class EtcdStream<T extends [unknown, unknown]> {
  readonly #raw: ClientDuplexStream<T[0], T[1]>;
  readonly #signal: AbortSignal;
  readonly #underWay: Set<() => void>;
  readonly #typed: (error: unknown) => Error;
  readonly #cancel = () => this.#raw.cancel();
  #failure: unknown;

  constructor(
    raw: ClientDuplexStream<T[0], T[1]>,
    signal: AbortSignal,
    underWay: Set<() => void>,
    typed: (error: unknown) => Error,
  ) {
    this.#raw = raw;
    this.#signal = signal;
    this.#underWay = underWay;
    this.#typed = typed;
    // grpc-js emits the error beside the end of the stream: whichever the reader sees first, it throws this.
    raw.on('error', (error) => {
      this.#failure = error;
    });
    signal.addEventListener('abort', this.#cancel, { once: true });
    underWay.add(this.#cancel);
    if (signal.aborted) raw.cancel();
  }

  write(request: T[0]): void {
    this.#raw.write(request);
  }

  /** @throws LostAnswerError, StoreAccessError; StoreUnavailableError also when the server ends it */
  async *responses(): AsyncGenerator<T[1], void> {
    try {
      for await (const response of this.#raw) yield response as T[1];
    } catch (error) {
      if (this.#signal.aborted) return;
      throw this.#typed(this.#failure ?? error);
    }
    if (!this.#signal.aborted) throw this.#typed(this.#failure ?? new Error('etcd ended the stream'));
  }

  cancel(): void {
    this.#signal.removeEventListener('abort', this.#cancel);
    this.#underWay.delete(this.#cancel);
    this.#raw.cancel();
  }
}
