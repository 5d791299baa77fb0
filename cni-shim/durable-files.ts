/**
 * Small files that are put on disk in common: writing is one step, waiting for the disk another. What many
 * callers wrote at about the same time shares one round of fsync (a group commit), on threads of Node's
 * pool, while the callers go on with the kernel. What a crash leaves half done is an empty file: one that is
 * empty counts as absent.
 */
import {
  close,
  closeSync,
  fsync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const syncDescriptor = promisify(fsync);
const closeDescriptor = promisify(close);

export class DurableFiles {
  readonly #scratch: string;
  #counter = 0;
  /** Written since the last round began: descriptors to sync, and the directories that name them. */
  #files: number[] = [];
  #directories = new Set<string>();
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  /** @param scratch a directory of its own on the same file system; what an earlier run left there goes */
  constructor(scratch: string) {
    this.#scratch = scratch;
    mkdirSync(scratch, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(scratch)) rmSync(join(scratch, name), { force: true });
  }

  /**
   * Creates a file. After a crash in the middle it may be there and empty.
   * @throws with code EEXIST when there is one of that name, which stays as it is
   */
  create(path: string, content: string): void {
    this.#toSync(writeNew(path, content), path);
  }

  /** Creates or replaces a file, whole or not at all. */
  replace(path: string, content: string): void {
    const scratch = join(this.#scratch, `${process.pid}.${this.#counter++}`);
    const fd = writeNew(scratch, content);
    try {
      renameSync(scratch, path);
    } catch (error) {
      closeSync(fd);
      unlinkSync(scratch);
      throw error;
    }
    this.#toSync(fd, path);
  }

  /** Resolves when everything written before the call is on disk. @throws what fsync(2) does */
  flushed(): Promise<void> {
    if (this.#files.length === 0) return this.#running ?? Promise.resolve();
    if (this.#running === undefined) {
      this.#running = this.#round().finally(() => {
        this.#running = undefined;
      });
      return this.#running;
    }
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return this.flushed();
      });
    return this.#next;
  }

  async #round(): Promise<void> {
    const open = this.#files;
    const directories = [...this.#directories];
    this.#files = [];
    this.#directories.clear();
    try {
      for (const path of directories) open.push(openSync(path, 'r'));
      // All at once, so that the file system commits once: a loss of power in the middle may leave a name
      // with an empty file, which readers take for none. Nobody was told that it was on disk.
      const outcomes = await Promise.allSettled(open.map((fd) => syncDescriptor(fd)));
      const failed = outcomes.find((outcome) => outcome.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    } finally {
      await Promise.all(open.map((fd) => closeDescriptor(fd)));
    }
  }

  #toSync(fd: number, path: string): void {
    this.#files.push(fd);
    this.#directories.add(dirname(path));
  }

  /** Waits for a round under way; afterwards nothing is open. */
  async close(): Promise<void> {
    while (this.#files.length > 0 || this.#running !== undefined) await this.flushed().catch(() => {});
  }
}

/** @returns the descriptor, for the sync to come */
function writeNew(path: string, content: string): number {
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeSync(fd, content);
    return fd;
  } catch (error) {
    closeSync(fd);
    unlinkSync(path);
    throw error;
  }
}
