/** `Backend.Type` changes in the store, from vxlan to host-gw and back, under running daemons and flows. */
import { expect } from 'chai';
import { labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { until } from '../../../overlay/lab/wait.ts';
import {
  type Cluster,
  describeCluster,
  ETCD_DUAL,
  pingDuring,
  pingPod,
  streamDuring,
} from '../../lab/cluster.ts';
import { etcdOf, getKey, keyOf, putKey } from '../../lab/etcd-keys.ts';
import { VXLAN_DEVICE } from '../../lab/in-family.ts';

const DEADLINE_MS = 30_000;

/** A lease as it is stored, as far as it is looked at here. */
interface StoredLease {
  readonly BackendType: string;
  readonly BackendData?: { readonly VtepMAC?: string } | null;
  readonly BackendV6Data?: { readonly VtepMAC?: string } | null;
}

const configure = (cluster: Cluster, Type: string): Promise<void> =>
  putKey(etcdOf(cluster), 'config', labNetworkConfig('dual', { Backend: { Type } }));

/** Every node says that it goes by it, and has programmed the other's lease, which is of that type too. */
async function settledAs(cluster: Cluster, type: 'vxlan' | 'host-gw'): Promise<void> {
  for (const node of cluster.lab.nodes) {
    const isSo = async () => {
      const { overlay, peers, ready } = await node.status();
      const datapath = type === 'vxlan' ? 'kernel' : 'direct';
      return ready && overlay?.datapath === datapath && peers.length === 1 && peers[0]?.programmed === true;
    };
    await until(isSo, { what: `${node.name} to go by ${type}`, deadlineMs: DEADLINE_MS });
  }
}

const storedLeases = (cluster: Cluster): Promise<StoredLease[]> =>
  Promise.all(
    cluster.lab.nodes.map(async (node) => {
      const text = await getKey(etcdOf(cluster), `subnets/${keyOf((await node.status()).lease)}`);
      return JSON.parse(text ?? '') as StoredLease;
    }),
  );

/** What is programmed for the peers, by family. */
async function overlayState(cluster: Cluster): Promise<{ routes: string[]; links: string }> {
  const [node] = cluster.lab.nodes;
  const show = async (...args: string[]) => (await node?.exec(['ip', ...args]))?.stdout ?? '';
  const routes = [
    await show('-4', 'route', 'show', 'proto', '118'),
    await show('-6', 'route', 'show', 'proto', '118'),
  ];
  return { routes, links: await show('-o', 'link') };
}

describeCluster('a backend whose type changes', [ETCD_DUAL], { nodes: 2, pods: 2 }, (cluster) => {
  const neighbours = () => cluster.node(1).pods as [Pod, Pod];

  it('to plain routes: flows within a node lose nothing, those between nodes live, leases are rewritten', async () => {
    const before = await Promise.all(cluster.lab.nodes.map((node) => node.status()));
    const [one, other] = neighbours();
    const stream = await streamDuring(cluster.pod(1), cluster.pod(2), async () => {
      const within = await pingDuring(one, other, async () => {
        await configure(cluster, 'host-gw');
        await settledAs(cluster, 'host-gw');
      });
      expect(within.lost).to.equal(0);
      const between = await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 });
      expect(between.lost).to.equal(0);
    });
    expect(stream.whole, JSON.stringify(stream)).to.equal(true);
    for (const lease of await storedLeases(cluster)) {
      expect(lease.BackendType).to.equal('host-gw');
      expect(lease.BackendData?.VtepMAC ?? lease.BackendV6Data?.VtepMAC).to.equal(undefined);
    }
    const { routes, links } = await overlayState(cluster);
    for (const shown of routes) expect(shown).to.match(/ dev eth0/);
    for (const device of Object.values(VXLAN_DEVICE)) expect(links).not.to.contain(device);
    const after = await Promise.all(cluster.lab.nodes.map((node) => node.status()));
    expect(after.map(({ lease }) => lease?.subnet)).to.deep.equal(before.map(({ lease }) => lease?.subnet));
    expect(after.map(({ overlay }) => overlay?.mtuBytes)).to.deep.equal([1500, 1500]);
  });

  it('and back to the tunnel: the same, with the MACs that the nodes had', async () => {
    const [one, other] = neighbours();
    const stream = await streamDuring(cluster.pod(1), cluster.pod(2), async () => {
      const within = await pingDuring(one, other, async () => {
        await configure(cluster, 'vxlan');
        await settledAs(cluster, 'vxlan');
      });
      expect(within.lost).to.equal(0);
      expect((await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).lost).to.equal(0);
    });
    expect(stream.whole, JSON.stringify(stream)).to.equal(true);
    const statuses = await Promise.all(cluster.lab.nodes.map((node) => node.status()));
    for (const [i, lease] of (await storedLeases(cluster)).entries()) {
      expect(lease.BackendType).to.equal('vxlan');
      expect(lease.BackendData?.VtepMAC).to.equal(statuses[i]?.lease?.vtepMAC);
      expect(lease.BackendV6Data?.VtepMAC).to.equal(statuses[i]?.lease?.vtepMACIPv6);
    }
    const { routes, links } = await overlayState(cluster);
    for (const [i, device] of [VXLAN_DEVICE.ipv4, VXLAN_DEVICE.ipv6].entries()) {
      expect(routes[i]).to.contain(`dev ${device}`);
      expect(links).to.contain(`${device}:`);
    }
    // New pods have the tunnel's MTU again.
    const pod = await cluster.node(1).attachPod();
    expect((await runInside(pod.namespace, ['ip', 'link', 'show', 'eth0'])).stdout).to.contain('mtu 1430');
    for (const { reconcile } of statuses) expect(reconcile.repairs).to.equal(0);
  });
});
