/**
 * Gathers the values of options: flags over the environment over the file over the defaults. Every mistake
 * of every source is collected, so that an operator mends them in one go; a source that loses is checked
 * all the same, for it would win tomorrow.
 */
import { type ConfigFile, readConfigFile } from './config-file.ts';
import { environmentName, OPTION_NAMES, type OptionName, type OptionValues, optionOf } from './options.ts';
import { nearest, SettingsError, type SettingsProblem } from './settings-error.ts';

export type Source = 'flag' | 'environment' | 'file' | 'default';

/** Where a value came from. */
export interface Origin {
  readonly source: Source;
  /** As the operator finds it: `--etcd-prefix`, `VTEPD_ETCD_PREFIX`, `/etc/vtepd.yaml:12: etcd-prefix`. */
  readonly where: string;
  /** As it was written, or `***`; one text a value. */
  readonly shown: readonly string[];
}

export interface Sources {
  /** The texts given for each flag, in order; a switch has `true` or `false`. */
  readonly flags: ReadonlyMap<string, readonly string[]>;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface LoadedOptions<N extends OptionName> {
  readonly values: Pick<OptionValues, N>;
  readonly origins: ReadonlyMap<OptionName, Origin>;
  /** What works but is probably not meant, or not wise. */
  readonly warnings: readonly string[];
}

/**
 * Reads the named options; others that a source holds are known but not looked at.
 * @throws SettingsError
 */
export async function loadOptions<N extends OptionName>(
  names: readonly N[],
  sources: Sources,
): Promise<LoadedOptions<N>> {
  const file = await fileOf(sources);
  const problems: SettingsProblem[] = [...file.problems];
  const origins = new Map<OptionName, Origin>();
  const values: Partial<Record<OptionName, unknown>> = {};
  for (const name of names) {
    const candidates = [fromFlag(name, sources), fromEnvironment(name, sources), fromFile(name, file)];
    const chosen = candidates.find((given) => given !== undefined) ?? fromDefault(name);
    for (const given of candidates) {
      if (given !== undefined && given !== chosen) problems.push(...parse(name, given).problems);
    }
    const parsed = parse(name, chosen);
    problems.push(...parsed.problems);
    values[name] = parsed.value;
    origins.set(name, {
      source: chosen.source,
      where: chosen.where,
      shown: chosen.texts.map((text) => shown(name, text, chosen.texts)),
    });
  }
  if (problems.length > 0) throw new SettingsError(problems);
  // The table's rows and OptionValues are two views of one type; only a loop over names loses sight of it.
  return { values: values as Pick<OptionValues, N>, origins, warnings: warningsOf(sources, file) };
}

async function fileOf(sources: Sources): Promise<ConfigFile> {
  const given = fromFlag('config', sources) ?? fromEnvironment('config', sources);
  if (given === undefined) return { entries: new Map(), problems: [], warnings: [] };
  const { value, problems } = parse('config', given);
  if (problems.length > 0) throw new SettingsError(problems);
  return readConfigFile(String(value));
}

/** What a source says of one option. */
interface Given {
  readonly source: Source;
  readonly where: string;
  readonly texts: readonly string[];
}

function fromFlag(name: OptionName, { flags }: Sources): Given | undefined {
  const given = flags.get(name);
  if (given === undefined) return undefined;
  return { source: 'flag', where: `--${name}`, texts: given.flatMap((text) => divided(name, text)) };
}

/** An empty variable counts as one that is not set: manifests cannot leave one out. */
function fromEnvironment(name: OptionName, { environment }: Sources): Given | undefined {
  const where = environmentName(name);
  const text = environment[where];
  return text === undefined || text === ''
    ? undefined
    : { source: 'environment', where, texts: divided(name, text) };
}

function fromFile(name: OptionName, file: ConfigFile): Given | undefined {
  const entry = file.entries.get(name);
  if (entry === undefined) return undefined;
  const texts = entry.sequence ? entry.texts : entry.texts.flatMap((text) => divided(name, text));
  return { source: 'file', where: entry.where, texts };
}

function fromDefault(name: OptionName): Given {
  const { defaultText } = optionOf(name);
  return { source: 'default', where: 'default', texts: defaultText === undefined ? [] : [defaultText] };
}

function divided(name: OptionName, text: string): string[] {
  const { list, separator } = optionOf(name);
  return list && separator !== undefined ? text.split(separator).map((part) => part.trim()) : [text];
}

interface Parsed {
  readonly value: unknown;
  readonly problems: readonly SettingsProblem[];
}

function parse(name: OptionName, { texts, where }: Given): Parsed {
  const { kind, list } = optionOf(name);
  if (!list && texts.length > 1) {
    return {
      value: undefined,
      problems: [{ where, problem: `is given ${texts.length} times: give it once` }],
    };
  }
  const values: unknown[] = [];
  const problems: SettingsProblem[] = [];
  for (const text of texts) {
    const result = kind.schema.safeParse(text);
    if (result.success) values.push(result.data);
    else {
      const mistake = result.error.issues[0]?.message ?? 'cannot be used';
      problems.push({ where, problem: `"${shortened(shown(name, text, texts))}" ${mistake}` });
    }
  }
  return { value: list ? values : values[0], problems };
}

const shown = (name: OptionName, text: string, list: readonly string[]): string =>
  optionOf(name).kind.show?.(text, list) ?? text;

const shortened = (text: string): string => (text.length > 100 ? `${text.slice(0, 97)}...` : text);

/**
 * Kubernetes puts variables such as VTEPD_PORT and VTEPD_SERVICE_HOST into every container of a namespace
 * that has a Service named vtepd: so an unknown variable is no mistake, but one that nearly is an option's
 * probably is.
 */
function warningsOf(sources: Sources, file: ConfigFile): string[] {
  const warnings = [...file.warnings];
  const known = OPTION_NAMES.map(environmentName);
  for (const variable of Object.keys(sources.environment)) {
    if (!variable.startsWith('VTEPD_') || known.includes(variable)) continue;
    const meant = nearest(
      variable.slice('VTEPD_'.length),
      known.map((name) => name.slice('VTEPD_'.length)),
    );
    if (meant !== undefined)
      warnings.push(`${variable} means nothing to vtepd; did you mean VTEPD_${meant}?`);
  }
  if (sources.flags.has('etcd-password')) {
    warnings.push(
      '--etcd-password is visible to everyone on this machine: use VTEPD_ETCD_PASSWORD or the file',
    );
  }
  return warnings;
}
