/** The networks of a lab's pods by the families that it is to have, and flannel's JSON for them. */
import { FAMILIES, type Family, formatSubnet, parseSubnet, type Subnet } from '../../store/address.ts';

/** What a whole cluster is; `dual` has both families. */
export type LabFamilies = Family | 'dual';

export const familiesOf = (families: LabFamilies): readonly Family[] =>
  families === 'dual' ? FAMILIES : [families];

/** Private ones (RFC 1918, RFC 4193), and not those of the underlay. */
export const LAB_NETWORKS: Readonly<Record<Family, Subnet>> = {
  ipv4: parseSubnet('10.244.0.0/16'),
  ipv6: parseSubnet('fc00:244::/48'),
};

/**
 * The document that etcd would hold.
 * @param more fields besides (`SubnetLen`), or in place of the usual ones (`Backend`)
 */
export function labNetworkConfig(
  families: LabFamilies,
  more: Readonly<Record<string, unknown>> = {},
): string {
  const has = (family: Family) => familiesOf(families).includes(family);
  return JSON.stringify({
    ...(has('ipv4') ? { Network: formatSubnet(LAB_NETWORKS.ipv4) } : { EnableIPv4: false }),
    ...(has('ipv6') && { EnableIPv6: true, IPv6Network: formatSubnet(LAB_NETWORKS.ipv6) }),
    Backend: { Type: 'vxlan' },
    ...more,
  });
}
