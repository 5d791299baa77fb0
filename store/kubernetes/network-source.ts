/**
 * The cluster's network configuration on Kubernetes: flannel's document in a file, which every node has from one
 * ConfigMap. How subnets are cut is not its business there: the controller cuts them, from the first on, and of
 * the length that it was told.
 */
import {
  addressAt,
  FAMILIES,
  type Family,
  formatSubnet,
  type PerFamily,
  type Subnet,
  subnetContains,
  subnetSize,
} from '../address.ts';
import { NetworkConfigError } from '../errors.ts';
import { type FamilyNetwork, type NetworkConfig, networkFamilies } from '../lease.ts';
import type { NetworkRecord } from '../lease-store.ts';
import { parseNetworkConfig } from '../network-config.ts';
import { fitsNetwork } from '../subnet-choice.ts';

export interface NetworkSource {
  /** The document's text; undefined: there is none. @throws what reading it failed by, with the file's name */
  read(): Promise<string | undefined>;
  /** Calls when the text is or may be another one, until the returned function is called. */
  onChange(listener: () => void): () => void;
}

/** What a text says, or why it cannot be used. */
export function recordOf(text: string | undefined): NetworkRecord | undefined {
  if (text === undefined) return undefined;
  try {
    return { config: parseNetworkConfig(text) };
  } catch (error) {
    if (error instanceof NetworkConfigError) return { fault: error };
    throw error;
  }
}

/** The families that Nodes are read by. Without a configuration, whatever they have. */
export const familiesOf = (record: NetworkRecord | undefined): readonly Family[] | undefined =>
  record !== undefined && 'config' in record ? networkFamilies(record.config) : undefined;

/** With the lengths and bounds by which the controller cut our subnets, where these are others than the document's. */
export function asCut(
  record: NetworkRecord | undefined,
  own: PerFamily<Subnet> | undefined,
): NetworkRecord | undefined {
  if (record === undefined || 'fault' in record || own === undefined) return record;
  const { config } = record;
  if (fitsNetwork(config, own)) return record;
  const networks: { [F in Family]?: FamilyNetwork } = {};
  for (const family of networkFamilies(config)) {
    const [written, subnet] = [config.networks[family], own[family]];
    if (written === undefined) continue;
    const isWithin = subnet !== undefined && subnetContains(written.network, subnet);
    networks[family] = isWithin ? wholeNetwork(written.network, subnet) : written;
  }
  return { config: { ...config, networks } };
}

function wholeNetwork(network: Subnet, subnet: Subnet): FamilyNetwork {
  return {
    network,
    subnetLength: subnet.prefixLength,
    subnetMin: network.address,
    subnetMax: addressAt(network, -subnetSize(subnet)),
  };
}

/** Our podCIDRs must be of the network. @throws NetworkConfigError naming both, and who is to agree with whom */
export function requireFit(nodeName: string, config: NetworkConfig, own: PerFamily<Subnet>): void {
  const remedy = 'the document (--net-config-path) and kube-controller-manager (--cluster-cidr) must agree';
  for (const family of networkFamilies(config)) {
    const [written, subnet] = [config.networks[family]?.network, own[family]];
    if (written === undefined) continue;
    const [network, enable] = family === 'ipv4' ? ['Network', 'EnableIPv4'] : ['IPv6Network', 'EnableIPv6'];
    if (subnet === undefined) {
      throw new NetworkConfigError(
        enable,
        `is true, and Node ${nodeName} has no ${family} podCIDR; ${remedy}`,
      );
    }
    if (!subnetContains(written, subnet)) {
      const problem = `${formatSubnet(written)} does not hold Node ${nodeName}'s podCIDR ${formatSubnet(subnet)}`;
      throw new NetworkConfigError(network, `${problem}; ${remedy}`);
    }
  }
}

export const sameFamilies = (a: readonly Family[], b: readonly Family[]): boolean =>
  FAMILIES.every((family) => a.includes(family) === b.includes(family));
