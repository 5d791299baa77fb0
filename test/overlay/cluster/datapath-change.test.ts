/** The network in the store changes under daemons of both kinds: nothing is restarted, and both follow. */
import { expect } from 'chai';
import { run } from '../../../overlay/lab/command.ts';
import { ping } from '../../../overlay/lab/ping.ts';
import { NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { StatusReport } from '../../../overlay/ops/status.ts';
import { type Cluster, describeCluster, ETCD, pingDuring } from '../../lab/cluster.ts';
import { etcdOf, putKey } from '../../lab/etcd-keys.ts';

const DEADLINE_MS = 30_000;

const configure = (cluster: Cluster, backend: object): Promise<void> =>
  putKey(etcdOf(cluster), 'config', JSON.stringify({ Network: '10.244.0.0/16', Backend: backend }));

/** Every node says so, and holds its peer; then the pods reach each other. */
async function untilFollowed(
  cluster: Cluster,
  what: string,
  isSo: (status: StatusReport) => boolean,
): Promise<void> {
  for (const node of cluster.lab.nodes) {
    const follows = async () => {
      const status = await node.status();
      return (
        isSo(status) && status.ready && status.peers.length === 1 && status.peers[0]?.programmed === true
      );
    };
    await until(follows, { what: `${node.name}: ${what}`, deadlineMs: DEADLINE_MS });
  }
  const [one, other] = [cluster.pod(1), cluster.pod(2)];
  const both = async () =>
    (await ping(one.namespace, other.address, { count: 1 })).received === 1 &&
    (await ping(other.namespace, one.address, { count: 1 })).received === 1;
  await until(both, { what: `the pods to reach each other after ${what}`, deadlineMs: DEADLINE_MS });
}

describeCluster('changes', [{ ...ETCD, datapath: 'mixed' }], { nodes: 2 }, (cluster) => {
  const devices = async () => (await cluster.node(1).exec(['ip', '-o', '-d', 'link'])).stdout;

  it('VNI and port: another device, another socket', async () => {
    await configure(cluster, { Type: 'vxlan', VNI: 7 });
    await untilFollowed(cluster, 'VNI 7', ({ overlay }) => overlay?.vni === 7);
    expect(await devices())
      .to.match(/vtep\.7: .*type tap/)
      .and.not.contain('vtep.1:');
    await configure(cluster, { Type: 'vxlan', VNI: 7, Port: 4789 });
    await untilFollowed(cluster, 'port 4789', ({ overlay }) => overlay?.port === 4789);
    expect((await cluster.node(1).exec(['ss', '-uanH'])).stdout)
      .to.contain(':4789')
      .and.not.contain(':8472');
    expect((await cluster.node(1).status()).reconcile.repairs).to.equal(0);
  });

  it('MTU, the underlay’s interface’s and the network’s: the tunnel follows', async () => {
    await configure(cluster, { Type: 'vxlan', MTU: 1400 });
    await untilFollowed(cluster, 'MTU 1400', ({ overlay }) => overlay?.mtuBytes === 1350);
    await configure(cluster, { Type: 'vxlan' });
    for (const mtuBytes of [1300, 1500]) {
      for (const { namespace } of cluster.lab.nodes) {
        await run('ip', ['-n', namespace, 'link', 'set', NODE_INTERFACE, 'mtu', `${mtuBytes}`]);
      }
      const what = `the underlay's MTU ${mtuBytes}`;
      await untilFollowed(cluster, what, ({ overlay }) => overlay?.mtuBytes === mtuBytes - 50);
    }
  });

  it('DirectRouting, and back into the tunnel: no packet is lost', async () => {
    const report = await pingDuring(cluster.pod(1), cluster.pod(2), async () => {
      await configure(cluster, { Type: 'vxlan', DirectRouting: true });
      await untilFollowed(cluster, 'direct routes', ({ peers }) => peers[0]?.route === 'direct');
      await configure(cluster, { Type: 'vxlan' });
      await untilFollowed(cluster, 'the tunnel', ({ peers }) => peers[0]?.route === 'tunnel');
    });
    expect(report.lost, JSON.stringify(report)).to.equal(0);
  });

  it('to plain routes and back: the device goes and comes', async () => {
    await configure(cluster, { Type: 'host-gw' });
    await untilFollowed(cluster, 'plain routes', ({ overlay }) => overlay?.datapath === 'direct');
    expect(await devices()).not.to.contain('vtep.1:');
    expect((await cluster.node(1).status()).tunnels).to.deep.equal([]);
    await configure(cluster, { Type: 'vxlan' });
    await untilFollowed(cluster, 'the tunnel', ({ overlay }) => overlay?.backend === 'vxlan');
  });

  it('flannel’s udp: every node carries it in user space, as VXLAN, and says so; leases say vxlan', async () => {
    await configure(cluster, { Type: 'udp' });
    await untilFollowed(cluster, 'user space', ({ overlay }) => overlay?.datapath === 'userspace');
    const far = cluster.node(2);
    expect((await far.status()).overlay?.datapathReason).to.match(/Backend\.Type is "udp"/);
    expect(await far.daemon?.log()).to.match(/backend is "udp": vtepd carries it in user space.*VXLAN/);
    const args = cluster.lab.store.arguments.filter(
      (_, at, all) => all[at - (at % 2)] !== '--net-config-path',
    );
    const { leases } = JSON.parse((await far.vtepd(['leases', '--json', ...args])).stdout);
    expect(leases.map(({ backend }: { backend: string }) => backend)).to.deep.equal(['vxlan', 'vxlan']);
    await configure(cluster, { Type: 'vxlan' });
    await untilFollowed(cluster, 'each its own', ({ overlay, node }) => {
      return overlay?.datapath === (node === 'node-1' ? 'userspace' : 'kernel');
    });
  });
});
