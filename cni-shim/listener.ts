/** A unix socket that only its owner may connect to, taken over from a daemon that died. */
import { mkdirSync, statSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { hasCode, removeFile } from './files.ts';

/** sockaddr_un's path, without its terminating zero. */
const MAX_PATH_BYTES = 107;

/** A daemon listens there already. */
export class SocketInUseError extends Error {
  override readonly name = 'SocketInUseError';
  readonly code = 'VTEPD_SOCKET_IN_USE';
}

/** The socket's path does not fit where the kernel wants it. */
export class SocketPathError extends Error {
  override readonly name = 'SocketPathError';
  readonly code = 'VTEPD_SOCKET_PATH';
}

export class SocketListener {
  readonly #path: string;
  readonly #accept: (socket: Socket) => void;
  #server: Server | undefined;
  #inode: number | undefined;

  /** @param accept gets each connection before anything of it is read */
  constructor(path: string, accept: (socket: Socket) => void) {
    if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
      throw new SocketPathError(
        `${path} is longer than ${MAX_PATH_BYTES} bytes, a unix socket's limit; choose a shorter --run-dir`,
      );
    }
    this.#path = path;
    this.#accept = accept;
  }

  /** @throws SocketInUseError, NodeJS.ErrnoException */
  async listen(): Promise<void> {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o755 });
    try {
      await this.#bind();
    } catch (error) {
      if (!hasCode(error, 'EADDRINUSE')) throw error;
      if (await answers(this.#path)) {
        throw new SocketInUseError(
          `another vtepd listens on ${this.#path}; give each its own --run-dir, or stop it`,
        );
      }
      await removeFile(this.#path);
      await this.#bind();
    }
  }

  /** Listens again if the socket's file has been removed or replaced. @returns whether that was so */
  async restore(): Promise<boolean> {
    const inode = statSync(this.#path, { throwIfNoEntry: false })?.ino;
    if (this.#server === undefined || inode === this.#inode) return false;
    // Something else in its place is not ours to remove: listen() finds out and complains.
    if (inode === undefined) {
      this.close();
      await this.listen();
      return true;
    }
    throw new SocketInUseError(`${this.#path} was replaced by somebody; restart vtepd`);
  }

  /** Removes the socket's file too; connections that were accepted go on. */
  close(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  async #bind(): Promise<void> {
    const server = createServer({ pauseOnConnect: true }, this.#accept);
    const listening = new Promise<void>((resolve, reject) => {
      server.once('listening', resolve);
      server.once('error', reject);
    });
    // bind(2) happens within listen(), so this is the mode that the file is born with.
    const previous = process.umask(0o177);
    try {
      server.listen(this.#path);
    } finally {
      process.umask(previous);
    }
    await listening;
    this.#server = server;
    this.#inode = statSync(this.#path).ino;
  }
}

/** Whether somebody accepts connections there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => resolve(!hasCode(error, 'ECONNREFUSED') && !hasCode(error, 'ENOENT')));
  });
}
