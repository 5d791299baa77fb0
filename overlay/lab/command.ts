/**
 * Programs run by the lab: always by name and argument list, never through a shell. Whoever starts one owns
 * it: `run` waits for its end, and a Child is stopped by its owner or by the signal it was started with.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** A program could not be started, failed, or did not end in time. The message carries what it printed. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly code = 'VTEPD_LAB_COMMAND';
  readonly result: CommandResult | undefined;
  constructor(message: string, result?: CommandResult, options?: ErrorOptions) {
    super(message, options);
    this.result = result;
  }
}

export interface CommandResult {
  /** Null when a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly input?: string | undefined;
  readonly env?: NodeJS.ProcessEnv | undefined;
  readonly signal?: AbortSignal | undefined;
  /** It is killed and the call rejects after this many milliseconds; 30,000 unless told. */
  readonly timeoutMs?: number | undefined;
  /** A failure is an answer, not an error. */
  readonly tolerant?: boolean | undefined;
}

/** Whether a program of this name can be run. Those for root are looked for even where PATH leaves them out. */
export function isInstalled(program: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Runs a program to its end. Like those of `start`, it is out of reach of a terminal's Ctrl-C, which we answer
 * by the signal. @throws CommandError; the signal's reason when aborted
 */
export async function run(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  options.signal?.throwIfAborted();
  const timeoutMs = options.timeoutMs ?? 30_000;
  const child = spawn(program, args, { env: options.env ?? process.env, stdio: 'pipe', detached: true });
  const stop = () => child.kill('SIGKILL');
  const timer = setTimeout(stop, timeoutMs);
  options.signal?.addEventListener('abort', stop, { once: true });
  try {
    // A program that ends without reading its input closes the pipe; its exit status says what happened.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    const [stdout, stderr, end] = await Promise.all([text(child.stdout), text(child.stderr), ended(child)]);
    options.signal?.throwIfAborted();
    const result = { ...end, stdout, stderr };
    if (result.status !== 0 && options.tolerant !== true) throw failure(program, args, result, timeoutMs);
    return result;
  } catch (error) {
    if (!isNodeError(error)) throw error;
    throw new CommandError(notStarted(program, error), undefined, { cause: error });
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', stop);
  }
}

/** A running program. */
export interface Child {
  readonly pid: number;
  readonly process: ChildProcess;
  /** How it ended; never rejects. */
  readonly exited: Promise<Exit>;
}

export interface Exit {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Starts a program and resolves once it runs. It lives in a session of its own, so that a Ctrl-C in the
 * terminal reaches only us, and we end what we started in order. @throws CommandError
 */
export async function start(
  program: string,
  args: readonly string[],
  options: { readonly stdio: StdioOptions; readonly env?: NodeJS.ProcessEnv | undefined },
): Promise<Child> {
  const child = spawn(program, args, { ...options, env: options.env ?? process.env, detached: true });
  const exited = ended(child).catch(() => ({ status: null, signal: null }));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) =>
      reject(new CommandError(notStarted(program, error), undefined, { cause: error })),
    );
  });
  return { pid: child.pid ?? 0, process: child, exited };
}

/** Asks a child to end, and ends it the hard way after `graceMs`. Resolves when it is gone. */
export async function stop(child: Child, how: NodeJS.Signals = 'SIGTERM', graceMs = 5000): Promise<Exit> {
  if (child.process.exitCode === null && child.process.signalCode === null) child.process.kill(how);
  const timer = setTimeout(() => child.process.kill('SIGKILL'), graceMs);
  try {
    return await child.exited;
  } finally {
    clearTimeout(timer);
  }
}

function ended(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status, signal) => resolve({ status, signal }));
  });
}

async function text(stream: NodeJS.ReadableStream): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString();
}

const isNodeError = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && 'syscall' in error;

function notStarted(program: string, error: NodeJS.ErrnoException): string {
  if (error.code !== 'ENOENT') return `${program} could not be started: ${error.message}`;
  return `${program} is not installed (or not in PATH)`;
}

function failure(program: string, args: readonly string[], result: CommandResult, timeoutMs: number) {
  const how =
    result.signal === 'SIGKILL'
      ? `was killed, after ${timeoutMs} ms at most`
      : result.signal !== null
        ? `ended by ${result.signal}`
        : `exited with status ${result.status}`;
  const said = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
  return new CommandError(`${[program, ...args].join(' ')} ${how}${said && `: ${said}`}`, result);
}
