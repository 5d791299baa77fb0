/**
 * flanneld's flags, every one of them (flannel v0.28, main.go, and klog's that it has), and what becomes of each
 * here. manifests/flannel.md has this table, and a test holds the two together.
 *
 * `same`: one of our options has its name and meaning. `translated`: it becomes another option, or a default of
 * ours. `ignored`: it changes nothing, and nothing is missing for it; said in a warning, unless the value given
 * asks for what is so anyway. `refused`: what it asks for cannot be had.
 */
import { type OptionName, optionOf } from '../config/options.ts';
import { didYouMean } from '../config/settings-error.ts';
import { UsageError } from './arguments.ts';

export interface FlannelFlag {
  readonly name: string;
  /** flannel's; the empty text where there is none. */
  readonly standard: string;
  /** It needs no value, and takes one behind `=` only. */
  readonly isSwitch?: boolean;
  readonly treatment: 'same' | 'translated' | 'ignored' | 'refused';
  /** What becomes of it, or why it is refused or ignored; a sentence's end. */
  readonly note: string;
}

const same = (name: OptionName, standard = ''): FlannelFlag => ({
  name,
  standard,
  isSwitch: optionOf(name).kind.placeholder === '',
  treatment: 'same',
  note: '',
});
const translated = (name: string, standard: string, note: string, isSwitch = false): FlannelFlag => ({
  name,
  standard,
  isSwitch,
  treatment: 'translated',
  note,
});
const ignored = (name: string, standard: string, note: string, isSwitch = false): FlannelFlag => ({
  name,
  standard,
  isSwitch,
  treatment: 'ignored',
  note,
});
const refused = (name: string, standard: string, note: string, isSwitch = false): FlannelFlag => ({
  name,
  standard,
  isSwitch,
  treatment: 'refused',
  note,
});

const LOG = 'vtepd logs to standard error, whole lines';
const GONE = 'flannel itself has it no more';

export const FLANNEL_FLAGS: readonly FlannelFlag[] = [
  {
    ...same('etcd-endpoints'),
    note: 'vtepd’s default is http://127.0.0.1:2379 alone: on port 4001 etcd v2 was',
  },
  same('etcd-prefix', '/coreos.com/network'),
  same('etcd-keyfile'),
  same('etcd-certfile'),
  same('etcd-cafile'),
  same('etcd-username'),
  same('etcd-password'),
  same('iface'),
  { ...same('iface-regex'), note: 'a JavaScript pattern: Go’s `(?i)` and its like are refused' },
  { ...same('iface-can-reach'), note: 'beside --iface or --iface-regex it is ignored, as flannel does' },
  { ...same('subnet-file', '/run/flannel/subnet.env'), note: 'with flannel’s default' },
  same('public-ip'),
  same('public-ipv6'),
  { ...same('subnet-lease-renew-margin', '60'), note: 'minutes, from 1 to 1439' },
  { ...same('ip-masq', 'false'), note: 'with flannel’s default, which is not vtepd’s' },
  ignored('ip-masq-fully-random-disable', 'false', 'source ports are always chosen at random', true),
  translated('kube-subnet-mgr', 'false', '`--store kubernetes`', true),
  same('kube-api-url'),
  refused('kube-annotation-prefix', 'flannel.alpha.coreos.com', 'another than the default cannot be had'),
  same('kubeconfig-file'),
  {
    ...same('net-config-path', '/etc/kube-flannel/net-conf.json'),
    note: 'without --kube-subnet-mgr it is ignored, as flannel does',
  },
  translated('healthz-ip', '0.0.0.0', 'the address of `--healthz`'),
  translated('healthz-port', '0', 'the port of `--healthz`; 0: off'),
  ignored('iptables-resync', '5', 'what somebody changes is put right at once'),
  ignored(
    'iptables-forward-rules',
    'true',
    'vtepd adds no rules that accept; `vtepd status` names a chain that drops',
    true,
  ),
  refused('ip-blackhole-route', 'false', 'there is no such route', true),
  ignored('set-node-network-unavailable', 'true', 'with --kube-subnet-mgr the condition is always set', true),
  translated('version', 'false', 'prints vtepd’s version', true),
  translated('help', 'false', 'prints this list', true),
  translated('v', '0', '`--log-level debug` from 1 on'),
  ignored('vmodule', '', LOG),
  ignored('log_backtrace_at', '', LOG),
  ignored('logtostderr', 'true', LOG, true),
  ignored('alsologtostderr', 'false', LOG, true),
  ignored('stderrthreshold', '2', LOG),
  ignored('legacy_stderr_threshold_behavior', 'true', LOG, true),
  ignored('log_dir', '', LOG),
  ignored('log_file', '', LOG),
  ignored('log_file_max_size', '1800', LOG),
  ignored('add_dir_header', 'false', LOG, true),
  ignored('skip_headers', 'false', LOG, true),
  ignored('skip_log_headers', 'false', LOG, true),
  ignored('one_output', 'false', LOG, true),
  refused('use-multi-cluster-cidr', 'false', GONE, true),
  refused('charon-executable-path', '', 'there is no IPsec backend'),
  refused('charon-vici-uri', '', 'there is no IPsec backend'),
  refused('listen', '', GONE),
  refused('remote', '', GONE),
  refused('remote-keyfile', '', GONE),
  refused('remote-certfile', '', GONE),
  refused('remote-cafile', '', GONE),
  refused('networks', '', GONE),
  refused('watch-networks', 'false', GONE, true),
  refused('subnet-dir', '/run/flannel/networks', GONE),
];

/** `healthz-port` -> `FLANNELD_HEALTHZ_PORT` */
export const flannelEnvironmentName = (name: string): string =>
  `FLANNELD_${name.toUpperCase().replaceAll('-', '_')}`;

export interface GivenFlags {
  /** In the order given; what flannel takes from its environment is here as well. */
  readonly values: ReadonlyMap<string, readonly string[]>;
}

/**
 * As Go's flag package reads a command line: one dash or two, `-name value` or `-name=value`, a switch's value
 * behind `=` only. A flag wins over its variable, which counts when it is not empty. @throws UsageError
 */
export function readFlannelFlags(
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): GivenFlags {
  const values = new Map<string, string[]>();
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (word === '--' || !word.startsWith('-') || word === '-') {
      const extra = word === '--' ? argv[i + 1] : word;
      if (extra !== undefined) throw new UsageError(`"${extra.slice(0, 64)}" is not expected here`);
      break;
    }
    const [name, text] = nameAndValue(word);
    const flag = flagNamed(name);
    const value = text ?? (flag.isSwitch === true ? 'true' : argv[++i]);
    if (value === undefined) throw new UsageError(`-${name} needs a value`);
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  for (const { name } of FLANNEL_FLAGS) {
    const value = environment[flannelEnvironmentName(name)];
    if (value !== undefined && value !== '' && !values.has(name)) values.set(name, [value]);
  }
  return { values };
}

/** The value may be a secret: it goes into no message. */
function nameAndValue(word: string): readonly [string, string | undefined] {
  const equals = word.indexOf('=');
  const name = word.slice(0, equals < 0 ? undefined : equals).replace(/^--?/, '');
  return [name, equals < 0 ? undefined : word.slice(equals + 1)];
}

function flagNamed(name: string): FlannelFlag {
  const flag = FLANNEL_FLAGS.find((each) => each.name === (name === 'h' ? 'help' : name));
  if (flag !== undefined) return flag;
  const names = FLANNEL_FLAGS.map((each) => each.name);
  throw new UsageError(`unknown flag -${name}${didYouMean(name, names, '-')}`);
}

/** strconv.ParseBool's. @throws UsageError */
export function flannelSwitch(name: string, text: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw new UsageError(`-${name} is a switch: true or false`);
}

const WORDS: Readonly<Record<FlannelFlag['treatment'], string>> = {
  same: 'the same',
  translated: 'translated',
  ignored: 'ignored',
  refused: 'refused',
};

/** The table of manifests/flannel.md. */
export function flannelFlagsTable(): string {
  const rows = FLANNEL_FLAGS.map(({ name, standard, treatment, note }) => {
    const cell = standard === '' ? '' : `\`${standard}\``;
    return `| \`--${name}\` | ${cell} | ${WORDS[treatment]} | ${note} |`;
  });
  return ['| flag | flannel’s default | here | |', '|---|---|---|---|', ...rows].join('\n');
}
