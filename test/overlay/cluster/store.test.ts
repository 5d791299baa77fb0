/** What daemons do when the store, or what is in it, is not as it should be: mostly on a real etcd. */
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { LAB_NETWORKS, type LabFamilies, labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import type { EtcdLabStore } from '../../../overlay/lab/lab-store.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { PeerStatus } from '../../../overlay/ops/status.ts';
import { addressAt, type Family } from '../../../store/address.ts';
import {
  type Cluster,
  describeCluster,
  ETCD,
  ETCD_DUAL,
  EVERY_FAMILY,
  EVERY_FAMILY_IN_ETCD,
  EVERY_KIND,
  pingDuring,
  pingPod,
} from '../../lab/cluster.ts';
import { deleteKey, etcdOf, getKey, keyOf, leaseKeys, putKey } from '../../lab/etcd-keys.ts';
import { inFamily, VXLAN_DEVICE } from '../../lab/in-family.ts';

const DEADLINE_MS = 30_000;

describeCluster('the store away', EVERY_FAMILY_IN_ETCD, { nodes: 3 }, (cluster) => {
  const { families } = cluster;

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
    await deleteKey(etcd, `subnets/${keyOf(lease)}`);
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
    expect(keyOf(status.lease)).to.equal(keyOf(lease));
    for (const family of families)
      expect(inFamily(status.lease, family)).to.deep.equal(inFamily(lease, family));
    expect(status.peers.map(({ programmed }) => programmed)).to.deep.equal([true, true]);
    const pod = await node.attachPod();
    expect(await pingPod(pod, cluster.pod(2), { count: 3 })).to.include({ lost: 0 });
    await etcd.start();
    const live = async () => (await node.status()).store.source === 'live';
    await until(live, { what: 'the store to be live again', deadlineMs: DEADLINE_MS });
    expect(keyOf((await node.status()).lease)).to.equal(keyOf(lease));
  });

  it('a lease that is deleted by hand is claimed again: the same subnet, and nothing is lost', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const { lease } = await node.status();
    const key = `subnets/${keyOf(lease)}`;
    const report = await pingDuring(cluster.pod(3), cluster.pod(2), async () => {
      await deleteKey(etcd, key);
      const back = async () => (await getKey(etcd, key)) !== undefined;
      await until(back, { what: 'the lease to be back', deadlineMs: DEADLINE_MS });
    });
    expect(report.lost).to.equal(0);
    await cluster.settled();
    expect(keyOf((await node.status()).lease)).to.equal(keyOf(lease));
  });

  it('leases that cannot be used are named and skipped; the others go on', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const [first, second, third] = await unusedPlaces(etcd);
    const strange: Record<string, string> = {
      [keyIn(cluster, first)]: 'not JSON',
      [keyIn(cluster, second)]: valueIn(cluster, { number: 201, backend: 'host-gw' }),
      [keyOutside(cluster)]: valueIn(cluster, { number: 202 }),
      [keyIn(cluster, third)]: valueIn(cluster, { number: 203, mac: '01:00:5e:00:00:01' }),
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
    const [place] = await unusedPlaces(etcd);
    const key = `subnets/${keyIn(cluster, place)}`;
    const mac = '62:0b:fc:12:34:56';
    await putKey(etcd, key, valueIn(cluster, { number: 77, mac }));
    const isIt = (peer: PeerStatus) => families.every((family) => inFamily(peer, family).vtepMAC === mac);
    const found = async () => (await node.status()).peers.find((peer) => isIt(peer) && peer.programmed);
    const peer = await until(found, { what: 'the peer', deadlineMs: DEADLINE_MS });
    const entries = async (family: Family) =>
      (await node.exec(['bridge', 'fdb', 'show', 'dev', VXLAN_DEVICE[family]])).stdout;
    for (const family of families) {
      expect(inFamily(peer, family).publicIP).to.equal(remoteOf(77)[family]);
      expect(await entries(family)).to.contain(`${mac} dst ${remoteOf(77)[family]}`);
    }
    await deleteKey(etcd, key);
    await cluster.settled();
    for (const family of families) expect(await entries(family)).not.to.contain(mac);
  });

  it('our own lease in the store is as flannel writes one', async () => {
    const etcd = etcdOf(cluster);
    expect(await leaseKeys(etcd)).to.have.length(3);
    const { lease } = await cluster.node(1).status();
    const value = JSON.parse((await getKey(etcd, `subnets/${keyOf(lease)}`)) ?? '');
    expect(value).to.include({ BackendType: 'vxlan' });
    for (const family of families) {
      const { publicIP, vtepMAC } = inFamily(lease, family);
      const [address, data] = FIELDS[family];
      expect(value).to.deep.include({ [address]: publicIP, [data]: { VNI: 1, VtepMAC: vtepMAC } });
    }
  });
});

/** The schema's names. */
const FIELDS: Readonly<Record<Family, readonly [address: string, data: string]>> = {
  ipv4: ['PublicIP', 'BackendData'],
  ipv6: ['PublicIPv6', 'BackendV6Data'],
};

/** Numbers of subnets that no node has; of IPv4, for of IPv6 there are too many to meet one. */
async function unusedPlaces(etcd: EtcdLabStore): Promise<[number, number, number]> {
  const taken = new Set((await leaseKeys(etcd)).map((key) => Number(/^10\.244\.(\d+)/.exec(key)?.[1])));
  const [first = 0, second = 0, third = 0] = [250, 251, 252, 253, 254, 249, 248].filter(
    (place) => !taken.has(place),
  );
  return [first, second, third];
}

/** The `number`th subnet of the lab's networks, as a lease's key. */
const keyIn = ({ families }: Cluster, number: number): string =>
  keyOf({
    ...(families.includes('ipv4') && { subnet: `${addressAt(LAB_NETWORKS.ipv4, number << 8)}/24` }),
    ...(families.includes('ipv6') && {
      subnetIPv6: `${addressAt(LAB_NETWORKS.ipv6, BigInt(number) << 64n)}/64`,
    }),
  });

const keyOutside = ({ families }: Cluster): string =>
  keyOf({
    ...(families.includes('ipv4') && { subnet: '10.99.0.0/24' }),
    ...(families.includes('ipv6') && { subnetIPv6: 'fc00:99::/64' }),
  });

const remoteOf = (number: number): Readonly<Record<Family, string>> => ({
  ipv4: `192.0.2.${number}`,
  ipv6: `2001:db8::${number}`,
});

/** A lease as flannel writes it: a family that it has not is null. */
function valueIn(
  { families }: Cluster,
  {
    number,
    mac = '02:00:00:00:00:02',
    backend = 'vxlan',
  }: { number: number; mac?: string; backend?: string },
): string {
  const data = backend === 'vxlan' ? { VNI: 1, VtepMAC: mac } : null;
  const has = (family: Family) => families.includes(family);
  return JSON.stringify({
    PublicIP: has('ipv4') ? remoteOf(number).ipv4 : null,
    PublicIPv6: has('ipv6') ? remoteOf(number).ipv6 : null,
    BackendType: backend,
    ...(has('ipv4') && { BackendData: data }),
    ...(has('ipv6') && { BackendV6Data: data }),
  });
}

const UNCONFIGURED = { nodes: 1, idle: true, networkConfig: null };

describeCluster('the network configuration', [ETCD, ETCD_DUAL], UNCONFIGURED, (cluster) => {
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

    const { families } = cluster.parameters;
    await putKey(etcd, 'config', labNetworkConfig(families, { SubnetLen: 12, IPv6SubnetLen: 12 }));
    await until(says(/SubnetLen/), { what: 'the field’s name', deadlineMs: DEADLINE_MS });
    expect(await node.ready()).to.equal(false);

    await putKey(etcd, 'config', labNetworkConfig(families, { Backend: { Type: 'vxlan', VNI: 7 } }));
    await node.untilReady();
    expect((await node.status()).overlay).to.include({ device: 'vtep.7', vni: 7 });
  });
});

const TINY = {
  nodes: 3,
  idle: true,
  networkConfig: (families: LabFamilies) =>
    labNetworkConfig(families, {
      ...(families !== 'ipv6' && { SubnetMin: '10.244.1.0', SubnetMax: '10.244.2.0' }),
      ...(families !== 'ipv4' && { IPv6SubnetMin: 'fc00:244:0:1::', IPv6SubnetMax: 'fc00:244:0:2::' }),
    }),
};

describeCluster('a full network', EVERY_FAMILY, TINY, (cluster) => {
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
    expect(keyOf((await third.status()).lease)).to.equal(keyOf(lease));
  });
});

describeCluster('two daemons with one public address', EVERY_KIND, { nodes: 2, idle: true }, (cluster) => {
  it('the newcomer is taken for the machine installed anew; the other says so, gives no address, and does not fight', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    await first.startDaemon();
    await first.untilReady();
    const { ipv4, ipv6 = '' } = first.addresses;
    const asked = { ipv4: ['--public-ip', ipv4 ?? ''], ipv6: ['--public-ipv6', ipv6] };
    await second.startDaemon(cluster.families.flatMap((family) => asked[family]));
    await second.untilReady();
    const { lease } = await second.status();
    const reason = async () => (await first.status()).reason ?? '';
    const macs = cluster.families.map((family) => inFamily(lease, family).vtepMAC);
    const says = async () => {
      const text = await reason();
      return macs.some((mac) => text.includes(mac));
    };
    await until(says, { what: 'a word on the other daemon', deadlineMs: DEADLINE_MS });
    expect(await first.ready()).to.equal(false);
    expect(await reason())
      .to.contain(first.address)
      .and.to.contain('--public-ip');
    expect(keyOf((await second.status()).lease)).to.equal(keyOf(lease));
  });
});
