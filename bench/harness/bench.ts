/**
 * What every benchmark has in common: its command line, progress on standard error, one JSON object on
 * standard output, and an end in order on Ctrl-C: the signal aborts, and whatever was made is removed.
 *
 * Exit codes are vtepd's: 0 measured (a missed aim is a figure, no failure), 1 failed, 2 usage.
 */
import {
  type Arguments,
  type Flag,
  isOn,
  parseArguments,
  refusePositionals,
  UsageError,
} from '../../overlay/cli/arguments.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE } from '../../overlay/cli/command.ts';
import { helpText } from '../../overlay/cli/help.ts';
import { isInstalled } from '../../overlay/lab/command.ts';
import { describeMachine } from './machine.ts';
import { rounded } from './statistics.ts';

export interface Aim {
  /** What DESIGN.md's table says. */
  readonly what: string;
  /** At most this. */
  readonly atMost: number;
  readonly measured: number;
}

export interface Outcome {
  readonly figures: Readonly<Record<string, unknown>>;
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
    const forms = [`node dist/bench/${bench.name}.js [--rounds N] [--quick]`];
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
    const report = { bench: bench.name, at: new Date().toISOString(), machine: describeMachine() };
    const begin = performance.now();
    const { figures, aims } = await bench.run({ rounds, quick, given, progress, signal: interrupted() });
    const durationS = rounded((performance.now() - begin) / 1000);
    for (const aim of aims) progress(`${met(aim) ? 'met   ' : 'MISSED'} ${aim.what}: ${aim.measured}`);
    const judged = aims.map((aim) => ({ ...aim, met: met(aim) }));
    process.stdout.write(
      `${JSON.stringify({ ...report, rounds, quick, durationS, aims: judged, figures }, null, 2)}\n`,
    );
    process.exitCode = EXIT_OK;
  } catch (error) {
    progress(error instanceof Error ? error.message : String(error));
    process.exitCode = error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
  }
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
