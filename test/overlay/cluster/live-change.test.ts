/** The network in the store changes under running daemons: nothing is restarted. */
import { expect } from 'chai';
import { labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import { ping } from '../../../overlay/lab/ping.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { StatusReport } from '../../../overlay/ops/status.ts';
import { parseSubnet, subnetContains } from '../../../store/address.ts';
import { type Cluster, describeCluster, ETCD, ETCD_DUAL, pingDuring, pingPod } from '../../lab/cluster.ts';
import { etcdOf, leaseKeys, putKey } from '../../lab/etcd-keys.ts';

const DEADLINE_MS = 30_000;

type Document = Readonly<Record<string, unknown>>;

const configure = (cluster: Cluster, document: Document): Promise<void> =>
  putKey(etcdOf(cluster), 'config', JSON.stringify({ Backend: { Type: 'vxlan' }, ...document }));

const configureDual = (cluster: Cluster, document: Document): Promise<void> =>
  putKey(etcdOf(cluster), 'config', labNetworkConfig('dual', document));

/** Every node says what is waited for. */
async function untilAll(
  cluster: Cluster,
  what: string,
  isSo: (status: StatusReport) => boolean,
): Promise<void> {
  for (const node of cluster.lab.nodes) {
    await until(async () => isSo(await node.status()), {
      what: `${node.name}: ${what}`,
      deadlineMs: DEADLINE_MS,
    });
  }
}

const settledIn = (network: string) => (status: StatusReport) =>
  status.ready &&
  status.lease?.subnet !== undefined &&
  subnetContains(parseSubnet(network), parseSubnet(status.lease.subnet)) &&
  status.peers.length > 0 &&
  status.peers.every(({ programmed }) => programmed);

async function untilReachable(from: Pod, to: Pod): Promise<void> {
  const both = async () =>
    (await pingPod(from, to, { count: 1 })).lost === 0 && (await pingPod(to, from, { count: 1 })).lost === 0;
  await until(both, { what: `${from.name} and ${to.name} to reach each other`, deadlineMs: DEADLINE_MS });
}

async function detach(node: LabNode, pod: Pod): Promise<void> {
  node.pods.splice(node.pods.indexOf(pod), 1);
  await pod.detach();
}

const links = async (node: LabNode): Promise<string> => (await node.exec(['ip', '-o', '-d', 'link'])).stdout;

describeCluster('a backend that changes', [ETCD_DUAL], { nodes: 2, pods: 2 }, (cluster) => {
  it('VNI and port: devices and leases follow, and pods of one node lose nothing', async () => {
    const node = cluster.node(1);
    const [one, other] = node.pods as [Pod, Pod];
    const report = await pingDuring(one, other, async () => {
      await configureDual(cluster, { Backend: { Type: 'vxlan', VNI: 7 } });
      await untilAll(
        cluster,
        'VNI 7',
        (status) => status.overlay?.vni === 7 && settledIn('10.244.0.0/16')(status),
      );
      await configureDual(cluster, { Backend: { Type: 'vxlan', VNI: 7, Port: 4789 } });
      await untilAll(cluster, 'port 4789', (status) => status.overlay?.port === 4789);
    });
    expect(report.lost).to.equal(0);
    await untilReachable(cluster.pod(1), cluster.pod(2));
    for (const each of cluster.lab.nodes) {
      expect(await links(each))
        .to.match(/vtep\.7:.* id 7 .*dstport 4789/)
        .and.match(/vtep6\.7:.* id 7 .*dstport 4789/)
        .and.not.match(/vtep6?\.1:/);
      expect(await links(each)).not.to.contain('~');
    }
    expect((await node.status()).reconcile.repairs).to.equal(0);
  });

  it('the MTU: device, bridge, subnet.env and new pods', async () => {
    await configureDual(cluster, { Backend: { Type: 'vxlan', MTU: 1400 } });
    await untilAll(
      cluster,
      'the MTU',
      (status) => status.overlay?.mtuBytes === 1330 && status.overlay.vni === 1,
    );
    await untilReachable(cluster.pod(1), cluster.pod(2));
    const pod = await cluster.node(1).attachPod();
    expect((await runInside(pod.namespace, ['ip', 'link', 'show', 'eth0'])).stdout).to.contain('mtu 1330');
    await detach(cluster.node(1), pod);
  });

  it('one that cannot be used: the one in use stays, which is said once, and status tells why', async () => {
    const node = cluster.node(1);
    const before = await node.daemon?.log();
    await configureDual(cluster, { Backend: { Type: 'wireguard' } });
    await untilAll(cluster, 'the problem', ({ network }) => /wireguard/.test(network.problem ?? ''));
    expect((await node.status()).ready).to.equal(true);
    await untilReachable(cluster.pod(1), cluster.pod(2));
    await putKey(etcdOf(cluster), 'subnets/10.244.250.0-24', 'not JSON');
    await untilAll(cluster, 'another event', ({ skipped }) => skipped.length === 1);
    await etcdOf(cluster).etcdctl(['del', '/coreos.com/network/subnets/10.244.250.0-24']);
    const said = (await node.daemon?.log())?.slice(before?.length).match(/wireguard/g);
    expect(said).to.have.length(1);
    await putKey(etcdOf(cluster), 'config', '{"Network": "10.244.0.0/16", "SubnetLen": 12}');
    await untilAll(cluster, 'the field', ({ network }) => /SubnetLen/.test(network.problem ?? ''));
    await etcdOf(cluster).etcdctl(['del', '/coreos.com/network/config']);
    await untilAll(cluster, 'the absence', ({ network }) => /no network/.test(network.problem ?? ''));
    await configureDual(cluster, { Backend: { Type: 'vxlan' } });
    await untilAll(cluster, 'no problem', ({ network }) => network.problem === null);
    await untilReachable(cluster.pod(1), cluster.pod(2));
  });
});

describeCluster('a network that changes', [ETCD], { nodes: 2, pods: 2 }, (cluster) => {
  it('grown: nothing moves, nothing is lost', async () => {
    const before = await Promise.all(cluster.lab.nodes.map((node) => node.status()));
    const report = await pingDuring(cluster.pod(1), cluster.pod(2), async () => {
      await configure(cluster, { Network: '10.240.0.0/12', SubnetMin: '10.241.0.0' });
      await untilAll(cluster, 'the network', ({ overlay }) => overlay?.networks[0] === '10.240.0.0/12');
    });
    expect(report.lost).to.equal(0);
    const after = await Promise.all(cluster.lab.nodes.map((node) => node.status()));
    expect(after.map(({ lease }) => lease?.subnet)).to.deep.equal(before.map(({ lease }) => lease?.subnet));
  });

  it('without our leases: new ones are taken, and old pods keep working until they go', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const [old1, old2] = [cluster.pod(1), cluster.pod(2)];
    const before = await first.status();
    const report = await pingDuring(old1, old2, async () => {
      await configure(cluster, { Network: '10.200.0.0/16' });
      await untilAll(cluster, 'the new network', settledIn('10.200.0.0/16'));
      await untilAll(cluster, 'the former lease', (status) => status.network.former[0]?.pods === 2);
      await first.daemon?.kill();
      await first.startDaemon();
      await first.untilReady();
      await untilAll(cluster, 'as before the restart', (status) => status.network.former[0]?.pods === 2);
    });
    expect(report.lost).to.equal(0);
    expect((await first.status()).network.former[0]?.subnet).to.equal(before.lease?.subnet);
    const young = [await first.attachPod(), await second.attachPod()] as const;
    expect(young[0].address).to.match(/^10\.200\./);
    await untilReachable(young[0], young[1]);
    await untilReachable(young[0], old2);
    await untilReachable(old1, young[1]);

    for (const pod of first.pods.slice(0, 2)) await detach(first, pod);
    const gone = async () => (await first.status()).network.former.length === 0;
    await until(gone, { what: 'the former lease to go', deadlineMs: DEADLINE_MS });
    const { stdout } = await first.exec(['ip', '-o', '-4', 'address', 'show', 'dev', 'vtep0']);
    expect(stdout).to.contain('10.200.').and.not.contain('10.24');
    const oneLess = async () => (await leaseKeys(etcdOf(cluster))).length === 3;
    await until(oneLess, { what: 'its key to go', deadlineMs: DEADLINE_MS });
    await untilReachable(young[0], old2);

    for (const pod of second.pods.slice(0, 2)) await detach(second, pod);
    const onlyNew = async () => (await leaseKeys(etcdOf(cluster))).every((key) => key.startsWith('10.200.'));
    await until(onlyNew, { what: 'every former lease to go', deadlineMs: DEADLINE_MS });
    for (const node of cluster.lab.nodes) {
      const forgotten = async () => !(await node.exec(['nft', 'list', 'ruleset'])).stdout.includes('10.24');
      await until(forgotten, { what: 'the former network to be forgotten', deadlineMs: DEADLINE_MS });
    }
    await untilReachable(young[0], young[1]);
  });

  it('other bounds, and back: the former lease is the current one again', async () => {
    const node = cluster.node(1);
    const before = await node.status();
    await configure(cluster, { Network: '10.200.0.0/16', SubnetLen: 26 });
    await untilAll(cluster, 'a /26', (status) => status.ready && /\/26$/.test(status.lease?.subnet ?? ''));
    await untilAll(cluster, 'a former /24', ({ network }) => network.former.length === 1);
    await configure(cluster, { Network: '10.200.0.0/16' });
    await untilAll(cluster, 'a /24', settledIn('10.200.0.0/16'));
    const after = await node.status();
    expect(after.lease?.subnet).to.equal(before.lease?.subnet);
    await untilAll(cluster, 'nothing former', ({ network }) => network.former.length === 0);
    await untilReachable(cluster.pod(1), cluster.pod(2));
  });

  it('another family: a lease with both is claimed, and one with the first alone again', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const [old1, old2] = [cluster.pod(1), cluster.pod(2)];
    const both = { Network: '10.200.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:200::/48' };
    const report = await pingDuring(old1, old2, async () => {
      await configure(cluster, both);
      await untilAll(cluster, 'IPv6', (status) => status.ready && status.lease?.subnetIPv6 !== undefined);
      await untilAll(cluster, 'peers', settledIn('10.200.0.0/16'));
    });
    expect(report.lost).to.equal(0);
    const young = [await first.attachPod(), await second.attachPod()] as const;
    const address = young[1].addresses[1];
    if (address === undefined) throw new Error('the pod has no IPv6 address');
    const reached = async () => (await ping(young[0].namespace, address, { count: 1 })).received === 1;
    await until(reached, { what: 'the IPv6 address to answer', deadlineMs: DEADLINE_MS });
    await configure(cluster, { Network: '10.200.0.0/16' });
    const alone = (status: StatusReport) => status.ready && status.lease?.subnetIPv6 === undefined;
    await untilAll(cluster, 'IPv4 alone', alone);
    await until(reached, { what: 'old pods to reach each other by IPv6', deadlineMs: DEADLINE_MS });
    await untilReachable(old1, old2);
  });

  it('changed while a daemon was away: what it finds is the same', async () => {
    const node = cluster.node(1);
    const before = await node.status();
    await node.daemon?.terminate();
    await configure(cluster, { Network: '10.99.0.0/16' });
    await node.startDaemon();
    await node.untilReady();
    await untilAll(cluster, 'the new network', settledIn('10.99.0.0/16'));
    const former = (await node.status()).network.former.map(({ subnet }) => subnet);
    expect(former).to.include(before.lease?.subnet);
    await untilReachable(cluster.pod(1), cluster.pod(2));
  });
});
