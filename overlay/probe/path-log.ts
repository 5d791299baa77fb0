/**
 * What is logged of paths: each change once. When a whole underlay changes, thousands of paths do: of one kind
 * of change, so many within WINDOW_MS have lines of their own; the rest of them share one, which counts them
 * and names the first few.
 */
import type { Log } from '../ops/log.ts';
import type { ProbedPath } from './prober.ts';

const WINDOW_MS = 10_000;
const OWN_LINES = 5;
const NAMED = 5;

type Change = 'reduced' | 'recovered' | 'silent' | 'answering' | 'filtered';

interface Window {
  ownLines: number;
  readonly gathered: ProbedPath[];
  readonly end: NodeJS.Timeout;
}

const LINES: Readonly<Record<Change, { readonly level: 'info' | 'warn'; readonly text: string }>> = {
  reduced: {
    level: 'warn',
    text: 'the underlay swallows large packets to a peer: its route gets a smaller MTU',
  },
  recovered: { level: 'info', text: 'the underlay carries packets of full size to a peer again' },
  silent: { level: 'warn', text: 'a peer no longer answers echo requests' },
  answering: { level: 'info', text: 'a peer answers echo requests again' },
  filtered: {
    level: 'warn',
    text: 'a peer answers small echo requests only, which is a filter: nothing is concluded from it',
  },
};

export class PathLog {
  readonly #log: Log;
  readonly #windows = new Map<Change, Window>();

  constructor(log: Log) {
    this.#log = log;
  }

  changed(before: ProbedPath | undefined, after: ProbedPath): void {
    const wasReduced = isReduced(before);
    if (isReduced(after) && before?.mtuBytes !== after.mtuBytes) this.#note('reduced', after);
    else if (wasReduced && after.mtuBytes === after.fullBytes) this.#note('recovered', after);
    if (after.reachable === false && before?.reachable !== false) this.#note('silent', after);
    if (after.reachable === true && before?.reachable === false) this.#note('answering', after);
    if (after.filtered && before?.filtered !== true) this.#note('filtered', after);
  }

  /** Writes what was gathered. */
  close(): void {
    for (const change of this.#windows.keys()) this.#endWindow(change);
  }

  #note(change: Change, path: ProbedPath): void {
    const window = this.#windows.get(change) ?? this.#openWindow(change);
    if (window.ownLines === OWN_LINES) {
      window.gathered.push(path);
      return;
    }
    window.ownLines++;
    this.#write(change, [path]);
  }

  #openWindow(change: Change): Window {
    const end = setTimeout(() => this.#endWindow(change), WINDOW_MS).unref();
    const window = { ownLines: 0, gathered: [], end };
    this.#windows.set(change, window);
    return window;
  }

  #endWindow(change: Change): void {
    const window = this.#windows.get(change);
    this.#windows.delete(change);
    clearTimeout(window?.end);
    this.#write(change, window?.gathered ?? []);
  }

  #write(change: Change, paths: readonly ProbedPath[]): void {
    const [first] = paths;
    if (first === undefined) return;
    const { level, text } = LINES[change];
    const named = paths.slice(0, NAMED).map(({ remote }) => remote);
    this.#log[level](text, {
      peer: named.join(' '),
      ...(paths.length > 1 && { count: paths.length }),
      ...(first.mtuBytes !== undefined && { mtuBytes: first.mtuBytes, fullBytes: first.fullBytes }),
      ...(first.sendFailure !== undefined && { reason: first.sendFailure }),
    });
  }
}

/** The path is known to carry less than the data path would send. */
export const isReduced = (path: ProbedPath | undefined): boolean =>
  path?.mtuBytes !== undefined && path.mtuBytes < path.fullBytes;
