/** What a daemon finds at its start: remains of an earlier run go, strangers' objects stay. And `cleanup`. */
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { LAB_NETWORKS } from '../../../overlay/lab/lab-network.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { gatewayAddresses, UNDERLAY_IPV4, UNDERLAY_IPV6 } from '../../../overlay/lab/underlay.ts';
import { type Address, addressAt, type Family } from '../../../store/address.ts';
import { describeCluster, EMBEDDED_DUAL, EVERY_FAMILY } from '../../lab/cluster.ts';
import { FAMILY_DIGIT, inFamily, VXLAN_DEVICE } from '../../lab/in-family.ts';
import { kernelState, stateDifference } from '../../lab/kernel-state.ts';

/** What another program might have: on the underlay, beside and among our objects. */
const STRANGERS: readonly string[] = [
  'ip link add br-other type bridge',
  'ip addr add 172.31.0.1/24 dev br-other',
  'ip addr add fd31::1/64 dev br-other nodad',
  'ip link set br-other up',
  'nft add table inet other',
  'nft add chain inet other input { type filter hook input priority 0 ; policy accept ; }',
  'nft add rule inet other input tcp dport 9 drop',
];

/** The same in one family. */
function strangersIn(family: Family, own: Address | undefined): string[] {
  const { number, networks, device } = STRANGE[family];
  const router = gatewayAddresses[family];
  return [
    `ip link add ${device} type vxlan id ${number} dstport 4789 local ${own}`,
    `ip link set ${device} up`,
    `ip route add ${networks[0]} via ${router}`,
    `ip nexthop add id 9000${number} via ${router} dev eth0`,
    `ip route add ${networks[1]} nhid 9000${number}`,
    `ip neigh add ${onUnderlay(family, 99)} lladdr 02:00:00:00:99:99 dev eth0 nud permanent`,
    `bridge fdb append 02:00:00:00:88:88 dev ${device} dst ${onUnderlay(family, 98)} self`,
  ];
}

const STRANGE: Readonly<
  Record<Family, { readonly number: number; readonly networks: readonly string[]; readonly device: string }>
> = {
  ipv4: { number: 77, networks: ['198.51.100.0/24', '203.0.113.0/24'], device: 'vx-other' },
  ipv6: { number: 78, networks: ['2001:db8:51::/64', '2001:db8:52::/64'], device: 'vx-other6' },
};

const UNDERLAYS = { ipv4: UNDERLAY_IPV4, ipv6: UNDERLAY_IPV6 };
const onUnderlay = (family: Family, place: number): Address => addressAt(UNDERLAYS[family], place);

/** A peer's subnet, and another one: halves of the network's first subnet, which no node is ever given. */
const GONE: Readonly<Record<Family, readonly [number | bigint, number | bigint]>> = {
  ipv4: [0, 128],
  ipv6: [0n, 1n << 63n],
};

/** What our earlier self might have left, on the device and by our routing protocol number. */
function remainsIn(family: Family): string[] {
  const network = LAB_NETWORKS[family];
  const prefixLength = { ipv4: 25, ipv6: 65 }[family];
  const [first, second] = GONE[family].map((offset) => addressAt(network, offset));
  const subnet = (address: Address | undefined) => `${address}/${prefixLength}`;
  const [device, digit, remote] = [VXLAN_DEVICE[family], FAMILY_DIGIT[family], onUnderlay(family, 200)];
  return [
    `ip neigh add ${first} lladdr 02:00:00:00:00:c8 dev ${device} nud permanent`,
    `bridge fdb append 02:00:00:00:00:c8 dev ${device} dst ${remote} self`,
    `ip nexthop add id 90010${digit} via ${first} dev ${device} onlink protocol 118`,
    `ip route add ${subnet(first)} nhid 90010${digit} protocol 118`,
    `ip route add ${subnet(second)} via ${first} dev ${device} onlink protocol 118`,
    `nft add element inet vtepd peers${digit} { ${remote} }`,
    `ip addr add ${subnet(addressAt(network, 7))} dev vtep0${family === 'ipv6' ? ' nodad' : ''}`,
  ];
}

async function each(node: LabNode, commands: readonly string[]): Promise<void> {
  for (const command of commands) await node.exec(command.split(' '));
}

function allStrangers({ addresses }: LabNode, families: readonly Family[]): string[] {
  return [...STRANGERS, ...families.flatMap((family) => strangersIn(family, addresses[family]))];
}

describeCluster('at the start', EVERY_FAMILY, { nodes: 2 }, (cluster) => {
  const { families } = cluster;

  it('remains of an earlier run are removed, strangers’ objects are not touched', async () => {
    const node = cluster.node(1);
    await each(node, allStrangers(node, families));
    const wanted = await kernelState(node.namespace);
    await node.daemon?.kill();
    await each(node, families.flatMap(remainsIn));
    await node.startDaemon();
    await node.untilReady();
    expect(stateDifference(wanted, await kernelState(node.namespace))).to.equal('');
  });

  it('a peer that left while the daemon was away is withdrawn', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    await second.daemon?.terminate();
    await second.startDaemon(['--release-on-exit']);
    await cluster.settled();
    const { lease } = await second.status();
    await first.daemon?.kill();
    await second.daemon?.terminate();
    await first.startDaemon();
    await first.untilProgrammed(0);
    const state = await kernelState(first.namespace);
    for (const family of families) {
      const { network, vtepMAC } = inFamily(lease, family);
      expect(state).not.to.contain(network).and.not.to.contain(vtepMAC);
    }
    await second.startDaemon();
    await cluster.settled();
  });

  it('another VNI, device and bridge name than last time: the old devices go', async () => {
    const node = cluster.node(2);
    await node.daemon?.terminate();
    for (const pod of node.pods.splice(0)) await pod.detach();
    await node.startDaemon(['--device', 'other.1', '--bridge', 'other0']);
    await node.untilReady();
    const state = await kernelState(node.namespace);
    const names = families.map((family) => ({ ipv4: 'other.1', ipv6: 'other.16' })[family]);
    for (const name of [...names, 'other0']) expect(state).to.contain(`ifname=${name} `);
    expect(state).not.to.match(/ifname=vtep/);
    await cluster.node(1).untilProgrammed(1);
  });
});

describeCluster('vtepd cleanup', [EMBEDDED_DUAL], { nodes: 1, idle: true }, (cluster) => {
  it('leaves the node as it was before vtepd, strangers included, and says what it removed', async () => {
    const node = cluster.node(1);
    await each(node, allStrangers(node, cluster.families));
    const before = await kernelState(node.namespace);
    await node.startDaemon();
    await node.untilReady();
    await node.attachPod();
    await node.daemon?.terminate();
    expect(stateDifference(before, await kernelState(node.namespace))).not.to.equal('');
    const dirs = ['--state-dir', node.stateDir, '--run-dir', node.runDir];
    const { stdout } = await node.vtepd(['cleanup', ...dirs]);
    expect(stateDifference(before, await kernelState(node.namespace))).to.equal('');
    for (const what of ['vtep.1', 'vtep6.1', 'vtep0', 'inet vtepd', 'bridge vtepd', 'subnet.env']) {
      expect(stdout).to.contain(what);
    }
    expect(existsSync(node.subnetFile)).to.equal(false);
    const again = await node.vtepd(['cleanup', ...dirs]);
    expect(again.stdout).not.to.contain('vtep.1');
  });
});
