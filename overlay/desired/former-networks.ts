/**
 * Networks that the cluster had before: pure. Nodes take up a change at different times, and their old pods
 * live on; so a former network counts as the cluster's own for as long as some node's lease lies in it.
 */
import { FAMILIES, type Family, type PerFamily, type Subnet, subnetContains } from '../../store/address.ts';
import type { Lease, NetworkConfig } from '../../store/lease.ts';

/** Of earlier configurations what the current one does not cover, without what others of them cover. */
export function formerNetworks(
  earlier: readonly NetworkConfig[],
  current: NetworkConfig,
): PerFamily<readonly Subnet[]> {
  const of = (family: Family): Subnet[] => {
    const covering = current.networks[family]?.network;
    const found: Subnet[] = [];
    const candidates = earlier
      .flatMap(({ networks }) => networks[family]?.network ?? [])
      .toSorted((a, b) => a.prefixLength - b.prefixLength);
    for (const network of candidates) {
      const covered = [...(covering === undefined ? [] : [covering]), ...found];
      if (!covered.some((outer) => subnetContains(outer, network))) found.push(network);
    }
    return found;
  };
  return { ipv4: of('ipv4'), ipv6: of('ipv6') };
}

/** Those of the earlier configurations that a lease still lies in, and not in the current one. */
export function networksInUse(
  earlier: readonly NetworkConfig[],
  current: NetworkConfig,
  leases: Iterable<Lease>,
): NetworkConfig[] {
  const inUse = new Set<NetworkConfig>();
  for (const { subnets } of leases) {
    for (const family of FAMILIES) {
      const subnet = subnets[family];
      if (subnet === undefined || contains(current, subnet)) continue;
      for (const config of earlier) if (contains(config, subnet)) inUse.add(config);
    }
  }
  return earlier.filter((config) => inUse.has(config));
}

function contains({ networks }: NetworkConfig, subnet: Subnet): boolean {
  const network = networks[subnet.family]?.network;
  return network !== undefined && subnetContains(network, subnet);
}
