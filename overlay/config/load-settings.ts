/**
 * From single options to Settings: what must hold between them is checked here, so that nothing behind
 * this file needs to ask whether its settings make sense together.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { isLoopback } from '../../store/address.ts';
import { POD_INTERFACE_PREFIX } from '../desired/pods.ts';
import { type Fingerprints, fingerprintsOf } from './fingerprint.ts';
import { loadOptions, type Origin, type Sources } from './load-options.ts';
import type { Endpoint } from './network-kinds.ts';
import { OPTION_NAMES, type OptionName, type OptionValues } from './options.ts';
import type { Secret } from './secret.ts';
import type {
  FileSettings,
  KubernetesSettings,
  LeaseSettings,
  OverlaySettings,
  Settings,
  StoreSettings,
  UnderlaySettings,
} from './settings.ts';
import { socketPath } from './settings.ts';
import { SettingsError, type SettingsProblem } from './settings-error.ts';

export interface LoadedSettings {
  readonly settings: Settings;
  /** Where each option's value came from. */
  readonly origins: ReadonlyMap<OptionName, Origin>;
  readonly warnings: readonly string[];
  /** The file that was read; an absolute path. */
  readonly configFile: string | undefined;
  /** What tells each option's value from another, secrets too, without saying it. */
  readonly fingerprints: Fingerprints;
}

/** Reads and checks everything that `vtepd run` takes. @throws SettingsError */
export async function loadSettings(sources: Sources): Promise<LoadedSettings> {
  const { values, origins, warnings } = await loadOptions(OPTION_NAMES, sources);
  const check = new Check(origins);
  const settings: Settings = {
    nodeName: nodeNameOf(values, sources),
    store: storeSettings(values, sources, check),
    lease: leaseSettings(values, check),
    underlay: underlaySettings(values, check),
    probe: values.probe ? { intervalMs: values['probe-interval'] } : undefined,
    overlay: overlaySettings(values, check),
    files: fileSettings(values, check),
    cni: {
      confDir: values['cni-conf-dir'],
      confFile: values['cni-conf-file'],
      binDir: values['cni-bin-dir'],
      dataDir: values['cni-data-dir'],
    },
    http: values.http,
    healthz: values.healthz,
    log: { level: values['log-level'], format: values['log-format'] },
  };
  check.done();
  return { settings, origins, warnings, configFile: values.config, fingerprints: fingerprintsOf(values) };
}

/** The options that say where leases are. */
export const STORE_OPTIONS = [
  'store',
  'etcd-endpoints',
  'etcd-prefix',
  'etcd-cafile',
  'etcd-certfile',
  'etcd-keyfile',
  'etcd-username',
  'etcd-password',
  'embedded-path',
  'node-name',
  'kubeconfig-file',
  'kube-api-url',
  'net-config-path',
] as const satisfies readonly OptionName[];

/** For commands that only look into the store. @throws SettingsError */
export async function loadStoreSettings(
  sources: Sources,
): Promise<{ store: StoreSettings; warnings: readonly string[] }> {
  const { values, origins, warnings } = await loadOptions(STORE_OPTIONS, sources);
  const check = new Check(origins);
  const store = storeSettings(values, sources, check);
  check.done();
  return { store, warnings };
}

/** Gathers what is wrong between options, each named as the operator gave it. */
class Check {
  readonly #origins: ReadonlyMap<OptionName, Origin>;
  readonly #problems: SettingsProblem[] = [];

  constructor(origins: ReadonlyMap<OptionName, Origin>) {
    this.#origins = origins;
  }

  isGiven(name: OptionName): boolean {
    return (this.#origins.get(name)?.source ?? 'default') !== 'default';
  }

  refuse(name: OptionName, problem: string): void {
    const origin = this.#origins.get(name);
    const isDefault = origin === undefined || origin.source === 'default';
    this.#problems.push({ where: isDefault ? `--${name}` : origin.where, problem });
  }

  done(): void {
    if (this.#problems.length > 0) throw new SettingsError(this.#problems);
  }
}

/** NODE_NAME is what manifests of Kubernetes call it, flannel's among them. */
function nodeNameOf(values: Pick<OptionValues, 'node-name'>, { environment }: Sources): string {
  const { NODE_NAME } = environment;
  return values['node-name'] ?? (NODE_NAME === undefined || NODE_NAME === '' ? hostname() : NODE_NAME);
}

/** flannel's default for it. */
const NET_CONFIG_PATH = '/etc/kube-flannel/net-conf.json';

function kubernetesSettings(
  values: Pick<OptionValues, (typeof STORE_OPTIONS)[number]>,
  sources: Sources,
): KubernetesSettings {
  return {
    kind: 'kubernetes',
    // The kubelet registers its host's name in small letters.
    nodeName: nodeNameOf(values, sources).toLowerCase(),
    kubeconfigFile: values['kubeconfig-file'],
    apiUrl: values['kube-api-url'],
    netConfigPath: values['net-config-path'] ?? NET_CONFIG_PATH,
  };
}

function storeSettings(
  values: Pick<OptionValues, (typeof STORE_OPTIONS)[number]>,
  sources: Sources,
  check: Check,
): StoreSettings {
  if (values.store === 'kubernetes') return kubernetesSettings(values, sources);
  for (const name of ['kubeconfig-file', 'kube-api-url'] as const) {
    if (check.isGiven(name)) check.refuse(name, `does nothing with --store ${values.store}`);
  }
  if (values.store === 'embedded') {
    return { kind: 'embedded', path: values['embedded-path'], netConfigPath: values['net-config-path'] };
  }
  if (check.isGiven('net-config-path')) {
    const remedy = `etcdctl put ${values['etcd-prefix']}/config -- "$(cat FILE)"`;
    check.refuse(
      'net-config-path',
      `only Kubernetes and the embedded store have their configuration from a file; for etcd: ${remedy}`,
    );
  }
  const endpoints = values['etcd-endpoints'];
  if (endpoints.length === 0) check.refuse('etcd-endpoints', 'must name at least one endpoint');
  return {
    kind: 'etcd',
    endpoints: [...new Set(endpoints.map(({ url }) => url))],
    prefix: values['etcd-prefix'],
    ...tlsSettings(values, endpoints, check),
    credentials: credentialsOf(values, endpoints, check),
  };
}

function tlsSettings(
  values: Pick<OptionValues, 'etcd-cafile' | 'etcd-certfile' | 'etcd-keyfile'>,
  endpoints: readonly Endpoint[],
  check: Check,
) {
  const { 'etcd-cafile': caFile, 'etcd-certfile': certFile, 'etcd-keyfile': keyFile } = values;
  const secured = endpoints.filter(({ url }) => url.startsWith('https:')).length;
  if (secured > 0 && secured < endpoints.length) {
    check.refuse(
      'etcd-endpoints',
      'mixes http:// and https://: what goes over the one would not be safe over the other',
    );
  }
  for (const name of ['etcd-cafile', 'etcd-certfile', 'etcd-keyfile'] as const) {
    if (check.isGiven(name) && secured === 0) {
      check.refuse(
        name,
        'certificates do nothing with http:// endpoints: write https:// in --etcd-endpoints',
      );
    }
  }
  if (certFile !== undefined && keyFile !== undefined)
    return { caFile, clientCertificate: { certFile, keyFile } };
  if (certFile !== undefined) check.refuse('etcd-certfile', 'needs --etcd-keyfile as well');
  if (keyFile !== undefined) check.refuse('etcd-keyfile', 'needs --etcd-certfile as well');
  return { caFile };
}

/** From the options of their own, else from the endpoints' user part. */
function credentialsOf(
  values: Pick<OptionValues, 'etcd-username' | 'etcd-password'>,
  endpoints: readonly Endpoint[],
  check: Check,
): { username: string; password: Secret } | undefined {
  const { 'etcd-username': username, 'etcd-password': password } = values;
  const users = endpoints.flatMap(({ user }) => (user === undefined ? [] : [user]));
  const [first] = users;
  if (username === undefined && password === undefined) {
    const isSame = ({ username, password }: NonNullable<Endpoint['user']>) =>
      username === first?.username && password.reveal() === first.password.reveal();
    if (!users.every(isSame)) {
      check.refuse(
        'etcd-endpoints',
        'name different users: give --etcd-username and VTEPD_ETCD_PASSWORD instead',
      );
    }
    return first;
  }
  if (first !== undefined) {
    check.refuse(
      'etcd-endpoints',
      'have a user part although a user or password is given as well: remove one',
    );
  }
  if (username === undefined) check.refuse('etcd-password', 'needs --etcd-username as well');
  if (password === undefined)
    check.refuse('etcd-username', 'needs a password: VTEPD_ETCD_PASSWORD, or the file');
  return username === undefined || password === undefined ? undefined : { username, password };
}

function leaseSettings(values: OptionValues, check: Check): LeaseSettings {
  const ttlMs = values['subnet-lease-ttl'];
  let renewMarginMs = values['subnet-lease-renew-margin'];
  if (renewMarginMs >= ttlMs && check.isGiven('subnet-lease-renew-margin')) {
    check.refuse('subnet-lease-renew-margin', 'must be shorter than --subnet-lease-ttl');
  }
  if (!check.isGiven('subnet-lease-renew-margin'))
    renewMarginMs = Math.min(renewMarginMs, Math.floor(ttlMs / 2));
  return { ttlMs, renewMarginMs, releaseOnExit: values['release-on-exit'] };
}

function underlaySettings(values: OptionValues, check: Check): UnderlaySettings {
  const canReach = values['iface-can-reach'];
  const publicAddress = { ipv4: values['public-ip'], ipv6: values['public-ipv6'] };
  if (canReach !== undefined && (values.iface.length > 0 || values['iface-regex'].length > 0)) {
    check.refuse(
      'iface-can-reach',
      'would be ignored beside --iface or --iface-regex: give one or the other',
    );
  }
  for (const name of ['public-ip', 'public-ipv6'] as const) {
    const address = values[name];
    if (address !== undefined && isLoopback(address)) {
      check.refuse(
        name,
        `${address} is this machine for every node: give an address that the other nodes reach`,
      );
    }
  }
  return { names: values.iface, patterns: values['iface-regex'], canReach, publicAddress };
}

function overlaySettings(values: OptionValues, check: Check): OverlaySettings {
  const { datapath, device, bridge } = values;
  if (device === bridge) check.refuse('bridge', `"${bridge}" is the name of --device as well`);
  for (const [option, name] of [
    ['device', device],
    ['bridge', bridge],
  ] as const) {
    if (name?.startsWith(POD_INTERFACE_PREFIX)) {
      check.refuse(
        option,
        `"${name}" begins with "${POD_INTERFACE_PREFIX}", as pods' interfaces do: take another name`,
      );
    }
  }
  return {
    datapath,
    device,
    bridge,
    takeOver: values['take-over'],
    masquerade: values['ip-masq'],
    peerFilter: values['peer-filter'],
    podFilter: values['pod-filter'],
    resyncIntervalMs: values['resync-interval'],
  };
}

/** What fits into a unix socket's address, less the zero byte (unix(7): sun_path has 108). */
const MAX_SOCKET_PATH_BYTES = 107;

function fileSettings(values: OptionValues, check: Check): FileSettings {
  const { 'state-dir': stateDir, 'run-dir': runDir } = values;
  const socket = socketPath(runDir);
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH_BYTES) {
    check.refuse(
      'run-dir',
      `is too long: ${socket} must have at most ${MAX_SOCKET_PATH_BYTES} bytes, to be a socket`,
    );
  }
  if (stateDir === runDir) {
    check.refuse(
      'run-dir',
      'must not be --state-dir: the one is emptied by a reboot, the other must survive it',
    );
  }
  return { stateDir, runDir, socket, subnetFile: values['subnet-file'] ?? join(runDir, 'subnet.env') };
}
