/** The status report, put together from what each room knows. */
import type { AttachmentRegistry } from '../cni-shim/registry.ts';
import { FAMILIES, formatSubnet, type Subnet } from '../store/address.ts';
import type { Lease } from '../store/lease.ts';
import type { HeldLease, StoreKind } from '../store/lease-store.ts';
import type { Peer } from './desired/peer-table.ts';
import type { PodNetworkFacts, Readiness } from './desired/pods.ts';
import type { Firewall } from './kernel/firewall.ts';
import type { OverlayNode } from './node.ts';
import type { Metrics } from './ops/metrics.ts';
import { packageVersion } from './ops/package.ts';
import type {
  AddressStatus,
  ConfigurationStatus,
  FirewallStatus,
  LeaseStatus,
  OverlayStatus,
  PathStatus,
  PeerStatus,
  StatusReport,
} from './ops/status.ts';
import type { ProbedPath } from './probe/prober.ts';
import type { UnderlayProbe } from './probe/underlay-probe.ts';
import type { Reconciler } from './reconcile/reconciler.ts';
import type { ReloadState } from './reload.ts';
import { tunnelMetrics, tunnelStatus } from './tunnel-report.ts';

export interface ReportSources {
  readonly nodeName: string;
  readonly startedAt: Date;
  readonly storeKind: StoreKind;
  readonly node: OverlayNode;
  readonly reconciler: Reconciler;
  readonly registry: AttachmentRegistry;
  /** Absent where nftables cannot be used and nothing needs it. */
  readonly firewall: Firewall | undefined;
  /** Absent where the underlay is not to be probed. */
  readonly probe: UnderlayProbe | undefined;
  readonly readiness: () => Readiness;
  readonly configuration: () => ReloadState;
}

export function statusReport(sources: ReportSources): StatusReport {
  const { node, reconciler, registry, storeKind, firewall, probe } = sources;
  const readiness = sources.readiness();
  const { view, storeHealth, underlay, lease } = node;
  const facts = reconciler.podFacts();
  const { passes, repairs, lastRepair, lastPassAt, failing } = reconciler.state;
  return {
    node: sources.nodeName,
    version: packageVersion,
    startedAt: sources.startedAt.toISOString(),
    ready: readiness.ready,
    reason: readiness.ready ? null : readiness.reason,
    store: {
      kind: storeKind,
      healthy: storeHealth.healthy,
      revision: view?.revision ?? null,
      reason: storeHealth.reason ?? null,
      source:
        view === undefined || view.source === 'nothing' ? 'none' : view.source === 'cache' ? 'cache' : 'live',
      lastContactAt: time(storeHealth.lastContactAt),
    },
    lease: lease === undefined ? null : leaseStatus(lease, node.held, storeKind),
    underlay:
      underlay === undefined
        ? null
        : {
            device: underlay.link.name,
            mtuBytes: underlay.link.mtuBytes,
            chosenBy: underlay.why,
            lackingFamilies: FAMILIES.filter(
              (family) =>
                node.network?.networks[family] !== undefined && underlay.localAddress[family] === undefined,
            ),
          },
    overlay: overlayStatus(reconciler),
    network: {
      problem: node.networkProblem ?? null,
      former: node.formerLeases.map(({ lease: { subnets }, pods, failure }) => ({
        subnet: textOf(subnets.ipv4),
        subnetIPv6: textOf(subnets.ipv6),
        pods,
        problem: failure ?? null,
      })),
    },
    tunnels: reconciler.tunnels.map(tunnelStatus),
    peers: Array.from(reconciler.peers.values(), (peer) => peerStatus(peer, reconciler.missing(peer), probe)),
    probe: probe === undefined ? null : { running: probe.running, reason: probe.lacks ?? null },
    skipped: [
      ...reconciler.skipped.values(),
      ...Array.from(view?.malformed ?? [], ([key, reason]) => ({ key, reason })),
    ],
    attachments: registry.all().map(({ attachment }) => ({
      containerID: attachment.containerID,
      ifname: attachment.ifname,
      ips: attachment.addresses.map(({ address }) => address),
      mac: attachment.mac,
      pod: attachment.pod ?? null,
      hostInterface: attachment.hostInterface,
    })),
    addresses: facts === undefined ? null : addressStatus(registry, facts),
    firewall: firewall === undefined ? null : firewallStatus(firewall),
    reconcile: {
      passes,
      repairs,
      lastRepair:
        lastRepair === undefined
          ? null
          : {
              at: new Date(lastRepair.at).toISOString(),
              count: lastRepair.count,
              objects: lastRepair.objects,
            },
      lastPassAt: time(lastPassAt),
      failing: failing ?? null,
    },
    configuration: configurationStatus(sources.configuration()),
  };
}

const configurationStatus = ({
  file,
  appliedAt,
  problem,
  needRestart,
}: ReloadState): ConfigurationStatus => ({
  file: file ?? null,
  appliedAt: new Date(appliedAt).toISOString(),
  problem: problem ?? null,
  needRestart,
});

/** Brings the gauges up to date that nobody counts as things happen. */
export function updateGauges(
  { node, reconciler, registry, firewall, probe }: ReportSources,
  metrics: Metrics,
): void {
  if (firewall !== undefined) metrics.drops(firewall.drops());
  tunnelMetrics(reconciler.tunnels, metrics);
  if (probe !== undefined) {
    for (const family of node.lease === undefined ? [] : FAMILIES)
      metrics.paths(family, probe.summary(family));
    metrics.probePackets(probe.counts);
  }
  let programmed = 0;
  let direct = 0;
  for (const peer of reconciler.peers.values()) {
    if (reconciler.missing(peer).length === 0) programmed++;
    if (peer.paths.some(({ travel }) => travel === 'direct')) direct++;
  }
  metrics.peers(reconciler.peers.size, programmed, direct);
  metrics.unusedLeases(node.view?.malformed.size ?? 0, reconciler.skipped.size);
  const facts = reconciler.podFacts();
  if (facts === undefined) return;
  const use = registry.addressUse(facts.subnets, facts.gateways);
  for (const family of FAMILIES) {
    const found = use[family];
    if (found !== undefined) metrics.addresses(family, found.used, found.free);
  }
}

const time = (ms: number | undefined): string | null =>
  ms === undefined ? null : new Date(ms).toISOString();

const textOf = (subnet: Subnet | undefined): string | undefined => subnet && formatSubnet(subnet);

function leaseStatus(lease: Lease, held: HeldLease | undefined, storeKind: StoreKind): LeaseStatus {
  const { publicAddress, vtep } = lease.attributes;
  return {
    subnet: textOf(lease.subnets.ipv4),
    subnetIPv6: textOf(lease.subnets.ipv6),
    publicIP: publicAddress.ipv4,
    publicIPv6: publicAddress.ipv6,
    vtepMAC: vtep.ipv4?.mac,
    vtepMACIPv6: vtep.ipv6?.mac,
    // A Node's lease lives as long as the Node; its time is that of the next look at it.
    expiresAt: storeKind === 'kubernetes' ? null : time(held?.expiresAt),
  };
}

function overlayStatus({ wanted, datapath }: Reconciler): OverlayStatus | null {
  if (wanted === undefined) return null;
  const device = wanted.vxlan.ipv4 ?? wanted.vxlan.ipv6;
  const { type, directRouting } = wanted.network.backend;
  const tunnels = type === 'vxlan';
  return {
    backend: type,
    directRouting: tunnels && directRouting,
    device: device?.name ?? null,
    deviceIPv6: wanted.vxlan.ipv6?.name,
    vni: device?.vni ?? null,
    port: device?.port ?? null,
    mtuBytes: wanted.bridge.mtuBytes,
    datapath: tunnels ? (datapath?.path ?? 'kernel') : 'direct',
    datapathReason: tunnels ? (datapath?.why ?? null) : null,
    bridge: wanted.bridge.name,
    networks: FAMILIES.flatMap((family) => textOf(wanted.network.networks[family]?.network) ?? []),
  };
}

function peerStatus(peer: Peer, missing: readonly string[], probe: UnderlayProbe | undefined): PeerStatus {
  const path = (family: 'ipv4' | 'ipv6') => peer.paths.find((found) => found.family === family);
  const [ipv4, ipv6] = [path('ipv4'), path('ipv6')];
  return {
    subnet: textOf(ipv4?.subnet),
    subnetIPv6: textOf(ipv6?.subnet),
    publicIP: ipv4?.remote,
    publicIPv6: ipv6?.remote,
    vtepMAC: ipv4?.mac,
    vtepMACIPv6: ipv6?.mac,
    route: ipv4?.travel,
    routeIPv6: ipv6?.travel,
    programmed: missing.length === 0,
    missing,
    path: ipv4 && pathStatus(probe?.path('ipv4', ipv4.remote)),
    pathIPv6: ipv6 && pathStatus(probe?.path('ipv6', ipv6.remote)),
  };
}

function pathStatus(path: ProbedPath | undefined): PathStatus | undefined {
  if (path === undefined) return undefined;
  const { reachable, roundTripMs, mtuBytes, fullBytes, filtered, sendFailure } = path;
  const reason = filtered
    ? 'only small echo requests are answered: ICMP is filtered on the way'
    : reachable === undefined
      ? (sendFailure ?? 'no echo request was answered: ICMP is filtered, or there is no way')
      : reachable
        ? null
        : (sendFailure ?? 'no echo request is answered any more');
  return {
    reachable: reachable ?? null,
    rttMs: roundTripMs === undefined ? null : Math.round(1000 * roundTripMs) / 1000,
    mtuBytes: mtuBytes ?? null,
    fullBytes,
    reason,
  };
}

function firewallStatus(firewall: Firewall): FirewallStatus {
  const chains = firewall.foreignDrops().map(({ family, table, chain }) => `${family} ${table} ${chain}`);
  return { drops: firewall.drops(), foreignDrops: chains };
}

function addressStatus(registry: AttachmentRegistry, facts: PodNetworkFacts): AddressStatus {
  const use = registry.addressUse(facts.subnets, facts.gateways);
  const found = FAMILIES.flatMap((family) => {
    const { used, free } = use[family] ?? {};
    return used === undefined ? [] : [[family, { used, free: Number(free) }] as const];
  });
  const each = found.map(([, counts]) => counts);
  return {
    used: Math.max(0, ...each.map(({ used }) => used)),
    free: each.length === 0 ? 0 : Math.min(...each.map(({ free }) => free)),
    ...Object.fromEntries(found),
  };
}
