/**
 * A cluster on Kubernetes, dual stack: Nodes of an API server's double, daemons that are told nothing but where it
 * is. What does not depend on the store is held by the other suites; here is what does.
 */
import { expect } from 'chai';
import { labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, KUBERNETES_DUAL, pingDuring, pingPod } from '../../lab/cluster.ts';
import { kubernetesOf } from '../../lab/kubernetes-lab-store.ts';
import { objectOf } from '../../lab/kubernetes-objects.ts';

const DEADLINE_MS = 30_000;
const FLANNEL = 'flannel.alpha.coreos.com/';

describeCluster('Nodes', [KUBERNETES_DUAL], { nodes: 3, idle: true }, (cluster) => {
  const node = (name: string) => kubernetesOf(cluster).api.objects.get(name);
  const annotations = (name: string) => objectOf(objectOf(node(name).metadata).annotations);
  const condition = (name: string) => {
    const { conditions } = objectOf(node(name).status);
    const all = Array.isArray(conditions) ? conditions.map(objectOf) : [];
    return all.find(({ type }) => type === 'NetworkUnavailable');
  };
  const peersOf = async (number: number) => (await cluster.node(number).status()).peers.length;

  it('without a podCIDR are waited for, by the name of the flag that gives them, and then claimed at once', async () => {
    const { cluster: kubernetes, api } = kubernetesOf(cluster);
    const network = await kubernetesOf(cluster).network();
    kubernetes.allocateFrom(undefined);
    api.objects.delete('node-3');
    kubernetes.register('node-3');
    for (const each of cluster.lab.nodes) await each.startDaemon();
    await cluster.node(3).daemon?.until('the flag to be named', async () => {
      const { reason } = await cluster
        .node(3)
        .status()
        .catch(() => ({ reason: '' }));
      return reason?.includes('--allocate-node-cidrs');
    });
    expect(condition('node-3'), 'pods do not work there yet').to.equal(undefined);
    await kubernetesOf(cluster).setNetwork(JSON.stringify(network));
    await cluster.node(3).untilReady();
    await cluster.settled();
    for (const each of cluster.lab.nodes) await each.attachPod();
    for (const [from, to] of [
      [1, 2],
      [2, 3],
      [3, 1],
    ] as const) {
      expect(await pingPod(cluster.pod(from), cluster.pod(to), { count: 2 })).to.include({ lost: 0 });
    }
  });

  it('carry what flannel reads, and say that their network is available', async () => {
    for (const each of cluster.lab.nodes) {
      const { lease } = await each.status();
      expect(annotations(each.name)).to.include({
        [`${FLANNEL}kube-subnet-manager`]: 'true',
        [`${FLANNEL}backend-type`]: 'vxlan',
        [`${FLANNEL}public-ip`]: lease?.publicIP,
        [`${FLANNEL}public-ipv6`]: lease?.publicIPv6,
        [`${FLANNEL}backend-data`]: JSON.stringify({ VNI: 1, VtepMAC: lease?.vtepMAC }),
        [`${FLANNEL}backend-v6-data`]: JSON.stringify({ VNI: 1, VtepMAC: lease?.vtepMACIPv6 }),
      });
      expect(objectOf(node(each.name).spec).podCIDRs).to.deep.equal([lease?.subnet, lease?.subnetIPv6]);
      expect(lease?.expiresAt, 'a Node does not expire').to.equal(null);
      await until(() => condition(each.name)?.status === 'False', {
        what: `the condition of ${each.name}`,
        deadlineMs: DEADLINE_MS,
      });
      expect(condition(each.name)).to.include({ reason: 'VtepdIsUp' });
    }
  });

  it('keep their network while the API server is away and comes back, and while a daemon restarts', async () => {
    const store = kubernetesOf(cluster);
    const healthy = async () => (await cluster.node(1).status()).store.healthy;
    const report = await pingDuring(cluster.pod(1), cluster.pod(2), async () => {
      await store.close();
      await until(async () => !(await healthy()), { what: 'node-1 to notice', deadlineMs: DEADLINE_MS });
      await cluster.node(2).daemon?.kill();
      await cluster.node(2).startDaemon();
      await cluster.node(2).untilReady();
      await store.start();
      await until(healthy, { what: 'node-1 to recover', deadlineMs: DEADLINE_MS });
    });
    expect(report.lost).to.equal(0);
    const before = node('node-2');
    await cluster.node(2).daemon?.terminate();
    await cluster.node(2).startDaemon();
    await cluster.settled();
    expect(annotations('node-2')).to.deep.equal(objectOf(objectOf(before.metadata).annotations));
  });

  it('that beat, with nothing new to say, cost no list', async () => {
    const { api, cluster: kubernetes } = kubernetesOf(cluster);
    const lists = () =>
      api.requests.filter((request) => /GET \/api\/v1\/nodes\?(?!.*watch)/.test(request)).length;
    const [before, revision] = [lists(), api.objects.revision];
    for (let round = 0; round < 20; round++) for (const name of api.objects.names) kubernetes.heartbeat(name);
    const reached = async () => Number((await cluster.node(1).status()).store.revision) >= revision + 60;
    await until(reached, { what: 'node-1 to hear of it', deadlineMs: DEADLINE_MS });
    expect(lists()).to.equal(before);
  });

  it('that are deleted are peers no more, and are claimed again when they are registered again', async () => {
    const { cluster: kubernetes, api } = kubernetesOf(cluster);
    api.objects.delete('node-3');
    await until(async () => (await peersOf(1)) === 1, {
      what: 'node-1 to forget it',
      deadlineMs: DEADLINE_MS,
    });
    const gone = async () => (await cluster.node(3).status()).store.reason?.includes('has no Node "node-3"');
    await until(gone, { what: 'node-3 to say so', deadlineMs: DEADLINE_MS });
    kubernetes.register('node-3');
    await cluster.settled();
    expect(await pingPod(cluster.pod(1), cluster.pod(3), { count: 2 })).to.include({ lost: 0 });
    await until(() => condition('node-3')?.status === 'False', {
      what: 'its condition',
      deadlineMs: DEADLINE_MS,
    });
  });

  it('follow a network configuration that is written anew, and an address that an operator writes', async () => {
    const store = kubernetesOf(cluster);
    await store.setNetwork(labNetworkConfig('dual', { Backend: { Type: 'vxlan', VNI: 7 } }));
    const changed = async () =>
      (await Promise.all(cluster.lab.nodes.map((each) => each.status()))).every(
        ({ overlay }) => overlay?.vni === 7,
      );
    await until(changed, { what: 'VNI 7 everywhere', deadlineMs: DEADLINE_MS });
    await cluster.settled();
    expect(annotations('node-1')[`${FLANNEL}backend-data`]).to.match(/"VNI":7/);
    // Nodes change one after the other: that one is done does not mean that it has heard of all others.
    await until(async () => (await pingPod(cluster.pod(1), cluster.pod(2), { count: 2 })).lost === 0, {
      what: 'pods to reach each other by VNI 7',
      deadlineMs: DEADLINE_MS,
    });

    const { objects } = store.api;
    const before = objects.get('node-1');
    const metadata = objectOf(before.metadata);
    const written = { ...objectOf(metadata.annotations), [`${FLANNEL}public-ip-overwrite`]: '192.0.2.99' };
    objects.replace('node-1', { ...before, metadata: { ...metadata, annotations: written } });
    const told = async () =>
      (await cluster.node(2).status()).peers.some(({ publicIP }) => publicIP === '192.0.2.99');
    await until(told, { what: 'node-2 to hear of it', deadlineMs: DEADLINE_MS });
    expect((await cluster.node(1).status()).lease?.publicIP).to.equal('192.0.2.99');
    const gets = () => store.api.requests.filter((request) => request === 'GET /api/v1/nodes/node-1').length;
    const settledAt = gets();
    await cluster.settled();
    expect(gets() - settledAt, 'nobody asks again and again').to.be.at.most(2);
  });
});
