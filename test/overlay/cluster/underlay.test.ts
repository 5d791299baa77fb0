/** The underlay changes under a running daemon, and so do its peers. */
import { readFile, rm } from 'node:fs/promises';
import { expect } from 'chai';
import { run } from '../../../overlay/lab/command.ts';
import { ipBatch } from '../../../overlay/lab/namespace.ts';
import { addressLines, gatewayAddresses, NODE_INTERFACE, nodePrefix } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { Family } from '../../../store/address.ts';
import { type Cluster, describeCluster, EVERY_KIND, pingPod, USERSPACE_DUAL } from '../../lab/cluster.ts';
import { inFamily, OVERHEAD, VXLAN_DEVICE } from '../../lab/in-family.ts';
import { kernelState, untilState } from '../../lab/kernel-state.ts';

const DEADLINE_MS = 30_000;

/** Node numbers that no node has. */
const MOVED = 100;

describeCluster('the underlay', [...EVERY_KIND, USERSPACE_DUAL], { nodes: 2 }, (cluster) => {
  const { families } = cluster;

  it('the interface goes down and up: everything is as it was', async () => {
    const { namespace } = cluster.node(1);
    const before = await kernelState(namespace);
    await run('ip', ['-n', namespace, 'link', 'set', NODE_INTERFACE, 'down']);
    // Down takes the default route and the IPv6 addresses with it: what a network manager puts back.
    const usual = addressLines(1, cluster.lab.underlay.families);
    // An IPv4 address stays on an interface that is down.
    await ipBatch(
      namespace,
      usual.filter((line) => !line.startsWith(`addr add ${nodePrefix(1, 'ipv4')}`)),
    );
    await untilState(namespace, before);
    await untilReachable(cluster);
  });

  it('the interface is deleted and made again: everything is as it was', async () => {
    const { number, namespace } = cluster.node(1);
    const before = withoutMac(await kernelState(namespace));
    await cluster.lab.underlay.disconnect(number);
    await cluster.lab.underlay.connect(number, namespace);
    await untilState(namespace, before, withoutMac);
    await untilReachable(cluster);
  });

  it('its address changes: the lease follows, and the peers follow the lease', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const { lease } = await first.status();
    for (const family of families) {
      const moved = nodePrefix(MOVED, family).replace(/\/.*/, '');
      await ipBatch(first.namespace, move(family, 1, MOVED));
      const follows = async () => inFamily((await second.status()).peers[0], family).publicIP === moved;
      await until(follows, { what: 'the peer to follow', deadlineMs: DEADLINE_MS });
      const after = inFamily((await first.status()).lease, family);
      expect(after).to.deep.equal({ ...inFamily(lease, family), publicIP: moved });
      await untilReachable(cluster);
      if (cluster.parameters.datapath === undefined) {
        const { stdout } = await first.exec(['ip', '-d', 'link', 'show', VXLAN_DEVICE[family]]);
        expect(stdout).to.contain(`local ${moved}`);
      }
      await ipBatch(first.namespace, move(family, MOVED, 1));
      await untilReachable(cluster);
    }
  });

  it('another address is added to its interface: the lease stays where it is, over a restart too', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const told = async () => {
      const { lease } = await first.status();
      return families.map((family) => inFamily(lease, family).publicIP);
    };
    const before = await told();
    // Of one subnet, an IPv4 address would go with the one before it.
    await first.exec(['sysctl', '-qw', `net.ipv4.conf.${NODE_INTERFACE}.promote_secondaries=1`]);
    await ipBatch(
      first.namespace,
      families.map((family) => `addr add ${nodePrefix(MOVED, family)} dev ${NODE_INTERFACE}${NODAD[family]}`),
    );
    await first.daemon?.terminate();
    await first.startDaemon();
    await cluster.settled();
    expect(await told()).to.deep.equal(before);
    // Once the old one goes, the other is there.
    for (const family of families) {
      await ipBatch(first.namespace, [
        `addr del ${nodePrefix(1, family)} dev ${NODE_INTERFACE}`,
        `route replace default via ${gatewayAddresses[family]}`,
      ]);
      const moved = nodePrefix(MOVED, family).replace(/\/.*/, '');
      const follows = async () => inFamily((await second.status()).peers[0], family).publicIP === moved;
      await until(follows, { what: 'the peer to follow', deadlineMs: DEADLINE_MS });
    }
    // And the one that it had is not moved back to while that one stands.
    await ipBatch(
      first.namespace,
      families.map((family) => `addr add ${nodePrefix(1, family)} dev ${NODE_INTERFACE}${NODAD[family]}`),
    );
    await untilReachable(cluster);
    for (const family of families) {
      await ipBatch(first.namespace, [`addr del ${nodePrefix(MOVED, family)} dev ${NODE_INTERFACE}`]);
      await run('ip', [
        '-n',
        first.namespace,
        'route',
        'replace',
        'default',
        'via',
        gatewayAddresses[family],
      ]);
    }
    await untilReachable(cluster);
    expect(await told()).to.deep.equal(before);
  });

  it('its MTU changes: device, bridge and subnet.env follow', async () => {
    const node = cluster.node(1);
    const follows = (mtuBytes: number) => async () => {
      const { stdout } = await node.exec(['ip', '-j', 'link', 'show']);
      const links: { ifname: string; mtu: number }[] = JSON.parse(stdout);
      const ours = links.filter(({ ifname }) =>
        ['vtep0', ...families.map((family) => VXLAN_DEVICE[family])].includes(ifname),
      );
      const env = await readFile(node.subnetFile, 'utf8');
      return ours.every(({ mtu }) => mtu === mtuBytes) && env.includes(`FLANNEL_MTU=${mtuBytes}\n`);
    };
    const overhead = Math.max(...families.map((family) => OVERHEAD[family]));
    for (const underlayMtu of [1400, 1500]) {
      await run('ip', ['-n', node.namespace, 'link', 'set', NODE_INTERFACE, 'mtu', `${underlayMtu}`]);
      await until(follows(underlayMtu - overhead), {
        what: 'the MTU to be followed',
        deadlineMs: DEADLINE_MS,
      });
    }
    await untilReachable(cluster);
  });

  it('a node that lost all it knew comes back with another MAC: its peer follows', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const before = (await second.status()).lease;
    await second.daemon?.terminate();
    await second.vtepd(['cleanup', '--state-dir', second.stateDir, '--run-dir', second.runDir]);
    await rm(second.stateDir, { recursive: true });
    await second.startDaemon();
    await second.untilReady();
    const { lease } = await second.status();
    const macs = (node: Parameters<typeof inFamily>[0]) =>
      families.map((family) => inFamily(node, family).vtepMAC).join();
    expect(macs(lease)).not.to.equal(macs(before));
    const follows = async () => {
      const { peers } = await first.status();
      return peers.length === 1 && macs(peers[0]) === macs(lease) && peers[0]?.programmed;
    };
    await until(follows, { what: 'the peer to follow', deadlineMs: DEADLINE_MS });
    second.pods.length = 0;
    await second.attachPod();
    await untilReachable(cluster);
  });
});

/** Nobody else has these addresses. */
const NODAD: Readonly<Record<Family, string>> = { ipv4: '', ipv6: ' nodad' };

/** The address of one node number goes, that of another comes. */
const move = (family: Family, from: number, to: number): string[] => [
  `addr del ${nodePrefix(from, family)} dev ${NODE_INTERFACE}`,
  `addr add ${nodePrefix(to, family)} dev ${NODE_INTERFACE}${NODAD[family]}`,
  `route replace default via ${gatewayAddresses[family]}`,
];

async function untilReachable(cluster: Cluster): Promise<void> {
  const [from, to] = [cluster.pod(1), cluster.pod(2)];
  const both = async () =>
    (await pingPod(from, to, { count: 1 })).lost === 0 && (await pingPod(to, from, { count: 1 })).lost === 0;
  await until(both, { what: 'the pods to reach each other', deadlineMs: DEADLINE_MS });
}

/** A new interface has a MAC of its own. */
const withoutMac = (state: string): string =>
  state.replace(new RegExp(`(ifname=${NODE_INTERFACE} address=)\\S+`), '$1any');
