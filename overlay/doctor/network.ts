/** The cluster's network as checks need it: from the store, its last view on disk, or the daemon. Pure. */
import { FAMILIES, type Family, parseSubnet, type Subnet } from '../../store/address.ts';
import type { NetworkConfig } from '../../store/lease.ts';
import { deviceName } from '../config/settings.ts';
import { carriedNetwork, type DataPath } from '../desired/data-path.ts';
import type { StatusReport } from '../ops/status.ts';
import type { DoctorFacts, Reading } from './facts.ts';

export interface KnownNetwork {
  readonly networks: readonly Subnet[];
  /** There is none where the backend has no tunnel. */
  readonly tunnel?: { readonly vni: number; readonly port: number } | undefined;
  /** The device of each family that a tunnel of ours would have. */
  readonly devices: readonly { readonly family: Family; readonly name: string }[];
  /** Of encapsulated packets, where the configuration says so. */
  readonly mtuBytes?: number | undefined;
}

export const found = <T>(reading: Reading<T> | undefined): T | undefined =>
  reading !== undefined && 'found' in reading ? reading.found : undefined;

export const statusOf = ({ daemon }: DoctorFacts): StatusReport | undefined => found(daemon);

/** Undefined: nobody tells. */
export function knownNetwork(facts: DoctorFacts): KnownNetwork | undefined {
  const record = (found(facts.store) ?? facts.cached)?.network;
  if (record !== undefined && 'config' in record) return ofConfig(facts, carriedNetwork(record.config));
  const overlay = statusOf(facts)?.overlay;
  if (overlay === null || overlay === undefined) return undefined;
  const networks = overlay.networks.map(parseSubnet);
  const { vni, port } = overlay;
  if (vni === null || port === null) return { networks, devices: [] };
  return { networks, tunnel: { vni, port }, devices: devicesOf(facts, networks, vni) };
}

function ofConfig(facts: DoctorFacts, { networks, backend }: NetworkConfig): KnownNetwork {
  const subnets = FAMILIES.flatMap((family) => networks[family]?.network ?? []);
  const { type, vni, port, mtuBytes } = backend;
  if (type === 'host-gw') return { networks: subnets, devices: [], mtuBytes };
  return { networks: subnets, tunnel: { vni, port }, devices: devicesOf(facts, subnets, vni), mtuBytes };
}

const devicesOf = ({ settings }: DoctorFacts, networks: readonly Subnet[], vni: number) =>
  [...new Set(networks.map(({ family }) => family))].map((family) => ({
    family,
    name: deviceName(settings.overlay, family, vni),
  }));

/** What carries the tunnel now, as the daemon says, else as it would be chosen. */
export function dataPathOf(facts: DoctorFacts): DataPath | 'direct' {
  const running = statusOf(facts)?.overlay?.datapath;
  if (running !== undefined) return running;
  const { datapath } = facts.settings.overlay;
  if (datapath !== 'auto') return datapath;
  return facts.features.vxlan.state === 'lacks' ? 'userspace' : 'kernel';
}

export const plural = (count: number, one: string, many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`;

/** The first few, and how many more. */
export function several(names: readonly string[], most = 3): string {
  const rest = names.length - most;
  return rest > 0 ? `${names.slice(0, most).join(', ')} and ${rest} more` : names.join(', ');
}
