/** What daemons do when the store, or what is in it, is not as it should be: mostly on a real etcd. */
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { ping } from '../../../overlay/lab/ping.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, ETCD, EVERY_STORE, pingDuring } from '../../lab/cluster.ts';
import { deleteKey, etcdOf, getKey, keyOf, leaseKeys, putKey } from '../../lab/etcd-keys.ts';

const DEADLINE_MS = 30_000;

describeCluster('the store away', [ETCD], { nodes: 3 }, (cluster) => {
  afterEach(async () => {
    const etcd = etcdOf(cluster);
    if (etcd.pid === undefined) await etcd.start();
  });

  const healthy = async (number: number) => (await cluster.node(number).status()).store.healthy;

  it('away and back: nothing is lost, health says so, and what changed since is followed', async () => {
    const etcd = etcdOf(cluster);
    const report = await pingDuring(cluster.pod(1), cluster.pod(2), async () => {
      await etcd.close();
      const noticed = async () => !(await healthy(1)) && !(await healthy(2));
      await until(noticed, { what: 'both to notice', deadlineMs: DEADLINE_MS });
      expect((await cluster.node(1).status()).ready).to.equal(true);
      await etcd.start();
      const recovered = async () => (await healthy(1)) && (await healthy(2));
      await until(recovered, { what: 'both to recover', deadlineMs: DEADLINE_MS });
    });
    expect(report.lost).to.equal(0);
    const { lease } = await cluster.node(3).status();
    await cluster.node(3).daemon?.kill();
    await deleteKey(etcd, `subnets/${keyOf(lease?.subnet ?? '')}`);
    await cluster.node(1).untilProgrammed(1);
    await cluster.node(3).startDaemon();
    await cluster.settled();
  });

  it('away at the start: pods work and can be attached from the cache, and status says so', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const { lease } = await node.status();
    await node.daemon?.terminate();
    await etcd.close();
    await node.startDaemon();
    await node.untilReady();
    const status = await node.status();
    expect(status.store).to.include({ healthy: false, source: 'cache' });
    expect(status.lease).to.include({ subnet: lease?.subnet, vtepMAC: lease?.vtepMAC });
    expect(status.peers.map(({ programmed }) => programmed)).to.deep.equal([true, true]);
    const pod = await node.attachPod();
    expect(await ping(pod.namespace, cluster.pod(2).address, { count: 3 })).to.include({ lost: 0 });
    await etcd.start();
    const live = async () => (await node.status()).store.source === 'live';
    await until(live, { what: 'the store to be live again', deadlineMs: DEADLINE_MS });
    expect((await node.status()).lease?.subnet).to.equal(lease?.subnet);
  });

  it('a lease that is deleted by hand is claimed again: the same subnet, and nothing is lost', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const { lease } = await node.status();
    const key = `subnets/${keyOf(lease?.subnet ?? '')}`;
    const report = await pingDuring(cluster.pod(3), cluster.pod(2), async () => {
      await deleteKey(etcd, key);
      const back = async () => (await getKey(etcd, key)) !== undefined;
      await until(back, { what: 'the lease to be back', deadlineMs: DEADLINE_MS });
    });
    expect(report.lost).to.equal(0);
    await cluster.settled();
    expect((await node.status()).lease?.subnet).to.equal(lease?.subnet);
  });

  it('leases that cannot be used are named and skipped; the others go on', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const strange: Record<string, string> = {
      '10.244.250.0-24': 'not JSON',
      '10.244.251.0-24': JSON.stringify({ PublicIP: '192.0.2.201', BackendType: 'host-gw' }),
      '10.99.0.0-24': JSON.stringify({
        PublicIP: '192.0.2.202',
        BackendType: 'vxlan',
        BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:02' },
      }),
      '10.244.252.0-24': JSON.stringify({
        PublicIP: '192.0.2.203',
        BackendType: 'vxlan',
        BackendData: { VNI: 1, VtepMAC: '01:00:5e:00:00:01' },
      }),
    };
    for (const [key, value] of Object.entries(strange)) await putKey(etcd, `subnets/${key}`, value);
    const skipped = async () => {
      const status = await node.status();
      return status.skipped.length === Object.keys(strange).length && status;
    };
    const status = await until(skipped, { what: 'four skipped leases', deadlineMs: DEADLINE_MS });
    expect(status.skipped.map(({ key }) => key)).to.have.members(Object.keys(strange));
    for (const { reason } of status.skipped) expect(reason).to.have.length.greaterThan(5);
    expect(status.peers).to.have.length(2);
    expect(status.ready).to.equal(true);
    for (const key of Object.keys(strange)) await deleteKey(etcd, `subnets/${key}`);
    await cluster.settled();
  });

  it('a flannel node’s lease is programmed like any other', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const value = {
      PublicIP: '192.0.2.77',
      PublicIPv6: null,
      BackendType: 'vxlan',
      BackendData: { VNI: 1, VtepMAC: '62:0b:fc:12:34:56' },
    };
    await putKey(etcd, 'subnets/10.244.253.0-24', JSON.stringify(value));
    const found = async () =>
      (await node.status()).peers.find(
        ({ subnet, programmed }) => subnet === '10.244.253.0/24' && programmed,
      );
    const peer = await until(found, { what: 'the peer', deadlineMs: DEADLINE_MS });
    expect(peer).to.include({ publicIP: '192.0.2.77', vtepMAC: '62:0b:fc:12:34:56' });
    const { stdout } = await node.exec(['bridge', 'fdb', 'show', 'dev', 'vtep.1']);
    expect(stdout).to.contain('62:0b:fc:12:34:56 dst 192.0.2.77');
    await deleteKey(etcd, 'subnets/10.244.253.0-24');
    await cluster.settled();
    expect((await node.exec(['bridge', 'fdb', 'show', 'dev', 'vtep.1'])).stdout).not.to.contain('192.0.2.77');
  });

  it('our own lease in the store is as flannel writes one', async () => {
    const etcd = etcdOf(cluster);
    expect(await leaseKeys(etcd)).to.have.length(3);
    const { lease } = await cluster.node(1).status();
    const value = await getKey(etcd, `subnets/${keyOf(lease?.subnet ?? '')}`);
    expect(JSON.parse(value ?? '')).to.deep.include({
      PublicIP: lease?.publicIP,
      BackendType: 'vxlan',
      BackendData: { VNI: 1, VtepMAC: lease?.vtepMAC },
    });
  });
});

const UNCONFIGURED = { nodes: 1, idle: true, networkConfig: null };

describeCluster('the network configuration', [ETCD], UNCONFIGURED, (cluster) => {
  it('missing: waited for; malformed: refused by the field’s name; mended: taken', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const daemon = await node.startDaemon();
    const reason = async () => (await node.status().catch(() => undefined))?.reason ?? '';
    const says = (pattern: RegExp) => async () => pattern.test(await reason());
    await until(says(/no network configuration/), {
      what: 'a word on the missing one',
      deadlineMs: DEADLINE_MS,
    });
    expect(await node.ready()).to.equal(false);
    expect(existsSync(node.subnetFile)).to.equal(false);
    expect(await daemon.log()).to.match(/no network configuration.*coreos\.com\/network\/config/);

    await putKey(etcd, 'config', JSON.stringify({ Network: '10.244.0.0/16', SubnetLen: 12 }));
    await until(says(/SubnetLen/), { what: 'the field’s name', deadlineMs: DEADLINE_MS });
    expect(await node.ready()).to.equal(false);

    await putKey(
      etcd,
      'config',
      JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan', VNI: 7 } }),
    );
    await node.untilReady();
    expect((await node.status()).overlay).to.include({ device: 'vtep.7', vni: 7 });
  });
});

const TINY = {
  nodes: 3,
  idle: true,
  networkConfig: JSON.stringify({
    Network: '10.244.0.0/22',
    SubnetMin: '10.244.1.0',
    SubnetMax: '10.244.2.0',
    Backend: { Type: 'vxlan' },
  }),
};

describeCluster('a full network', [ETCD], TINY, (cluster) => {
  it('the node too many waits, says why, and takes the first subnet that is given back', async () => {
    const [first, second, third] = [cluster.node(1), cluster.node(2), cluster.node(3)];
    await first.startDaemon(['--release-on-exit']);
    await second.startDaemon();
    await Promise.all([first.untilProgrammed(1), second.untilProgrammed(1)]);
    await third.startDaemon();
    const reason = async () => (await third.status().catch(() => undefined))?.reason ?? '';
    const full = async () => /subnets .* are leased/.test(await reason());
    await until(full, { what: 'a word on the full network', deadlineMs: DEADLINE_MS });
    expect(await third.ready()).to.equal(false);
    const { lease } = await first.status();
    await first.daemon?.terminate();
    await third.untilReady();
    expect((await third.status()).lease?.subnet).to.equal(lease?.subnet);
  });
});

describeCluster('two daemons with one public address', EVERY_STORE, { nodes: 2, idle: true }, (cluster) => {
  it('the newcomer is taken for the machine installed anew; the other says so, gives no address, and does not fight', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    await first.startDaemon();
    await first.untilReady();
    await second.startDaemon(['--public-ip', first.address]);
    await second.untilReady();
    const { lease } = await second.status();
    const reason = async () => (await first.status()).reason ?? '';
    const says = async () => (await reason()).includes(lease?.vtepMAC ?? '?');
    await until(says, { what: 'a word on the other daemon', deadlineMs: DEADLINE_MS });
    expect(await first.ready()).to.equal(false);
    expect(await reason())
      .to.contain(first.address)
      .and.to.contain('--public-ip');
    expect((await second.status()).lease).to.include({ subnet: lease?.subnet, vtepMAC: lease?.vtepMAC });
  });
});
