/** `subnet.env`: what other programs (flannel's delegate plugin, scripts) read of this node's network. */
import { addressAt, FAMILIES, type Family, type Subnet } from '../../store/address.ts';
import type { WantedOverlay } from '../desired/overlay.ts';

const PREFIX: Readonly<Record<Family, string>> = { ipv4: 'FLANNEL_', ipv6: 'FLANNEL_IPV6_' };

/** As flannel writes it: shell variables; a subnet is named by its gateway, `10.244.5.1/24`. */
export function subnetFileText(wanted: WantedOverlay, masquerade: boolean): string {
  const gateway = (subnet: Subnet): string => `${addressAt(subnet, 1)}/${subnet.prefixLength}`;
  const lines = FAMILIES.flatMap((family) => {
    const network = wanted.network.networks[family]?.network;
    const subnet = wanted.lease.subnets[family];
    if (network === undefined || subnet === undefined || !wanted.families.includes(family)) return [];
    return [
      `${PREFIX[family]}NETWORK=${network.address}/${network.prefixLength}`,
      `${PREFIX[family]}SUBNET=${gateway(subnet)}`,
    ];
  });
  lines.push(`FLANNEL_MTU=${wanted.bridge.mtuBytes}`, `FLANNEL_IPMASQ=${masquerade}`);
  return `${lines.join('\n')}\n`;
}
