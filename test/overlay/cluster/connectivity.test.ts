/**
 * Two nodes, two pods on each, on every store, in every family, and with every data path:
 *
 *   pods 1.1, 1.2 -- vtep0 [node 1] vtep.1 ==== underlay ==== vtep.1 [node 2] vtep0 -- pods 2.1, 2.2
 */
import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { ICMP_HEADER_BYTES } from '../../../encap/wire/icmp.ts';
import { IPV4_HEADER_BYTES } from '../../../encap/wire/ipv4.ts';
import { IPV6_HEADER_BYTES } from '../../../encap/wire/ipv6.ts';
import { takeApart } from '../../../encap/wire/layers.ts';
import { Capture } from '../../../overlay/lab/capture.ts';
import { LAB_NETWORKS } from '../../../overlay/lab/lab-network.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import { ping } from '../../../overlay/lab/ping.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { gatewayAddresses, NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import {
  addressAt,
  FAMILIES,
  familyOf,
  formatSubnet,
  parseSubnet,
  subnetContains,
} from '../../../store/address.ts';
import { describeCluster, EVERY_KIND, EVERY_USERSPACE, pingPod } from '../../lab/cluster.ts';
import { inFamily, OVERHEAD, VXLAN_DEVICE } from '../../lab/in-family.ts';

const PLAN = { nodes: 2, pods: 2, programs: ['tcpdump'] };

describeCluster('pods of two nodes', [...EVERY_KIND, ...EVERY_USERSPACE], PLAN, (cluster) => {
  const { families } = cluster;
  /** One for all: what the larger encapsulation leaves. */
  const mtuBytes = 1500 - Math.max(...families.map((family) => OVERHEAD[family]));
  const pods = () => cluster.lab.nodes.flatMap((node) => node.pods);

  it('every pod reaches every other, and the underlay sees no pod address', async () => {
    await cluster.lab.underlay.refuse(families.map((family) => LAB_NETWORKS[family]));
    for (const from of pods()) {
      for (const to of pods()) {
        const report = await pingPod(from, to, { count: 3 });
        expect(report, `${from.name} to ${to.name}`).to.include({ received: 3 * families.length, lost: 0 });
      }
    }
    expect(await cluster.lab.underlay.refused()).to.equal(0);
  });

  it('addresses are of the node’s own subnet, and each pod has its own', async () => {
    const seen = new Set(pods().flatMap(({ addresses }) => addresses));
    expect(seen.size).to.equal(4 * families.length);
    for (const node of cluster.lab.nodes) {
      const { lease } = await node.status();
      for (const { addresses } of node.pods) {
        expect(addresses.map(familyOf)).to.deep.equal(families);
        for (const address of addresses) {
          const subnet = parseSubnet(inFamily(lease, familyOf(address)).subnet);
          expect(subnetContains(subnet, address)).to.equal(true);
        }
      }
    }
  });

  it('a packet of the pods’ whole MTU fills one packet of the underlay', async () => {
    const [from, to] = [cluster.pod(1), cluster.pod(2)];
    expect((await cluster.node(1).status()).overlay?.mtuBytes).to.equal(mtuBytes);
    const link = await runInside(from.namespace, ['ip', '-j', 'link', 'show', 'eth0']);
    expect(JSON.parse(link.stdout)[0].mtu).to.equal(mtuBytes);
    for (const address of to.addresses) {
      const family = familyOf(address);
      const capture = await Capture.start(cluster.node(1).namespace, NODE_INTERFACE, 'udp port 8472');
      const headerBytes = { ipv4: IPV4_HEADER_BYTES, ipv6: IPV6_HEADER_BYTES }[family];
      const size = `${mtuBytes - headerBytes - ICMP_HEADER_BYTES}`;
      await runInside(from.namespace, ['busybox', 'ping', '-c', '1', '-s', size, address]);
      await capture.untilCaptured(2);
      const frames = (await capture.stop()).map(({ bytes }) => takeApart(bytes, 8472));
      const [outer, inner] = (frames[0] ?? []).filter(({ kind }) => kind === family);
      // Nothing was cut into fragments: one packet holds it all.
      const whole = (bytes: number) =>
        family === 'ipv4'
          ? { totalBytes: bytes, moreFragments: false }
          : { payloadBytes: bytes - IPV6_HEADER_BYTES };
      expect(outer?.header).to.include(whole(mtuBytes + OVERHEAD[family]));
      expect(inner?.header).to.include(whole(mtuBytes));
    }
  });

  it('a node reaches the other’s pods, and a pod what is outside the overlay', async () => {
    for (const address of cluster.pod(2).addresses) {
      expect(await ping(cluster.node(1).namespace, address, { count: 2 })).to.include({ lost: 0 });
    }
    for (const family of families) {
      const outside = await ping(cluster.pod(1).namespace, gatewayAddresses[family], { count: 2 });
      expect(outside, family).to.include({ lost: 0 });
    }
  });

  it('TCP carries bulk data whole', async () => {
    const [from, to] = [cluster.pod(1), cluster.pod(2)];
    for (const address of to.addresses) {
      const stream = await RunningStream.start({ from: from.namespace, to: to.namespace, address }, 0);
      const report = await stream.stop();
      expect(report.whole, JSON.stringify(report)).to.equal(true);
      expect(report.sink.bytes).to.be.greaterThan(100_000);
    }
  });

  it('CHECK agrees with what ADD answered', async () => {
    for (const pod of pods()) await pod.check();
  });

  it('status says what the issue promises', async () => {
    const [first, second] = [await cluster.node(1).status(), await cluster.node(2).status()];
    expect(first).to.include({ node: 'node-1', ready: true });
    expect(first.version).to.match(/^\d+\.\d+\.\d+/);
    expect(first.store).to.include({ kind: cluster.parameters.store, healthy: true });
    expect(first.store.revision).to.be.a('string');
    for (const family of families) {
      expect(inFamily(first.lease, family).publicIP).to.equal(cluster.node(1).addresses[family]);
    }
    expect(Date.parse(first.lease?.expiresAt ?? '')).to.be.greaterThan(Date.now());
    const [device] = families.map((family) => VXLAN_DEVICE[family]);
    expect(first.overlay).to.include({ device, vni: 1, port: 8472, mtuBytes });
    expect(first.overlay?.deviceIPv6).to.equal(families.includes('ipv6') ? VXLAN_DEVICE.ipv6 : undefined);
    expect(first.overlay).to.include({ datapath: cluster.node(1).datapath, bridge: 'vtep0' });
    expect(first.addresses?.used).to.equal(2);
    for (const family of FAMILIES) {
      expect(first.addresses?.[family]?.used).to.equal(families.includes(family) ? 2 : undefined);
    }
    expect(first.overlay?.networks).to.deep.equal(
      families.map((family) => formatSubnet(LAB_NETWORKS[family])),
    );
    expect(first.peers).to.have.length(1);
    expect(first.peers[0]).to.include({ programmed: true });
    for (const family of families) {
      expect(inFamily(first.peers[0], family)).to.deep.equal(inFamily(second.lease, family));
    }
    expect(first.attachments.map(({ pod }) => pod)).to.have.members(['lab/pod-1-1', 'lab/pod-1-2']);
    expect(first.attachments.flatMap(({ ips }) => ips).map((ip) => ip.replace(/\/.*/, ''))).to.have.members(
      cluster.node(1).pods.flatMap(({ addresses }) => addresses),
    );
    expect(first.reconcile).to.include.keys('passes', 'repairs', 'lastRepair');
  });

  it('metrics count the addresses of each family, and of no other', async () => {
    const { stdout } = await cluster
      .node(1)
      .exec(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:9472/metrics']);
    for (const family of FAMILIES) {
      const value = (name: string) =>
        new RegExp(`^vtepd_addresses_${name}{family="${family}"} ([\\d.e+]+)$`, 'm').exec(stdout)?.[1];
      const carried = families.includes(family);
      expect(value('used'), family).to.equal(carried ? '2' : undefined);
      // Of a /24: all but the network, the broadcast, the gateway and the two pods. Of a /64 a part is enough.
      if (!carried) expect(value('free')).to.equal(undefined);
      else if (family === 'ipv4') expect(value('free')).to.equal('251');
      else expect(Number(value('free'))).to.be.greaterThan(1e6);
    }
  });

  it('leases lists both nodes', async () => {
    const args = cluster.lab.store.arguments.filter(
      (_, at, all) => all[at - (at % 2)] !== '--net-config-path',
    );
    const { stdout } = await cluster.node(1).vtepd(['leases', '--json', ...args]);
    for (const node of cluster.lab.nodes) expect(stdout).to.contain(node.address);
  });

  it('subnet.env is flannel’s', async () => {
    const { lease } = await cluster.node(1).status();
    const lines = (await readFile(cluster.node(1).subnetFile, 'utf8')).trim().split('\n');
    const networks = families.flatMap((family) => {
      const prefix = { ipv4: 'FLANNEL', ipv6: 'FLANNEL_IPV6' }[family];
      const subnet = parseSubnet(inFamily(lease, family).subnet);
      return [
        `${prefix}_NETWORK=${formatSubnet(LAB_NETWORKS[family])}`,
        `${prefix}_SUBNET=${addressAt(subnet, 1)}/${subnet.prefixLength}`,
      ];
    });
    expect(lines).to.deep.equal([...networks, `FLANNEL_MTU=${mtuBytes}`, 'FLANNEL_IPMASQ=true']);
  });

  it('a detached pod is gone from the node, and its address is free', async () => {
    const node = cluster.node(2);
    const before = await node.status();
    const pod = await node.attachPod();
    node.pods.splice(node.pods.indexOf(pod), 1);
    await pod.detach();
    const after = await node.status();
    expect(after.attachments).to.deep.equal(before.attachments);
    expect(after.addresses).to.deep.equal(before.addresses);
  });
});
