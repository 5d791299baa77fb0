/**
 * Reads the configuration file: one YAML mapping of option names to scalars or sequences of scalars. A
 * scalar counts as it is written (`0123` and `1e3` stay text), each kind of option then reads it as it
 * reads a flag. The YAML library is loaded only when there is a file.
 *
 * Nothing of the file's text is put into a message here: it may hold the password.
 */
import { readFile, stat } from 'node:fs/promises';
import type { Node, Pair } from 'yaml';
import { environmentName, isOptionName, OPTION_NAMES, type OptionName, optionOf } from './options.ts';
import { didYouMean, SettingsError, type SettingsProblem } from './settings-error.ts';

export interface FileEntry {
  readonly texts: readonly string[];
  /** Written as a sequence: its items are not divided further. */
  readonly sequence: boolean;
  /** `/etc/vtepd.yaml:12: etcd-prefix` */
  readonly where: string;
}

export interface ConfigFile {
  readonly entries: ReadonlyMap<OptionName, FileEntry>;
  readonly problems: readonly SettingsProblem[];
  readonly warnings: readonly string[];
}

/** A configuration is a page or two. */
const MAX_FILE_BYTES = 1024 * 1024;

/** @throws SettingsError when the file cannot be read or is not YAML */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const [text, mode] = await readText(path);
  const parsed = await parseConfigFile(text, path);
  const isExposed = parsed.entries.has('etcd-password') && (mode & 0o077) !== 0;
  const warning = `${path} holds the etcd password and others than its owner may read it: chmod 600 ${path}`;
  return isExposed ? { ...parsed, warnings: [warning] } : parsed;
}

async function readText(path: string): Promise<[text: string, mode: number]> {
  const fail = (problem: string) => new SettingsError([{ where: path, problem }]);
  try {
    const status = await stat(path);
    if (!status.isFile()) throw fail('is not a file');
    if (status.size > MAX_FILE_BYTES)
      throw fail(`has ${status.size} bytes; a configuration file has at most ${MAX_FILE_BYTES}`);
    return [await readFile(path, 'utf8'), status.mode];
  } catch (error) {
    if (error instanceof SettingsError) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw fail(`cannot be read (${code}): check --config, or ${environmentName('config')}`);
  }
}

/** @throws SettingsError when the text is not YAML; what is wrong with single entries is in `problems` */
export async function parseConfigFile(text: string, path: string): Promise<ConfigFile> {
  const { isMap, LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, schema: 'failsafe' });
  const lineAt = (offset: number | undefined) => `${path}:${lines.linePos(offset ?? 0).line}`;
  if (document.errors.length > 0) {
    throw new SettingsError(
      document.errors.map((error) => ({ where: lineAt(error.pos[0]), problem: yamlMistake(error.code) })),
    );
  }
  const entries = new Map<OptionName, FileEntry>();
  const problems: SettingsProblem[] = [];
  const { contents } = document;
  if (contents !== null && !isMap(contents)) {
    throw new SettingsError([
      { where: path, problem: 'must be a YAML mapping, with lines such as "log-level: info"' },
    ]);
  }
  for (const pair of contents?.items ?? []) {
    const read = await readEntry(pair, lineAt);
    if ('problem' in read) problems.push(read);
    else entries.set(read.name, read.entry);
  }
  return { entries, problems, warnings: [] };
}

/** YAML's ways to write nothing. */
const NO_VALUES: ReadonlySet<string> = new Set(['', '~', 'null', 'Null', 'NULL']);

type ReadEntry = { readonly name: OptionName; readonly entry: FileEntry } | SettingsProblem;

async function readEntry(
  pair: Pair<unknown, unknown>,
  lineAt: (offset: number | undefined) => string,
): Promise<ReadEntry> {
  const { isAlias, isScalar, isSeq } = await import('yaml');
  const key = pair.key as Node;
  const line = lineAt(key.range?.[0]);
  if (!isScalar(key)) return { where: line, problem: 'an option name must be plain text' };
  const name = String(key.value);
  const where = `${line}: ${name.slice(0, 64)}`;
  if (name === 'config') return { where, problem: 'a file cannot name another one: give --config' };
  if (!isOptionName(name))
    return { where, problem: `there is no such option${didYouMean(name, OPTION_NAMES)}` };
  const value = pair.value as Node | null;
  if (isScalar(value) && !(value.type === 'PLAIN' && NO_VALUES.has(String(value.value)))) {
    return { name, entry: { texts: [String(value.value)], sequence: false, where } };
  }
  if (isSeq(value) && optionOf(name).list && value.items.every((item) => isScalar(item))) {
    const texts = value.items.map((item) => (isScalar(item) ? String(item.value) : ''));
    return { name, entry: { texts, sequence: true, where } };
  }
  if (isAlias(value))
    return { where, problem: 'is an alias (*name): a text that begins with * needs quotes' };
  if (value === null || isScalar(value))
    return { where, problem: 'has no value: give one, or remove the line' };
  return {
    where,
    problem: optionOf(name).list ? 'must be a value or a list of values' : 'must be a single value',
  };
}

const YAML_MISTAKES: Readonly<Record<string, string>> = {
  BAD_INDENT: 'bad indentation',
  DUPLICATE_KEY: 'the option is there twice',
  MISSING_CHAR: 'a character is missing (a closing quote or bracket, or the space after a colon)',
  MULTILINE_IMPLICIT_KEY: 'not "name: value"',
  TAB_AS_INDENT: 'a tab as indentation: use spaces',
  UNEXPECTED_TOKEN: 'a character that YAML does not allow there; such a text needs quotes',
};

const yamlMistake = (code: string): string => `is not YAML: ${YAML_MISTAKES[code] ?? code}`;
