/** A TCP proxy on the loopback whose failures the test decides. Whoever opens it closes it. */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export class TcpProxy {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #refusing = false;
  #stalled = false;
  #loseAnswerTo: RegExp | undefined;
  /** How many answers were lost. */
  lost = 0;

  private constructor(server: Server, url: string) {
    this.#server = server;
    this.url = url;
  }

  /** @param at where it listens: another of the loopback's addresses */
  static async open(targetPort: number, at = '127.0.0.1'): Promise<TcpProxy> {
    const server = createServer();
    server.listen(0, at);
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    const proxy = new TcpProxy(server, `http://${at}:${address.port}`);
    server.on('connection', (client) => proxy.#join(client, targetPort));
    return proxy;
  }

  /** Ends all connections; new ones are ended as well until `restore`. */
  cut(): void {
    this.#refusing = true;
    this.drop();
  }

  /** Ends all connections; new ones are welcome. */
  drop(): void {
    for (const socket of [...this.#sockets]) socket.destroy();
  }

  /** Connections stand, and nothing passes. */
  stall(): void {
    this.#stalled = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** The connections of now hang for ever, as after a change of address; new ones are welcome. */
  stallOpen(): void {
    for (const socket of this.#sockets) socket.pause();
  }

  restore(): void {
    this.#refusing = false;
    this.#stalled = false;
    for (const socket of this.#sockets) socket.resume();
  }

  /** The next request that contains this passes; its connection ends when the answer comes. */
  loseAnswerTo(request: RegExp): void {
    this.#loseAnswerTo = request;
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #join(client: Socket, targetPort: number): void {
    if (this.#refusing) {
      client.destroy();
      return;
    }
    const server = connect(targetPort, '127.0.0.1');
    const pair = [client, server];
    let losing = false;
    for (const socket of pair) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        for (const each of pair) {
          this.#sockets.delete(each);
          each.destroy();
        }
      });
      if (this.#stalled) socket.pause();
    }
    client.on('data', (chunk) => {
      if (this.#loseAnswerTo?.test(chunk.toString('latin1'))) {
        this.#loseAnswerTo = undefined;
        losing = true;
      }
      server.write(chunk);
    });
    server.on('data', (chunk) => {
      // An acknowledgement of HTTP/2's own is short and comes at once; the answer is longer.
      if (losing && chunk.length > 60) {
        this.lost++;
        client.destroy();
      } else client.write(chunk);
    });
  }
}
