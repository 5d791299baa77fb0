/**
 * The packet filter that this node wants, as two nftables tables of our own: pure, from facts to rules and
 * set elements. What is in a set changes with every lease and pod; the rules change only with the facts.
 *
 * `inet vtepd` guards the VXLAN port and translates addresses:
 *
 *     underlay -> input:   our VNI only from a peer's public address (set), never out of the overlay itself
 *     output  -> underlay: our VNI only with the mark that a packet gets on its way out of the VXLAN device
 *     pod     -> underlay: no UDP to the VXLAN port at all, for masquerading would give it our address
 *     postrouting:         what leaves the overlay gets the node's address; what enters it, the gateway's
 *     underlay -> pod:     where peers are routed directly, nothing with the address of a pod of this node
 *
 * `bridge vtepd` holds a pod to its own address and MAC, on the port that it comes in by (pod-filter.ts).
 *
 * There is no rule that accepts forwarded packets: within nftables an accept ends only its own chain, and
 * another table's drop (Docker sets FORWARD to it) stands. Our chains accept by policy; what others drop is
 * found by Firewall.foreignDrops(), for status and doctor to tell.
 *
 * Direct routes trust the link: whoever is on it can send plain packets to pods, with a pod's address of any
 * other node (as flannel's host-gw has it). No look at routes could tell more: a peer that has just moved
 * between tunnel and direct route still sends the other way. What is certainly forged is dropped.
 *
 * Other VNIs on the same port belong to others: of them only what pods send is dropped.
 */
import {
  type Address,
  FAMILIES,
  type Family,
  familyOf,
  formatSubnet,
  type PerFamily,
  type Subnet,
} from '../../store/address.ts';
import {
  drop,
  FIREWALL_SETS,
  FIREWALL_TABLE,
  type FirewallChain,
  type FirewallDesired,
  type FirewallElement,
  type FirewallElements,
  type FirewallTable,
  quoted,
  type SetName,
} from './firewall-table.ts';
import { podElements, podFilterTable } from './pod-filter.ts';
import type { PodPort } from './pods.ts';

/**
 * The mark of packets that may leave for the VXLAN port. It is on a packet only between the VXLAN device's
 * postrouting and the outer packet's output, which takes it off again. The user-space path sets it on its
 * socket. Away from the bits that kube-proxy (0xc000), portmap (0x2000), Cilium, Calico and Tailscale use.
 */
export const ENCAPSULATED_MARK = 0x1000;

/** Before everybody else's chains, so that nobody's accept or notrack comes first. */
const FIRST = -300;
/** After everybody else's, so that nobody takes the mark off again. */
const LAST = 300;
const SOURCE_NAT = 100;

export interface FirewallFacts {
  /** The whole cluster's network; a family that this node does not carry is absent. */
  readonly clusterNetworks: PerFamily<Subnet>;
  /** Networks that the cluster had before and in which pods still live: treated as the current one. */
  readonly formerNetworks?: PerFamily<readonly Subnet[]> | undefined;
  /** The bridge's address in each: the source of this node's packets into the overlay where they have none in it. */
  readonly gateways: PerFamily<Address>;
  /** The VXLAN device of each; none with the host-gw backend, and then no guard of its port. */
  readonly devices: PerFamily<string>;
  /** Where peers are routed directly: over which device, and the subnets of this node's own pods. */
  readonly direct?: { readonly device: string; readonly ownSubnets: readonly Subnet[] } | undefined;
  readonly bridge: string;
  readonly vni: number;
  readonly port: number;
  /** ENCAPSULATED_MARK, unless somebody here uses that bit. */
  readonly markBit: number;
  readonly masquerade: boolean;
  /** The guard of the VXLAN port, in both directions. */
  readonly peerFilter: boolean;
  readonly podFilter: boolean;
}

/**
 * Everything wanted at once.
 * @param peers public addresses of all peers, of both families
 * @throws InterfaceNameError
 */
export const wantFirewall = (
  facts: FirewallFacts,
  peers: Iterable<Address>,
  pods: Iterable<PodPort>,
): FirewallDesired => ({ tables: firewallTables(facts), elements: firewallElements(peers, pods) });

/** @throws InterfaceNameError */
export function firewallTables(facts: FirewallFacts): FirewallTable[] {
  return [underlayTable(facts), ...(facts.podFilter ? [podFilterTable(carried(facts))] : [])].filter(
    (table) => table.chains.length > 0,
  );
}

/** @param peers public addresses of all peers, of both families */
export function firewallElements(peers: Iterable<Address>, pods: Iterable<PodPort>): FirewallElements {
  const elements = {
    peers4: new Set<string>(),
    peers6: new Set<string>(),
    pods4: new Set<string>(),
    pods6: new Set<string>(),
    targets6: new Set<string>(),
  };
  for (const address of peers) elements[peerSet(address)].add(address);
  for (const pod of pods) for (const { set, element } of podElements(pod)) elements[set].add(element);
  return elements;
}

/** What admits one peer's public address. */
export const peerElement = (address: Address): FirewallElement => ({
  set: peerSet(address),
  element: address,
});

const peerSet = (address: Address): SetName => (familyOf(address) === 'ipv4' ? 'peers4' : 'peers6');

const carried = (facts: FirewallFacts): Family[] =>
  FAMILIES.filter((family) => networksOf(facts, family).length > 0);

const networksOf = ({ clusterNetworks, formerNetworks }: FirewallFacts, family: Family): Subnet[] => {
  const current = clusterNetworks[family];
  return [...(current === undefined ? [] : [current]), ...(formerNetworks?.[family] ?? [])];
};

function underlayTable(facts: FirewallFacts): FirewallTable {
  const guarded = facts.peerFilter && deviceNames(facts).length > 0;
  const forged = facts.peerFilter ? forgedGuard(facts) : [];
  return {
    family: 'inet',
    name: FIREWALL_TABLE,
    sets: guarded ? [FIREWALL_SETS.peers4, FIREWALL_SETS.peers6] : [],
    counters: [
      ...(guarded ? (['vxlan_stranger', 'vxlan_forged', 'vxlan_pod'] as const) : []),
      ...(forged.length > 0 ? (['plain_forged'] as const) : []),
    ],
    chains: [
      ...(guarded ? vxlanGuard(facts) : []),
      ...forged,
      ...(facts.masquerade ? [sourceNat(facts)] : []),
    ],
  };
}

/** Nobody else has a pod of this node; a plain packet that says so would pass for one at its neighbours. */
function forgedGuard({ direct }: FirewallFacts): FirewallChain[] {
  if (direct === undefined) return [];
  const rules = direct.ownSubnets.map(
    (subnet) =>
      `iifname ${quoted(direct.device)} ${subnet.family === 'ipv4' ? 'ip' : 'ip6'} saddr ` +
      `${formatSubnet(subnet)} ${drop('plain_forged')}`,
  );
  return rules.length === 0
    ? []
    : [{ name: 'from_link', hook: `type filter hook prerouting priority ${FIRST}`, rules }];
}

/**
 * The VNI is the 24 bits at bit 96 of the UDP header (RFC 7348: UDP 64 bits, flags and reserved 32).
 *
 * A packet too short to hold it is nobody's VXLAN. IPv4 is put together from its fragments before input; an
 * IPv6 fragment may come as such, and without this a short first one would carry our VNI past the rule.
 *
 * What enters the VXLAN device around postrouting gets no mark and goes nowhere: a raw socket's frames, and
 * flows that somebody's flowtable takes a short cut with.
 */
function vxlanGuard(facts: FirewallFacts): FirewallChain[] {
  const { vni, port, markBit } = facts;
  const devices = deviceNames(facts);
  const inOverlay = [...devices, facts.bridge].map(quoted);
  const marked = `meta mark and ${hex(markBit)}`;
  return [
    {
      // Stands in the hooks before the chain that marks, so that it ends before it when somebody flushes all.
      name: 'from_node',
      hook: `type filter hook output priority ${FIRST}`,
      early: 'hook',
      rules: [
        `udp dport ${port} @th,96,24 ${vni} ${marked} == 0 ${drop('vxlan_forged')}`,
        `udp dport ${port} ${marked} != 0 meta mark set meta mark and ${hex(~markBit >>> 0)}`,
      ],
    },
    {
      // Marks before anybody asks for the mark.
      name: 'encapsulated',
      early: 'rules',
      hook: `type filter hook postrouting priority ${LAST}`,
      rules: devices.map((device) => `oifname ${quoted(device)} meta mark set meta mark or ${hex(markBit)}`),
    },
    {
      name: 'to_vxlan',
      hook: `type filter hook input priority ${FIRST}`,
      rules: [`udp dport ${port} goto vxlan`],
    },
    {
      name: 'vxlan',
      rules: [`@th,96,24 ${vni} goto vxlan_ours`, `@th,96,24 != ${vni} return`, drop('vxlan_stranger')],
    },
    {
      name: 'vxlan_ours',
      rules: [
        ...inOverlay.map((name) => `iifname ${name} ${drop('vxlan_stranger')}`),
        'ip saddr @peers4 return',
        'ip6 saddr @peers6 return',
        drop('vxlan_stranger'),
      ],
    },
    {
      name: 'from_pods',
      hook: `type filter hook forward priority ${FIRST}`,
      rules: inOverlay.map((name) => `iifname ${name} udp dport ${port} goto vxlan_of_pod`),
    },
    {
      // A pod may run a VXLAN of its own with other pods: that stays within the overlay.
      name: 'vxlan_of_pod',
      rules: [...toCluster(facts).map((match) => `${match} return`), drop('vxlan_pod')],
    },
  ];
}

/**
 * A random source port (fully-random), for two connections of one tuple race to the same one otherwise, and
 * lose a packet. A packet of this node that enters the overlay with an address from outside of it (bound to
 * the public address, or forwarded for a client of a NodePort) gets the gateway's: the answer would go around
 * the tunnel otherwise. On a direct route too, so that the flow goes on when its peer moves into the tunnel.
 */
function sourceNat(facts: FirewallFacts): FirewallChain {
  const rules = [`oifname ${quoted(facts.bridge)} return`];
  for (const family of carried(facts)) {
    const networks = networksOf(facts, family).map(formatSubnet);
    const [ip, multicast] = family === 'ipv4' ? ['ip', '224.0.0.0/4'] : ['ip6', 'ff00::/8'];
    for (const from of networks) {
      rules.push(
        ...networks.map((to) => `${ip} saddr ${from} ${ip} daddr ${to} return`),
        `${ip} saddr ${from} ${ip} daddr ${multicast} return`,
        `${ip} saddr ${from} masquerade fully-random`,
      );
    }
    const devices = [facts.devices[family], facts.direct?.device].filter((name) => name !== undefined);
    const gateway = facts.gateways[family];
    if (gateway === undefined) continue;
    for (const to of networks) {
      for (const device of devices)
        rules.push(`${ip} daddr ${to} oifname ${quoted(device)} snat ${ip} to ${gateway} fully-random`);
    }
  }
  return { name: 'source_nat', hook: `type nat hook postrouting priority ${SOURCE_NAT}`, rules };
}

function toCluster(facts: FirewallFacts): string[] {
  return FAMILIES.flatMap((family) =>
    networksOf(facts, family).map(
      (network) => `${family === 'ipv4' ? 'ip' : 'ip6'} daddr ${formatSubnet(network)}`,
    ),
  );
}

const deviceNames = (facts: FirewallFacts): string[] => [
  ...new Set(FAMILIES.flatMap((family) => facts.devices[family] ?? [])),
];

const hex = (value: number): string => `0x${value.toString(16)}`;
