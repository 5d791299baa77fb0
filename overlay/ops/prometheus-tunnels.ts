/** The user-space tunnels' metrics. They are counted where the packets are; here each reading replaces the last. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Recorder } from './recorder.ts';

const LABELS = ['family', 'direction'] as const;

export function tunnelMetrics(registry: Registry): Recorder['tunnel'] {
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter({ name, help, labelNames, registers });
  const gauge = (name: string, help: string) =>
    new Gauge({ name, help, labelNames: ['family'] as const, registers });
  const up = gauge('vtepd_datapath_up', '1 while the user-space tunnel of the family carries packets.');
  const narrow = gauge(
    'vtepd_datapath_narrow_paths',
    'Peers to which the underlay was found to carry less than its interface does.',
  );
  const packets = counter(
    'vtepd_datapath_packets_total',
    'VXLAN packets of the user-space tunnel, since it was opened.',
    LABELS,
  );
  const bytes = counter('vtepd_datapath_bytes_total', 'Bytes of the frames in them.', LABELS);
  const drops = counter('vtepd_datapath_drops_total', 'Packets that went no further, by reason.', [
    ...LABELS,
    'reason',
  ]);
  const calls = counter(
    'vtepd_datapath_batches_total',
    'System calls on the socket, by how many packets they carried at most (and more than the bound before).',
    [...LABELS, 'packets'],
  );
  const restarts = counter(
    'vtepd_datapath_worker_restarts_total',
    'Threads that died and were started again.',
    ['family'],
  );
  const set = <L extends string>(metric: Counter<L>, labels: Record<L, string>, value: number): void => {
    metric.remove(labels);
    metric.inc(labels, value);
  };

  return (family, report) => {
    up.set({ family }, Number(report.up));
    narrow.set({ family }, report.narrowPaths);
    set(restarts, { family }, report.workerRestarts);
    for (const direction of ['sent', 'received'] as const) {
      const flow = report[direction];
      const labels = { family, direction };
      set(packets, labels, flow.packets);
      set(bytes, labels, flow.bytes);
      for (const [reason, count] of Object.entries(flow.drops)) set(drops, { ...labels, reason }, count);
      for (const [at, count] of flow.batches.entries()) {
        set(calls, { ...labels, packets: String(flow.bounds[at] ?? '+Inf') }, count);
      }
    }
  };
}
