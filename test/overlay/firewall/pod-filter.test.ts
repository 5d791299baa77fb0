/** What a pod may send through its port of the bridge, frame by frame. */
import { expect } from 'chai';
import type { DropReason } from '../../../overlay/desired/firewall-table.ts';
import { linkLocalAddress, podElements } from '../../../overlay/desired/pod-filter.ts';
import { type Mac, parseAddress, parseMac } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';
import { ARP, arp, broadcast, ethernet, IPV4, IPV6, ndp, udp, VLAN } from './frames.ts';
import { ADDRESSES, FAMILY_NAMES, MACS, PODS, Rig } from './rig.ts';

const { ipv4, ipv6 } = ADDRESSES;
const A = MACS.podA;
const B = MACS.podB;
const ZERO_MAC = parseMac('00:00:00:00:00:00');
const ALL_NODES = parseAddress('ff02::1');
const ALL_NODES_MAC = parseMac('33:33:00:00:00:01');
const UNSPECIFIED = { ipv4: parseAddress('0.0.0.0'), ipv6: parseAddress('::') };
const LINK_LOCAL_A = linkLocalAddress(A);
const LINK_LOCAL_B = linkLocalAddress(B);

const RS = 133;
const RA = 134;
const NS = 135;
const NA = 136;
const REDIRECT = 137;

/** Frames without room for a marker end in one: Ethernet allows padding. */
const tail = (frame: Buffer, marker: Buffer): Buffer => Buffer.concat([frame, marker]);

type Make = (marker: Buffer) => Buffer;
interface Case {
  readonly what: string;
  readonly make: Make;
  readonly reason?: DropReason;
}

const ip = (from: string, to: string, mac: Mac = A): Make => {
  const ends = { from: parseAddress(from), to: parseAddress(to) };
  return (p) => udp({ from: mac, to: B }, ends, { from: 1000, to: 1001 }, p);
};
const claim = (
  operation: 1 | 2,
  sender: { mac: Mac; address: string },
  asked: string,
  mac: Mac = A,
): Make => {
  const from = { mac: sender.mac, address: parseAddress(sender.address) };
  const to = { mac: ZERO_MAC, address: parseAddress(asked) };
  return (p) => tail(arp({ from: mac, to: broadcast }, operation, from, to), p);
};
const neighbour = (type: number, from: string, target: string, mac: Mac = A): Make => {
  const ends = { from: parseAddress(from), to: ALL_NODES };
  return (p) => ndp({ from: mac, to: ALL_NODES_MAC }, ends, type, parseAddress(target), p);
};
const raw =
  (type: number, to: Mac = B): Make =>
  (p) =>
    ethernet({ from: A, to }, type, p);

const CASES: readonly Case[] = [
  { what: 'IPv4 from its own address', make: ip(ipv4.podA, ipv4.podB) },
  { what: "IPv4 from another pod's address", make: ip(ipv4.podB, ipv4.podB), reason: 'pod_source' },
  { what: "IPv4 from the gateway's address", make: ip(ipv4.gateway, ipv4.podB), reason: 'pod_source' },
  { what: "IPv4 from another pod's MAC", make: ip(ipv4.podA, ipv4.podB, B), reason: 'pod_source' },
  { what: "another pod's address and MAC", make: ip(ipv4.podB, ipv4.podB, B), reason: 'pod_source' },
  { what: 'DHCP', make: ip(UNSPECIFIED.ipv4, '255.255.255.255'), reason: 'pod_source' },
  {
    what: 'an IPv4 header cut short',
    make: () => ethernet({ from: A, to: B }, IPV4, Buffer.alloc(8)),
    reason: 'pod_source',
  },

  { what: 'ARP request from its own address', make: claim(1, { mac: A, address: ipv4.podA }, ipv4.podB) },
  { what: 'ARP answer for its own address', make: claim(2, { mac: A, address: ipv4.podA }, ipv4.podA) },
  {
    what: "ARP answer for another pod's address",
    make: claim(2, { mac: A, address: ipv4.podB }, ipv4.podA),
    reason: 'pod_arp',
  },
  {
    what: "ARP answer for the gateway's address",
    make: claim(2, { mac: A, address: ipv4.gateway }, ipv4.podB),
    reason: 'pod_arp',
  },
  {
    what: "ARP answer that names another's MAC",
    make: claim(2, { mac: B, address: ipv4.podA }, ipv4.podA),
    reason: 'pod_arp',
  },
  {
    what: "ARP in a frame with another's MAC",
    make: claim(2, { mac: A, address: ipv4.podA }, ipv4.podA, B),
    reason: 'pod_arp',
  },
  { what: 'ARP probe for its own address', make: claim(1, { mac: A, address: UNSPECIFIED.ipv4 }, ipv4.podA) },
  {
    what: "ARP probe for another's address",
    make: claim(1, { mac: A, address: UNSPECIFIED.ipv4 }, ipv4.podB),
    reason: 'pod_arp',
  },
  {
    what: 'ARP probe with another MAC',
    make: claim(1, { mac: B, address: UNSPECIFIED.ipv4 }, ipv4.podA),
    reason: 'pod_arp',
  },
  {
    what: 'ARP cut short',
    make: () => ethernet({ from: A, to: B }, ARP, Buffer.alloc(4)),
    reason: 'pod_arp',
  },

  { what: 'IPv6 from its own address', make: ip(ipv6.podA, ipv6.podB) },
  { what: 'IPv6 from its link-local address', make: ip(LINK_LOCAL_A, LINK_LOCAL_B) },
  { what: "IPv6 from another pod's address", make: ip(ipv6.podB, ipv6.podA), reason: 'pod_source' },
  { what: "IPv6 from another pod's MAC", make: ip(ipv6.podA, ipv6.podA, B), reason: 'pod_source' },
  { what: "another's link-local address", make: ip(LINK_LOCAL_B, LINK_LOCAL_A), reason: 'pod_link_local' },
  { what: 'IPv6 from nowhere', make: ip(UNSPECIFIED.ipv6, 'ff02::16'), reason: 'pod_link_local' },

  { what: 'neighbour solicitation', make: neighbour(NS, ipv6.podA, ipv6.podB) },
  { what: 'router solicitation', make: neighbour(RS, LINK_LOCAL_A, ipv6.podA) },
  { what: 'neighbour advertisement of its own address', make: neighbour(NA, ipv6.podA, ipv6.podA) },
  {
    what: 'neighbour advertisement of its link-local address',
    make: neighbour(NA, LINK_LOCAL_A, LINK_LOCAL_A),
  },
  {
    what: "neighbour advertisement of another's address",
    make: neighbour(NA, ipv6.podA, ipv6.podB),
    reason: 'pod_ndp',
  },
  {
    what: "neighbour advertisement of the gateway's",
    make: neighbour(NA, LINK_LOCAL_A, ipv6.gateway),
    reason: 'pod_ndp',
  },
  {
    what: "neighbour advertisement with another's MAC",
    make: neighbour(NA, ipv6.podA, ipv6.podA, B),
    reason: 'pod_ndp',
  },
  { what: 'duplicate detection of its own address', make: neighbour(NS, UNSPECIFIED.ipv6, ipv6.podA) },
  {
    what: "duplicate detection of another's address",
    make: neighbour(NS, UNSPECIFIED.ipv6, ipv6.podB),
    reason: 'pod_link_local',
  },
  { what: 'router advertisement', make: neighbour(RA, LINK_LOCAL_A, ipv6.podA), reason: 'pod_ndp' },
  { what: 'redirect', make: neighbour(REDIRECT, LINK_LOCAL_A, ipv6.podB), reason: 'pod_ndp' },

  { what: 'another protocol', make: raw(0x88b5), reason: 'pod_protocol' },
  {
    what: 'port authentication (802.1X)',
    make: raw(0x888e, parseMac('01:80:c2:00:00:03')),
    reason: 'pod_protocol',
  },
  { what: 'a spanning tree frame', make: raw(0x0026, parseMac('01:80:c2:00:00:00')), reason: 'pod_protocol' },
  {
    what: 'its own packet in a VLAN tag',
    make: (p) => {
      const frame = ip(ipv4.podA, ipv4.podB)(p);
      return ethernet({ from: A, to: B }, VLAN, Buffer.concat([Buffer.from([0, 7]), frame.subarray(12)]));
    },
    reason: 'pod_protocol',
  },
  {
    what: 'a packet of any other in a VLAN tag',
    make: (p) => {
      const frame = ip(ipv4.gateway, ipv4.podB)(p);
      return ethernet({ from: A, to: B }, VLAN, Buffer.concat([Buffer.from([0, 0]), frame.subarray(12)]));
    },
    reason: 'pod_protocol',
  },
];

describe('firewall: what a pod may send', () => {
  let rig: Rig;

  before(async function () {
    need(this, 'root', 'ip', 'nft');
    rig = await Rig.build();
  });
  after(() => rig?.[Symbol.asyncDispose]());
  beforeEach(() => rig.apply());

  for (const { what, make, reason } of CASES) {
    if (reason === undefined) {
      it(`lets pass: ${what}`, async () => {
        await rig.passes(rig.podA, make, rig.podB);
      });
    } else {
      it(`drops: ${what}`, () => rig.drops(rig.podA, make, reason));
    }
  }

  it('switched off, lets pass what it dropped', async () => {
    rig.apply({ podFilter: false });
    expect(await rig.nft(['list', 'ruleset'])).to.not.include('table bridge');
    await rig.passes(rig.podA, ip(ipv4.gateway, ipv4.podB), rig.podB);
    await rig.passes(rig.podA, raw(0x88b5), rig.podB);
  });

  it('follows pods that come and go', async () => {
    const [pod] = PODS;
    if (pod === undefined) throw new Error('no pod');
    const elements = podElements(pod);
    for (const family of FAMILY_NAMES) {
      const make = ip(ADDRESSES[family].podA, ADDRESSES[family].podB);
      rig.firewall.adjust({ remove: elements });
      await rig.drops(rig.podA, make, 'pod_source');
      rig.firewall.adjust({ add: elements });
      await rig.passes(rig.podA, make, rig.podB);
    }
  });

  it('holds a pod to the port it is attached to', async () => {
    const moved = PODS.map((pod, i) => ({ ...pod, hostInterface: PODS[1 - i]?.hostInterface ?? '' }));
    rig.firewall.adjust({ remove: PODS.flatMap(podElements), add: moved.flatMap(podElements) });
    await rig.drops(rig.podA, ip(ipv4.podA, ipv4.podB), 'pod_source');
  });

  it('in a cluster without IPv6, a pod has none', async () => {
    rig.apply({
      clusterNetworks: { ipv4: { family: 'ipv4', address: parseAddress('10.244.0.0'), prefixLength: 16 } },
      gateways: { ipv4: ipv4.gateway },
      devices: { ipv4: 'vtep.1' },
    });
    await rig.drops(rig.podA, ip(ipv6.podA, ipv6.podB), 'pod_source');
    await rig.drops(rig.podA, ip(LINK_LOCAL_A, LINK_LOCAL_B), 'pod_link_local');
    await rig.drops(rig.podA, (p) => ethernet({ from: A, to: B }, IPV6, p), 'pod_source');
    await rig.passes(rig.podA, ip(ipv4.podA, ipv4.podB), rig.podB);
  });

  it('derives a link-local address as RFC 4291 does', () => {
    expect(linkLocalAddress(parseMac('34:56:78:9a:bc:de'))).to.equal('fe80::3656:78ff:fe9a:bcde');
  });
});
