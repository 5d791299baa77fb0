/**
 * Command lines: `--name value`, `--name=value`, a switch's `--name`, `--name=false` and `--no-name`;
 * `--` ends the flags. Node's own parseArgs does most of it; what it lacks is a word on what was meant.
 */
import { didYouMean } from '../config/settings-error.ts';

/** The command line cannot be understood. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'VTEPD_USAGE';
}

export interface Flag {
  readonly name: string;
  /** Stands for the value in help; empty: a switch. */
  readonly placeholder: string;
  readonly help: string;
  /** What holds without it, for help. */
  readonly defaultText?: string | undefined;
  /** The environment variable that does the same. */
  readonly environment?: string | undefined;
}

export const JSON_FLAG: Flag = { name: 'json', placeholder: '', help: 'Print JSON, for programs.' };

export interface Arguments {
  /** The texts given for each flag, in order; a switch has `true` or `false`. */
  readonly flags: ReadonlyMap<string, readonly string[]>;
  readonly positionals: readonly string[];
}

/** @throws UsageError */
export function parseArguments(argv: readonly string[], known: readonly Flag[]): Arguments {
  const flags = new Map<string, string[]>();
  const positionals: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (word === '--') {
      positionals.push(...argv.slice(i + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      positionals.push(word);
      continue;
    }
    const { flag, text } = readFlag(word, known);
    // What follows is the value: a pattern may begin with a dash, but another flag is a forgotten value.
    const value = text ?? argv[++i];
    if (value === undefined || (text === undefined && isFlag(value, known)))
      throw new UsageError(`--${flag.name} needs a value: --${flag.name} ${flag.placeholder}`);
    const given = flags.get(flag.name);
    if (given === undefined) flags.set(flag.name, [value]);
    else given.push(value);
  }
  return { flags, positionals };
}

const isFlag = (word: string, known: readonly Flag[]): boolean =>
  word.startsWith('--') && known.some(({ name }) => word === `--${name}` || word.startsWith(`--${name}=`));

interface ReadFlag {
  readonly flag: Flag;
  /** Absent: the value is the next word. */
  readonly text?: string | undefined;
}

function readFlag(word: string, known: readonly Flag[]): ReadFlag {
  // The value may be a secret: only the name goes into messages.
  const equals = word.indexOf('=');
  const name = word.slice(0, equals < 0 ? undefined : equals).replace(/^--?/, '');
  const text = equals < 0 ? undefined : word.slice(equals + 1);
  const names = known.map((flag) => flag.name);
  const flag = known.find((each) => each.name === name);
  if (!word.startsWith('--')) {
    throw new UsageError(flag === undefined ? `unknown flag -${name}` : `write --${name} with two dashes`);
  }
  if (flag !== undefined) return { flag, text: flag.placeholder === '' ? (text ?? 'true') : text };
  const negated = known.find((each) => each.placeholder === '' && `no-${each.name}` === name);
  if (negated !== undefined && text === undefined) return { flag: negated, text: 'false' };
  throw new UsageError(`unknown flag --${name}${didYouMean(name, names, '--')}`);
}

/** Whether a switch of a command's own (not a configuration option's) is on. @throws UsageError */
export function isOn({ flags }: Arguments, name: string): boolean {
  const text = flags.get(name)?.at(-1);
  if (text === undefined || text === 'false') return false;
  if (text === 'true') return true;
  throw new UsageError(`--${name} is a switch: true or false`);
}

/** @throws UsageError when there are words that no flag takes */
export function refusePositionals({ positionals }: Arguments): void {
  const [first] = positionals;
  if (first !== undefined) throw new UsageError(`"${first.slice(0, 64)}" is not expected here`);
}
