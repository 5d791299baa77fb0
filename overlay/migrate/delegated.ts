/**
 * What flannel's CNI plugin delegates, as it writes it down for the DEL (`<data>/flannel/<container>`): the
 * bridge plugin's configuration with host-local's in it. (github.com/flannel-io/cni-plugin, flannel_linux.go)
 */
import { join } from 'node:path';
import type { Attachment } from '../../cni-shim/attachment.ts';
import { familyOf, formatSubnet, subnetOf } from '../../store/address.ts';

/** host-local's own default, which need not be said. */
const DEFAULT_DATA_DIR = '/var/lib/cni';

export function delegatedConfiguration(attachment: Attachment, dataDir: string): object {
  const { network, bridge, hairpin, mtuBytes, addresses, routes } = attachment;
  return {
    cniVersion: '0.3.1',
    name: network,
    type: 'bridge',
    bridge,
    hairpinMode: hairpin,
    isGateway: true,
    ipMasq: false,
    mtu: mtuBytes,
    ipam: {
      type: 'host-local',
      ranges: addresses.map(({ address, prefixLength }) => [
        { subnet: formatSubnet(subnetOf(address, prefixLength)) },
      ]),
      routes: routes
        .filter(({ destination, gateway }) => destination.family === familyOf(gateway))
        .map(({ destination }) => ({ dst: formatSubnet(destination) })),
      ...(dataDir !== DEFAULT_DATA_DIR && { dataDir: join(dataDir, 'networks') }),
    },
  };
}
