/** The tunnels in user space, as `vtepd status` prints them. */
import { printable } from './redact.ts';
import type { StatusReport, TunnelStatus, TunnelTraffic } from './status.ts';

/** What is wrong with them, a line each. */
export function tunnelProblems({ tunnels }: StatusReport): string[] {
  return tunnels.flatMap(({ device, fault, workerRestarts, narrowPaths }) => {
    const lines: string[] = [];
    if (fault !== null) lines.push(`! data path: the tunnel on ${device} is down: ${printable(fault)}`);
    if (workerRestarts > 0) {
      lines.push(`! data path: ${workerRestarts} threads of ${device} died and were started again`);
    }
    const [narrow] = narrowPaths;
    if (narrow !== undefined) {
      const more = narrowPaths.length > 1 ? ', ...' : '';
      lines.push(
        `! data path: ${narrowPaths.length} paths of ${device} carry less than the underlay's interface: ` +
          `${narrow.remote} (${narrow.mtuBytes} bytes)${more}`,
      );
    }
    return lines;
  });
}

/** Rows of a name and a text, the name only on the first. */
export const tunnelRows = ({ tunnels }: StatusReport): [string, string][] =>
  tunnels.flatMap((tunnel, at): [string, string][] => [
    [at === 0 ? 'tunnel' : '', `${tunnel.device} sent ${trafficText(tunnel, 'sent')}`],
    ['', `${tunnel.device} received ${trafficText(tunnel, 'received')}`],
  ]);

function trafficText(tunnel: TunnelStatus, direction: 'sent' | 'received'): string {
  const { packets, bytes, drops, batches } = tunnel[direction];
  const calls = batches.reduce((sum, each) => sum + each.calls, 0);
  const each = calls === 0 ? '' : `, ${(packets / calls).toFixed(1)} a system call`;
  return `${packets} packets (${amount(bytes)}${each})${dropText(drops)}`;
}

function dropText(drops: TunnelTraffic['drops']): string {
  const parts = Object.entries(drops).map(([reason, count]) => `${count} ${reason}`);
  return parts.length === 0 ? '' : `, dropped ${parts.join(', ')}`;
}

/** `1.2 MB` */
function amount(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
  return power === 0 ? `${bytes} B` : `${(bytes / 1000 ** power).toFixed(1)} ${units[power]}`;
}
