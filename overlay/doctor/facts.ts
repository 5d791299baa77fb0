/** What the doctor knows of a node before it judges: read by gather.ts, made up by tests. */
import type { InstalledCni } from '../../cni-shim/installed.ts';
import type { LeaseSnapshot } from '../../store/lease-store.ts';
import type { Settings } from '../config/settings.ts';
import type { Underlay } from '../desired/underlay.ts';
import type { LinkAddress } from '../kernel/address.ts';
import type { Capabilities, Feature, FeatureName } from '../kernel/features.ts';
import type { Link } from '../kernel/link.ts';
import type { DroppingChain } from '../kernel/nft-table.ts';
import type { Route } from '../kernel/route.ts';
import type { SocketOwner, UdpSocket } from '../kernel/udp-sockets.ts';
import type { StatusReport } from '../ops/status.ts';

/** Something that was read, or why it could not be. */
export type Reading<T> = { readonly found: T } | { readonly fault: Fault };

export interface Fault {
  readonly message: string;
  /** A stable code of the error, where it has one. */
  readonly code?: string | undefined;
}

export interface HeldPort extends UdpSocket {
  readonly owner?: SocketOwner | undefined;
}

export interface DoctorFacts {
  /** vtepd's, of the program that asks. */
  readonly version: string;
  readonly kernel: string;
  readonly settings: Settings;
  readonly capabilities: Capabilities;
  readonly features: Readonly<Record<FeatureName, Feature>>;
  /** What the daemon says of itself over HTTP; undefined: --http is off. */
  readonly daemon: Reading<StatusReport> | undefined;
  /** Somebody listens on the CNI plugin's socket. */
  readonly socketAnswers: boolean;
  readonly store: Reading<LeaseSnapshot>;
  /** What the daemon saw in the store last, where that does not answer. */
  readonly cached?: LeaseSnapshot | undefined;
  readonly links: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  /** Of the main and the local table, without ours. */
  readonly routes: readonly Route[];
  readonly underlay: Reading<Underlay>;
  /** Bound sockets on the VXLAN port, the kernel's included. */
  readonly portHolders: readonly HeldPort[];
  /** Chains of others that drop what they do not accept. */
  readonly droppingChains: Reading<readonly DroppingChain[]>;
  /** Tables of iptables-legacy, whose chains nftables does not show. */
  readonly legacyTables: readonly string[];
  /** By path below /proc/sys/net; undefined: the kernel has no such setting. */
  readonly sysctls: Readonly<Record<string, string | undefined>>;
  /** Undefined: no CNI configuration is asked for, and none is there. */
  readonly cni: Reading<InstalledCni> | undefined;
  /** Peers that were asked through the tunnel; undefined: the daemon does not answer, so none is known. */
  readonly tunnel?: Reading<readonly TunnelTrial[]> | undefined;
  /** Folders that the daemon writes to, and what is wrong with each. */
  readonly folders: readonly FolderFact[];
}

export interface TunnelTrial {
  /** Its public address. */
  readonly peer: string;
  readonly answered: boolean;
}

export interface FolderFact {
  readonly option: string;
  readonly path: string;
  readonly problem?: string | undefined;
}
