/** `vtepd flanneld`, and `flanneld` by its own name: the daemon for units and manifests written for flannel's. */
import { environmentName, type OptionName } from '../config/options.ts';
import { packageVersion } from '../ops/package.ts';
import { UsageError } from './arguments.ts';
import { type Command, EXIT_OK } from './command.ts';
import {
  FLANNEL_FLAGS,
  type FlannelFlag,
  flannelEnvironmentName,
  flannelSwitch,
  readFlannelFlags,
} from './flannel-flags.ts';
import { wrapped } from './help.ts';

const INDENT = '      ';

export const command: Command = {
  name: 'flanneld',
  summary: 'The daemon with flannel’s flags and variables, in flanneld’s place',
  usage: usage(),
  async run(argv, io) {
    const { values } = readFlannelFlags(argv, io.environment);
    const has = (name: string): boolean =>
      values.has(name) && flannelSwitch(name, values.get(name)?.at(-1) ?? '');
    if (has('help') || values.has('h')) {
      io.out(usage());
      return EXIT_OK;
    }
    if (has('version')) {
      io.err(`vtepd ${packageVersion}\n`);
      return EXIT_OK;
    }
    const { flags, warnings } = translate(values, io.environment);
    const { runDaemon } = await import('./run.ts');
    return runDaemon(flags, io, warnings);
  },
};

export interface Translated {
  /** For our own options. */
  readonly flags: ReadonlyMap<string, readonly string[]>;
  readonly warnings: readonly string[];
}

/**
 * Our options for what was asked in flannel's words. Where flannel has a default of its own, or is by nature what
 * we are only when told (its names of devices), that holds, unless a VTEPD_ variable says otherwise.
 * @throws UsageError naming the flag that cannot be honoured
 */
export function translate(
  values: ReadonlyMap<string, readonly string[]>,
  environment: Readonly<Record<string, string | undefined>>,
): Translated {
  const flags = new Map<OptionName, readonly string[]>();
  const warnings: string[] = [];
  const last = (name: string): string | undefined => values.get(name)?.at(-1);
  for (const flag of FLANNEL_FLAGS) {
    const given = values.get(flag.name);
    if (given === undefined) continue;
    const text = given.at(-1) ?? '';
    if (flag.treatment === 'refused' && !asksForTheDefault(flag, text))
      throw new UsageError(`--${flag.name} cannot be honoured: ${flag.note}`);
    if (flag.treatment === 'ignored' && !asksForTheDefault(flag, text))
      warnings.push(`--${flag.name} is ignored: ${flag.note}`);
    // Go takes an empty text for "not given".
    if (flag.treatment !== 'same' || given.every((each) => each === '')) continue;
    const texts = flag.isSwitch === true ? [String(flannelSwitch(flag.name, text))] : given;
    flags.set(flag.name as OptionName, texts);
  }
  const isKubernetes = flannelSwitch('kube-subnet-mgr', last('kube-subnet-mgr') ?? 'false');
  if (isKubernetes) flags.set('store', ['kubernetes']);
  else dropWithoutKubernetes(flags, warnings);
  if (flags.has('iface-can-reach') && (flags.has('iface') || flags.has('iface-regex'))) {
    flags.delete('iface-can-reach');
    warnings.push('--iface-can-reach is ignored beside --iface and --iface-regex');
  }
  checkMargin(last('subnet-lease-renew-margin'));
  if (wholeNumber('v', last('v') ?? '0') > 0) flags.set('log-level', ['debug']);
  const healthz = healthzOf(
    last('healthz-ip') ?? '0.0.0.0',
    wholeNumber('healthz-port', last('healthz-port') ?? '0'),
  );
  if (healthz !== undefined) flags.set('healthz', [healthz]);
  const standard = (name: OptionName, text: string): void => {
    const own = environment[environmentName(name)];
    if (!flags.has(name) && (own === undefined || own === '')) flags.set(name, [text]);
  };
  standard('subnet-file', '/run/flannel/subnet.env');
  standard('ip-masq', 'false');
  standard('device', 'flannel.<VNI>');
  standard('bridge', 'cni0');
  // Without a CNI configuration of ours, pods are made by flannel's plugins, as with flanneld.
  if (!environment[environmentName('cni-conf-dir')]) standard('take-over', 'devices');
  return { flags, warnings };
}

/** What flannel does not look at without --kube-subnet-mgr. */
function dropWithoutKubernetes(flags: Map<OptionName, readonly string[]>, warnings: string[]): void {
  for (const name of ['net-config-path', 'kubeconfig-file', 'kube-api-url'] as const) {
    if (flags.delete(name)) warnings.push(`--${name} is ignored without --kube-subnet-mgr`);
  }
}

const asksForTheDefault = ({ name, standard, isSwitch }: FlannelFlag, text: string): boolean =>
  isSwitch === true
    ? flannelSwitch(name, text) === flannelSwitch(name, standard)
    : text === standard || text === '';

/** flannel's range. @throws UsageError */
function checkMargin(text: string | undefined): void {
  if (text === undefined) return;
  const minutes = wholeNumber('subnet-lease-renew-margin', text);
  if (minutes < 1 || minutes > 1439)
    throw new UsageError('--subnet-lease-renew-margin: from 1 to 1439 minutes');
}

function healthzOf(ip: string, port: number): string | undefined {
  if (port > 65_535) throw new UsageError('--healthz-port: a port is at most 65535');
  return port === 0 ? undefined : `${ip.includes(':') ? `[${ip}]` : ip}:${port}`;
}

function wholeNumber(name: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`--${name} must be a whole number`);
  return Number(text);
}

function usage(): string {
  const about = [
    'The daemon, as `vtepd run` runs it, with the flags of flannel’s flanneld: with one dash or two, or as FLANNELD_* variables. Its devices have flannel’s names (flannel.<VNI>, cni0), subnet.env is where flannel’s plugins look for it, and pods are theirs unless VTEPD_CNI_CONF_DIR is set. Options that flannel has no flag for are set by VTEPD_* variables: see `vtepd config example`.',
    'Where flannel ran before, its devices are taken over as they stand: stop flanneld first. manifests/flannel.md says more.',
  ];
  const entries = FLANNEL_FLAGS.map((flag) => {
    const fate = flag.treatment === 'same' ? 'as vtepd’s own option' : flag.treatment;
    const note = flag.note === '' ? fate : `${fate}: ${flag.note}`;
    const standard = flag.standard === '' ? '' : `\n${INDENT}[default: ${flag.standard}]`;
    return `  --${flag.name}\n${wrapped(note, INDENT)}${standard} [${flannelEnvironmentName(flag.name)}]`;
  });
  return `Usage: vtepd flanneld [flags]\n       flanneld [flags]\n\n${about.map((text) => wrapped(text, '')).join('\n\n')}\n\nFlags:\n${entries.join('\n')}\n`;
}
