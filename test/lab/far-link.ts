/**
 * A second link of a lab's underlay, whose namespace is then the router between the two:
 *
 *     RUN-net   [ under0 ]--forwards--[ under1  198.51.100.1  2001:db8:0:1::1 ]
 *                  | n1, n2               | n3
 *                                    RUN-n3 [ eth0  198.51.100.13  2001:db8:0:1::d ]
 */
import type { Lab } from '../../overlay/lab/lab.ts';
import { ipBatch, runInside } from '../../overlay/lab/namespace.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import { type Address, addressAt, parseSubnet, type Subnet } from '../../store/address.ts';

/** Documentation networks (RFC 5737, RFC 3849), as the near link's are. */
const FAR: readonly Subnet[] = [parseSubnet('198.51.100.0/24'), parseSubnet('2001:db8:0:1::/64')];
const BRIDGE = 'under1';

/** Moves this node's cable to the far link, with addresses there instead of its near ones. */
export async function putBehindRouter(lab: Lab, number: number): Promise<void> {
  const { namespace, mtuBytes } = lab.underlay;
  await ipBatch(namespace, [
    `link add ${BRIDGE} mtu ${mtuBytes} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
    ...FAR.map((subnet) => `addr add ${onLink(subnet, 1)} dev ${BRIDGE}${nodad(subnet)}`),
    `link set ${BRIDGE} up`,
    `link set n${number} master ${BRIDGE}`,
  ]);
  await runInside(namespace, ['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
  await ipBatch(lab.node(number).namespace, [
    `addr flush dev ${NODE_INTERFACE} scope global`,
    ...FAR.map((subnet) => `addr add ${onLink(subnet, 10 + number)} dev ${NODE_INTERFACE}${nodad(subnet)}`),
    ...FAR.map((subnet) => `route replace default via ${addressAt(subnet, 1)}`),
  ]);
}

/** Node `number`'s addresses there. */
export const farAddresses = (number: number): Address[] =>
  FAR.map((subnet) => addressAt(subnet, 10 + number));

const onLink = (subnet: Subnet, place: number): string =>
  `${addressAt(subnet, place)}/${subnet.prefixLength}`;

const nodad = ({ family }: Subnet): string => (family === 'ipv6' ? ' nodad' : '');
