/**
 * What an operator decided, as the rest of the daemon takes it: parsed, checked against each other, plain.
 * Made by load-settings.ts; the single options are described in options.ts.
 */
import { join } from 'node:path';
import type { Address, Family, PerFamily } from '../../store/address.ts';
import type { DataPathChoice } from '../desired/data-path.ts';
import type { LogFormat, LogLevel } from '../ops/log.ts';
import type { Secret } from './secret.ts';

export interface EtcdSettings {
  readonly kind: 'etcd';
  /** `http://host:port` or `https://host:port`, without a user part. At least one. */
  readonly endpoints: readonly string[];
  /** Begins with a slash and does not end with one. */
  readonly prefix: string;
  readonly caFile?: string | undefined;
  /** Both or neither. */
  readonly clientCertificate?: { readonly certFile: string; readonly keyFile: string } | undefined;
  readonly credentials?: { readonly username: string; readonly password: Secret } | undefined;
}

export interface EmbeddedSettings {
  readonly kind: 'embedded';
  readonly path: string;
  /** Seeds a network configuration that is not there yet: flannel's JSON. */
  readonly netConfigPath?: string | undefined;
}

export interface KubernetesSettings {
  readonly kind: 'kubernetes';
  /** The name of this node's Node. */
  readonly nodeName: string;
  /** Absent: the service account of the pod that we run in. */
  readonly kubeconfigFile?: string | undefined;
  /** Where the API is, when not where the other two say. */
  readonly apiUrl?: string | undefined;
  /** flannel's JSON. */
  readonly netConfigPath: string;
}

export type StoreSettings = EtcdSettings | EmbeddedSettings | KubernetesSettings;

export interface LeaseSettings {
  readonly ttlMs: number;
  /** How long before its end the lease is renewed at the latest; less than `ttlMs`. */
  readonly renewMarginMs: number;
  readonly releaseOnExit: boolean;
}

/**
 * How the underlay interface is chosen: the first of `names` that exists, else the first that matches one
 * of `patterns`, else the one that leads to `canReach`, else the default route's.
 */
export interface UnderlaySettings {
  /** Interface names, or addresses that an interface has. */
  readonly names: readonly string[];
  /** Matched against an interface's name, and against its addresses. */
  readonly patterns: readonly RegExp[];
  readonly canReach?: Address | undefined;
  /** Told to the peers instead of the interface's own address. */
  readonly publicAddress: PerFamily<Address>;
}

export interface ProbeSettings {
  readonly intervalMs: number;
}

export interface OverlaySettings {
  readonly datapath: DataPathChoice;
  /** Absent: `vtep.<VNI>`; see deviceName(). */
  readonly device?: string | undefined;
  readonly bridge: string;
  /** What becomes of a flannel that was here before. */
  readonly takeOver: 'auto' | 'devices' | 'none';
  /** What leaves the overlay gets the node's address. */
  readonly masquerade: boolean;
  /** Encapsulated packets are accepted from known peers only. */
  readonly peerFilter: boolean;
  /** A pod may use its own address and MAC only. */
  readonly podFilter: boolean;
  readonly resyncIntervalMs: number;
}

export interface FileSettings {
  readonly stateDir: string;
  readonly runDir: string;
  /** The CNI shim's socket, in `runDir`. */
  readonly socket: string;
  readonly subnetFile: string;
}

export interface CniSettings {
  /** Absent: the daemon installs nothing. */
  readonly confDir?: string | undefined;
  /** An operator's configuration list, installed in the place of ours. */
  readonly confFile?: string | undefined;
  readonly binDir: string;
  /** The network's name where pods were taken over under it; absent: ours. */
  readonly network?: string | undefined;
  /** Runtimes' and the reference plugins' own. */
  readonly dataDir: string;
}

export interface HttpAddress {
  readonly host: string;
  readonly port: number;
}

export interface Settings {
  readonly nodeName: string;
  readonly store: StoreSettings;
  readonly lease: LeaseSettings;
  readonly underlay: UnderlaySettings;
  /** Absent: off. */
  readonly probe?: ProbeSettings | undefined;
  readonly overlay: OverlaySettings;
  readonly files: FileSettings;
  readonly cni: CniSettings;
  /** Absent: off. */
  readonly http?: HttpAddress | undefined;
  /** Where /healthz is served besides, alone; absent: nowhere. */
  readonly healthz?: HttpAddress | undefined;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
}

/** Where the daemon listens for the CNI shim. */
export const socketPath = (runDir: string): string => join(runDir, 'vtepd.sock');

/**
 * The VXLAN device's name: `vtep.<VNI>`, and `vtep6.<VNI>` for packets over an IPv6 underlay, unless
 * `--device` says otherwise (then with a 6 behind it; that of flannel.1 is flannel-v6.1, as flannel has it).
 */
export function deviceName({ device }: OverlaySettings, family: Family, vni: number): string {
  if (device === undefined) return `${family === 'ipv4' ? 'vtep' : 'vtep6'}.${vni}`;
  const name = device.replace(VNI_PLACE, String(vni));
  return family === 'ipv4' ? name : ipv6DeviceName(name);
}

/** In --device, at its end: the network's VNI. */
export const VNI_PLACE = '<VNI>';

const ipv6DeviceName = (name: string): string =>
  /^flannel\.\d{1,4}$/.test(name) ? name.replace('.', '-v6.') : `${name}6`;

/** Whether a link of this name is made by vtepd, whatever the network says. */
export function isDeviceName({ device, bridge }: OverlaySettings, name: string): boolean {
  // With a ~ behind it while another takes its place.
  if (name === bridge || /^vtep6?\.[0-9]+~?$/.test(name)) return true;
  if (device === undefined) return false;
  if (!device.includes(VNI_PLACE)) return [device, ipv6DeviceName(device)].includes(name);
  const prefix = device.replace(VNI_PLACE, '');
  const isOfPrefix = name.startsWith(prefix) && /^\d+~?$/.test(name.slice(prefix.length));
  return isOfPrefix || (prefix === 'flannel.' && /^flannel-v6\.\d+~?$/.test(name));
}

/** Every secret that the settings hold, for openLog. */
export function secretsOf(settings: Pick<Settings, 'store'>): string[] {
  const { store } = settings;
  return store.kind === 'etcd' && store.credentials !== undefined
    ? [store.credentials.password.reveal()]
    : [];
}
