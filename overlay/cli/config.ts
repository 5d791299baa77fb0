/** `vtepd config`: what the configuration is, whether it can be used, and what it could be. */
import { checkFiles } from '../config/check-files.ts';
import { effectiveText, exampleText, fileSchema } from '../config/example.ts';
import { loadSettings } from '../config/load-settings.ts';
import { OPTION_NAMES } from '../config/options.ts';
import { SettingsError } from '../config/settings-error.ts';
import { type Arguments, isOn, JSON_FLAG, parseArguments, UsageError } from './arguments.ts';
import { type Command, type CommandIo, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

const FLAGS = [JSON_FLAG, ...optionFlags(OPTION_NAMES)];

export const command: Command = {
  name: 'config',
  summary: 'Print, check and explain the configuration',
  usage: helpText({
    forms: [
      'vtepd config print [--json] [options]',
      'vtepd config check [options]',
      'vtepd config example',
      'vtepd config schema',
    ],
    about: [
      'print: the configuration that `vtepd run` with the same options, environment and file would have, and where each value comes from. Secrets show as ***.',
      'check: says whether that configuration can be used, the files that it names included. Exit code 2 if not.',
      'example: an annotated configuration file. schema: its JSON Schema, for editors.',
    ],
    flags: [JSON_FLAG],
    sections: optionSections(OPTION_NAMES),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, FLAGS);
    const [what, ...more] = given.positionals;
    if (more.length > 0) throw new UsageError(`only one of print, check, example and schema`);
    switch (what) {
      case 'print':
        return print(given, io);
      case 'check':
        return check(given, io);
      case 'example':
        io.out(exampleText());
        return EXIT_OK;
      case 'schema':
        io.out(`${JSON.stringify(fileSchema(), null, 2)}\n`);
        return EXIT_OK;
      default:
        throw new UsageError('say print, check, example or schema');
    }
  },
};

async function print(given: Arguments, io: CommandIo): Promise<number> {
  const { origins, warnings } = await loadSettings({ flags: given.flags, environment: io.environment });
  for (const warning of warnings) io.err(`warning: ${warning}\n`);
  if (!isOn(given, 'json')) {
    io.out(effectiveText(origins));
    return EXIT_OK;
  }
  const rows = [...origins].map(([name, { shown, source, where }]) => [
    name,
    { value: shown, source, where },
  ]);
  io.out(`${JSON.stringify(Object.fromEntries(rows), null, 2)}\n`);
  return EXIT_OK;
}

async function check(given: Arguments, io: CommandIo): Promise<number> {
  const { settings, warnings } = await loadSettings({ flags: given.flags, environment: io.environment });
  const files = await checkFiles(settings);
  for (const warning of [...warnings, ...files.warnings]) io.err(`warning: ${warning}\n`);
  if (files.problems.length > 0) throw new SettingsError(files.problems);
  io.out('The configuration can be used.\n');
  return EXIT_OK;
}
