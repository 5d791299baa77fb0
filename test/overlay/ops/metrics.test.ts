import { expect } from 'chai';
import { Registry } from 'prom-client';
import { createMetrics } from '../../../overlay/ops/metrics.ts';

describe('ops: metrics', () => {
  it('counts what it is told, under names that say what', async () => {
    const metrics = createMetrics();
    metrics.ready(true);
    metrics.peers(10, 9, 4);
    metrics.unusedLeases(1, 2);
    metrics.pass({ trigger: 'event', durationMs: 2, failed: false });
    metrics.pass({ trigger: 'retry', durationMs: 2, failed: true });
    metrics.repair('route');
    metrics.repair('route', 4);
    metrics.storeHealth(true);
    metrics.storeRevision('1234');
    metrics.storeRevision('not a number');
    metrics.leaseToKernel(0.7);
    metrics.leaseFailure('renew');
    metrics.verb({ verb: 'ADD', result: 'ok', durationMs: 3 });
    metrics.verb({ verb: 'ADD', result: '11', durationMs: 1 });
    metrics.addresses('ipv4', 3, 250);
    metrics.paths('ipv4', {
      reachable: 3,
      unreachable: 1,
      unknown: 2,
      filtered: 1,
      reduced: 1,
      roundTripsMs: [1, 2, 3, 4],
    });
    metrics.probePackets({ sent: 8, answered: 6, unmatched: 1 });
    metrics.probePackets({ sent: 9, answered: 7, unmatched: 1 });
    const lines = (await metrics.text()).split('\n');
    expect(lines).to.include.members([
      'vtepd_ready 1',
      'vtepd_peers_wanted 10',
      'vtepd_peers_programmed 9',
      'vtepd_peers_direct 4',
      'vtepd_leases_unused{reason="malformed"} 1',
      'vtepd_leases_unused{reason="skipped"} 2',
      'vtepd_reconcile_passes_total{trigger="event",result="ok"} 1',
      'vtepd_reconcile_passes_total{trigger="retry",result="failed"} 1',
      'vtepd_reconcile_repairs_total{kind="route"} 5',
      'vtepd_store_healthy 1',
      'vtepd_store_revision 1234',
      'vtepd_lease_to_kernel_seconds_bucket{le="0.0005"} 0',
      'vtepd_lease_to_kernel_seconds_bucket{le="0.001"} 1',
      'vtepd_lease_failures_total{operation="renew"} 1',
      'vtepd_cni_seconds_count{verb="ADD",result="ok"} 1',
      'vtepd_cni_seconds_count{verb="ADD",result="11"} 1',
      'vtepd_addresses_used{family="ipv4"} 3',
      'vtepd_addresses_free{family="ipv4"} 250',
      'vtepd_probe_paths{family="ipv4",state="reachable"} 3',
      'vtepd_probe_paths{family="ipv4",state="unreachable"} 1',
      'vtepd_probe_paths{family="ipv4",state="unknown"} 2',
      'vtepd_probe_paths{family="ipv4",state="filtered"} 1',
      'vtepd_probe_reduced_paths{family="ipv4"} 1',
      'vtepd_probe_round_trip_seconds{family="ipv4",quantile="0.5"} 0.002',
      'vtepd_probe_round_trip_seconds{family="ipv4",quantile="1"} 0.004',
      'vtepd_probe_packets_total{result="sent"} 9',
      'vtepd_probe_packets_total{result="unmatched"} 1',
    ]);
  });

  it('tells what the user-space tunnels count as they count it, anew with every reading', async () => {
    const metrics = createMetrics();
    const flow = (packets: number) => ({
      packets,
      bytes: 100 * packets,
      drops: { no_peer: 1, too_big: 0 },
      batches: [packets, 0, 2],
      bounds: [1, 2],
    });
    const report = { up: true, workerRestarts: 1, narrowPaths: 2, received: flow(7) };
    metrics.tunnel('ipv4', { ...report, sent: flow(5) });
    metrics.tunnel('ipv4', { ...report, sent: flow(9) });
    const sent = 'family="ipv4",direction="sent"';
    expect((await metrics.text()).split('\n')).to.include.members([
      'vtepd_datapath_up{family="ipv4"} 1',
      'vtepd_datapath_worker_restarts_total{family="ipv4"} 1',
      'vtepd_datapath_narrow_paths{family="ipv4"} 2',
      `vtepd_datapath_packets_total{${sent}} 9`,
      `vtepd_datapath_bytes_total{${sent}} 900`,
      `vtepd_datapath_drops_total{${sent},reason="no_peer"} 1`,
      `vtepd_datapath_drops_total{${sent},reason="too_big"} 0`,
      `vtepd_datapath_batches_total{${sent},packets="1"} 9`,
      `vtepd_datapath_batches_total{${sent},packets="+Inf"} 2`,
      'vtepd_datapath_packets_total{family="ipv4",direction="received"} 7',
    ]);
  });

  it('loses nothing of what it is told before, while and after prom-client is loaded', async () => {
    const metrics = createMetrics();
    for (let told = 0; told < 2500; told++) metrics.repair('route');
    const first = metrics.text();
    metrics.repair('route');
    await first;
    metrics.repair('route');
    expect(await metrics.text()).to.include('vtepd_reconcile_repairs_total{kind="route"} 2502');
    expect(metrics.contentType).to.equal(new Registry().contentType);
  });

  it('keeps two daemons of one process apart', async () => {
    const [one, other] = [createMetrics(), createMetrics()];
    one.peers(1, 1, 0);
    expect(await other.text()).to.include('vtepd_peers_wanted 0');
  });

  it('reads the process when it is asked', async () => {
    const text = await createMetrics().text();
    const value = (name: string) => Number(new RegExp(`^${name} (.+)$`, 'm').exec(text)?.[1]);
    expect(value('process_resident_memory_bytes')).to.be.greaterThan(10_000_000);
    expect(value('process_open_fds')).to.be.greaterThan(2);
    expect(value('process_cpu_seconds_total')).to.be.greaterThan(0);
    expect(Math.abs(value('process_start_time_seconds') - Date.now() / 1000)).to.be.lessThan(3600);
  });
});
