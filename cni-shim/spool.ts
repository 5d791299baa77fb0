/**
 * DELs that the shim could not deliver, because the daemon was away or did not answer in time: whole request
 * frames in files of a directory beside the socket. They are carried out at start, before every ADD (which
 * may be of the same attachment), and every few seconds.
 */
import { mkdirSync, readdirSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Log } from '../overlay/ops/log.ts';
import { hasCode, removeFile } from './files.ts';
import { decodeRequest, type RequestFrame } from './frames.ts';

/** The shim's scratch files begin with a dot; one this old is of a shim that was killed. */
const STALE_SCRATCH_MS = 60_000;

export interface SpoolOptions {
  readonly directory: string;
  readonly log: Log;
  /**
   * Carries a request out. Resolves with undefined when it is done with (carried out, or refused for good),
   * with the attachment's name when it has to wait; never rejects.
   */
  readonly carryOut: (request: RequestFrame) => Promise<string | undefined>;
}

const NOTHING: ReadonlySet<string> = new Set();

export class Spool {
  readonly #options: SpoolOptions;
  #draining: Promise<ReadonlySet<string>> | undefined;

  constructor(options: SpoolOptions) {
    this.#options = options;
    mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  }

  /**
   * Carries out what lies there. An empty directory costs 10 µs.
   * @returns the attachments whose DEL has to wait
   */
  async drain(): Promise<ReadonlySet<string>> {
    // A round under way may have read the directory before the newest file came.
    while (this.#draining !== undefined) await this.#draining;
    const names = this.#names();
    if (names.length === 0) return NOTHING;
    this.#draining = this.#round(names).finally(() => {
      this.#draining = undefined;
    });
    return this.#draining;
  }

  async #round(names: readonly string[]): Promise<ReadonlySet<string>> {
    const waiting = new Set<string>();
    // All at once: their links are then removed together.
    await Promise.all(
      names.map(async (name) => {
        const path = join(this.#options.directory, name);
        const request = this.#read(path);
        const left = request === undefined ? undefined : await this.#options.carryOut(request);
        if (left === undefined) await removeFile(path);
        else waiting.add(left);
      }),
    );
    return waiting;
  }

  #names(): string[] {
    try {
      const names = readdirSync(this.#options.directory);
      for (const name of names) if (name.startsWith('.')) this.#removeStale(name);
      return names.filter((name) => !name.startsWith('.')).sort();
    } catch (error) {
      // Removed by somebody; the shim makes it again when it needs it.
      if (hasCode(error, 'ENOENT')) return [];
      throw error;
    }
  }

  #read(path: string): RequestFrame | undefined {
    try {
      return decodeRequest(readFileSync(path));
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) {
        this.#options.log.warn('a request kept while vtepd was away cannot be read and is dropped', {
          path,
          error,
        });
      }
      return undefined;
    }
  }

  #removeStale(name: string): void {
    const path = join(this.#options.directory, name);
    const modified = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
    if (modified !== undefined && Date.now() - modified > STALE_SCRATCH_MS) unlinkSync(path);
  }
}
