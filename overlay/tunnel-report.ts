/** The tunnels in user space, as status and metrics tell of them. */
import { BATCH_BOUNDS, type DirectionStats } from '../encap/tunnel-types.ts';
import type { Metrics } from './ops/metrics.ts';
import type { TunnelStatus, TunnelTraffic } from './ops/status.ts';
import type { OpenTunnel } from './reconcile/tunnels.ts';

export function tunnelStatus({ device, family, tunnel }: OpenTunnel): TunnelStatus {
  const { sent, received, narrowPaths, workerRestarts } = tunnel.stats();
  return {
    device,
    family,
    fault: tunnel.fault?.message ?? null,
    resumed: tunnel.resumed,
    workerRestarts,
    sent: traffic(sent),
    received: traffic(received),
    narrowPaths,
  };
}

const traffic = ({ packets, bytes, drops, batches }: DirectionStats): TunnelTraffic => ({
  packets,
  bytes,
  drops: Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0)),
  batches: batches.map((calls, at) => ({ packets: BATCH_BOUNDS[at] ?? null, calls })),
});

export function tunnelMetrics(tunnels: readonly OpenTunnel[], metrics: Pick<Metrics, 'tunnel'>): void {
  for (const { family, tunnel } of tunnels) {
    const { sent, received, narrowPaths, workerRestarts } = tunnel.stats();
    metrics.tunnel(family, {
      up: tunnel.fault === undefined,
      workerRestarts,
      narrowPaths: narrowPaths.length,
      sent: { ...sent, bounds: BATCH_BOUNDS },
      received: { ...received, bounds: BATCH_BOUNDS },
    });
  }
}
