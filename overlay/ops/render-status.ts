/**
 * A status report as people read it: first whether it works and what is wrong, then each part. Names come
 * from peers and pods, so nothing is printed that a terminal would take for a command.
 */
import { printable } from './redact.ts';
import { tunnelProblems, tunnelRows } from './render-tunnels.ts';
import type { AttachmentStatus, PathStatus, PeerStatus, StatusReport } from './status.ts';

export interface RenderOptions {
  /** Longer tables end with how many more there are. */
  readonly maxRows: number;
  readonly now: Date;
}

export function renderStatus(report: StatusReport, options: RenderOptions): string {
  const blocks = [
    headline(report),
    facts(report, options.now),
    peers(report, options),
    skipped(report, options),
    pods(report, options),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

/** Everything that is not as it should be, one line each. */
function headline(report: StatusReport): string {
  const lines = [report.ready ? 'Ready.' : `NOT READY: ${printable(report.reason ?? 'no reason given')}`];
  const { store, reconcile } = report;
  if (!store.healthy) lines.push(`! store: ${printable(store.reason ?? 'not healthy')}`);
  if (store.source === 'cache') lines.push('! store: the leases are those last seen, from the cache on disk');
  const { problem, former } = report.network;
  if (problem !== null && report.overlay !== null) {
    lines.push(`! network: the stored configuration is not in use: ${printable(problem)}`);
  }
  const { configuration } = report;
  if (configuration.problem !== null) {
    lines.push(`! configuration: what is in the file is not in use: ${printable(configuration.problem)}`);
  }
  if (configuration.needRestart.length > 0) {
    lines.push(`! configuration: these changed and need a restart: ${configuration.needRestart.join(', ')}`);
  }
  for (const lease of former) {
    const fault = lease.problem === null ? '' : `, and the store does not keep it: ${lease.problem}`;
    lines.push(
      `! former lease ${both(lease.subnet, lease.subnetIPv6)}: ${lease.pods} in use${printable(fault)}`,
    );
  }
  if (reconcile.failing !== null)
    lines.push(`! kernel: the last pass failed: ${printable(reconcile.failing)}`);
  lines.push(...tunnelProblems(report));
  const missing = report.peers.filter((peer) => !peer.programmed).length;
  if (missing > 0) lines.push(`! peers: ${missing} of ${report.peers.length} not fully programmed`);
  lines.push(...pathProblems(report.peers));
  if (report.skipped.length > 0)
    lines.push(`! leases: ${report.skipped.length} of others not used, see below`);
  for (const chain of report.firewall?.foreignDrops ?? []) {
    lines.push(`! firewall: chain ${printable(chain)} of another program drops what it does not accept`);
  }
  if (report.addresses?.free === 0) lines.push('! addresses: none is free for another pod');
  return lines.join('\n');
}

/** How many paths a line names. */
const NAMED_PATHS = 3;

/** What the probe found wrong with the underlay, a line a kind. */
function pathProblems(all: readonly PeerStatus[]): string[] {
  const paths = all.flatMap(({ publicIP = '', publicIPv6 = '', path, pathIPv6 }): [string, PathStatus][] => [
    ...(path === undefined ? [] : [[publicIP, path] as [string, PathStatus]]),
    ...(pathIPv6 === undefined ? [] : [[publicIPv6, pathIPv6] as [string, PathStatus]]),
  ]);
  const line = (what: string, wrong: typeof paths, say: (path: PathStatus) => string): string[] => {
    if (wrong.length === 0) return [];
    const named = wrong.slice(0, NAMED_PATHS).map(([peer, path]) => `${peer}${say(path)}`);
    const more = wrong.length > named.length ? ', ...' : '';
    return [
      printable(`! underlay: ${wrong.length} of ${paths.length} paths ${what}: ${named.join(', ')}${more}`),
    ];
  };
  const reduced = paths.filter(([, { mtuBytes, fullBytes }]) => mtuBytes !== null && mtuBytes < fullBytes);
  const gone = paths.filter(([, { reachable }]) => reachable === false);
  return [
    ...line(
      'swallow large packets',
      reduced,
      (path) => ` (${path.mtuBytes} of ${path.fullBytes} bytes pass)`,
    ),
    ...line('no longer answer', gone, ({ reason }) => (reason === null ? '' : ` (${reason})`)),
  ];
}

function facts(report: StatusReport, now: Date): string {
  const { store, underlay, overlay, reconcile, addresses } = report;
  const rows: [string, string][] = [
    ['node', `${report.node}, vtepd ${report.version}, up ${since(report.startedAt, now)}`],
  ];
  const contact =
    store.lastContactAt === null ? 'no answer yet' : `answered ${since(store.lastContactAt, now)} ago`;
  const health = store.healthy ? 'healthy' : 'NOT HEALTHY';
  rows.push(['store', `${store.kind}, ${health}, revision ${store.revision ?? 'unknown'}, ${contact}`]);
  rows.push(['lease', leaseText(report, now)]);
  if (underlay !== null) {
    rows.push(['underlay', `${underlay.device}, MTU ${underlay.mtuBytes} (${underlay.chosenBy})`]);
    for (const family of underlay.lackingFamilies) {
      rows.push(['', `no ${family} address: this node's pods are without ${family}`]);
    }
  }
  if (report.probe !== null && report.probe.reason !== null) {
    const { running, reason } = report.probe;
    rows.push(['', `${running ? 'partly' : 'not'} probed: ${reason}`]);
  }
  if (overlay !== null) {
    const { device, deviceIPv6, vni, port, mtuBytes, datapath, datapathReason, bridge, networks } = overlay;
    const devices =
      device === deviceIPv6 || deviceIPv6 === undefined ? device : `${device} and ${deviceIPv6}`;
    const tunnel = device === null ? overlay.backend : `${devices}, VNI ${vni}, UDP port ${port}`;
    rows.push(['overlay', `${tunnel}, MTU ${mtuBytes}, data path ${datapath}`]);
    // The kernel's is what everybody expects.
    if (datapath === 'userspace' && datapathReason !== null)
      rows.push(['', `in user space: ${datapathReason}`]);
    rows.push(['', `bridge ${bridge}, cluster network ${networks.join(', ')}`]);
    if (overlay.directRouting) rows.push(['', "peers on the underlay's link are routed directly"]);
  } else {
    rows.push(['overlay', 'none yet']);
  }
  rows.push(...tunnelRows(report));
  if (addresses !== null) rows.push(['addresses', `${addresses.used} used, ${addresses.free} free`]);
  const drops = Object.entries(report.firewall?.drops ?? {}).filter(([, packets]) => packets > 0);
  if (drops.length > 0) {
    rows.push(['firewall', `dropped ${drops.map(([reason, packets]) => `${packets} ${reason}`).join(', ')}`]);
  }
  const lastPass =
    reconcile.lastPassAt === null ? 'none yet' : `the last ${since(reconcile.lastPassAt, now)} ago`;
  rows.push(['kernel', `${reconcile.passes} passes (${lastPass}), ${reconcile.repairs} repairs`]);
  if (reconcile.lastRepair !== null) {
    const { at, count, objects } = reconcile.lastRepair;
    const more = count > objects.length ? ', ...' : '';
    rows.push(['', `last repair ${since(at, now)} ago, ${count} objects: ${objects.join(', ')}${more}`]);
  }
  return rows.map(([name, text]) => `${name.padEnd(10)}${printable(text)}`).join('\n');
}

function leaseText({ lease }: StatusReport, now: Date): string {
  if (lease === null) return 'none yet';
  const end =
    lease.expiresAt === null
      ? 'does not expire'
      : `expires in ${duration(Date.parse(lease.expiresAt) - now.getTime())} unless renewed`;
  const vtep = both(lease.vtepMAC, lease.vtepMACIPv6);
  const at = `${both(lease.subnet, lease.subnetIPv6)} at ${both(lease.publicIP, lease.publicIPv6)}`;
  return `${at}${vtep === '-' ? '' : `, VTEP ${vtep}`}, ${end}`;
}

const both = (ipv4: string | undefined, ipv6: string | undefined): string =>
  [ipv4, ipv6].filter((value) => value !== undefined).join(', ') || '-';

const routes = ({ route, routeIPv6 }: PeerStatus): string =>
  [...new Set([route, routeIPv6])].filter((each) => each !== undefined).join(', ');

/** Those with something missing come first. */
function peers(report: StatusReport, options: RenderOptions): string {
  const mixed = report.overlay?.directRouting === true;
  const sorted = [...report.peers].sort((a, b) => Number(a.programmed) - Number(b.programmed));
  const row = (peer: PeerStatus) => [
    both(peer.subnet, peer.subnetIPv6),
    both(peer.publicIP, peer.publicIPv6),
    both(peer.vtepMAC, peer.vtepMACIPv6),
    ...(mixed ? [routes(peer)] : []),
    peer.programmed ? 'yes' : `NO: missing ${peer.missing.join(', ') || 'everything'}`,
  ];
  if (sorted.length === 0) return 'Peers: none';
  return list(
    `Peers (${sorted.length})`,
    ['SUBNET', 'PUBLIC IP', 'VTEP MAC', ...(mixed ? ['ROUTE'] : []), 'PROGRAMMED'],
    sorted,
    row,
    options,
  );
}

function skipped(report: StatusReport, options: RenderOptions): string {
  const title = `Leases not used (${report.skipped.length})`;
  return report.skipped.length === 0
    ? ''
    : list(title, ['LEASE', 'REASON'], report.skipped, ({ key, reason }) => [key, reason], options);
}

function pods(report: StatusReport, options: RenderOptions): string {
  const row = (pod: AttachmentStatus) => [
    pod.ips.join(', '),
    pod.ifname,
    pod.mac,
    pod.hostInterface ?? '-',
    pod.containerID.slice(0, 12),
    pod.pod ?? '-',
  ];
  const heading = ['ADDRESS', 'INTERFACE', 'MAC', 'HOST END', 'CONTAINER', 'POD'];
  const { attachments } = report;
  return attachments.length === 0
    ? 'Pods: none'
    : list(`Pods (${attachments.length})`, heading, attachments, row, options);
}

function list<T>(
  title: string,
  heading: readonly string[],
  items: readonly T[],
  row: (item: T) => readonly string[],
  { maxRows }: RenderOptions,
): string {
  const rows = items.slice(0, maxRows).map((item) => row(item).map(printable));
  const more = items.length > rows.length ? `\n... and ${items.length - rows.length} more (--all)` : '';
  return `${title}\n${columns(heading, rows)}${more}`;
}

/** Columns under a heading, two spaces apart; the last one is not padded. */
export function columns(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [heading, ...rows];
  const widths = heading.map((_, at) => all.reduce((width, row) => Math.max(width, row[at]?.length ?? 0), 0));
  const line = (row: readonly string[]) =>
    row
      .map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0)))
      .join('  ')
      .trimEnd();
  return all.map(line).join('\n');
}

const since = (time: string, now: Date): string => duration(now.getTime() - Date.parse(time));

/** The two largest units: `3 h 12 min`. */
export function duration(valueMs: number): string {
  const seconds = Math.max(0, Math.round(valueMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
