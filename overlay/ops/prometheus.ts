/**
 * The metrics as Prometheus knows them: their names, help and buckets. prom-client stays in this file; the
 * rooms see metrics.ts. Every label's values are few and known beforehand: a peer or a pod is never a label.
 */
import { readdirSync } from 'node:fs';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { packageVersion } from './package.ts';
import { tunnelMetrics } from './prometheus-tunnels.ts';
import type { Recorder } from './recorder.ts';

/** From 0.1 ms to 10 s: the aim is 5 ms, so the steps are fine around it. */
const LEASE_TO_KERNEL_BUCKETS_S = [
  0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10,
];
const PASS_BUCKETS_S = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];
const VERB_BUCKETS_S = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10];
/** The middle, what few exceed, and the longest. */
const ROUND_TRIP_QUANTILES = [0.5, 0.99, 1];

export interface PrometheusMetrics extends Recorder {
  /** Everything in Prometheus' text format. */
  text(): Promise<string>;
}

export function createPrometheusMetrics(): PrometheusMetrics {
  const registry = new Registry();
  const registers = [registry];
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge({ name, help, labelNames, registers });
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter({ name, help, labelNames, registers });
  const histogram = <L extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly L[] = [],
  ) => new Histogram({ name, help, buckets, labelNames, registers });

  gauge('vtepd_build_info', 'Always 1; the labels tell the version.', ['version', 'node']).set(
    { version: packageVersion, node: process.version },
    1,
  );
  const isReady = gauge('vtepd_ready', '1 when a pod attached now works.');
  const wanted = gauge('vtepd_peers_wanted', 'Other nodes whose lease is to be programmed.');
  const programmed = gauge('vtepd_peers_programmed', 'Of those, how many the kernel holds whole.');
  const direct = gauge('vtepd_peers_direct', 'Of those wanted, how many are routed without the tunnel.');
  const dropped = gauge(
    'vtepd_dropped_packets',
    'Packets that the filter dropped since its tables were made, by reason.',
    ['reason'],
  );
  const unused = gauge('vtepd_leases_unused', 'Leases of others that are not used, by reason.', ['reason']);
  const passes = counter('vtepd_reconcile_passes_total', 'Passes, by what started them and how they ended.', [
    'trigger',
    'result',
  ]);
  const passTime = histogram('vtepd_reconcile_pass_seconds', 'How long a pass takes.', PASS_BUCKETS_S);
  const repairs = counter('vtepd_reconcile_repairs_total', 'Kernel objects put right, by kind.', ['kind']);
  const healthy = gauge('vtepd_store_healthy', '1 while the store answers.');
  const revision = gauge('vtepd_store_revision', 'The revision up to which the store was followed.');
  const leaseTime = histogram(
    'vtepd_lease_to_kernel_seconds',
    'From a lease event to its entries in the kernel.',
    LEASE_TO_KERNEL_BUCKETS_S,
  );
  const leaseFailures = counter('vtepd_lease_failures_total', 'Failed attempts for the own lease.', [
    'operation',
  ]);
  const verbs = histogram(
    'vtepd_cni_seconds',
    'CNI calls, by verb and result (ok, or the error code).',
    VERB_BUCKETS_S,
    ['verb', 'result'],
  );
  const used = gauge('vtepd_addresses_used', 'Pod addresses that are given out.', ['family']);
  const free = gauge('vtepd_addresses_free', 'Pod addresses that can be given out.', ['family']);
  const paths = gauge('vtepd_probe_paths', 'Underlay paths to peers, by what the probe found.', [
    'family',
    'state',
  ]);
  const reduced = gauge(
    'vtepd_probe_reduced_paths',
    'Of the reachable ones, how many do not carry packets of full size.',
    ['family'],
  );
  const roundTrip = gauge(
    'vtepd_probe_round_trip_seconds',
    'Round trips to the peers that answer: the quantiles over all of them.',
    ['family', 'quantile'],
  );
  const packets = counter('vtepd_probe_packets_total', 'The packets of the probe, by what became of them.', [
    'result',
  ]);
  registerProcess(registry);

  return {
    tunnel: tunnelMetrics(registry),
    peers(wantedCount, programmedCount, directCount) {
      wanted.set(wantedCount);
      programmed.set(programmedCount);
      direct.set(directCount);
    },
    drops(packets) {
      for (const [reason, count] of Object.entries(packets)) dropped.set({ reason }, count);
    },
    paths(family, { reachable, unreachable, unknown, filtered, reduced: reducedCount, roundTripsMs }) {
      paths.set({ family, state: 'reachable' }, reachable);
      paths.set({ family, state: 'unreachable' }, unreachable);
      paths.set({ family, state: 'unknown' }, unknown);
      paths.set({ family, state: 'filtered' }, filtered);
      reduced.set({ family }, reducedCount);
      for (const quantile of ROUND_TRIP_QUANTILES) {
        const labels = { family, quantile: String(quantile) };
        const valueMs = roundTripsMs[Math.ceil(quantile * roundTripsMs.length) - 1];
        if (valueMs === undefined) roundTrip.remove(labels);
        else roundTrip.set(labels, valueMs / 1000);
      }
    },
    probePackets(counts) {
      packets.reset();
      for (const [result, count] of Object.entries(counts)) packets.inc({ result }, count);
    },
    unusedLeases(malformed, skipped) {
      unused.set({ reason: 'malformed' }, malformed);
      unused.set({ reason: 'skipped' }, skipped);
    },
    pass({ trigger, durationMs, failed }) {
      passes.inc({ trigger, result: failed ? 'failed' : 'ok' });
      passTime.observe(durationMs / 1000);
    },
    repair: (kind, count = 1) => repairs.inc({ kind }, count),
    storeHealth: (isHealthy) => healthy.set(Number(isHealthy)),
    storeRevision(text) {
      if (/^\d{1,20}$/.test(text)) revision.set(Number(text));
    },
    leaseToKernel: (durationMs) => leaseTime.observe(durationMs / 1000),
    leaseFailure: (operation) => leaseFailures.inc({ operation }),
    verb: ({ verb, result, durationMs }) => verbs.observe({ verb, result }, durationMs / 1000),
    addresses(family, usedCount, freeCount) {
      used.set({ family }, usedCount);
      free.set({ family }, freeCount);
    },
    ready: (ready) => isReady.set(Number(ready)),
    text: () => registry.metrics(),
  };
}

/**
 * The process itself, under Prometheus' usual names, read when somebody asks. prom-client's own defaults
 * would do, but their event-loop monitor wakes the process a hundred times a second.
 */
function registerProcess(registry: Registry): void {
  const registers = [registry];
  const read = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  const startedAt = Date.now() / 1000 - process.uptime();
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system time.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  read('process_start_time_seconds', 'When the process started, in seconds since 1970.', () => startedAt);
  read('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss());
  read('process_open_fds', 'Open file descriptors.', () => readdirSync('/proc/self/fd').length);
  read('nodejs_heap_size_used_bytes', 'JavaScript heap in use.', () => process.memoryUsage().heapUsed);
}
