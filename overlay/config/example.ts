/**
 * The option table as other texts: the annotated example (manifests/vtepd-config.example.yaml is this text, a test holds
 * them together), the effective configuration with its origins, and the JSON Schema of the file.
 */
import type { JsonSchema } from './kinds.ts';
import type { Origin } from './load-options.ts';
import {
  environmentName,
  GROUPS,
  type Group,
  isSwitch,
  OPTION_NAMES,
  type OptionName,
  optionOf,
  optionsOfGroup,
} from './options.ts';

const WIDTH = 100;

/** Every option that a file can hold: its help, its variable, and its default or an example, commented out. */
export function exampleText(): string {
  const blocks = [
    comment('vtepd: the annotated configuration. `vtepd config example` prints this text.'),
    comment(
      'Copy what you need to a file and name it with --config (or VTEPD_CONFIG). Every line is commented out: a value shown is the default, or an example where the default is described. A flag (--name) wins over its environment variable, that over this file, that over the default. `vtepd config check --config FILE` says whether a file can be used, and `vtepd config print` where each value comes from.',
    ),
    comment(
      'While the daemon runs, a changed file is taken up by itself, and on SIGHUP: options marked "live" take effect at once, others with the next start, and the log names them. A file with a mistake is refused as a whole.',
    ),
  ];
  for (const group of Object.keys(GROUPS) as Group[]) {
    const names = optionsOfGroup(group).filter((name) => name !== 'config');
    if (names.length === 0) continue;
    blocks.push(`# ${'-'.repeat(WIDTH - 2)}\n# ${GROUPS[group]}`, ...names.map(exampleOf));
  }
  return `${blocks.join('\n\n')}\n`;
}

function exampleOf(name: OptionName): string {
  const option = optionOf(name);
  const { defaultText, defaultNote, example, list, details } = option;
  const value = defaultText ?? example ?? '';
  const lines = [comment(option.help)];
  if (details !== undefined) lines.push(comment(details));
  const otherwise = defaultText === undefined ? `Default: ${defaultNote ?? 'none'}. ` : '';
  const choices = isSwitch(option) ? 'true|false' : option.kind.placeholder;
  const live = option.live === true ? '; live' : '';
  lines.push(comment(`${otherwise}${choices}${list ? ', or a list' : ''}; ${environmentName(name)}${live}`));
  return [...lines, `#${name}: ${list ? `[${yamlText(value)}]` : yamlText(value)}`].join('\n');
}

function comment(text: string): string {
  const lines: string[] = [];
  let line = '#';
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = '#';
    }
    line += ` ${word}`;
  }
  return [...lines, line].join('\n');
}

/** What YAML reads back as the same text without quotes, in a sequence too. */
const PLAIN_YAML = /^[A-Za-z0-9/^.][A-Za-z0-9/:.<>_|=^$+()-]*( [A-Za-z0-9/.-]+)*$/;

export const yamlText = (text: string): string =>
  PLAIN_YAML.test(text) && !text.endsWith(':') ? text : `'${text.replaceAll("'", "''")}'`;

/** What holds, as a configuration file that says where each value comes from. Secrets are not in it. */
export function effectiveText(origins: ReadonlyMap<OptionName, Origin>): string {
  const rows = [...origins].map(([name, origin]): [string, string] => {
    const { list, defaultNote } = optionOf(name);
    const [only = ''] = origin.shown;
    if (name === 'config') return [`# config: ${origin.shown.join('') || 'none'}`, origin.where];
    if (origin.shown.length === 0 && !list) return [`# ${name}: ${defaultNote ?? 'none'}`, origin.where];
    return [`${name}: ${list ? `[${origin.shown.map(yamlText).join(', ')}]` : yamlText(only)}`, origin.where];
  });
  const width = Math.min(60, Math.max(...rows.map(([line]) => line.length)));
  return rows.map(([line, where]) => `${line.padEnd(width)}  # ${where}\n`).join('');
}

/** A JSON Schema (draft 2020-12) of the configuration file, for editors. */
export function fileSchema(): object {
  const properties: Record<string, object> = {};
  for (const name of OPTION_NAMES) {
    if (name === 'config') continue;
    const { kind, list, help, defaultText } = optionOf(name);
    const schema: JsonSchema = list ? { type: ['array', 'string'], items: kind.json } : kind.json;
    const fallback =
      defaultText === undefined
        ? {}
        : { default: isSwitch(optionOf(name)) ? defaultText === 'true' : defaultText };
    properties[name] = { description: help, ...schema, ...fallback };
  }
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'vtepd configuration',
    type: 'object',
    properties,
    additionalProperties: false,
  };
}
