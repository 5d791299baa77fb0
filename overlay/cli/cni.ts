/** `vtepd cni`: puts the CNI plugin and its configuration in place, shows it, takes it away. */
import { join } from 'node:path';
import { conflistToInstall, installCni, removeCni } from '../../cni-shim/install.ts';
import { loadOptions } from '../config/load-options.ts';
import type { OptionName } from '../config/options.ts';
import { socketPath } from '../config/settings.ts';
import { readTakenOver } from '../migrate/taken-over.ts';
import { packageRoot } from '../ops/package.ts';
import { printable } from '../ops/redact.ts';
import { type Flag, isOn, JSON_FLAG, parseArguments, UsageError } from './arguments.ts';
import { type Command, type CommandIo, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

/** Where runtimes look unless they are told otherwise. */
const DEFAULT_CONF_DIR = '/etc/cni/net.d';

const OPTIONS = [
  'config',
  'run-dir',
  'bridge',
  'cni-conf-dir',
  'cni-conf-file',
  'cni-bin-dir',
  'state-dir',
] as const satisfies readonly OptionName[];

const KEEP_PLUGIN: Flag = {
  name: 'keep-plugin',
  placeholder: '',
  help: 'remove: leave the plugin itself, which the runtime needs to remove pods that are still there.',
};
const FLAGS = [JSON_FLAG, KEEP_PLUGIN];

export const command: Command = {
  name: 'cni',
  summary: 'Install, print or remove the CNI plugin and its configuration',
  usage: helpText({
    forms: ['vtepd cni install|print|remove [--json] [options]'],
    about: [
      `install: copies the plugin to --cni-bin-dir and writes its configuration to --cni-conf-dir (${DEFAULT_CONF_DIR} unless given), each whole or not at all. A daemon that has --cni-conf-dir does it itself, once pods can really be attached.`,
      'print: the configuration that install would write. remove: takes both away again; pods that are attached keep their network.',
    ],
    flags: FLAGS,
    sections: optionSections(OPTIONS),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [...FLAGS, ...optionFlags(OPTIONS)]);
    const [what, ...more] = given.positionals;
    if (more.length > 0) throw new UsageError('only one of install, print and remove');
    const { values } = await loadOptions(OPTIONS, { flags: given.flags, environment: io.environment });
    const folders = { confDir: values['cni-conf-dir'] ?? DEFAULT_CONF_DIR, binDir: values['cni-bin-dir'] };
    // On a node that was taken over, the daemon goes by the names that it found.
    const takenOver = readTakenOver(values['state-dir']);
    const conflist = {
      socketPath: socketPath(values['run-dir']),
      bridge: takenOver?.bridge ?? values.bridge,
      network: takenOver?.pods === true ? takenOver.network : undefined,
      confFile: values['cni-conf-file'],
    };
    const show = (word: string, paths: readonly string[]) => list(io, isOn(given, 'json'), word, paths);
    switch (what) {
      case 'install': {
        const shimPath = join(packageRoot, 'build', 'vtepd-cni');
        return show('installed', await installCni({ ...folders, ...conflist, shimPath }));
      }
      case 'print':
        io.out(await conflistToInstall(conflist));
        return EXIT_OK;
      case 'remove':
        return show('removed', await removeCni(folders, { keepPlugin: isOn(given, 'keep-plugin') }));
      default:
        throw new UsageError('say install, print or remove');
    }
  },
};

function list(io: CommandIo, isJson: boolean, word: string, paths: readonly string[]): number {
  if (isJson) io.out(`${JSON.stringify({ [word]: paths })}\n`);
  else if (paths.length === 0) io.out('There was nothing of ours.\n');
  else io.out(paths.map((path) => `${word} ${printable(path)}\n`).join(''));
  return EXIT_OK;
}
