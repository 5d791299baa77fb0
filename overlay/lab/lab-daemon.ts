/**
 * One `vtepd run` of a lab, as a child process in its node's namespace. Its log is a file, so that it lives
 * on (and can be read) when the lab is kept.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Child, type Exit, start, stop } from './command.ts';
import { inside } from './namespace.ts';
import { until } from './wait.ts';

/** The command line of this very build. */
export const VTEPD = join(import.meta.dirname, '..', 'cli', 'vtepd.js');
/** Those in its first line, which counts only where it is run by its name. */
export const NODE_FLAGS: readonly string[] = ['--max-semi-space-size=1'];

/** A daemon that is up within half a second, on a machine under load. */
const READY_DEADLINE_MS = 30_000;

/** A daemon ended that was waited for. The message ends with what it logged last. */
export class DaemonEndedError extends Error {
  override readonly name = 'DaemonEndedError';
  readonly code = 'VTEPD_LAB_DAEMON_ENDED';
  readonly exit: Exit;
  constructor(message: string, exit: Exit) {
    super(message);
    this.exit = exit;
  }
}

export interface DaemonPlan {
  readonly namespace: string;
  /** After `vtepd run`. */
  readonly arguments: readonly string[];
  readonly env?: NodeJS.ProcessEnv | undefined;
  readonly logFile: string;
}

export class LabDaemon {
  readonly pid: number;
  /** How it ended; never rejects. */
  readonly exited: Promise<Exit>;
  private readonly child: Child;
  private readonly logFile: string;
  private end: Exit | undefined;

  private constructor(child: Child, logFile: string) {
    this.child = child;
    this.logFile = logFile;
    this.pid = child.pid;
    this.exited = child.exited;
    this.exited.then((exit) => {
      this.end = exit;
    });
  }

  static async start(plan: DaemonPlan): Promise<LabDaemon> {
    const log = await open(plan.logFile, 'a');
    try {
      const command = [process.execPath, ...NODE_FLAGS, VTEPD, 'run', ...plan.arguments];
      const child = await start(...inside(plan.namespace, command), {
        stdio: ['ignore', log.fd, log.fd],
        env: { ...process.env, ...plan.env },
      });
      return new LabDaemon(child, plan.logFile);
    } finally {
      await log.close();
    }
  }

  get running(): boolean {
    return this.end === undefined;
  }

  /**
   * Looks until `look` gives something, and returns that. An error ends with the end of the log.
   * @param what it is waited for, after "waited N ms for"
   * @throws DaemonEndedError, DeadlineError, the signal's reason
   */
  async until<T>(
    what: string,
    look: () => Promise<T | false | undefined>,
    signal?: AbortSignal,
    deadlineMs = READY_DEADLINE_MS,
  ): Promise<T> {
    const lookWhileRunning = async () => {
      if (this.end === undefined) return look();
      throw new DaemonEndedError(`the daemon ended; waited for ${what}`, this.end);
    };
    try {
      return await until(lookWhileRunning, { what, deadlineMs, signal });
    } catch (error) {
      if (error instanceof Error && signal?.aborted !== true) error.message += `\n${await this.lastLines()}`;
      throw error;
    }
  }

  /** SIGTERM, and how it ended. */
  terminate(): Promise<Exit> {
    return stop(this.child, 'SIGTERM', 15_000);
  }

  /** SIGKILL: what a crash is like. */
  kill(): Promise<Exit> {
    return stop(this.child, 'SIGKILL');
  }

  /** Lets it live when we end: a kept lab. */
  abandon(): void {
    this.child.process.unref();
  }

  async log(): Promise<string> {
    return readFile(this.logFile, 'utf8');
  }

  private async lastLines(): Promise<string> {
    const lines = (await this.log().catch(() => '')).trimEnd().split('\n');
    return ['its log ends:', ...lines.slice(-12)].join('\n  ');
  }
}
