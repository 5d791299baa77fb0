/** `vtepd status`: what the daemon on this node says of itself. */
import { loadOptions } from '../config/load-options.ts';
import type { OptionName } from '../config/options.ts';
import { askStatus, StatusUnavailableError } from '../ops/ask-status.ts';
import { renderStatus } from '../ops/render-status.ts';
import { type Flag, isOn, JSON_FLAG, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_FAILED, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

const OPTIONS = ['config', 'http'] as const satisfies readonly OptionName[];
const ALL_FLAG: Flag = { name: 'all', placeholder: '', help: 'List every peer and pod, however many.' };
const FLAGS = [JSON_FLAG, ALL_FLAG];

/** Rows of a table before `--all` is asked for. */
const MAX_ROWS = 20;

export const command: Command = {
  name: 'status',
  summary: 'Say how the daemon on this node is: lease, device, peers, pods, store',
  usage: helpText({
    forms: ['vtepd status [--json] [--all] [options]'],
    about: [
      'Asks the running daemon over HTTP. Read it from the top: ready or why not, then each part, with what is missing of each peer. Exit code 0 when the daemon answered and is ready, 1 otherwise.',
    ],
    flags: FLAGS,
    sections: optionSections(OPTIONS),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [...FLAGS, ...optionFlags(OPTIONS)]);
    refusePositionals(given);
    const { values } = await loadOptions(OPTIONS, { flags: given.flags, environment: io.environment });
    if (values.http === undefined) {
      throw new StatusUnavailableError('--http is off in this configuration: the daemon serves no status');
    }
    const { report, body } = await askStatus(values.http, io.signal);
    const maxRows = isOn(given, 'all') ? Number.POSITIVE_INFINITY : MAX_ROWS;
    io.out(isOn(given, 'json') ? body : renderStatus(report, { maxRows, now: new Date() }));
    return report.ready ? EXIT_OK : EXIT_FAILED;
  },
};
