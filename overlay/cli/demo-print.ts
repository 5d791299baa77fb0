/** A demo's findings for people, in a plain terminal. */

import type { Paint } from './demo-progress.ts';
import type { DemoLayer, DemoPacket, DemoPing, DemoPod, DemoReport, DemoTcp } from './demo-report.ts';

/** With more pods the matrix is one of nodes. */
const MAX_MATRIX_PODS = 12;

export function printPings(report: Pick<DemoReport, 'nodes' | 'pings'>, paint: Paint): string {
  const pods = report.nodes.flatMap((node) => node.pods);
  const byNode = pods.length > MAX_MATRIX_PODS;
  const ends = byNode ? report.nodes.map((_, at) => `${at + 1}`) : pods.map(({ label }) => label);
  const name = byNode ? (label: string) => label.slice(0, label.indexOf('.')) : (label: string) => label;
  const cells = new Map<string, DemoPing[]>();
  for (const ping of report.pings) {
    const key = `${name(ping.from)} ${name(ping.to)}`;
    cells.set(key, [...(cells.get(key) ?? []), ping]);
  }
  const width = 8;
  const heading = ends.map((end) => end.padStart(width)).join('');
  const rows = ends.map((from) => {
    const row = ends.map((to) => cell(cells.get(`${from} ${to}`) ?? [], width, paint)).join('');
    const address = byNode ? report.nodes[ends.indexOf(from)]?.subnet : addressOf(pods, from);
    return `  ${from.padStart(7)}${row}   ${paint.dim(address ?? '')}`;
  });
  const what = byNode ? 'nodes (all their pods)' : 'pods (NODE.POD)';
  return [
    paint.bold(`Round trips between ${what}, from the row to the column, mean in ms`),
    paint.dim('  within a node by its bridge; between nodes through the tunnel'),
    '',
    paint.dim(`  ${' '.repeat(7)}${heading}`),
    ...rows,
    '',
  ].join('\n');
}

const addressOf = (pods: readonly DemoPod[], label: string): string | undefined =>
  pods.find((pod) => pod.label === label)?.address;

function cell(pings: readonly DemoPing[], width: number, paint: Paint): string {
  if (pings.length === 0) return paint.dim('·'.padStart(width));
  const lost = pings.reduce((sum, ping) => sum + ping.lost, 0);
  if (lost > 0) return paint.bad(`-${lost}`.padStart(width));
  const mean = pings.reduce((sum, ping) => sum + (ping.roundTripMs?.mean ?? 0), 0) / pings.length;
  return mean.toFixed(3).padStart(width);
}

export function printPacket(packet: DemoPacket, paint: Paint): string {
  return [
    paint.bold(`One of these requests, as it left ${packet.node} by ${packet.device}: ${packet.bytes} bytes`),
    paint.dim(`  ${packet.overheadBytes} of them are what the tunnel adds to the pod's own IP packet`),
    '',
    ...packet.layers.map((layer) => layerLine(layer, paint)),
    '',
  ].join('\n');
}

function layerLine(layer: DemoLayer, paint: Paint): string {
  const indent = layer.depth === 0 ? '' : `${paint.dim('│ '.repeat(layer.depth))}`;
  const name = layer.name.padEnd(12 - 2 * layer.depth);
  return `  ${indent}${name}${`${layer.bytes}`.padStart(4)} bytes   ${sentence(layer)}`.trimEnd();
}

/** The fields in the words of people; those of `data` have none. */
function sentence({ name, fields, depth }: DemoLayer): string {
  const ends = `${fields.source} → ${fields.destination}`;
  switch (name) {
    case 'Ethernet':
      return `${ends}   ${depth === 0 ? 'from node to node' : 'from VTEP to VTEP'}`;
    case 'IPv4':
      return `${ends}   TTL ${fields.ttl}${fields.dontFragment === true ? ', do not fragment' : ''}`;
    case 'IPv6':
      return `${ends}   hop limit ${fields.hopLimit}`;
    case 'UDP':
      return `${fields.sourcePort} → ${fields.destinationPort}   the source port is a hash of what is inside`;
    case 'VXLAN':
      return `VNI ${fields.vni}`;
    case 'ICMP':
      return `echo request ${fields.sequence} of ${fields.identifier}`;
    case 'data':
      return '';
    default:
      return JSON.stringify(fields);
  }
}

const BAR_WIDTH = 32;

export function printTcp(tcp: DemoTcp, paint: Paint): string {
  const most = Math.max(tcp.overlayBitsPerSecond, tcp.underlayBitsPerSecond, 1);
  const line = (name: string, bitsPerSecond: number) => {
    const bar = '█'.repeat(Math.max(1, Math.round((BAR_WIDTH * bitsPerSecond) / most)));
    return `  ${name.padEnd(26)}${gigabits(bitsPerSecond).padStart(14)}   ${paint.dim(bar)}`;
  };
  const share = (100 * tcp.overlayBitsPerSecond) / tcp.underlayBitsPerSecond;
  return [
    paint.bold(
      `TCP, one connection for ${tcp.seconds} s by ${tcp.tool}: ${share.toFixed(0)} % of the bare underlay`,
    ),
    '',
    line('pod to pod, between nodes', tcp.overlayBitsPerSecond),
    line('node to node, no tunnel', tcp.underlayBitsPerSecond),
    '',
  ].join('\n');
}

const gigabits = (bitsPerSecond: number): string => `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`;

/** How to look at a lab that was kept, and how to remove it. */
export function printKept(report: Pick<DemoReport, 'run' | 'nodes'>, dir: string, vtepd: string): string {
  const [first, second] = report.nodes;
  const pod = first?.pods[0];
  const far = second?.pods[0];
  const inNode = `ip netns exec ${first?.namespace}`;
  return [
    'Everything is still up. Look around:',
    `  ${inNode} ${vtepd} status`,
    `  ip netns exec ${pod?.namespace} busybox ping -c 3 ${far?.address}`,
    `  ip -n ${first?.namespace} route                        a route a peer, through the VXLAN device`,
    `  ${inNode} bridge fdb show              which VTEP MAC is behind which public address`,
    `  ${inNode} nft list ruleset`,
    `  ${inNode} tcpdump -ni eth0 udp port 8472`,
    `  less ${dir}/${first?.name}/daemon.log`,
    'Remove it:',
    `  ${vtepd} demo --clean ${report.run}`,
    '',
  ].join('\n');
}

export function printVerdict(
  report: Pick<DemoReport, 'ok' | 'problems' | 'durationMs'>,
  paint: Paint,
): string {
  const time = `(${(report.durationMs / 1000).toFixed(1)} s)`;
  if (report.ok) return `${paint.good('Everything worked')} ${time}\n`;
  const problems = report.problems.map((problem) => `  ${problem}\n`).join('');
  return `${paint.bad('Not everything worked')} ${time}:\n${problems}`;
}
