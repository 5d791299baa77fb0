/**
 * The daemon's numbers, by purpose. What the rooms tell is kept until somebody wants to read it: loading
 * prom-client costs 30 ms and more, which a daemon that starts has better uses for. prometheus.ts is the rest.
 */
import type { PrometheusMetrics } from './prometheus.ts';
import type { Recorder } from './recorder.ts';

export interface Metrics extends Recorder {
  /** The `Content-Type` of text(). */
  readonly contentType: string;
  /** Everything in Prometheus' text format. */
  text(): Promise<string>;
}

/** So much is kept at most before it is loaded although nobody has asked. */
const MAX_KEPT = 1000;

/** The version of the text format that prom-client writes. */
const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export function createMetrics(): Metrics {
  const kept: ((recorder: Recorder) => void)[] = [];
  let loaded: PrometheusMetrics | undefined;
  let loading: Promise<PrometheusMetrics> | undefined;

  const load = async (): Promise<PrometheusMetrics> => {
    const { createPrometheusMetrics } = await import('./prometheus.ts');
    const metrics = createPrometheusMetrics();
    for (const record of kept.splice(0)) record(metrics);
    loaded = metrics;
    return metrics;
  };
  const ready = (): Promise<PrometheusMetrics> => {
    loading ??= load();
    return loading;
  };
  const tell = (record: (recorder: Recorder) => void): void => {
    if (loaded !== undefined) record(loaded);
    // A failure to load is text()'s to tell.
    else if (kept.push(record) === MAX_KEPT) ready().catch(() => {});
  };

  return {
    contentType: CONTENT_TYPE,
    peers: (wanted, programmed, direct) => tell((to) => to.peers(wanted, programmed, direct)),
    unusedLeases: (malformed, skipped) => tell((to) => to.unusedLeases(malformed, skipped)),
    pass: (report) => tell((to) => to.pass(report)),
    repair: (kind, count) => tell((to) => to.repair(kind, count)),
    storeHealth: (healthy) => tell((to) => to.storeHealth(healthy)),
    storeRevision: (revision) => tell((to) => to.storeRevision(revision)),
    leaseToKernel: (durationMs) => tell((to) => to.leaseToKernel(durationMs)),
    leaseFailure: (operation) => tell((to) => to.leaseFailure(operation)),
    verb: (report) => tell((to) => to.verb(report)),
    addresses: (family, used, free) => tell((to) => to.addresses(family, used, free)),
    ready: (isReady) => tell((to) => to.ready(isReady)),
    drops: (packets) => tell((to) => to.drops(packets)),
    paths: (family, report) => tell((to) => to.paths(family, report)),
    tunnel: (family, report) => tell((to) => to.tunnel(family, report)),
    probePackets: (counts) => tell((to) => to.probePackets(counts)),
    text: async () => (await ready()).text(),
  };
}
