/** The store, the network configuration in it, this node's lease and everybody else's. Pure. */
import { addressValue, FAMILIES, type Family, formatSubnet, subnetSize } from '../../store/address.ts';
import type { Lease } from '../../store/lease.ts';
import { networkFamilies } from '../../store/lease.ts';
import type { StoreSettings } from '../config/settings.ts';
import type { DoctorFacts, Fault } from './facts.ts';
import { found, knownNetwork, plural, several, statusOf } from './network.ts';
import { type Finding, failed, type Outcome, warning } from './report.ts';

export function checkStore({ store, settings }: DoctorFacts): Outcome {
  const where = placeOf(settings.store);
  if ('fault' in store) {
    const { fault } = store;
    const id = fault.code === 'VTEPD_STORE_ACCESS' ? 'store-refuses' : 'store-unreachable';
    return { seen: '', findings: [failed(id, fault.message, storeRemedy(settings.store, fault))] };
  }
  const { revision, leases } = store.found;
  return { seen: `${where} answers: ${plural(leases.size, 'lease')} at revision ${revision}`, findings: [] };
}

function placeOf(settings: StoreSettings): string {
  switch (settings.kind) {
    case 'etcd':
      return settings.endpoints.join(', ');
    case 'embedded':
      return settings.path;
    case 'kubernetes':
      return 'the Kubernetes API';
  }
}

function storeRemedy(settings: StoreSettings, { code, message }: Fault): string {
  if (settings.kind === 'embedded') {
    return 'check --embedded-path: the daemon makes the directory, every daemon of the machine names the same one';
  }
  if (settings.kind === 'kubernetes') {
    return code === 'VTEPD_STORE_ACCESS'
      ? 'give the service account the rights of manifests/ (get, list, watch and patch nodes)'
      : 'check --kubeconfig-file or --kube-api-url, and that the API server is reached from this node';
  }
  if (/certificate|TLS|SSL|self.signed|issuer/i.test(message)) {
    return 'check --etcd-cafile against the certificate of etcd, its validity and its names (openssl s_client -connect HOST:2379)';
  }
  if (code === 'VTEPD_STORE_ACCESS') {
    return 'check --etcd-username and its password, --etcd-certfile and --etcd-keyfile, and the role’s rights below --etcd-prefix';
  }
  if (code === 'VTEPD_STORE_FILE') return 'correct the option, or the file’s rights';
  return 'check --etcd-endpoints, http against https, that etcd runs, and the firewall between here and there (etcdctl endpoint health)';
}

export function checkNetwork(facts: DoctorFacts): Outcome {
  const snapshot = found(facts.store);
  if (snapshot === undefined) return { unknown: 'the store does not answer' };
  const { network } = snapshot;
  const put =
    facts.settings.store.kind === 'etcd'
      ? `etcdctl put ${facts.settings.store.prefix}/config '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'`
      : 'give the daemon a network configuration with --net-config-path';
  if (network === undefined) {
    const cause = 'the store has no network configuration: the daemon waits for it';
    return { seen: '', findings: [failed('no-network', cause, put)] };
  }
  if ('fault' in network) {
    const remedy = 'correct the document; daemons take it up at once';
    return { seen: '', findings: [failed('network-unusable', network.fault.message, remedy)] };
  }
  const { config } = network;
  const subnets = networkFamilies(config).flatMap((family) => config.networks[family]?.network ?? []);
  const { type, vni, port } = config.backend;
  const findings: Finding[] = [];
  const problem = statusOf(facts)?.network.problem;
  if (problem != null) findings.push(failed('network-not-in-use', problem, 'correct the stored document'));
  const underlay = found(facts.underlay);
  for (const family of networkFamilies(config)) {
    if (underlay === undefined || underlay.localAddress[family] !== undefined) continue;
    findings.push(
      warning(
        'family-lacking',
        `the network has ${FAMILY_NAMES[family]}, but ${underlay.link.name} has no global address of it: pods of this node are without`,
        `give ${underlay.link.name} an address, or name another interface with --iface`,
      ),
    );
  }
  const tunnel = type === 'host-gw' ? '' : `, VNI ${vni}, port ${port}`;
  return { seen: `${subnets.map(formatSubnet).join(', ')}, ${type}${tunnel}`, findings };
}

const FAMILY_NAMES: Readonly<Record<Family, string>> = { ipv4: 'IPv4', ipv6: 'IPv6' };

/** This node's, by its public address. */
export function checkLease(facts: DoctorFacts): Outcome {
  const snapshot = found(facts.store);
  if (snapshot === undefined) return { unknown: 'the store does not answer' };
  const underlay = found(facts.underlay);
  const status = statusOf(facts);
  const held = status?.lease ?? undefined;
  const ours = FAMILIES.flatMap((family) => underlay?.publicAddress[family] ?? []);
  const named = [...snapshot.leases.values()].filter(({ attributes }) =>
    FAMILIES.some((family) => {
      const address = attributes.publicAddress[family];
      return address !== undefined && ours.includes(address);
    }),
  );
  const isHeld = ({ subnets }: Lease): boolean =>
    FAMILIES.some((family) => {
      const subnet = subnets[family];
      const text = subnet && formatSubnet(subnet);
      return text !== undefined && [held?.subnet, held?.subnetIPv6].includes(text);
    });
  if (held !== undefined && ![...snapshot.leases.values()].some(isHeld)) {
    return {
      seen: '',
      findings: [
        failed(
          'lease-gone',
          `the daemon holds ${held.subnet ?? held.subnetIPv6}, but the store has no such lease: other nodes do not know this one`,
          'the daemon makes it again within its renewal; look for what deletes it, and that status and this command use the same store',
        ),
      ],
    };
  }
  const findings = impostors(facts, named);
  if (named.length === 0 && held === undefined) {
    findings.push(
      warning(
        'no-lease',
        'the store has no lease of this node',
        'start the daemon: vtepd run; its log says what it waits for',
      ),
    );
  }
  const seen = named.map((lease) => `${subnetsText(lease)} at ${addressesText(lease)}`).join('; ');
  return { seen, findings };
}

/** Leases with our public address and another VTEP MAC than our device has. */
function impostors({ links, settings, ...facts }: DoctorFacts, named: readonly Lease[]): Finding[] {
  const network = knownNetwork({ links, settings, ...facts });
  return named.flatMap((lease) =>
    (network?.devices ?? []).flatMap(({ family, name }) => {
      const device = links.find((link) => link.name === name)?.mac;
      const stored = lease.attributes.vtep[family]?.mac;
      if (device === undefined || stored === undefined || stored === device) return [];
      return [
        failed(
          'address-claimed',
          `the lease ${subnetsText(lease)} names our public address with the VTEP MAC ${stored}, but ${name} has ${device}: another daemon uses this address, or the state directory was lost`,
          'give each daemon its own --public-ip; where a node was made anew, delete the old lease in the store',
        ),
      ];
    }),
  );
}

const subnetsText = ({ subnets }: Lease): string =>
  FAMILIES.flatMap((family) => (subnets[family] === undefined ? [] : [formatSubnet(subnets[family])])).join(
    ', ',
  );

const addressesText = ({ attributes }: Lease): string =>
  FAMILIES.flatMap((family) => attributes.publicAddress[family] ?? []).join(', ');

/** Everybody's: what no two nodes may share. */
export function checkLeases(facts: DoctorFacts): Outcome {
  const snapshot = found(facts.store);
  if (snapshot === undefined) return { unknown: 'the store does not answer' };
  const leases = [...snapshot.leases.values()];
  const findings: Finding[] = [];
  for (const family of FAMILIES) {
    findings.push(
      ...sharedMacs(leases, family),
      ...sharedAddresses(leases, family),
      ...overlaps(leases, family),
    );
  }
  const { malformed } = snapshot;
  if (malformed.length > 0) {
    findings.push(
      warning(
        'leases-unreadable',
        `${plural(malformed.length, 'entry is', 'entries are')} no readable lease: ${several(malformed.map(({ key, reason }) => `${key} (${reason})`))}`,
        'they are skipped; correct or delete them in the store (vtepd leases lists all)',
      ),
    );
  }
  const skipped =
    statusOf(facts)?.skipped.filter(({ key }) => !malformed.some((each) => each.key === key)) ?? [];
  if (skipped.length > 0) {
    findings.push(
      warning(
        'leases-not-used',
        `${plural(skipped.length, 'lease')} of others cannot be used: ${several(skipped.map(({ key, reason }) => `${key} (${reason})`))}`,
        'they are those nodes’ to correct; vtepd status lists all',
      ),
    );
  }
  return { seen: `${plural(leases.length, 'lease')}: no address, MAC or subnet is used twice`, findings };
}

/** A node keeps its MAC and its address on leases that it had before: only one of the two shared is wrong. */
function sharedMacs(leases: readonly Lease[], family: Family): Finding[] {
  return shared(
    leases,
    ({ attributes }) => attributes.vtep[family]?.mac,
    ({ attributes }) => attributes.publicAddress[family],
  ).map(([mac, group]) =>
    failed(
      'mac-twice',
      `${several(group.map(addressesText))} have the same VTEP MAC ${mac}: packets to one reach the other`,
      'machines were cloned with their state directory: stop the daemon on one of them, remove its --state-dir, and start it again',
    ),
  );
}

function sharedAddresses(leases: readonly Lease[], family: Family): Finding[] {
  return shared(
    leases,
    ({ attributes }) => attributes.publicAddress[family],
    ({ attributes }) => attributes.vtep[family]?.mac,
  ).map(([address, group]) =>
    failed(
      'address-twice',
      `the leases ${several(group.map(subnetsText))} have the same public address ${address}, and different VTEP MACs`,
      'give each node its own --public-ip; a lease that a node left behind expires, or can be deleted',
    ),
  );
}

/** Groups of leases that share the one and differ in the other. */
function shared(
  leases: readonly Lease[],
  same: (lease: Lease) => string | undefined,
  differs: (lease: Lease) => string | undefined,
): [string, Lease[]][] {
  const groups = new Map<string, Lease[]>();
  for (const lease of leases) {
    const key = same(lease);
    if (key === undefined) continue;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [lease]);
    else group.push(lease);
  }
  return [...groups].filter(([, group]) => new Set(group.map(differs)).size > 1);
}

/** Sorted by their first address, those that overlap stand behind one another. */
function overlaps(leases: readonly Lease[], family: Family): Finding[] {
  const sorted = leases
    .flatMap((lease) => {
      const subnet = lease.subnets[family];
      if (subnet === undefined) return [];
      const first = addressValue(subnet.address);
      return [{ lease, first, end: first + subnetSize(subnet) }];
    })
    .sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const findings: Finding[] = [];
  let furthest = sorted[0];
  for (const each of sorted.slice(1)) {
    if (furthest !== undefined && each.first < furthest.end) {
      findings.push(
        failed(
          'subnets-overlap',
          `the leases ${subnetsText(furthest.lease)} (${addressesText(furthest.lease)}) and ${subnetsText(each.lease)} (${addressesText(each.lease)}) overlap`,
          'delete one of them in the store; its node claims another',
        ),
      );
    }
    if (furthest === undefined || each.end > furthest.end) furthest = each;
  }
  return findings;
}
