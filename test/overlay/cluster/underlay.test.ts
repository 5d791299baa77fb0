/** The underlay changes under a running daemon, and so do its peers. */
import { readFile, rm } from 'node:fs/promises';
import { expect } from 'chai';
import { run } from '../../../overlay/lab/command.ts';
import { ipBatch } from '../../../overlay/lab/namespace.ts';
import { ping } from '../../../overlay/lab/ping.ts';
import { gatewayAddress, NODE_INTERFACE, nodeAddress6 } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { parseAddress } from '../../../store/address.ts';
import { type Cluster, describeCluster, EVERY_STORE } from '../../lab/cluster.ts';
import { kernelState, untilState } from '../../lab/kernel-state.ts';

const DEADLINE_MS = 30_000;

describeCluster('the underlay', EVERY_STORE, { nodes: 2 }, (cluster) => {
  it('the interface goes down and up: everything is as it was', async () => {
    const { namespace } = cluster.node(1);
    const before = await kernelState(namespace);
    await run('ip', ['-n', namespace, 'link', 'set', NODE_INTERFACE, 'down']);
    // Down takes the default route and the IPv6 addresses with it: what a network manager puts back.
    await ipBatch(namespace, [
      `link set ${NODE_INTERFACE} up`,
      `route add default via ${gatewayAddress}`,
      `addr add ${nodeAddress6(1)}/64 dev ${NODE_INTERFACE} nodad`,
      'route add default via 2001:db8::1',
    ]);
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
    const moved = parseAddress('192.0.2.111');
    await ipBatch(first.namespace, [
      `addr del ${first.address}/24 dev ${NODE_INTERFACE}`,
      `addr add ${moved}/24 dev ${NODE_INTERFACE}`,
      `route replace default via ${gatewayAddress}`,
    ]);
    const follows = async () => (await second.status()).peers[0]?.publicIP === moved;
    await until(follows, { what: 'the peer to follow', deadlineMs: DEADLINE_MS });
    const after = (await first.status()).lease;
    expect(after).to.include({ publicIP: moved, subnet: lease?.subnet, vtepMAC: lease?.vtepMAC });
    await untilReachable(cluster);
    const { stdout } = await first.exec(['ip', '-d', 'link', 'show', 'vtep.1']);
    expect(stdout).to.contain(`local ${moved}`);
    await ipBatch(first.namespace, [
      `addr del ${moved}/24 dev ${NODE_INTERFACE}`,
      `addr add ${first.address}/24 dev ${NODE_INTERFACE}`,
      `route replace default via ${gatewayAddress}`,
    ]);
    await untilReachable(cluster);
  });

  it('its MTU changes: device, bridge and subnet.env follow', async () => {
    const node = cluster.node(1);
    const follows = (mtuBytes: number) => async () => {
      const { stdout } = await node.exec(['ip', '-j', 'link', 'show']);
      const links: { ifname: string; mtu: number }[] = JSON.parse(stdout);
      const ours = links.filter(({ ifname }) => ['vtep.1', 'vtep0'].includes(ifname));
      const env = await readFile(node.subnetFile, 'utf8');
      return ours.every(({ mtu }) => mtu === mtuBytes) && env.includes(`FLANNEL_MTU=${mtuBytes}\n`);
    };
    for (const underlayMtu of [1400, 1500]) {
      await run('ip', ['-n', node.namespace, 'link', 'set', NODE_INTERFACE, 'mtu', `${underlayMtu}`]);
      await until(follows(underlayMtu - 50), { what: 'the MTU to be followed', deadlineMs: DEADLINE_MS });
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
    expect(lease?.vtepMAC).not.to.equal(before?.vtepMAC);
    const follows = async () => {
      const { peers } = await first.status();
      return peers.length === 1 && peers[0]?.vtepMAC === lease?.vtepMAC && peers[0]?.programmed;
    };
    await until(follows, { what: 'the peer to follow', deadlineMs: DEADLINE_MS });
    second.pods.length = 0;
    await second.attachPod();
    await untilReachable(cluster);
  });
});

async function untilReachable(cluster: Cluster): Promise<void> {
  const [from, to] = [cluster.pod(1), cluster.pod(2)];
  const both = async () =>
    (await ping(from.namespace, to.address, { count: 1 })).received === 1 &&
    (await ping(to.namespace, from.address, { count: 1 })).received === 1;
  await until(both, { what: 'the pods to reach each other', deadlineMs: DEADLINE_MS });
}

/** A new interface has a MAC of its own. */
const withoutMac = (state: string): string =>
  state.replace(new RegExp(`(ifname=${NODE_INTERFACE} address=)\\S+`), '$1any');
