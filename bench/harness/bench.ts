/**
 * What every one of the project's own benchmarks has in common: its command line, progress and a table on
 * standard error, a report of `vtepd bench`'s schema on standard output (which `vtepd bench compare` reads),
 * and an end in order on Ctrl-C: the signal aborts, what was made is removed, what was measured is reported.
 *
 * Exit codes are vtepd's: 0 measured (a missed aim is a figure, no failure), 1 failed, 2 usage.
 */
import { writeFile } from 'node:fs/promises';
import {
  type Arguments,
  type Flag,
  isOn,
  parseArguments,
  refusePositionals,
  UsageError,
} from '../../overlay/cli/arguments.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE } from '../../overlay/cli/command.ts';
import { NO_PAINT } from '../../overlay/cli/demo-progress.ts';
import { helpText } from '../../overlay/cli/help.ts';
import { isInstalled } from '../../overlay/lab/command.ts';
import { packageVersion } from '../../overlay/ops/package.ts';
import { type CpuTimes, readCpuTimes } from '../engine/cpu.ts';
import { type BenchReport, SCHEMA } from '../report/schema.ts';
import { printReport } from '../report/table.ts';
import { reportedMachine } from '../run/describe-machine.ts';
import { Recorder } from '../run/recorder.ts';
import { rounded } from './statistics.ts';

export interface Aim {
  /** What DESIGN.md's table says. */
  readonly what: string;
  /** At most this. */
  readonly atMost: number;
  readonly measured: number;
}

export interface Outcome {
  readonly aims: readonly Aim[];
}

export interface BenchIo {
  readonly rounds: number;
  /** Fewer and smaller cases: does it run at all, and roughly how fast. */
  readonly quick: boolean;
  readonly given: Arguments;
  /** Aborts on the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  /** One line for whoever watches. */
  readonly progress: (line: string) => void;
  /** What the report is made of. */
  readonly recorder: Recorder;
}

export interface Bench {
  /** The file's name. */
  readonly name: string;
  readonly about: readonly string[];
  readonly rounds: number;
  readonly quickRounds: number;
  /** Flags besides --rounds and --quick. */
  readonly flags?: readonly Flag[];
  /** What must be installed besides iproute2; a path is looked for as it stands. */
  readonly programs?: readonly string[];
  /** The contestant that the others are compared with. */
  readonly baseline?: string;
  run(io: BenchIo): Promise<Outcome>;
}

/** The machine lacks something that the benchmark needs. */
class BenchUnavailableError extends Error {
  override readonly name = 'BenchUnavailableError';
  readonly code = 'VTEPD_BENCH_UNAVAILABLE';
}

/** Runs it as a program: the last line of each benchmark's file. */
export async function runBench(bench: Bench): Promise<void> {
  const flags = flagsOf(bench);
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    const forms = [`node dist/bench/${bench.name}.js [--rounds N] [--quick] [--html FILE] >FILE.json`];
    process.stdout.write(helpText({ forms, about: bench.about, flags }));
    return;
  }
  const progress = (line: string): void => void process.stderr.write(`${bench.name}: ${line}\n`);
  try {
    const given = parseArguments(argv, flags);
    refusePositionals(given);
    const quick = isOn(given, 'quick');
    const rounds = numberOf(given, 'rounds') ?? (quick ? bench.quickRounds : bench.rounds);
    checkMachine(bench.programs ?? []);
    const html = given.flags.get('html')?.at(-1);
    const signal = interrupted();
    const recorder = new Recorder();
    const run = { rounds, quick, given, progress, recorder, signal };
    const begin = { ms: performance.now(), cpu: readCpuTimes(), at: new Date().toISOString() };
    let outcome: Outcome | undefined;
    try {
      outcome = await bench.run(run);
    } catch (error) {
      if (!signal.aborted || recorder.isEmpty) throw error;
      progress('interrupted; the report holds what had been measured');
    }
    const report = await reportOf(bench, run, begin, outcome);
    process.stderr.write(`\n${printReport(report, NO_PAINT)}`);
    if (html !== undefined) {
      const { renderReport } = await import('../report/html.ts');
      await writeFile(html, await renderReport(report));
    }
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    process.exitCode = outcome === undefined ? EXIT_FAILED : EXIT_OK;
  } catch (error) {
    progress(error instanceof Error ? error.message : String(error));
    process.exitCode = error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
  }
}

async function reportOf(
  bench: Bench,
  { rounds, quick, recorder }: BenchIo,
  begin: { readonly ms: number; readonly cpu: CpuTimes; readonly at: string },
  outcome: Outcome | undefined,
): Promise<BenchReport> {
  const readings = { begin: begin.cpu, end: readCpuTimes(), background: [] };
  const baseline = bench.baseline ?? null;
  const findings = recorder.findings(baseline);
  return {
    schema: SCHEMA,
    bench: bench.name,
    title: `The project’s own benchmarks: ${bench.name}`,
    vtepd: packageVersion,
    startedAt: begin.at,
    durationS: rounded((performance.now() - begin.ms) / 1000),
    complete: outcome !== undefined,
    quick,
    plannedRounds: rounds,
    seed: 0,
    method: [...bench.about, 'All are measured in turns within each round; another begins in each.'],
    machine: await reportedMachine(['ip'], readings),
    baseline: findings.contestants.some(({ id }) => id === baseline) ? baseline : null,
    ...findings,
    overheads: [],
    aims: outcome?.aims.map((aim) => ({ ...aim, met: met(aim) })) ?? [],
    problems: [],
    commands: [],
  };
}

const met = ({ measured, atMost }: Aim): boolean => measured <= atMost;

const flagsOf = (bench: Bench): Flag[] => [
  {
    name: 'rounds',
    placeholder: 'N',
    help: 'How often everything is measured, in turns.',
    defaultText: `${bench.rounds}; ${bench.quickRounds} with --quick`,
  },
  { name: 'quick', placeholder: '', help: 'Fewer and smaller cases.' },
  { name: 'html', placeholder: 'FILE', help: 'Write the report as a page with plots, too.' },
  ...(bench.flags ?? []),
];

/** The whole number above 0 that a flag was given. @throws UsageError */
export function numberOf(given: Arguments, name: string): number | undefined {
  const text = given.flags.get(name)?.at(-1);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`--${name} takes a whole number above 0`);
}

/** Says everything that is missing at once. @throws BenchUnavailableError */
function checkMachine(programs: readonly string[]): void {
  const missing = ['ip', ...programs].filter((program) => !isInstalled(program));
  if (process.getuid?.() !== 0) missing.unshift('root (network namespaces)');
  if (missing.length > 0) throw new BenchUnavailableError(`this machine lacks ${missing.join(', ')}`);
}

/** Both signals end it in order; the second of them, at once. */
function interrupted(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => controller.abort(new Error(`interrupted by ${name}`)));
  }
  return controller.signal;
}
