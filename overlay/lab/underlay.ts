/**
 * The network under the overlay: a bridge in a namespace of its own, one cable to each node. The bridge has
 * an address too, which is the nodes' default gateway and where a lab's etcd listens; it forwards nothing.
 *
 *        RUN-net   [ under0  192.0.2.1  2001:db8::1 ]
 *                     | n1            | n2
 *        RUN-n1    [ eth0 ]  RUN-n2 [ eth0  192.0.2.12  2001:db8::c ]
 */
import {
  type Address,
  addressAt,
  addressBits,
  addressValue,
  FAMILIES,
  type Family,
  formatSubnet,
  parseSubnet,
  type Subnet,
} from '../../store/address.ts';
import { run } from './command.ts';
import type { LabFamilies } from './lab-network.ts';
import { addNamespace, deleteNamespace, ipBatch, runInside } from './namespace.ts';

/** The documentation networks (RFC 5737, RFC 3849): nobody's, so a lab never shadows a real one. */
export const UNDERLAY_IPV4: Subnet = parseSubnet('192.0.2.0/24');
export const UNDERLAY_IPV6: Subnet = parseSubnet('2001:db8::/64');

/** The name of every node's underlay interface. */
export const NODE_INTERFACE = 'eth0';

const BRIDGE = 'under0';
/** Nodes are numbered from 1; the first ten addresses are kept for what is not a node. */
const FIRST_NODE_OFFSET = 10;
export const MAX_NODES = 200;

/** The gateway's, and the lab's etcd's. */
export const gatewayAddress: Address = addressAt(UNDERLAY_IPV4, 1);
export const gatewayAddresses: Readonly<Record<Family, Address>> = {
  ipv4: gatewayAddress,
  ipv6: addressAt(UNDERLAY_IPV6, 1),
};

/** What node `number`'s underlay interface has: 192.0.2.11 and 2001:db8::b for the first. */
export const nodeAddress = (number: number): Address => addressAt(UNDERLAY_IPV4, FIRST_NODE_OFFSET + number);
export const nodeAddress6 = (number: number): Address => addressAt(UNDERLAY_IPV6, FIRST_NODE_OFFSET + number);

export class Underlay {
  readonly namespace: string;
  readonly mtuBytes: number;
  /** Those of its nodes' addresses. */
  readonly families: readonly Family[];

  private constructor(namespace: string, mtuBytes: number, families: readonly Family[]) {
    this.namespace = namespace;
    this.mtuBytes = mtuBytes;
    this.families = families;
  }

  /** @param families `ipv6`: an underlay without any IPv4; both otherwise */
  static async create(namespace: string, mtuBytes = 1500, families?: LabFamilies): Promise<Underlay> {
    await addNamespace(namespace);
    await ipBatch(namespace, [
      `link add ${BRIDGE} mtu ${mtuBytes} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      `addr add ${gatewayAddress}/${UNDERLAY_IPV4.prefixLength} dev ${BRIDGE}`,
      `addr add ${gatewayAddresses.ipv6}/${UNDERLAY_IPV6.prefixLength} dev ${BRIDGE} nodad`,
      `link set ${BRIDGE} up`,
    ]);
    return new Underlay(namespace, mtuBytes, families === 'ipv6' ? ['ipv6'] : FAMILIES);
  }

  /** Lays node `number`'s cable: its end in `namespace` is named NODE_INTERFACE, addressed and up. */
  async connect(number: number, namespace: string): Promise<void> {
    const { mtuBytes } = this;
    await ipBatch(this.namespace, [
      `link add n${number} mtu ${mtuBytes} type veth peer name ${NODE_INTERFACE} mtu ${mtuBytes} netns ${namespace}`,
      `link set n${number} master ${BRIDGE} up`,
    ]);
    await ipBatch(namespace, addressLines(number, this.families));
  }

  /** Takes node `number`'s cable away, both ends. */
  async disconnect(number: number): Promise<void> {
    await run('ip', ['-n', this.namespace, 'link', 'del', `n${number}`]);
  }

  /**
   * From now on the underlay drops, and counts, every packet whose outer header bears an address of these
   * networks (IP source, IP destination, either side of an ARP, the target of a neighbour discovery): what a cloud that checks addresses does.
   */
  async refuse(networks: readonly Subnet[]): Promise<void> {
    const rules = networks.flatMap((network) => {
      const text = formatSubnet(network);
      return network.family === 'ipv4'
        ? [`ip saddr ${text}`, `ip daddr ${text}`, `arp saddr ip ${text}`, `arp daddr ip ${text}`]
        : [`ip6 saddr ${text}`, `ip6 daddr ${text}`, `${NEIGHBOUR_DISCOVERY} ${targetIn(network)}`];
    });
    await runInside(this.namespace, ['nft', '-f', '-'], {
      input: `
        table bridge guard
        delete table bridge guard
        table bridge guard {
          counter refused { }
          chain incoming {
            type filter hook prerouting priority -300; policy accept;
            ${rules.map((rule) => `${rule} counter name refused drop`).join('\n')}
          }
        }`,
    });
  }

  /** How many packets `refuse` has dropped. */
  async refused(): Promise<number> {
    const { stdout } = await runInside(this.namespace, [
      'nft',
      'list',
      'counter',
      'bridge',
      'guard',
      'refused',
    ]);
    const packets = /packets (\d+)/.exec(stdout)?.[1];
    if (packets === undefined) throw new Error(`nft printed no packet count: ${stdout}`);
    return Number(packets);
  }

  async remove(): Promise<void> {
    await deleteNamespace(this.namespace);
  }
}

const NEIGHBOUR_DISCOVERY = 'icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }';
/** Of a neighbour discovery message, where the target begins (RFC 4861, 4.3). */
const TARGET_OFFSET_BITS = 64;

/** nftables has a name for the target from 1.0.9 on only. */
function targetIn({ address, prefixLength }: Subnet): string {
  const bits = addressValue(address) >> BigInt(addressBits('ipv6') - prefixLength);
  return `@th,${TARGET_OFFSET_BITS},${prefixLength} 0x${bits.toString(16)}`;
}

/** Addresses, up and the default route, in the order in which each needs the one before. */
export const addressLines = (number: number, families: readonly Family[]): string[] => [
  ...families.map((family) => `addr add ${nodePrefix(number, family)} dev ${NODE_INTERFACE}${NODAD[family]}`),
  `link set ${NODE_INTERFACE} up`,
  ...families.map((family) => `route add default via ${gatewayAddresses[family]}`),
];

/** `192.0.2.11/24` */
export const nodePrefix = (number: number, family: Family): string =>
  family === 'ipv4'
    ? `${nodeAddress(number)}/${UNDERLAY_IPV4.prefixLength}`
    : `${nodeAddress6(number)}/${UNDERLAY_IPV6.prefixLength}`;

/** Nobody else has these addresses: they are used at once. */
const NODAD: Readonly<Record<Family, string>> = { ipv4: '', ipv6: ' nodad' };
