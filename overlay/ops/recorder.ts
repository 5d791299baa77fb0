/** What the rooms tell of their numbers; metrics.ts keeps them, prometheus.ts names them. */
import type { Family } from '../../store/address.ts';

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
