/** `vtepd migrate`: takes a node over from flannel, and gives it back. */
import { loadSettings } from '../config/load-settings.ts';
import { OPTION_NAMES } from '../config/options.ts';
import { type Settings, secretsOf } from '../config/settings.ts';
import type { Step } from '../migrate/take-over-plan.ts';
import { printable } from '../ops/redact.ts';
import { type Flag, isOn, JSON_FLAG, parseArguments, refusePositionals, UsageError } from './arguments.ts';
import { type Command, type CommandIo, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

const FROM: Flag = { name: 'from', placeholder: 'flannel', help: 'Take this node over from flannel.' };
const BACK: Flag = { name: 'back', placeholder: '', help: 'Give this node back to flannel.' };
const DRY_RUN: Flag = {
  name: 'dry-run',
  placeholder: '',
  help: 'Say what would be done, and change nothing.',
};
const FLAGS = [FROM, BACK, DRY_RUN, JSON_FLAG];

/** A command's caller waits; the daemon waits longer. */
const STORE_PATIENCE_MS = 10_000;

export const command: Command = {
  name: 'migrate',
  summary: 'Take this node over from flannel, pods untouched, or give it back',
  usage: helpText({
    forms: [
      'vtepd migrate --from flannel [--dry-run] [--json] [options]',
      'vtepd migrate --back [--dry-run] [--json] [options]',
    ],
    about: [
      '--from flannel: with flanneld stopped, its devices (flannel.<VNI>, cni0) become vtepd’s under their names and with their MACs, its pods become vtepd’s attachments, and host-local’s addresses stay reserved. What flannel has in routes, packet filter rules and CNI configuration goes when the daemon stands in its place. `vtepd run` does the same by itself when it starts where flannel was (--take-over none keeps it from that); this command says beforehand what will be, or does it at a time of your choosing.',
      '--back: with the daemon stopped, routes, names, addresses and CNI configuration are made as flannel expects them; start flanneld then. Pods that vtepd attached stay as well.',
      'Running connections go on in both directions. Give it the options that the daemon has. The nodes of a cluster may change over one after another, in any order and at any pace: vtepd and flannel share the leases. manifests/flannel.md has the whole course.',
    ],
    flags: FLAGS,
    sections: optionSections(OPTION_NAMES),
    notes: ['Exit codes: 0 done (or could be), 1 not possible, with the reason, 2 wrong usage.'],
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [...FLAGS, ...optionFlags(OPTION_NAMES)]);
    refusePositionals(given);
    const from = given.flags.get('from')?.at(-1);
    const isBack = isOn(given, 'back');
    if ((from === undefined) === !isBack) throw new UsageError('say either --from flannel or --back');
    if (from !== undefined && from !== 'flannel') {
      throw new UsageError(`--from ${printable(from)}: there is a way from flannel only`);
    }
    const { settings } = await loadSettings({ flags: given.flags, environment: io.environment });
    for (const secret of secretsOf(settings)) io.hide(secret);
    const [isDryRun, isJson] = [isOn(given, 'dry-run'), isOn(given, 'json')];
    const steps = isBack
      ? await (await import('../migrate/give-back.ts')).giveBack({ settings, dryRun: isDryRun })
      : await takeOver(settings, isDryRun, io);
    if (isJson) io.out(`${JSON.stringify({ dryRun: isDryRun, steps })}\n`);
    else io.out(text(steps, isBack, isDryRun));
    return EXIT_OK;
  },
};

async function takeOver(settings: Settings, isDryRun: boolean, io: CommandIo): Promise<readonly Step[]> {
  const [{ openLog }, { NetlinkSocket }, { carryOut, makePlan, TakeOverRefusedError }, { isRefusal }, taken] =
    await Promise.all([
      import('../ops/open-log.ts'),
      import('../kernel/netlink-socket.ts'),
      import('../migrate/take-over.ts'),
      import('../migrate/take-over-plan.ts'),
      import('../migrate/taken-over.ts'),
    ]);
  const before = taken.readTakenOver(settings.files.stateDir);
  if (before?.complete === true) {
    throw new TakeOverRefusedError('this node has been taken over already: start vtepd, or go --back first');
  }
  const log = openLog({ level: 'warn', format: settings.log.format, secrets: secretsOf(settings) });
  const options = { settings, log, signal: io.signal, patienceMs: STORE_PATIENCE_MS };
  using netlink = NetlinkSocket.open();
  try {
    const plan = await makePlan(netlink, options);
    if (isRefusal(plan)) throw new TakeOverRefusedError(plan.reason);
    if (!isDryRun) await carryOut(netlink, plan, options);
    return plan.steps;
  } finally {
    await log.close();
  }
}

function text(steps: readonly Step[], isBack: boolean, isDryRun: boolean): string {
  const lines = steps.map(({ kind, what }) => `${kind.padEnd(8)} ${printable(what)}\n`);
  const next = isDryRun
    ? 'Nothing was changed.'
    : isBack
      ? 'Now start flanneld.'
      : 'Now start vtepd (vtepd run), with the same options.';
  return `${lines.join('')}\n${next}\n`;
}
