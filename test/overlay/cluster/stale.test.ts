/** What a daemon finds at its start: remains of an earlier run go, strangers' objects stay. And `cleanup`. */
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { describeCluster, EMBEDDED } from '../../lab/cluster.ts';
import { kernelState, stateDifference } from '../../lab/kernel-state.ts';

/** What another program might have: on the underlay, beside and among our objects. */
const STRANGERS = [
  'ip link add br-other type bridge',
  'ip addr add 172.31.0.1/24 dev br-other',
  'ip link set br-other up',
  'ip link add vx-other type vxlan id 77 dstport 4789 local 192.0.2.11',
  'ip link set vx-other up',
  'ip route add 198.51.100.0/24 via 192.0.2.1',
  'ip nexthop add id 900001 via 192.0.2.1 dev eth0',
  'ip route add 203.0.113.0/24 nhid 900001',
  'ip neigh add 192.0.2.99 lladdr 02:00:00:00:99:99 dev eth0 nud permanent',
  'bridge fdb append 02:00:00:00:88:88 dev vx-other dst 192.0.2.98 self',
  'nft add table inet other',
  'nft add chain inet other input { type filter hook input priority 0 ; policy accept ; }',
  'nft add rule inet other input tcp dport 9 drop',
];

/** What our earlier self might have left, on the device and by our routing protocol number. */
const REMAINS = [
  'ip neigh add 10.244.200.0 lladdr 02:00:00:00:00:c8 dev vtep.1 nud permanent',
  'bridge fdb append 02:00:00:00:00:c8 dev vtep.1 dst 192.0.2.200 self',
  'ip nexthop add id 900002 via 10.244.200.0 dev vtep.1 onlink protocol 118',
  'ip route add 10.244.200.0/24 nhid 900002 protocol 118',
  'ip route add 10.244.201.0/24 via 10.244.200.0 dev vtep.1 onlink protocol 118',
  'nft add element inet vtepd peers4 { 192.0.2.200 }',
  'ip addr add 10.244.202.1/24 dev vtep0',
];

async function each(node: LabNode, commands: readonly string[]): Promise<void> {
  for (const command of commands) await node.exec(command.split(' '));
}

describeCluster('at the start', [EMBEDDED], { nodes: 2 }, (cluster) => {
  it('remains of an earlier run are removed, strangers’ objects are not touched', async () => {
    const node = cluster.node(1);
    await each(node, STRANGERS);
    const wanted = await kernelState(node.namespace);
    await node.daemon?.kill();
    await each(node, REMAINS);
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
    expect(await kernelState(first.namespace)).not.to.contain(lease?.subnet);
    expect(await kernelState(first.namespace)).not.to.contain(lease?.vtepMAC);
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
    expect(state)
      .to.match(/ifname=other\.1 /)
      .and.match(/ifname=other0 /);
    expect(state)
      .not.to.match(/ifname=vtep\.1 /)
      .and.not.match(/ifname=vtep0 /);
    await cluster.node(1).untilProgrammed(1);
  });
});

describeCluster('vtepd cleanup', [EMBEDDED], { nodes: 1, idle: true }, (cluster) => {
  it('leaves the node as it was before vtepd, strangers included, and says what it removed', async () => {
    const node = cluster.node(1);
    await each(node, STRANGERS);
    const before = await kernelState(node.namespace);
    await node.startDaemon();
    await node.untilReady();
    await node.attachPod();
    await node.daemon?.terminate();
    expect(stateDifference(before, await kernelState(node.namespace))).not.to.equal('');
    const dirs = ['--state-dir', node.stateDir, '--run-dir', node.runDir];
    const { stdout } = await node.vtepd(['cleanup', ...dirs]);
    expect(stateDifference(before, await kernelState(node.namespace))).to.equal('');
    for (const what of ['vtep.1', 'vtep0', 'inet vtepd', 'bridge vtepd', 'subnet.env']) {
      expect(stdout).to.contain(what);
    }
    expect(existsSync(node.subnetFile)).to.equal(false);
    const again = await node.vtepd(['cleanup', ...dirs]);
    expect(again.stdout).not.to.contain('vtep.1');
  });
});
