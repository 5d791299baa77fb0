/** The words of `vtepd bench`'s command line; light, for help needs them. */

/** In the order of reports; the first that is measured is what the others are compared with. */
export const PATH_IDS = [
  ...(['underlay', 'vxlan', 'userspace', 'direct', 'bridge'] as const),
  ...(['wireguard', 'tinc', 'fastd'] as const),
] as const;
export type PathId = (typeof PATH_IDS)[number];

/** vtepd's own, and what they are compared with: those of a quick run. */
export const OWN_PATH_IDS: readonly PathId[] = PATH_IDS.slice(0, 5);

export const WORKLOAD_IDS = [
  'tcp-1',
  'tcp-8',
  'udp',
  'latency',
  'loaded',
  'connections',
  'size',
  'mtu',
] as const;
export type WorkloadId = (typeof WORKLOAD_IDS)[number];

export const QUICK_WORKLOAD_IDS: readonly WorkloadId[] = ['tcp-1', 'latency'];

/** Where `vtepd bench serve` listens. */
export const DEFAULT_PORT = 9473;
