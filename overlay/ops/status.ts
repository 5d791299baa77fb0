/**
 * What `/api/v1/status` and `vtepd status --json` say. Field names are public: they are added to, never
 * changed. Times are ISO 8601 in UTC; what is not there is null, a family that is not in use is left out.
 */

export interface StatusReport {
  readonly node: string;
  /** vtepd's. */
  readonly version: string;
  readonly startedAt: string;
  /** A pod attached now works. */
  readonly ready: boolean;
  /** Why not. */
  readonly reason: string | null;
  readonly store: StoreStatus;
  readonly lease: LeaseStatus | null;
  readonly underlay: UnderlayStatus | null;
  readonly overlay: OverlayStatus | null;
  readonly network: NetworkStatus;
  /** Those that are carried in user space: one a family. */
  readonly tunnels: readonly TunnelStatus[];
  readonly peers: readonly PeerStatus[];
  /** Null where the underlay is not to be probed. */
  readonly probe: ProbeStatus | null;
  /** Leases of others that are not used. */
  readonly skipped: readonly SkippedLease[];
  readonly attachments: readonly AttachmentStatus[];
  readonly addresses: AddressStatus | null;
  /** Null where nftables cannot be used and everything that needs it is switched off. */
  readonly firewall: FirewallStatus | null;
  readonly reconcile: ReconcileStatus;
  readonly configuration: ConfigurationStatus;
}

export interface StoreStatus {
  readonly kind: string;
  readonly healthy: boolean;
  /** Null before the first answer. */
  readonly revision: string | null;
  /** What is wrong with it. */
  readonly reason: string | null;
  /** `cache`: the leases are those that were last seen, from disk. */
  readonly source: 'live' | 'cache' | 'none';
  /** When it last answered. */
  readonly lastContactAt: string | null;
}

export interface LeaseStatus {
  readonly subnet?: string | undefined;
  readonly subnetIPv6?: string | undefined;
  readonly publicIP?: string | undefined;
  readonly publicIPv6?: string | undefined;
  readonly vtepMAC?: string | undefined;
  readonly vtepMACIPv6?: string | undefined;
  /** Null: a reservation, or a store whose leases do not expire. */
  readonly expiresAt: string | null;
}

export interface UnderlayStatus {
  readonly device: string;
  readonly mtuBytes: number;
  /** `--iface`, `the default route`, ... */
  readonly chosenBy: string;
  /** Families of the network that it has no address of: pods of this node are without. */
  readonly lackingFamilies: readonly ('ipv4' | 'ipv6')[];
}

export interface OverlayStatus {
  /** The network's: `vxlan`, `host-gw`. */
  readonly backend: string;
  /** Peers on the underlay's link are routed directly, the others through the tunnel. */
  readonly directRouting: boolean;
  /** The tunnel's, IPv4's where there are two; null where there is none, with the host-gw backend. */
  readonly device: string | null;
  /** The tunnel's of IPv6. */
  readonly deviceIPv6?: string | undefined;
  readonly vni: number | null;
  readonly port: number | null;
  readonly mtuBytes: number;
  readonly datapath: 'kernel' | 'userspace' | 'direct';
  /** Who or what chose it: `--datapath userspace`, `the kernel has vxlan`, ... Null where there is no tunnel. */
  readonly datapathReason: string | null;
  readonly bridge: string;
  /** The cluster's: `10.244.0.0/16`. */
  readonly networks: readonly string[];
}

export interface TunnelStatus {
  readonly device: string;
  readonly family: 'ipv4' | 'ipv6';
  /** Why it carries nothing now. */
  readonly fault: string | null;
  /** It went on with what the daemon before this one had open. */
  readonly resumed: boolean;
  /** Threads that died and were started again. */
  readonly workerRestarts: number;
  /** From the device to the underlay. */
  readonly sent: TunnelTraffic;
  /** From the underlay to the device. */
  readonly received: TunnelTraffic;
  /** Peers to which the underlay was found to carry less than its interface does. */
  readonly narrowPaths: readonly { readonly remote: string; readonly mtuBytes: number }[];
}

/** Since the tunnel was opened. */
export interface TunnelTraffic {
  /** Of the underlay. */
  readonly packets: number;
  /** Of the frames in them. */
  readonly bytes: number;
  /** Packets that went no further, by reason; those that never happened are left out. */
  readonly drops: Readonly<Record<string, number>>;
  /** System calls on the socket by how many packets they carried: more than the entry before, at most `packets`. */
  readonly batches: readonly { readonly packets: number | null; readonly calls: number }[];
}

/** Through the tunnel, or by a plain route to its public address. */
export type RouteStatus = 'tunnel' | 'direct';

/** The network configuration in the store, and what changes of it left behind. */
export interface NetworkStatus {
  /** Why the stored one is not in use; with one in use before, that one stays. */
  readonly problem: string | null;
  /** Leases that this node had before and whose pods still live. */
  readonly former: readonly FormerLeaseStatus[];
}

export interface FormerLeaseStatus {
  readonly subnet?: string | undefined;
  readonly subnetIPv6?: string | undefined;
  /** How many pod addresses are in it: with the last one the lease is given back. */
  readonly pods: number;
  /** Why the store does not keep it, while that is so. */
  readonly problem: string | null;
}

export interface PeerStatus {
  readonly subnet?: string | undefined;
  readonly subnetIPv6?: string | undefined;
  readonly publicIP?: string | undefined;
  readonly publicIPv6?: string | undefined;
  readonly vtepMAC?: string | undefined;
  readonly vtepMACIPv6?: string | undefined;
  /** How its pods are reached. */
  readonly route?: RouteStatus | undefined;
  readonly routeIPv6?: RouteStatus | undefined;
  /** The kernel holds all of its objects. */
  readonly programmed: boolean;
  /** What it does not hold: `route 10.244.5.0/24`, `neighbour 10.244.5.0`, ... */
  readonly missing: readonly string[];
  /** What the probe knows of the way to its public address. Absent where it does not probe. */
  readonly path?: PathStatus | undefined;
  readonly pathIPv6?: PathStatus | undefined;
}

export interface PathStatus {
  /** Null: nothing was ever answered, so it cannot be known. */
  readonly reachable: boolean | null;
  /** Smoothed. */
  readonly rttMs: number | null;
  /** The largest packet that passes, of those that are sent; null: not known. */
  readonly mtuBytes: number | null;
  /** The largest that the data path would send. */
  readonly fullBytes: number;
  /** Why something of this is not known, or not well. */
  readonly reason: string | null;
}

export interface ProbeStatus {
  /** Paths are probed, in one family at least. */
  readonly running: boolean;
  /** What it lacks. */
  readonly reason: string | null;
}

export interface SkippedLease {
  readonly key: string;
  readonly reason: string;
}

export interface AttachmentStatus {
  readonly containerID: string;
  readonly ifname: string;
  readonly ips: readonly string[];
  readonly mac: string;
  /** Kubernetes' `namespace/name`, where the runtime told. */
  readonly pod: string | null;
  /** The node's end of it. */
  readonly hostInterface?: string | undefined;
}

/** A pod takes one of each family: here are the most that are used, and the fewest that are free. */
export interface AddressStatus extends AddressUse {
  readonly ipv4?: AddressUse | undefined;
  readonly ipv6?: AddressUse | undefined;
}

export interface AddressUse {
  readonly used: number;
  readonly free: number;
}

export interface FirewallStatus {
  /** Packets dropped since the tables were made, by reason; see DROP_REASONS. */
  readonly drops: Readonly<Record<string, number>>;
  /** Other programs' chains that drop what they do not accept, pods' packets among them: `ip filter FORWARD`. */
  readonly foreignDrops: readonly string[];
}

/** Options as they are taken up while the daemon runs. */
export interface ConfigurationStatus {
  /** Null: flags and environment alone. */
  readonly file: string | null;
  /** When it was last read and used. */
  readonly appliedAt: string;
  /** Why the latest one, or a part of it, is not in use. */
  readonly problem: string | null;
  /** Options that changed since the start and wait for the next one. */
  readonly needRestart: readonly string[];
}

export interface ReconcileStatus {
  readonly passes: number;
  /** Kernel objects put right since the start. */
  readonly repairs: number;
  readonly lastRepair: RepairStatus | null;
  readonly lastPassAt: string | null;
  /** Why the last pass failed. */
  readonly failing: string | null;
}

export interface RepairStatus {
  readonly at: string;
  readonly count: number;
  /** The first few, in words: `route 10.244.5.0/24`. */
  readonly objects: readonly string[];
}
