/** One end of a data path: where programs are run that send or receive through it. */
import { type Child, CommandError, type CommandResult, run, start, stop } from '../../overlay/lab/command.ts';
import { inside } from '../../overlay/lab/namespace.ts';
import type { Address } from '../../store/address.ts';
import type { CommandLog } from './command-log.ts';
import { type CpuTimes, readCpuTimes } from './cpu.ts';

/** A server that was started for a measurement. Its owner stops it, whatever happened. */
export interface Server {
  stop(): Promise<void>;
}

export interface ServerProgram {
  readonly name: 'iperf3' | 'sockperf' | 'connections';
  readonly port: number;
  readonly argv: readonly string[];
  /** It has printed this once it can be used. */
  readonly ready: RegExp;
}

/** An end that serves. */
export interface FarEnd {
  /** The same for the same place: two paths may share an end. */
  readonly id: string;
  /** What the near end sends to. */
  readonly address: Address;
  /** @throws EngineError when it does not get ready */
  serve(program: ServerProgram, what: string, signal: AbortSignal): Promise<Server>;
  /** Of its machine. Both ends of a lab are of one. */
  cpu(): Promise<CpuTimes>;
}

/** An end of this machine: it also runs what sends. */
export interface NearEnd extends FarEnd {
  readonly local: true;
  /** @throws CommandError, the signal's reason */
  run(argv: readonly string[], what: string, options: RunOptions): Promise<CommandResult>;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** A failure is an answer. */
  readonly tolerant?: boolean;
}

/** A measurement gave no figure: the program failed, or printed something else. The cause is in the message. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly code = 'VTEPD_BENCH_ENGINE';
}

/** Starting takes milliseconds; a machine under load may be a thousand times slower. */
const READY_DEADLINE_MS = 10_000;

/** Inside a network namespace of this machine, or outside of any where the name is undefined. */
export class LocalEnd implements NearEnd {
  readonly local = true;
  readonly namespace: string | undefined;
  readonly id: string;
  readonly address: Address;
  private readonly log: CommandLog;

  constructor(namespace: string | undefined, address: Address, log: CommandLog) {
    this.namespace = namespace;
    this.id = namespace ?? 'this machine';
    this.address = address;
    this.log = log;
  }

  private command(argv: readonly string[]): [string, string[]] {
    if (this.namespace !== undefined) return inside(this.namespace, argv);
    const [program = '', ...rest] = argv;
    return [program, rest];
  }

  run(argv: readonly string[], what: string, options: RunOptions): Promise<CommandResult> {
    const [program, args] = this.command(argv);
    this.log.add(what, [program, ...args]);
    return run(program, args, options);
  }

  async serve({ name, argv, ready }: ServerProgram, what: string, signal: AbortSignal): Promise<Server> {
    signal.throwIfAborted();
    const [program, args] = this.command(argv);
    this.log.add(what, [program, ...args]);
    const child = await start(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    try {
      await printed(child, ready, signal);
      return { stop: async () => void (await stop(child, 'SIGKILL')) };
    } catch (error) {
      await stop(child, 'SIGKILL');
      if (signal.aborted) throw signal.reason;
      throw new EngineError(`the ${name} server did not start`, { cause: error });
    }
  }

  cpu(): Promise<CpuTimes> {
    return Promise.resolve(readCpuTimes());
  }
}

/** Resolves when it has printed this; what it prints later is read and dropped. */
function printed(child: Child, expected: RegExp, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = '';
    let done = false;
    const end = (error?: Error): void => {
      done = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', aborted);
      if (error === undefined) resolve();
      else reject(error);
    };
    const aborted = (): void => end(new Error('interrupted'));
    const timer = setTimeout(
      () => end(new CommandError(`it did not say ${expected}: ${seen}`)),
      READY_DEADLINE_MS,
    );
    signal.addEventListener('abort', aborted, { once: true });
    for (const stream of [child.process.stdout, child.process.stderr]) {
      stream?.on('data', (chunk) => {
        if (done) return;
        seen += String(chunk);
        if (expected.test(seen)) end();
      });
    }
    child.process.once('close', () => {
      if (!done) end(new CommandError(`it ended: ${seen.trim().slice(-500)}`));
    });
  });
}
