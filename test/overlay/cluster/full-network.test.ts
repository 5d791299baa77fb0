/** Three nodes and a network of two subnets: who comes last waits, says so, and goes on when a lease goes. */
import { expect } from 'chai';
import { labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, ETCD_DUAL, pingPod } from '../../lab/cluster.ts';
import { deleteKey, etcdOf, keyOf } from '../../lab/etcd-keys.ts';

const DEADLINE_MS = 30_000;

describeCluster(
  'a network that is full',
  [ETCD_DUAL],
  {
    nodes: 3,
    idle: true,
    // IPv6 has room; one family that has none is enough.
    networkConfig: (families) =>
      labNetworkConfig(families, { SubnetMin: '10.244.1.0', SubnetMax: '10.244.2.0' }),
  },
  (cluster) => {
    it('a node without a subnet says why; the lease of one that goes is taken, and pods reach one another', async () => {
      const [first, second, third] = [cluster.node(1), cluster.node(2), cluster.node(3)];
      await first.startDaemon();
      await first.untilReady();
      await second.startDaemon(['--release-on-exit']);
      await second.untilReady();
      await third.startDaemon();
      const waits = async () =>
        (await third.status().catch(() => undefined))?.reason?.includes('subnets from');
      await until(waits, { what: 'node-3 to say that there is no free subnet', deadlineMs: DEADLINE_MS });
      const { lease } = await second.status();
      await second.daemon?.terminate();
      await third.untilReady();
      expect((await third.status()).lease?.subnet).to.equal(lease?.subnet);
      for (const node of [first, third]) await node.attachPod();
      await cluster.settled();
      expect((await pingPod(cluster.pod(1), cluster.pod(3), { count: 3 })).lost).to.equal(0);
    });

    it('a lease that an operator deletes is taken as well', async () => {
      const [second, third] = [cluster.node(2), cluster.node(3)];
      const { lease } = await third.status();
      await third.daemon?.kill();
      await second.startDaemon();
      const waits = async () =>
        (await second.status().catch(() => undefined))?.reason?.includes('subnets from');
      await until(waits, { what: 'node-2 to say that there is no free subnet', deadlineMs: DEADLINE_MS });
      await deleteKey(etcdOf(cluster), `subnets/${keyOf(lease)}`);
      await second.untilReady();
      expect((await second.status()).lease?.subnet).to.equal(lease?.subnet);
    });
  },
);
