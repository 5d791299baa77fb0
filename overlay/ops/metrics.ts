/**
 * The daemon's numbers, by purpose. What the rooms tell is kept until somebody wants to read it: loading
 * prom-client costs 30 ms and more, which a daemon that starts has better uses for. prometheus.ts is the rest.
 */
import type { Family } from '../../store/address.ts';
import type { PrometheusMetrics } from './prometheus.ts';

/** What started a pass of the reconciler. */
export type PassTrigger = 'event' | 'periodic' | 'retry';

export type CniVerb = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** What can fail with the node's own lease. */
export type LeaseOperation = 'claim' | 'renew' | 'release';

export interface PassReport {
  readonly trigger: PassTrigger;
  readonly durationMs: number;
  readonly failed: boolean;
}

export interface VerbReport {
  readonly verb: CniVerb;
  /** `ok`, or the CNI error's code as text. */
  readonly result: string;
  readonly durationMs: number;
}

/** How the underlay's paths to the peers are, in one family. */
export interface PathsReport {
  readonly reachable: number;
  readonly unreachable: number;
  /** Nothing was ever answered: filtered, or not there. */
  readonly unknown: number;
  /** Only small packets are answered. Not among the reachable. */
  readonly filtered: number;
  /** Of the reachable: not by packets of full size. */
  readonly reduced: number;
  /** Milliseconds, in order. */
  readonly roundTripsMs: readonly number[];
}

/** What went one way through a user-space tunnel since it was opened. */
export interface TunnelFlow {
  readonly packets: number;
  readonly bytes: number;
  readonly drops: Readonly<Record<string, number>>;
  /** System calls by how many packets they carried: up to each of `bounds`, and above them all. */
  readonly batches: readonly number[];
  readonly bounds: readonly number[];
}

export interface TunnelReport {
  readonly up: boolean;
  readonly workerRestarts: number;
  readonly narrowPaths: number;
  readonly sent: TunnelFlow;
  readonly received: TunnelFlow;
}

/** What the rooms tell. */
export interface Recorder {
  /** Other nodes' leases, how many of them the kernel holds whole, and how many are routed without the tunnel. */
  peers(wanted: number, programmed: number, direct: number): void;
  /** Leases in the store that are not used: unreadable, or refused. */
  unusedLeases(malformed: number, skipped: number): void;
  pass(report: PassReport): void;
  /** Kernel objects put right: `route`, `neighbour`, `fdb`, `nexthop`, `device`, `bridge`, `address`, `nft`, ... */
  repair(kind: string, count?: number): void;
  storeHealth(healthy: boolean): void;
  /** Numeric revisions only; others are left out. */
  storeRevision(revision: string): void;
  /** From a lease's change being delivered to its objects being in the kernel. */
  leaseToKernel(durationMs: number): void;
  leaseFailure(operation: LeaseOperation): void;
  verb(report: VerbReport): void;
  addresses(family: Family, used: number, free: number): void;
  ready(ready: boolean): void;
  /** Packets that the filter dropped since its tables were made, by reason. */
  drops(packets: Readonly<Record<string, number>>): void;
  paths(family: Family, report: PathsReport): void;
  /** The user-space tunnel of a family. */
  tunnel(family: Family, report: TunnelReport): void;
  /** The probe's packets since the start. */
  probePackets(counts: {
    readonly sent: number;
    readonly answered: number;
    readonly unmatched: number;
  }): void;
}

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
