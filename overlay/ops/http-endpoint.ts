/** The daemon's HTTP server at an address that may change while it runs. */
import { formatHttpAddress } from '../config/network-kinds.ts';
import type { HttpAddress } from '../config/settings.ts';
import { type HttpServer, type HttpSources, serveHttp } from './http.ts';
import type { Log } from './log.ts';

export class HttpEndpoint {
  readonly #sources: HttpSources;
  readonly #log: Log;
  readonly #signal: AbortSignal;
  #address: HttpAddress | undefined;
  #server: HttpServer | undefined;

  constructor(sources: HttpSources, log: Log, signal: AbortSignal) {
    this.#sources = sources;
    this.#log = log;
    this.#signal = signal;
  }

  /**
   * Serves at this address from now on, or nowhere. The old server goes first, for the two addresses may
   * overlap (a port on one address and on all); if the new one fails, the old address is served again.
   * @throws HttpListenError
   */
  async serveAt(address: HttpAddress | undefined): Promise<void> {
    if (textOf(address) === textOf(this.#address)) return;
    const before = this.#address;
    await this.close();
    try {
      await this.#open(address);
    } catch (error) {
      await this.#open(before);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
    this.#address = undefined;
  }

  async #open(address: HttpAddress | undefined): Promise<void> {
    if (address === undefined) return;
    this.#server = await serveHttp(address, this.#sources, this.#log, this.#signal);
    this.#address = address;
  }
}

const textOf = (address: HttpAddress | undefined): string =>
  address === undefined ? 'off' : formatHttpAddress(address);
