/** `vtepd cleanup`: takes everything of ours off this node. */
import { connect } from 'node:net';
import { loadSettings } from '../config/load-settings.ts';
import { OPTION_NAMES } from '../config/options.ts';
import { secretsOf } from '../config/settings.ts';
import { forgetTakenOver } from '../migrate/taken-over.ts';
import { printable } from '../ops/redact.ts';
import { isOn, JSON_FLAG, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

/** It would build up again what is taken away. */
class DaemonRunningError extends Error {
  override readonly name = 'DaemonRunningError';
  readonly code = 'VTEPD_DAEMON_RUNNING';
}

export const command: Command = {
  name: 'cleanup',
  summary: 'Remove everything of ours from this node, and say what',
  usage: helpText({
    forms: ['vtepd cleanup [--json] [options]'],
    about: [
      "Removes what an ended daemon left in this network namespace, so that its pods kept their network: the VXLAN device and the bridge, routes, nexthops, neighbours, nftables' tables, the pods' host ends, subnet.env. Strangers' objects are not touched, nor is the state directory (but for the record of what was taken over from flannel), and the lease stays in the store until it expires.",
      'Give it the options that the daemon had; stop the daemon first.',
    ],
    flags: [JSON_FLAG],
    sections: optionSections(OPTION_NAMES),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [JSON_FLAG, ...optionFlags(OPTION_NAMES)]);
    refusePositionals(given);
    const { settings } = await loadSettings({ flags: given.flags, environment: io.environment });
    const { socket } = settings.files;
    if (await isServed(socket)) {
      throw new DaemonRunningError(
        `a daemon is running (${socket} answers): stop it first, it would repair everything`,
      );
    }
    const [{ openLog }, { cleanUp }] = await Promise.all([
      import('../ops/open-log.ts'),
      import('../reconcile/cleanup.ts'),
    ]);
    const log = openLog({ ...settings.log, secrets: secretsOf(settings) });
    try {
      const { removed } = await cleanUp({ settings, log, signal: io.signal });
      // Its names went with its devices: the next daemon begins anew.
      forgetTakenOver(settings.files.stateDir);
      if (isOn(given, 'json')) io.out(`${JSON.stringify({ removed })}\n`);
      else if (removed.length === 0) io.out('There was nothing of ours.\n');
      else io.out(removed.map((what) => `removed ${printable(what)}\n`).join(''));
      return EXIT_OK;
    } finally {
      await log.close();
    }
  },
};

/** Whether anybody listens on the unix socket. */
const isServed = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
