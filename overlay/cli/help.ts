/** Help texts, made from the same flags that the command line is read with. */
import type { Flag } from './arguments.ts';

const WIDTH = 100;
const INDENT = '      ';

export interface HelpText {
  /** `vtepd leases [options]`; one line a form. */
  readonly forms: readonly string[];
  /** Paragraphs: what it does, and what an operator should know. */
  readonly about: readonly string[];
  readonly flags?: readonly Flag[];
  /** More of them, under headings: see optionSections(). */
  readonly sections?: readonly string[];
  readonly notes?: readonly string[];
}

export function helpText(text: HelpText): string {
  const blocks = [
    `Usage: ${text.forms.join('\n       ')}`,
    ...text.about.map((paragraph) => wrapped(paragraph, '')),
  ];
  const own = [...(text.flags ?? []), { name: 'help', placeholder: '', help: 'Print this text.' }];
  blocks.push(section('Flags', own));
  blocks.push(...(text.sections ?? []));
  blocks.push(...(text.notes ?? []).map((note) => wrapped(note, '')));
  return `${blocks.join('\n\n')}\n`;
}

/** Flags with their help under a heading. */
export const section = (title: string, flags: readonly Flag[]): string =>
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
