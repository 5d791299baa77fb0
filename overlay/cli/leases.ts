/** `vtepd leases`: what the store holds, read once. */
import { existsSync } from 'node:fs';
import { formatSubnet, type PerFamily } from '../../store/address.ts';
import { type Lease, type NetworkConfig, networkFamilies } from '../../store/lease.ts';
import type { LeaseSnapshot, NetworkRecord } from '../../store/lease-store.ts';
import { loadStoreSettings, STORE_OPTIONS } from '../config/load-settings.ts';
import type { OptionName } from '../config/options.ts';
import { type StoreSettings, secretsOf } from '../config/settings.ts';
import { messageWithCauses } from '../ops/log.ts';
import { printable } from '../ops/redact.ts';
import { columns } from '../ops/render-status.ts';
import { isOn, JSON_FLAG, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

const OPTIONS = ['config', ...STORE_OPTIONS] as const satisfies readonly OptionName[];

class NoStoreError extends Error {
  override readonly name = 'NoStoreError';
  readonly code = 'VTEPD_NO_STORE';
}

export const command: Command = {
  name: 'leases',
  summary: 'List the leases in the store, those that cannot be read included',
  usage: helpText({
    forms: ['vtepd leases [--json] [options]'],
    about: [
      "Reads the store once, with the same options as the daemon, and lists the cluster's network, every lease, and what is stored there that is no lease, with the reason. It changes nothing and needs no daemon.",
    ],
    flags: [JSON_FLAG],
    sections: optionSections(OPTIONS),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [JSON_FLAG, ...optionFlags(OPTIONS)]);
    refusePositionals(given);
    const sources = { flags: given.flags, environment: io.environment };
    const { store: settings, warnings } = await loadStoreSettings(sources);
    for (const secret of secretsOf({ store: settings })) io.hide(secret);
    for (const warning of warnings) io.err(`warning: ${warning}\n`);
    const { openStore } = await import('../leases/open-store.ts');
    const store = await openStore(existing(settings));
    try {
      const snapshot = await store.snapshot(io.signal);
      const report = leasesReport(store.kind, snapshot);
      io.out(isOn(given, 'json') ? `${JSON.stringify(report)}\n` : renderLeases(report));
      return EXIT_OK;
    } finally {
      await store.close();
    }
  },
};

/** The store as it is: looking into it neither makes it nor seeds it. */
function existing(settings: StoreSettings): StoreSettings {
  if (settings.kind !== 'embedded') return settings;
  if (!existsSync(settings.path)) {
    throw new NoStoreError(`there is no embedded store at ${settings.path}: check --embedded-path`);
  }
  return { kind: settings.kind, path: settings.path };
}

/** What `--json` prints: added to, never changed. */
export interface LeasesReport {
  readonly store: string;
  readonly revision: string;
  readonly network: NetworkReport | null;
  readonly leases: readonly LeaseReport[];
  readonly malformed: readonly { readonly key: string; readonly reason: string }[];
}

export interface NetworkReport {
  readonly networks: readonly string[];
  readonly backend: string | null;
  readonly vni: number | null;
  readonly port: number | null;
  /** Why the stored one cannot be used. */
  readonly fault: string | null;
}

export interface LeaseReport {
  readonly key: string;
  readonly subnet?: string | undefined;
  readonly subnetIPv6?: string | undefined;
  readonly publicIP?: string | undefined;
  readonly publicIPv6?: string | undefined;
  readonly backend: string;
  readonly vni?: number | undefined;
  readonly vtepMAC?: string | undefined;
  readonly vtepMACIPv6?: string | undefined;
}

export function leasesReport(store: string, snapshot: LeaseSnapshot): LeasesReport {
  const leases = [...snapshot.leases.values()].map(leaseReport);
  return {
    store,
    revision: snapshot.revision,
    network: snapshot.network === undefined ? null : networkReport(snapshot.network),
    leases: leases.sort((a, b) => naturally(a.key, b.key)),
    malformed: snapshot.malformed,
  };
}

const naturally = new Intl.Collator('en', { numeric: true }).compare;

function networkReport(record: NetworkRecord): NetworkReport {
  if ('fault' in record) {
    return { networks: [], backend: null, vni: null, port: null, fault: messageWithCauses(record.fault) };
  }
  const { type, vni, port } = record.config.backend;
  return { networks: networksOf(record.config), backend: type, vni, port, fault: null };
}

const networksOf = (config: NetworkConfig): string[] =>
  networkFamilies(config).flatMap((family) => {
    const network = config.networks[family]?.network;
    return network === undefined ? [] : [formatSubnet(network)];
  });

function leaseReport({ key, subnets, attributes }: Lease): LeaseReport {
  const { publicAddress, vtep, backend } = attributes;
  return {
    key,
    subnet: subnets.ipv4 && formatSubnet(subnets.ipv4),
    subnetIPv6: subnets.ipv6 && formatSubnet(subnets.ipv6),
    publicIP: publicAddress.ipv4,
    publicIPv6: publicAddress.ipv6,
    backend,
    vni: vtep.ipv4?.vni ?? vtep.ipv6?.vni,
    vtepMAC: vtep.ipv4?.mac,
    vtepMACIPv6: vtep.ipv6?.mac,
  };
}

export function renderLeases(report: LeasesReport): string {
  const { store, revision, network, leases, malformed } = report;
  const blocks = [`${store} at revision ${revision}; ${networkText(network)}`];
  const row = (lease: LeaseReport) => [
    both({ ipv4: lease.subnet, ipv6: lease.subnetIPv6 }),
    both({ ipv4: lease.publicIP, ipv6: lease.publicIPv6 }),
    lease.backend,
    String(lease.vni ?? '-'),
    both({ ipv4: lease.vtepMAC, ipv6: lease.vtepMACIPv6 }),
  ];
  const heading = ['SUBNET', 'PUBLIC IP', 'BACKEND', 'VNI', 'VTEP MAC'];
  const rows = leases.map((lease) => row(lease).map(printable));
  blocks.push(leases.length === 0 ? 'Leases: none' : `Leases (${leases.length})\n${columns(heading, rows)}`);
  if (malformed.length > 0) {
    const bad = malformed.map(({ key, reason }) => [printable(key), printable(reason)]);
    blocks.push(`Not readable as leases (${malformed.length})\n${columns(['KEY', 'REASON'], bad)}`);
  }
  return `${blocks.join('\n\n')}\n`;
}

function networkText(network: NetworkReport | null): string {
  if (network === null) return 'there is no network configuration yet';
  if (network.fault !== null) return `the network configuration cannot be used: ${printable(network.fault)}`;
  return `network ${network.networks.join(', ')}, backend ${printable(network.backend ?? '')}, VNI ${network.vni}, port ${network.port}`;
}

const both = ({ ipv4, ipv6 }: PerFamily<string>): string =>
  [ipv4, ipv6].filter((value) => value !== undefined).join(', ') || '-';
