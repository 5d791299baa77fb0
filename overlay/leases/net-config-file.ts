/**
 * The network configuration as a file (`--net-config-path`), read anew when it changes. Its directory is watched:
 * Kubernetes and editors put another file in the place of the old one. Where that does not work, or the directory
 * is not there yet, it is looked at every few seconds.
 */
import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { NetworkSource } from '../../store/kubernetes/network-source.ts';

/** Larger than any (store/network-config.ts has the limit): what is not even read. */
const LOOK_EVERY_MS = 5000;
/** An editor writes in several steps. */
const SETTLE_MS = 100;

export class NetConfigFile implements NetworkSource {
  readonly #path: string;
  readonly #listeners = new Set<() => void>();
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #settling: NodeJS.Timeout | undefined;
  #last: string | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async read(): Promise<string | undefined> {
    try {
      this.#last = await readFile(this.#path, 'utf8');
    } catch (error) {
      this.#last = undefined;
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`--net-config-path: ${this.#path} cannot be read: ${reason}`, { cause: error });
    }
    return this.#last;
  }

  onChange(listener: () => void): () => void {
    // Once for each call, should two be the same function.
    const own = (): void => listener();
    this.#listeners.add(own);
    this.#watch();
    return () => {
      this.#listeners.delete(own);
      if (this.#listeners.size === 0) this.#unwatch();
    };
  }

  #watch(): void {
    this.#timer ??= setInterval(() => this.#look(), LOOK_EVERY_MS);
    if (this.#watcher !== undefined) return;
    try {
      const watcher = watch(dirname(this.#path), () => {
        clearTimeout(this.#settling);
        this.#settling = setTimeout(() => this.#look(), SETTLE_MS);
      });
      watcher.on('error', () => {
        watcher.close();
        this.#watcher = undefined;
      });
      this.#watcher = watcher;
    } catch {
      // The timer looks.
    }
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    clearInterval(this.#timer);
    clearTimeout(this.#settling);
    this.#timer = undefined;
  }

  /** Tells of another content alone: directories may be busy. */
  #look(): void {
    const before = this.#last;
    this.read().then(
      (now) => this.#tell(now !== before),
      () => this.#tell(true),
    );
    if (this.#listeners.size > 0) this.#watch();
  }

  #tell(isNew: boolean): void {
    if (!isNew) return;
    for (const listener of [...this.#listeners]) listener();
  }
}
