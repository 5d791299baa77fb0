/** `vtepd run`: the daemon. Reads and checks the configuration; overlay/main.ts does the rest. */

import type { Sources } from '../config/load-options.ts';
import { loadSettings } from '../config/load-settings.ts';
import { OPTION_NAMES } from '../config/options.ts';
import { secretsOf } from '../config/settings.ts';
import { packageVersion } from '../ops/package.ts';
import { readServiceEnvironment } from '../ops/sd-notify.ts';
import { parseArguments, refusePositionals } from './arguments.ts';
import { type Command, type CommandIo, EXIT_FAILED, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

export const command: Command = {
  name: 'run',
  summary: 'Run the daemon: lease a subnet, build the overlay, serve CNI',
  usage: helpText({
    forms: ['vtepd run [options]'],
    about: [
      'Runs in the foreground and logs to standard error. The first SIGTERM or SIGINT ends it and leaves the data path and the lease in place, so that pods keep their network while it is away (--release-on-exit gives the lease back; `vtepd cleanup` removes everything). A second one ends it at once. With --datapath userspace the packets of that time wait for the next daemon, for half a minute at most.',
      'Each option can stand in the environment as well, and in the YAML file that --config names: see `vtepd config example`.',
      'On SIGHUP, and when that file changes, the configuration is read again and checked as `vtepd config check` does: one with a mistake is refused whole, and the one in use stays. Log, masquerading, filters, intervals, endpoints and credentials of the store (and their certificates, on SIGHUP), lease times, the choice of the underlay and the HTTP address take effect at once; the log and `vtepd status` name what needs a restart.',
    ],
    sections: optionSections(OPTION_NAMES),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, optionFlags(OPTION_NAMES));
    refusePositionals(given);
    return runDaemon(given.flags, io);
  },
};

/**
 * Until it is told to end. @param flags the texts given for each option
 * @param more warnings, besides those of the configuration
 */
export async function runDaemon(
  flags: Sources['flags'],
  io: CommandIo,
  more: readonly string[] = [],
): Promise<number> {
  // From the first moment on: one that comes while the daemon starts must not end it.
  let hangup = (): void => {};
  process.on('SIGHUP', () => hangup());
  const onHangup = (listener: () => void): void => {
    hangup = listener;
  };
  const sources = { flags, environment: io.environment };
  const loaded = await loadSettings(sources);
  const { settings: wished, warnings } = loaded;
  const secrets = secretsOf(wished);
  for (const secret of secrets) io.hide(secret);
  const [{ openLog }, { startDaemon }, { settleTakeOver }, { withTakenOver }] = await Promise.all([
    import('../ops/open-log.ts'),
    import('../main.ts'),
    import('../migrate/take-over.ts'),
    import('../migrate/taken-over.ts'),
  ]);
  const log = openLog({ ...wished.log, secrets });
  try {
    log.info('vtepd starts', {
      version: packageVersion,
      node: wished.nodeName,
      store: wished.store.kind,
    });
    for (const warning of [...warnings, ...more]) log.warn(warning);
    const load = async () => {
      const again = await loadSettings(sources);
      for (const secret of secretsOf(again.settings)) {
        io.hide(secret);
        log.hide(secret);
      }
      return again;
    };
    const file = loaded.configFile;
    const service = readServiceEnvironment(io.environment, process.pid);
    const takenOver = await settleTakeOver({ settings: wished, log, signal: io.signal });
    const started = { ...loaded, settings: withTakenOver(wished, takenOver) };
    const source = { loaded: started, takenOver, file, load, setLog: log.configure, onHangup };
    await startDaemon(source, log, io.signal, service);
    return EXIT_OK;
  } catch (error) {
    // Ended while it was starting: as asked.
    if (io.signal.aborted && error === io.signal.reason) return EXIT_OK;
    log.error('vtepd ends', { error });
    return EXIT_FAILED;
  } finally {
    await log.close();
  }
}
