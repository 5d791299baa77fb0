/**
 * The table `bridge vtepd`: a pod's port lets in only what carries the pod's own MAC and address. Pure; part
 * of firewall.ts.
 *
 * What passes:
 *   IPv4  source MAC and address of the pod (so no DHCP: addresses come from IPAM)
 *   ARP   sender MAC and address of the pod, or a probe (RFC 5227, sender 0.0.0.0) for the pod's own
 *   IPv6  source MAC and address of the pod, or the link-local address that belongs to its MAC (RFC 4291,
 *         EUI-64); neighbour advertisements, and solicitations of duplicate detection, about these alone.
 *         Router advertisements and redirects never (CVE-2020-10749).
 *   No other protocol, tagged frames included, and nothing to the bridge's own group addresses: a bridge
 *   hands those to `input` instead of `prerouting`, and learns their source, which may be another pod's.
 *   LLDP's (01:80:c2:00:00:0e) it hands to no hook at all: against those the bridge must be told not to
 *   learn from them (`no_linklocal_learn`).
 *
 * A pod without an IPv6 address has no element in the IPv6 sets: all its IPv6 is dropped. What a kernel sends
 * unasked then (multicast listener reports, router solicitations) has a counter of its own, lest every start
 * of a pod looks like an attack.
 */
import {
  type Address,
  type Family,
  familyOf,
  type Mac,
  macBytes,
  parseAddress,
} from '../../store/address.ts';
import {
  drop,
  FIREWALL_SETS,
  FIREWALL_TABLE,
  type FirewallChain,
  type FirewallElement,
  type FirewallTable,
  NDP_TARGET,
  type SetName,
} from './firewall-table.ts';
import { POD_INTERFACE_PREFIX, type PodPort } from './pods.ts';

const FIRST = -300;
const OF_POD = `iifname "${POD_INTERFACE_PREFIX}*"`;

export function podFilterTable(families: readonly Family[]): FirewallTable {
  const ipv6 = families.includes('ipv6');
  return {
    family: 'bridge',
    name: FIREWALL_TABLE,
    sets: [FIREWALL_SETS.pods4, ...(ipv6 ? [FIREWALL_SETS.pods6, FIREWALL_SETS.targets6] : [])],
    counters: ['pod_source', 'pod_arp', 'pod_ndp', 'pod_link_local', 'pod_protocol'],
    chains: [
      {
        name: 'from_port',
        hook: `type filter hook prerouting priority ${FIRST}`,
        rules: [`${OF_POD} goto pod`],
      },
      {
        name: 'to_bridge',
        hook: `type filter hook input priority ${FIRST}`,
        rules: [`${OF_POD} ether daddr and ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 ${drop('pod_protocol')}`],
      },
      {
        name: 'pod',
        rules: [
          'ether type ip goto pod_ipv4',
          'ether type arp goto pod_arp',
          'ether type ip6 goto pod_ipv6',
          drop('pod_protocol'),
        ],
      },
      {
        name: 'pod_ipv4',
        rules: ['iifname . ether saddr . ip saddr @pods4 return', drop('pod_source')],
      },
      {
        name: 'pod_arp',
        rules: [
          `${arpClaim('arp saddr ip')} return`,
          `arp saddr ip 0.0.0.0 ${arpClaim('arp daddr ip')} return`,
          drop('pod_arp'),
        ],
      },
      podIpv6(ipv6),
    ],
  };
}

/** Both the frame's sender and the one that ARP names. */
const arpClaim = (address: string): string =>
  `iifname . ether saddr . ${address} @pods4 iifname . arp saddr ether . ${address} @pods4`;

function podIpv6(carried: boolean): FirewallChain {
  const own = `iifname . ether saddr . ${NDP_TARGET}`;
  return {
    name: 'pod_ipv6',
    rules: [
      `icmpv6 type nd-router-advert ${drop('pod_ndp')}`,
      `icmpv6 type nd-redirect ${drop('pod_ndp')}`,
      ...(carried
        ? [
            `icmpv6 type nd-neighbor-advert ${own} != @targets6 ${drop('pod_ndp')}`,
            'iifname . ether saddr . ip6 saddr @pods6 return',
            `ip6 saddr :: icmpv6 type nd-neighbor-solicit ${own} @targets6 return`,
          ]
        : []),
      `ip6 saddr :: ${drop('pod_link_local')}`,
      `ip6 saddr fe80::/10 ${drop('pod_link_local')}`,
      drop('pod_source'),
    ],
  };
}

/** What lets one pod's packets pass. */
export function podElements(pod: PodPort): FirewallElement[] {
  const elements: FirewallElement[] = [];
  const add = (address: Address, ...sets: SetName[]) => {
    for (const set of sets) elements.push({ set, element: `${pod.hostInterface} . ${pod.mac} . ${address}` });
  };
  let ipv6 = false;
  for (const address of pod.addresses) {
    if (familyOf(address) === 'ipv4') {
      add(address, 'pods4');
    } else {
      add(address, 'pods6', 'targets6');
      ipv6 = true;
    }
  }
  if (ipv6) add(linkLocalAddress(pod.mac), 'pods6', 'targets6');
  return elements;
}

/** fe80::/64 and the MAC's modified EUI-64 (RFC 4291, appendix A). */
export function linkLocalAddress(mac: Mac): Address {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = macBytes(mac);
  const words = [((a ^ 2) << 8) | b, (c << 8) | 0xff, 0xfe00 | d, (e << 8) | f];
  return parseAddress(`fe80::${words.map((word) => word.toString(16)).join(':')}`);
}
