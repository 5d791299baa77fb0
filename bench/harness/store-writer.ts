/**
 * Other nodes' leases in a lab's store, written by a process of its own (writer-program.ts) in the
 * underlay's namespace: neither the daemon nor the witness waits for a write. One request at a time.
 */
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { type Child, CommandError, start, stop } from '../../overlay/lab/command.ts';
import type { Lab } from '../../overlay/lab/lab.ts';
import type { LabFamilies } from '../../overlay/lab/lab-network.ts';
import { inside } from '../../overlay/lab/namespace.ts';

export type WriteRequest =
  /** The first `count` numbered peers, all at once. */
  | { readonly verb: 'fill'; readonly count: number }
  | { readonly verb: 'put'; readonly number: number }
  | { readonly verb: 'delete'; readonly number: number };

/** Monotonic milliseconds of monotonicMs(): the store holds the change from some time between the two on. */
export interface WriteAnswer {
  readonly begunMs: number;
  readonly returnedMs: number;
}

const PROGRAM = join(import.meta.dirname, 'writer-program.js');

export class StoreWriter implements AsyncDisposable {
  readonly #child: Child;
  readonly #lines: Interface;
  readonly #answers: AsyncIterator<string>;

  private constructor(child: Child, lines: Interface) {
    this.#child = child;
    this.#lines = lines;
    this.#answers = lines[Symbol.asyncIterator]();
  }

  /** @param families the peers' @throws CommandError */
  static async start(lab: Lab, families: LabFamilies = 'ipv4'): Promise<StoreWriter> {
    const command = [process.execPath, PROGRAM, ...lab.store.arguments, '--families', families];
    const child = await start(...inside(lab.underlay.namespace, command), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const { stdout } = child.process;
    if (stdout === null) throw new Error('unreachable: its output is a pipe');
    const writer = new StoreWriter(child, createInterface({ input: stdout }));
    await writer.#answer('to start');
    return writer;
  }

  /** Resolves when the store has it. @throws CommandError when the program ended over it */
  async write(request: WriteRequest): Promise<WriteAnswer> {
    this.#child.process.stdin?.write(`${JSON.stringify(request)}\n`);
    return (await this.#answer(request.verb)) as WriteAnswer;
  }

  async #answer(doing: string): Promise<unknown> {
    const line = await this.#answers.next();
    if (line.done === true) throw new CommandError(`the store's writer ended: ${doing}`);
    return JSON.parse(line.value) as unknown;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lines.close();
    await stop(this.#child, 'SIGKILL');
  }
}
