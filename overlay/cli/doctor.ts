/** `vtepd doctor`: what is wrong with this node, why, and what to do, found from the outside. */
import { loadSettings } from '../config/load-settings.ts';
import { OPTION_NAMES } from '../config/options.ts';
import { secretsOf } from '../config/settings.ts';
import { readTakenOver, withTakenOver } from '../migrate/taken-over.ts';
import { isOn, JSON_FLAG, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_FAILED, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

export const command: Command = {
  name: 'doctor',
  summary: 'Examine this node: what is wrong, why, and what to do about it',
  usage: helpText({
    forms: ['vtepd doctor [--json] [options]'],
    about: [
      'Looks at the kernel, the daemon, the store, the underlay, the VXLAN port, MTUs, leases, routes, packet filters, peers and CNI, with the daemon running or not, and asks a few peers for an echo through the tunnel. It changes nothing. For each thing that is wrong it says why and what to do.',
      'Give it the options that the daemon has, and run it as root, in the network namespace of the daemon. Exit code 0 when nothing is broken (warnings aside), 1 otherwise.',
    ],
    flags: [JSON_FLAG],
    sections: optionSections(OPTION_NAMES),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [JSON_FLAG, ...optionFlags(OPTION_NAMES)]);
    refusePositionals(given);
    const sources = { flags: given.flags, environment: io.environment };
    const { settings, warnings } = await loadSettings(sources);
    for (const secret of secretsOf(settings)) io.hide(secret);
    for (const warning of warnings) io.err(`warning: ${warning}\n`);
    const [{ gather }, { examine }, { renderDoctor }] = await Promise.all([
      import('../doctor/gather.ts'),
      import('../doctor/examine.ts'),
      import('../doctor/render.ts'),
    ]);
    const named = withTakenOver(settings, readTakenOver(settings.files.stateDir));
    const report = examine(await gather(named, io.signal));
    io.out(isOn(given, 'json') ? `${JSON.stringify(report)}\n` : renderDoctor(report));
    return report.healthy ? EXIT_OK : EXIT_FAILED;
  },
};
