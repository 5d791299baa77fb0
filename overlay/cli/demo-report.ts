/** What a demo found, as data: printed for people by demo-print.ts, as it stands by --json. */
import type { PingReport } from '../lab/ping.ts';

export interface DemoReport {
  readonly run: string;
  readonly version: string;
  readonly store: string;
  /** Everything worked. */
  readonly ok: boolean;
  /** What did not, one line each. */
  readonly problems: readonly string[];
  readonly nodes: readonly DemoNode[];
  readonly pings: readonly DemoPing[];
  readonly guard: DemoGuard;
  readonly packet: DemoPacket | null;
  readonly tcp: DemoTcp;
  readonly durationMs: number;
}

export interface DemoNode {
  readonly name: string;
  readonly namespace: string;
  readonly publicIP: string;
  readonly subnet: string;
  readonly vtepMAC: string;
  readonly mtuBytes: number;
  /** What carries its tunnel. */
  readonly datapath: 'kernel' | 'userspace';
  /** From the daemon's start to CNI's STATUS saying that a pod would work. */
  readonly readyMs: number;
  readonly pods: readonly DemoPod[];
}

export interface DemoPod {
  /** `1.2`: the second of node 1. */
  readonly label: string;
  readonly namespace: string;
  readonly address: string;
  /** The whole CNI ADD as a runtime sees it. */
  readonly addMs: number;
}

export interface DemoPing extends PingReport {
  /** Labels of pods. */
  readonly from: string;
  readonly to: string;
  readonly acrossNodes: boolean;
}

export interface DemoGuard {
  /** What the underlay drops: packets whose outer header bears an address of these. */
  readonly networks: readonly string[];
  /** Dropped while the pods pinged each other. */
  readonly refusedDuringPings: number;
  /** Dropped of `plainSent` requests to a pod that were sent to the underlay as they are. */
  readonly refusedPlain: number;
  readonly plainSent: number;
  readonly plainAnswered: number;
}

export interface DemoPacket {
  /** Where it was seen. */
  readonly node: string;
  readonly device: string;
  readonly bytes: number;
  /** What the tunnel adds to an IP packet: everything up to and with the inner Ethernet header. */
  readonly overheadBytes: number;
  readonly layers: readonly DemoLayer[];
  readonly hex: string;
}

export interface DemoLayer {
  readonly name: string;
  readonly bytes: number;
  /** 0: the underlay's; 1: inside the tunnel. */
  readonly depth: number;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

export interface DemoTcp {
  readonly tool: string;
  readonly seconds: number;
  readonly overlayBitsPerSecond: number;
  readonly underlayBitsPerSecond: number;
}
