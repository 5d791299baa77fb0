/** Runs of a daemon in a lab, timed from outside: from its start to its sign that pods work. */
import { type FSWatcher, watch } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { Lab } from '../../overlay/lab/lab.ts';
import type { LabFamilies } from '../../overlay/lab/lab-network.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import type { LabStoreKind } from '../../overlay/lab/lab-store.ts';
import { DeadlineError, until } from '../../overlay/lab/wait.ts';
import { monotonicMs } from './machine.ts';
import { networkConfig } from './peers.ts';
import { scheduling } from './process.ts';

/** A start of 50,000 peers takes seconds; gateway routes, half a minute. */
const READY_DEADLINE_MS = 180_000;

/** The line follows the file at once. */
const LOG_DEADLINE_MS = 5000;

/** Of a failed start's log, so much is shown. */
const LOG_CHARACTERS = 1500;

export interface TimedStart {
  /** From the daemon's start to subnet.env, which it writes once everything is programmed. */
  readonly spawnToReadyMs: number;
  /** The same from its log's line that the store answers; whole milliseconds. */
  readonly storeToReadyMs: number;
  /** Of spawnToReadyMs, how long the main thread waited for a processor that others had. */
  readonly waitedMs: number;
}

/** A lab for numbered peers: one network for 60,000 nodes. The caller closes it. */
export const benchLab = (
  store: LabStoreKind,
  nodes: number,
  signal: AbortSignal,
  families: LabFamilies = 'ipv4',
): Promise<Lab> => Lab.create({ nodes, store, families, networkConfig: networkConfig(families), signal });

/** Several labs that live at the same time; closing them closes every one, whatever happens to another. */
export class BenchLabs implements AsyncDisposable {
  readonly #labs: Lab[] = [];

  async add(...[store, nodes, signal, families]: Parameters<typeof benchLab>): Promise<Lab> {
    const lab = await benchLab(store, nodes, signal, families);
    this.#labs.push(lab);
    return lab;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = await Promise.allSettled(this.#labs.map((lab) => lab.close()));
    for (const each of ended) if (each.status === 'rejected') throw each.reason;
  }
}

/** Starts the node's daemon and waits until it says that it is ready, by writing subnet.env. */
export async function timedStart(
  node: LabNode,
  signal: AbortSignal,
  extraArguments: readonly string[] = [],
): Promise<TimedStart> {
  await mkdir(dirname(node.subnetFile), { recursive: true });
  await rm(node.subnetFile, { force: true });
  const logged = (await node.daemon?.log())?.length ?? 0;
  const ended = new AbortController();
  const written = fileWritten(node.subnetFile, AbortSignal.any([signal, ended.signal]));
  const startedMs = monotonicMs();
  const daemon = await node.startDaemon(['--log-format', 'json', ...extraArguments]);
  daemon.exited.then(() => ended.abort(new Error('the daemon ended before it was ready')));
  const readyMs = await written.catch(async (error: unknown) => {
    const last = (await daemon.log()).slice(-LOG_CHARACTERS);
    throw new Error(`${node.name}: ${error instanceof Error ? error.message : error}; its log ends: ${last}`);
  });
  const waitedMs = scheduling(daemon.pid).waited;
  const readyAt = async (): Promise<number | undefined> => {
    const lines = (await daemon.log()).slice(logged);
    const [ready, answer] = [
      timeOf(lines, 'ready: pods can be attached'),
      timeOf(lines, 'the store answers'),
    ];
    return ready === undefined || answer === undefined ? undefined : ready - answer;
  };
  const waiting = { what: 'the log to say that the daemon is ready', deadlineMs: LOG_DEADLINE_MS, signal };
  return { spawnToReadyMs: readyMs - startedMs, storeToReadyMs: await until(readyAt, waiting), waitedMs };
}

/** When a file that is not there yet came; monotonic milliseconds. */
async function fileWritten(path: string, signal: AbortSignal): Promise<number> {
  let watcher: FSWatcher | undefined;
  let timer: NodeJS.Timeout | undefined;
  let stop = (): void => {};
  try {
    return await new Promise<number>((resolve, reject) => {
      watcher = watch(dirname(path), (_event, name) => {
        if (name === basename(path)) resolve(monotonicMs());
      });
      timer = setTimeout(() => reject(new DeadlineError(`${path} was not written`)), READY_DEADLINE_MS);
      stop = () => reject(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
    });
  } finally {
    watcher?.close();
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

/** When a log's line was written; wall-clock milliseconds. */
function timeOf(log: string, message: string): number | undefined {
  for (const line of log.split('\n')) {
    if (!line.includes(message) || !line.endsWith('}')) continue;
    const entry = JSON.parse(line) as { readonly time: string };
    return Date.parse(entry.time);
  }
  return undefined;
}
