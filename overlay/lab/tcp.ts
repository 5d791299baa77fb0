/** TCP between two namespaces of a lab: how much goes through, and whether a connection lives through things. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Address } from '../../store/address.ts';
import { type Child, CommandError, start, stop } from './command.ts';
import { inside, runInside } from './namespace.ts';

/** What one end of a connection saw. */
export interface EndReport {
  readonly bytes: number;
  readonly durationMs: number;
  /** The longest time between two reads; a source has none. */
  readonly longestGapMs: number;
  /** Why the connection broke; absent when it ended in order. */
  readonly fault?: string | undefined;
}

export interface StreamReport {
  readonly source: EndReport;
  readonly sink: EndReport;
  /** Every byte arrived and neither end saw an error. */
  readonly whole: boolean;
}

export interface Route {
  /** Namespaces. */
  readonly from: string;
  readonly to: string;
  readonly address: Address;
  /** 5201 unless told: each connection to one namespace needs its own. */
  readonly port?: number | undefined;
}

export interface Throughput {
  readonly bitsPerSecond: number;
  readonly tool: 'iperf3' | 'node';
}

const PROGRAM = join(import.meta.dirname, 'tcp-program.js');
const PORT = 5201;

/**
 * TCP throughput of one connection over `seconds`, by iperf3, or by two small Node programs where that is
 * not installed (they are slower: compare only figures of one tool). @throws CommandError
 */
export async function throughput(route: Route, seconds: number, signal?: AbortSignal): Promise<Throughput> {
  let server: Child;
  try {
    server = await start(...inside(route.to, ['iperf3', '-s', '-1', '--forceflush', '-p', `${PORT}`]), PIPES);
    await said(server, 'Server listening');
  } catch (error) {
    if (error instanceof CommandError) return nodeThroughput(route, seconds, signal);
    throw error;
  }
  try {
    const { stdout } = await runInside(
      route.from,
      ['iperf3', '-c', route.address, '-p', `${PORT}`, '-t', `${seconds}`, '-J'],
      { signal, timeoutMs: seconds * 1000 + 20_000 },
    );
    const bits: unknown = JSON.parse(stdout)?.end?.sum_received?.bits_per_second;
    if (typeof bits !== 'number') throw new Error(`iperf3 reported no throughput: ${stdout.slice(0, 500)}`);
    return { bitsPerSecond: bits, tool: 'iperf3' };
  } finally {
    await stop(server);
  }
}

async function nodeThroughput(route: Route, seconds: number, signal?: AbortSignal): Promise<Throughput> {
  const stream = await RunningStream.start(route, 0);
  let report: StreamReport;
  try {
    await delay(seconds * 1000, undefined, { signal });
  } finally {
    report = await stream.stop();
  }
  return { bitsPerSecond: (report.sink.bytes * 8000) / report.sink.durationMs, tool: 'node' };
}

/** A connection that carries data while something else is done. */
export class RunningStream {
  private readonly source: Child;
  private readonly sink: Child;
  private readonly reports: Promise<[EndReport, EndReport]>;

  private constructor(source: Child, sink: Child) {
    this.source = source;
    this.sink = sink;
    this.reports = Promise.all([lastLine(source), lastLine(sink)]);
    this.reports.catch(() => {});
  }

  /** Connects and sends a line every `pauseMs`, or as much as goes through (0), until `stop`. */
  static async start(route: Route, pauseMs: number): Promise<RunningStream> {
    const node = [process.execPath, PROGRAM];
    const port = `${route.port ?? PORT}`;
    const sink = await start(...inside(route.to, [...node, 'sink', port]), PIPES);
    let source: Child | undefined;
    try {
      await said(sink, 'ready');
      source = await start(
        ...inside(route.from, [...node, 'source', route.address, port, `${pauseMs}`]),
        PIPES,
      );
      const stream = new RunningStream(source, sink);
      await said(source, 'ready');
      return stream;
    } catch (error) {
      for (const child of [sink, source]) if (child !== undefined) await stop(child, 'SIGKILL');
      throw error;
    }
  }

  /** Ends the connection in order and reports; ends kept waiting too long are ended the hard way. */
  async stop(): Promise<StreamReport> {
    await stop(this.source, 'SIGINT', 10_000);
    const timer = setTimeout(() => this.sink.process.kill('SIGKILL'), 10_000);
    try {
      await this.sink.exited;
    } finally {
      clearTimeout(timer);
    }
    const [source, sink] = await this.reports;
    const whole = source.bytes === sink.bytes && source.fault === undefined && sink.fault === undefined;
    return { source, sink, whole };
  }
}

const PIPES: { stdio: ['ignore', 'pipe', 'pipe'] } = { stdio: ['ignore', 'pipe', 'pipe'] };

/** Resolves when the child has printed this. @throws CommandError when it ends without */
function said(child: Child, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = '';
    const look = (chunk: unknown) => {
      seen += String(chunk);
      if (seen.includes(text)) resolve();
    };
    child.process.stdout?.on('data', look);
    child.process.stderr?.on('data', look);
    child.process.once('close', () => reject(new CommandError(`it ended without saying "${text}": ${seen}`)));
  });
}

async function lastLine(child: Child): Promise<EndReport> {
  let text = '';
  child.process.stdout?.on('data', (chunk) => {
    text += String(chunk);
  });
  await new Promise((resolve) => child.process.once('close', resolve));
  const line = text.trimEnd().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) throw new CommandError(`a connection's end was killed before it could report`);
  return JSON.parse(line) as EndReport;
}
