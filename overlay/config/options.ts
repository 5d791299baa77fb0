/**
 * The one table of options. Flags, environment variables, the configuration file, `--help`, the annotated
 * example (manifests/vtepd-config.example.yaml) and the JSON schema all come from it: an option is described here or not
 * at all. Where flannel has a flag for something, ours has its name.
 */
import type { Address } from '../../store/address.ts';
import { LOG_FORMATS, LOG_LEVELS } from '../ops/log.ts';
import {
  addressKind,
  choice,
  deviceKind,
  duration,
  interfaceOrAddress,
  type Kind,
  matching,
  path,
  regex,
  secret,
  switchKind,
  vxlanDeviceKind,
  word,
} from './kinds.ts';
import { apiUrl, type Endpoint, endpoint, listenAddress } from './network-kinds.ts';

export const GROUPS = {
  general: 'General',
  store: 'Where leases live',
  lease: "This node's lease",
  underlay: 'The underlay',
  overlay: 'The overlay',
  files: 'Files',
  cni: 'CNI',
  operations: 'Operations',
} as const;
export type Group = keyof typeof GROUPS;

interface Description {
  readonly group: Group;
  /** What it decides, in one sentence; `--help` and the example show it. */
  readonly help: string;
  /** What else an operator should know: the example shows it. */
  readonly details?: string;
  /** Changed in the file while the daemon runs, it takes effect at once. Others need a restart. */
  readonly live?: boolean;
  /** A value to show where there is no plain default. */
  readonly example?: string;
}

export interface Option<T> extends Description {
  readonly kind: Kind<unknown>;
  /** Several values: a flag may be repeated, a file may hold a sequence. */
  readonly list: boolean;
  /** Divides several values in one text; absent: one text is one value. */
  readonly separator?: string | undefined;
  /** As one would write it. */
  readonly defaultText?: string | undefined;
  /** Says what happens without it, where there is no plain default. */
  readonly defaultNote?: string | undefined;
  /** Of the type level only: what the option's value is. */
  readonly value?: T;
}

function withDefault<T>(kind: Kind<T>, defaultText: string, description: Description): Option<T> {
  return { ...description, kind, list: false, defaultText };
}

function optional<T>(kind: Kind<T>, defaultNote: string, description: Description): Option<T | undefined> {
  return { ...description, kind, list: false, defaultNote };
}

interface ListDescription extends Description {
  readonly separator?: string;
  readonly defaultText?: string;
  readonly defaultNote?: string;
}

const listOf = <T>(kind: Kind<T>, description: ListDescription): Option<readonly T[]> => ({
  ...description,
  kind,
  list: true,
});

const general = {
  config: optional(path, 'none', {
    group: 'general',
    help: 'A YAML file of options, named as the flags are. Flags win over the environment (VTEPD_UPPER_SNAKE), that over the file, that over the defaults.',
  }),
  'node-name': optional(
    matching(
      /^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/,
      'NAME',
      'must be a host name: letters, digits, ".", "_" and "-"',
    ),
    'the host name',
    {
      group: 'general',
      example: 'worker-1',
      help: 'What this node calls itself in logs, status and metrics; with --store kubernetes the name of its Node.',
      details: 'The variable NODE_NAME, which manifests for Kubernetes set, is read as well.',
    },
  ),
};

const store = {
  store: withDefault(choice(['etcd', 'kubernetes', 'embedded']), 'etcd', {
    group: 'store',
    help: 'Where the leases of all nodes live.',
    details:
      "etcd: an etcd v3 cluster, in flannel's schema. kubernetes: the podCIDRs and annotations of Nodes, as flannel has them. embedded: a directory of this machine that several daemons share (a lab, one host with many namespaces).",
  }),
  'etcd-endpoints': listOf<Endpoint>(endpoint, {
    group: 'store',
    live: true,
    separator: ',',
    defaultText: 'http://127.0.0.1:2379',
    help: 'Where etcd listens, several by commas.',
  }),
  'etcd-prefix': withDefault(
    matching(/^\/[^\s]*[^\s/]$/u, 'PREFIX', 'must begin with "/" and not end with one'),
    '/coreos.com/network',
    {
      group: 'store',
      help: 'The key under which etcd holds the network configuration (/config) and the leases (/subnets/).',
    },
  ),
  'etcd-cafile': optional(path, "the system's authorities", {
    group: 'store',
    live: true,
    example: '/etc/vtepd/etcd-ca.pem',
    help: "The certificate authority that etcd's certificate must come from (PEM).",
  }),
  'etcd-certfile': optional(path, 'none', {
    group: 'store',
    live: true,
    example: '/etc/vtepd/etcd-client.pem',
    help: 'The client certificate to show etcd (PEM); with --etcd-keyfile.',
  }),
  'etcd-keyfile': optional(path, 'none', {
    group: 'store',
    live: true,
    example: '/etc/vtepd/etcd-client-key.pem',
    help: 'The key of the client certificate (PEM).',
  }),
  'etcd-username': optional(word, 'none', {
    group: 'store',
    live: true,
    example: 'vtepd',
    help: 'The etcd user; with a password.',
  }),
  'etcd-password': optional(secret, 'none', {
    group: 'store',
    live: true,
    example: 'correct horse battery staple',
    help: "The etcd user's password. Everyone on the machine can read a flag: prefer the environment or a file of mode 0600.",
  }),
  'embedded-path': withDefault(path, '/var/lib/vtepd/embedded', {
    group: 'store',
    help: "The embedded store's directory; every daemon of the machine names the same one.",
  }),
  'kubeconfig-file': optional(path, "the pod's service account", {
    group: 'store',
    example: '/etc/kubernetes/kubelet.conf',
    help: 'Who we are to the Kubernetes API, and where it is; not needed in a pod.',
  }),
  'kube-api-url': optional(apiUrl, 'what the kubeconfig file, or the pod, says', {
    group: 'store',
    example: 'https://192.0.2.1:6443',
    help: 'Where the Kubernetes API is, in place of what the kubeconfig file or the pod says.',
    details: "A service account's token is shown to https:// only.",
  }),
  'net-config-path': optional(path, '/etc/kube-flannel/net-conf.json with Kubernetes, else none', {
    group: 'store',
    example: '/etc/vtepd/network.json',
    help: "The network configuration (flannel's JSON): with Kubernetes it is this file, and a change to it is followed; the embedded store is given it when it has none.",
  }),
};

const lease = {
  'subnet-lease-ttl': withDefault(duration({ minMs: 5000, maxMs: 365 * 86_400_000 }), '24h', {
    group: 'lease',
    live: true,
    help: 'How long the lease stays when this node no longer renews it.',
    details: 'A reservation (an etcd key without a lease of its own) never expires.',
  }),
  'subnet-lease-renew-margin': withDefault(
    duration({ minMs: 1000, maxMs: 24 * 3_600_000, plainUnitMs: 60_000 }),
    '60',
    {
      group: 'lease',
      live: true,
      help: 'How long before its end the lease is renewed at the latest: minutes, or a time with its unit.',
      details: "Half of the lease's time, where the lease is shorter than twice the default.",
    },
  ),
  'release-on-exit': withDefault(switchKind, 'false', {
    group: 'lease',
    live: true,
    help: 'Give the lease back when the daemon ends. Otherwise the subnet and the data path stay, so that a restart loses nothing.',
  }),
};

const underlay = {
  iface: listOf<string>(interfaceOrAddress, {
    group: 'underlay',
    live: true,
    separator: ',',
    defaultNote: "the default route's interface",
    example: 'eth0',
    help: 'The underlay interface, by name or by an address it has; the first of several that exists.',
  }),
  'iface-regex': listOf<RegExp>(regex, {
    group: 'underlay',
    live: true,
    defaultNote: 'none',
    example: '^en',
    help: 'Choose the underlay interface by a pattern of its name or address; after --iface. May be repeated.',
  }),
  'iface-can-reach': optional<Address>(addressKind(), 'none', {
    group: 'underlay',
    live: true,
    example: '192.0.2.1',
    help: 'Choose the interface that leads to this address. Not together with the two above.',
  }),
  'public-ip': optional<Address>(addressKind('ipv4'), "the underlay interface's address", {
    group: 'underlay',
    live: true,
    example: '192.0.2.10',
    help: 'The IPv4 address at which other nodes reach this one.',
  }),
  'public-ipv6': optional<Address>(addressKind('ipv6'), "the underlay interface's address", {
    group: 'underlay',
    live: true,
    example: '2001:db8::10',
    help: 'The IPv6 address at which other nodes reach this one.',
  }),
  probe: withDefault(switchKind, 'true', {
    group: 'underlay',
    help: 'Send echo requests of full size to the peers, and use smaller packets where only such get through.',
    details:
      'Needs the optional npm package raw-socket and the capability CAP_NET_RAW; without them the rest works, and status says so.',
  }),
  'probe-interval': withDefault(duration({ minMs: 1000, maxMs: 3_600_000 }), '30s', {
    group: 'underlay',
    live: true,
    help: 'How often each peer is asked while all is well; one that swallows large packets is found within that and some ten seconds.',
  }),
};

const overlay = {
  datapath: withDefault(choice(['auto', 'kernel', 'userspace']), 'auto', {
    group: 'overlay',
    help: "What carries the packets: the kernel's vxlan, or vtepd itself in user space, with the same packets on the wire. auto: the kernel's, unless it refuses the device.",
    details:
      'userspace needs /dev/net/tun. Nodes of both kinds share a cluster, and a node changes over by a restart. A network whose Backend.Type is udp selects userspace as well, unless kernel is said here.',
  }),
  device: optional(vxlanDeviceKind, 'vtep.<VNI>', {
    group: 'overlay',
    example: 'vtep.1',
    help: 'The VXLAN device’s name; the one over an IPv6 underlay has a 6 behind it.',
    details:
      'Without it, that one is called vtep6.<VNI>. <VNI> at the end of a name stands for the VNI of the network; flannel.<VNI> has flannel-v6.<VNI> beside it.',
  }),
  bridge: withDefault(deviceKind, 'vtep0', {
    group: 'overlay',
    help: 'The name of the bridge that the pods are plugged into.',
  }),
  'ip-masq': withDefault(switchKind, 'true', {
    group: 'overlay',
    live: true,
    help: "What pods send to places outside the overlay carries the node's address.",
    details:
      "flannel's default is false. Here it is true: the underlay of an overlay network knows no pod address, so without it pods reach nothing outside.",
  }),
  'peer-filter': withDefault(switchKind, 'true', {
    group: 'overlay',
    live: true,
    help: 'Accept encapsulated packets from the public addresses of known peers only, and let nothing but the data path send any.',
  }),
  'pod-filter': withDefault(switchKind, 'true', {
    group: 'overlay',
    live: true,
    help: 'Drop what a pod sends from another address or MAC than its own.',
  }),
  'take-over': withDefault(choice(['auto', 'devices', 'none']), 'auto', {
    group: 'overlay',
    help: 'Where flannel was: auto takes over its devices, pods and addresses; devices leaves pods to its CNI plugins; none leaves everything alone.',
    details:
      'It happens once, at the start, where a device flannel.<VNI> with the parameters of the network stands and no flanneld runs. The devices keep their names and MACs; see manifests/flannel.md and `vtepd migrate --help`.',
  }),
  'resync-interval': withDefault(duration({ minMs: 1000, maxMs: 3_600_000 }), '30s', {
    group: 'overlay',
    live: true,
    help: 'How often the kernel is compared with the leases although nothing announced a change.',
  }),
};

const files = {
  'state-dir': withDefault(path, '/var/lib/vtepd', {
    group: 'files',
    help: "What must survive a reboot: the VTEP's MAC, the last lease, the pods' addresses, the cached snapshot.",
  }),
  'run-dir': withDefault(path, '/run/vtepd', {
    group: 'files',
    help: "What need not: the CNI shim's socket (vtepd.sock) and subnet.env.",
  }),
  'subnet-file': optional(path, '<run-dir>/subnet.env', {
    group: 'files',
    example: '/run/flannel/subnet.env',
    help: 'Where the subnet and the MTU are written for other programs (FLANNEL_SUBNET, ...), once ready.',
  }),
};

const cni = {
  'cni-conf-dir': optional(path, 'the daemon installs nothing', {
    group: 'cni',
    example: '/etc/cni/net.d',
    help: 'Where the container runtime reads CNI configurations; given, the daemon installs its plugin and its configuration there once ready.',
    details: '`vtepd cni install` does the same once, to /etc/cni/net.d unless told otherwise.',
  }),
  'cni-conf-file': optional(path, "vtepd's own: its plugin, then portmap", {
    group: 'cni',
    example: '/etc/vtepd/cni-conf.json',
    help: "A CNI configuration list to install in the place of vtepd's own. Its vtepd-cni entry gets the socket and the bridge where it names none.",
  }),
  'cni-bin-dir': withDefault(path, '/opt/cni/bin', {
    group: 'cni',
    help: 'Where the container runtime looks for CNI plugins.',
  }),
  'cni-data-dir': withDefault(path, '/var/lib/cni', {
    group: 'cni',
    help: 'Where runtimes and the reference plugins keep what they know of pods: read when those of flannel are taken over.',
  }),
};

const operations = {
  http: withDefault(listenAddress, '127.0.0.1:9472', {
    group: 'operations',
    live: true,
    help: 'Where /healthz, /readyz, /metrics and /api/v1/status are served, or off.',
  }),
  healthz: withDefault(listenAddress, 'off', {
    group: 'operations',
    example: '0.0.0.0:10254',
    help: 'Where /healthz is served besides, and nothing else: an address for a kubelet, which --http should not be.',
  }),
  'log-level': withDefault(choice(LOG_LEVELS), 'info', {
    group: 'operations',
    live: true,
    help: 'The least that is logged.',
  }),
  'log-format': withDefault(choice(LOG_FORMATS), 'text', {
    group: 'operations',
    live: true,
    help: "Lines for people, JSON objects, or lines for systemd's journal; to standard error.",
  }),
};

export const OPTIONS = {
  ...general,
  ...store,
  ...lease,
  ...underlay,
  ...overlay,
  ...files,
  ...cni,
  ...operations,
};

export type OptionName = keyof typeof OPTIONS;
type ValueOf<O> = O extends Option<infer T> ? T : never;
export type OptionValues = { readonly [N in OptionName]: ValueOf<(typeof OPTIONS)[N]> };

export const OPTION_NAMES = Object.keys(OPTIONS) as readonly OptionName[];

export const isOptionName = (name: string): name is OptionName => Object.hasOwn(OPTIONS, name);

/** The table's row, where it does not matter what type its value has. */
export const optionOf = (name: OptionName): Option<unknown> => OPTIONS[name];

export const isSwitch = (option: Option<unknown>): boolean => option.kind.placeholder === '';

/** `etcd-prefix` -> `VTEPD_ETCD_PREFIX` */
export const environmentName = (name: OptionName): string =>
  `VTEPD_${name.toUpperCase().replaceAll('-', '_')}`;

export const optionsOfGroup = (...groups: readonly Group[]): OptionName[] =>
  OPTION_NAMES.filter((name) => groups.includes(OPTIONS[name].group));
