/** What running flows notice of a daemon that goes and comes: nothing. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { Lab } from '../../../overlay/lab/lab.ts';
import { until } from '../../../overlay/lab/wait.ts';
import {
  describeCluster,
  EMBEDDED_DUAL,
  EVERY_KIND,
  pingDuring,
  pingPod,
  streamDuring,
} from '../../lab/cluster.ts';
import { kernelState, stateDifference } from '../../lab/kernel-state.ts';

describeCluster('a daemon restarted', EVERY_KIND, { nodes: 2 }, (cluster) => {
  const restart = async (end: 'kill' | 'terminate') => {
    const node = cluster.node(1);
    await node.daemon?.[end]();
    await node.startDaemon();
    await node.untilReady();
    await cluster.settled();
  };

  for (const end of ['kill', 'terminate'] as const) {
    const how = end === 'kill' ? 'kill -9' : 'SIGTERM';

    it(`${how} and start: no packet of a ping at 100 a second is lost, in either direction`, async () => {
      const [near, far] = [cluster.pod(1), cluster.pod(2)];
      let back: { lost: number } | undefined;
      const there = await pingDuring(near, far, async () => {
        back = await pingDuring(far, near, () => restart(end));
      });
      expect(there.lost, JSON.stringify(there)).to.equal(0);
      expect(back?.lost).to.equal(0);
    });

    it(`${how} and start: a TCP stream goes on`, async () => {
      const report = await streamDuring(cluster.pod(1), cluster.pod(2), () => restart(end));
      expect(report.whole, JSON.stringify(report)).to.equal(true);
    });
  }

  it('keeps its subnet, its MACs and every kernel object', async () => {
    const node = cluster.node(1);
    const [before, leaseBefore] = [await kernelState(node.namespace), (await node.status()).lease];
    await restart('kill');
    const [after, lease] = [await kernelState(node.namespace), (await node.status()).lease];
    expect(stateDifference(before, after)).to.equal('');
    expect({ ...lease, expiresAt: 0 }).to.deep.equal({ ...leaseBefore, expiresAt: 0 });
  });

  it('SIGTERM ends with status 0 and leaves the data path', async () => {
    const node = cluster.node(1);
    const before = await kernelState(node.namespace);
    expect(await node.daemon?.terminate()).to.include({ status: 0 });
    expect(stateDifference(before, await kernelState(node.namespace))).to.equal('');
    expect(await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).to.include({
      lost: 0,
    });
    // Its peers keep it too: the lease is still there.
    expect((await cluster.node(2).status()).peers).to.have.length(1);
    await node.startDaemon();
    await node.untilReady();
  });

  it('pods attached before a crash are detached after it', async () => {
    const node = cluster.node(1);
    const pod = await node.attachPod();
    node.pods.splice(node.pods.indexOf(pod), 1);
    await restart('kill');
    expect((await node.status()).attachments).to.have.length(2);
    await pod.detach();
    expect((await node.status()).attachments).to.have.length(1);
  });

  it('a pod whose DEL came while the daemon was away is detached by the next one', async () => {
    const node = cluster.node(1);
    const pod = await node.attachPod();
    node.pods.splice(node.pods.indexOf(pod), 1);
    await node.daemon?.kill();
    await pod.detach();
    await node.startDaemon();
    await node.untilReady();
    expect((await node.status()).attachments).to.have.length(1);
  });
});

describeCluster('the end of a daemon', [EMBEDDED_DUAL], { nodes: 2, idle: true }, (cluster) => {
  afterEach(() => Promise.all(cluster.lab.nodes.map(({ daemon }) => daemon?.kill())));

  it('subnet.env is there when the daemon is ready, whole from the first look on', async () => {
    const node = cluster.node(1);
    const daemon = await node.startDaemon();
    const written = () => existsSync(node.subnetFile) || !daemon.running;
    await until(written, { what: 'subnet.env', deadlineMs: 30_000, everyMs: 1 });
    expect(await node.status(), await daemon.log()).to.include({ ready: true });
    expect(await readFile(node.subnetFile, 'utf8')).to.match(/^FLANNEL_NETWORK=/m);
    await node.untilReady();
  });

  it('--release-on-exit gives the lease back, and peers withdraw it', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    await second.startDaemon();
    await first.startDaemon(['--release-on-exit']);
    // The second may know the first by the lease of an earlier test: only one that is held is given back.
    await first.untilReady();
    await second.untilProgrammed(1);
    expect(await first.daemon?.terminate()).to.include({ status: 0 });
    await second.untilProgrammed(0);
    expect((await second.status()).peers).to.deep.equal([]);
  });

  it('two daemons never disturb one another: a whole second cluster of the same names', async () => {
    await cluster.lab.startDaemons();
    await cluster.settled();
    const before = await Promise.all(cluster.lab.nodes.map((node) => kernelState(node.namespace)));
    await using other = await Lab.create({ nodes: 2, store: 'embedded', families: 'dual' });
    await other.startDaemons();
    await Promise.all(other.nodes.map((node) => node.untilProgrammed(1)));
    await other.close();
    const after = await Promise.all(cluster.lab.nodes.map((node) => kernelState(node.namespace)));
    expect(after).to.deep.equal(before);
  });
});
