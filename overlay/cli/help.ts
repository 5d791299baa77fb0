/** Help texts, made from the same tables that the command line is read with. */
import { GROUPS, type Group, type OptionName, optionsOfGroup } from '../config/options.ts';
import { type Flag, optionFlags } from './arguments.ts';

const WIDTH = 100;
const INDENT = '      ';

export interface HelpText {
  /** `vtepd leases [options]`; one line a form. */
  readonly forms: readonly string[];
  /** Paragraphs: what it does, and what an operator should know. */
  readonly about: readonly string[];
  readonly flags?: readonly Flag[];
  /** Configuration options that it reads, from flags, environment and file. */
  readonly options?: readonly OptionName[];
  readonly notes?: readonly string[];
}

export function helpText(text: HelpText): string {
  const blocks = [
    `Usage: ${text.forms.join('\n       ')}`,
    ...text.about.map((paragraph) => wrapped(paragraph, '')),
  ];
  const own = [...(text.flags ?? []), { name: 'help', placeholder: '', help: 'Print this text.' }];
  blocks.push(section('Flags', own));
  for (const group of Object.keys(GROUPS) as Group[]) {
    const names = optionsOfGroup(group).filter((name) => text.options?.includes(name));
    if (names.length > 0) blocks.push(section(GROUPS[group], optionFlags(names)));
  }
  blocks.push(...(text.notes ?? []).map((note) => wrapped(note, '')));
  return `${blocks.join('\n\n')}\n`;
}

const section = (title: string, flags: readonly Flag[]): string =>
  [`${title}:`, ...flags.map(flagText)].join('\n');

function flagText(flag: Flag): string {
  const head = `  --${flag.name}${flag.placeholder === '' ? '' : ` ${flag.placeholder}`}`;
  const lines = [head, wrapped(flag.help, INDENT)];
  const facts = [
    ...(flag.defaultText === undefined ? [] : [`default: ${flag.defaultText}`]),
    ...(flag.environment === undefined ? [] : [flag.environment]),
  ];
  if (facts.length > 0) lines.push(`${INDENT}[${facts.join('] [')}]`);
  return lines.join('\n');
}

/** Fills lines up to the width. */
export function wrapped(text: string, indent: string, width = WIDTH): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && indent.length + line.length + 1 + word.length > width) {
      lines.push(indent + line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, indent + line].join('\n');
}

/** Columns under a heading, two spaces apart; the last one is not padded. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [heading, ...rows];
  const widths = heading.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  return `${all.map(line).join('\n')}\n`;
}
