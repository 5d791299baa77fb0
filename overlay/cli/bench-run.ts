/** `vtepd bench`, here or to another machine: its flags, what the machine must have, and where reports go. */
import { constants } from 'node:fs';
import { access, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { labSource, type PathSource } from '../../bench/paths/path-source.ts';
import { printedProgress } from '../../bench/report/progress.ts';
import type { BenchReport } from '../../bench/report/schema.ts';
import { printReport } from '../../bench/report/table.ts';
import { type BenchWish, measureEncapsulation } from '../../bench/run/encapsulation.ts';
import {
  OWN_PATH_IDS,
  PATH_IDS,
  type PathId,
  QUICK_WORKLOAD_IDS,
  WORKLOAD_IDS,
  type WorkloadId,
} from '../../bench/run/names.ts';
import { LONGEST_S, SHORTEST_S } from '../../bench/run/time-plan.ts';
import { isInstalled } from '../lab/command.ts';
import { type Arguments, isOn, parseArguments, refusePositionals, UsageError } from './arguments.ts';
import { LEAST_ROUNDS, POD_FLAGS, RUN_FLAGS, TO_FLAGS } from './bench-flags.ts';
import { type CommandIo, EXIT_FAILED, EXIT_OK } from './command.ts';
import { ANSI_PAINT, NO_PAINT } from './demo-progress.ts';

/** What is left of the promised ten minutes, and of the one, when labs come and go. */
const BUDGET_S = 540;
const QUICK_BUDGET_S = 48;
const MOST_ROUNDS = 1000;
/** iperf3's runs are given up after twenty. */
const MOST_SECONDS = 10;

/** The machine lacks something. The message says what, and how to get it. */
class BenchUnavailableError extends Error {
  override readonly name = 'BenchUnavailableError';
  readonly code = 'VTEPD_BENCH_UNAVAILABLE';
}

interface Outputs {
  /** `-`: standard output. */
  readonly json: string | undefined;
  readonly html: string | undefined;
}

export async function runBench(argv: readonly string[], io: CommandIo): Promise<number> {
  const given = parseArguments(jsonWithFile(argv), [...RUN_FLAGS, ...TO_FLAGS, ...POD_FLAGS]);
  refusePositionals(given);
  const wish = readWish(given);
  const outputs = { json: textOf(given, 'json'), html: textOf(given, 'html') };
  const to = textOf(given, 'to');
  const paths = readPaths(given, wish.quick);
  if (to !== undefined && given.flags.has('paths')) {
    throw new UsageError(
      '--paths are of this machine: with --to they are hosts, and pods with --cni-conf-dir',
    );
  }
  if (to === undefined && (given.flags.has('cni-conf-dir') || given.flags.has('cni-bin-dir'))) {
    throw new UsageError('--cni-conf-dir and --cni-bin-dir belong to --to');
  }
  for (const file of [outputs.json, outputs.html]) await checkWritable(file);
  checkPrograms(wish.workloads, to === undefined);
  let source: PathSource;
  if (to === undefined) {
    source = labSource(paths);
  } else {
    const { parseTarget, remoteSource } = await import('../../bench/remote/remote-source.ts');
    const folders = { confDir: textOf(given, 'cni-conf-dir'), binDir: textOf(given, 'cni-bin-dir') };
    source = remoteSource(targetOf(to, parseTarget), folders);
  }
  const progress = printedProgress(io.err, io.isTerminal && process.stderr.isTTY === true, () =>
    performance.now(),
  );
  const report = await measureEncapsulation(wish, source, progress, io.signal);
  await writeReport(report, outputs, io);
  if (report.complete) return EXIT_OK;
  io.err('vtepd bench: interrupted; the report holds what had been measured\n');
  return EXIT_FAILED;
}

/** @throws UsageError */
function targetOf<T>(text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    throw new UsageError(`--to takes HOST or HOST:PORT: ${error instanceof Error ? error.message : error}`);
  }
}

/** `--json` may stand alone: its value is a file, or nothing. */
function jsonWithFile(argv: readonly string[]): string[] {
  const words: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const [word = '', next] = [argv[i], argv[i + 1]];
    if (word !== '--json') words.push(word);
    else if (next === undefined || next.startsWith('--')) words.push('--json=-');
    else words.push(`--json=${argv[++i]}`);
  }
  return words;
}

const textOf = ({ flags }: Arguments, name: string): string | undefined => flags.get(name)?.at(-1);

function readWish(given: Arguments): BenchWish {
  const quick = isOn(given, 'quick');
  const workloads = readNames<WorkloadId>(given, 'measure', WORKLOAD_IDS);
  const rounds = readNumber(given, 'rounds', 1, MOST_ROUNDS) ?? LEAST_ROUNDS;
  const longestSeconds = readSeconds(given);
  return {
    workloads: workloads ?? (quick ? QUICK_WORKLOAD_IDS : WORKLOAD_IDS),
    rounds,
    quick,
    // More rounds than promised, and longer ones, take more time than promised.
    budgetSeconds:
      (quick ? QUICK_BUDGET_S : BUDGET_S) *
      Math.max(1, rounds / LEAST_ROUNDS) *
      Math.max(1, longestSeconds / LONGEST_S),
    longestSeconds,
    seed: readNumber(given, 'seed', 0, 2 ** 32 - 1),
  };
}

const readPaths = (given: Arguments, quick: boolean): readonly PathId[] =>
  readNames<PathId>(given, 'paths', PATH_IDS) ?? (quick ? OWN_PATH_IDS : PATH_IDS);

/** In the order of `known`. @throws UsageError */
function readNames<T extends string>(given: Arguments, flag: string, known: readonly T[]): T[] | undefined {
  const text = textOf(given, flag);
  if (text === undefined) return undefined;
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !known.some((each) => each === name));
  if (unknown !== undefined) {
    throw new UsageError(`--${flag} takes some of ${known.join(', ')}; not "${unknown.slice(0, 64)}"`);
  }
  return known.filter((name) => names.includes(name));
}

/** @throws UsageError */
function readNumber(given: Arguments, flag: string, least: number, most: number): number | undefined {
  const text = textOf(given, flag);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw new UsageError(`--${flag} takes a whole number from ${least} to ${most}`);
}

/** @throws UsageError */
function readSeconds(given: Arguments): number {
  const text = textOf(given, 'seconds');
  if (text === undefined) return LONGEST_S;
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value >= SHORTEST_S && value <= MOST_SECONDS) return value;
  throw new UsageError(`--seconds takes a number from ${SHORTEST_S} to ${MOST_SECONDS}`);
}

/** Found out before the minutes that it takes, not after. */
async function checkWritable(file: string | undefined): Promise<void> {
  if (file === undefined || file === '-') return;
  const there = await stat(file).catch(() => undefined);
  try {
    if (there?.isDirectory()) throw new Error('it is a folder');
    await access(there === undefined ? dirname(resolve(file)) : file, constants.W_OK);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new BenchUnavailableError(`${file} cannot be written: ${why}`, { cause: error });
  }
}

/** By the program, its Debian package. */
const LAB_PROGRAMS = { ip: 'iproute2', nft: 'nftables', busybox: 'busybox-static', tcpdump: 'tcpdump' };
const ROUND_TRIPS: readonly WorkloadId[] = ['latency', 'loaded'];

/** Says everything that is missing at once. @throws BenchUnavailableError */
function checkPrograms(workloads: readonly WorkloadId[], inLab: boolean): void {
  const bySockperf = workloads.some((id) => ROUND_TRIPS.includes(id));
  const byIperf = workloads.some((id) => !ROUND_TRIPS.includes(id) && id !== 'connections');
  const needed: Record<string, string> = {
    ...(inLab && LAB_PROGRAMS),
    ...(byIperf && { iperf3: 'iperf3' }),
    ...(bySockperf && { sockperf: 'sockperf' }),
  };
  const missing = Object.entries(needed).filter(([program]) => !isInstalled(program));
  const sentences: string[] = [];
  if (inLab && process.getuid?.() !== 0) {
    sentences.push('making network namespaces needs root: run it with sudo');
  }
  if (missing.length > 0) {
    const packages = missing.map(([, name]) => name).join(' ');
    const programs = missing.map(([program]) => program).join(', ');
    sentences.push(`this machine lacks ${programs}: apt-get install ${packages}`);
  }
  if (sentences.length > 0) throw new BenchUnavailableError(sentences.join('; '));
}

async function writeReport(report: BenchReport, { json, html }: Outputs, io: CommandIo): Promise<void> {
  const text = `${JSON.stringify(report, null, 2)}\n`;
  const paint = io.isTerminal && !io.environment.NO_COLOR ? ANSI_PAINT : NO_PAINT;
  io.out(json === '-' ? text : `\n${printReport(report, paint)}`);
  if (json !== undefined && json !== '-') {
    await writeFile(json, text);
    io.err(`the report as JSON: ${json}\n`);
  }
  if (html !== undefined) {
    const { renderReport } = await import('../../bench/report/html.ts');
    await writeFile(html, await renderReport(report));
    io.err(`the report as a page: ${html}\n`);
  }
}
