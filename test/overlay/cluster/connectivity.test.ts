/**
 * Two nodes, two pods on each, on every store:
 *
 *   pods 1.1, 1.2 -- vtep0 [node 1] vtep.1 ==== underlay ==== vtep.1 [node 2] vtep0 -- pods 2.1, 2.2
 */
import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { ICMP_HEADER_BYTES } from '../../../encap/wire/icmp.ts';
import { IPV4_HEADER_BYTES } from '../../../encap/wire/ipv4.ts';
import { takeApart } from '../../../encap/wire/layers.ts';
import { Capture } from '../../../overlay/lab/capture.ts';
import { LAB_NETWORK } from '../../../overlay/lab/lab.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import { ping } from '../../../overlay/lab/ping.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { gatewayAddress, NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { addressAt, parseSubnet, subnetContains } from '../../../store/address.ts';
import { describeCluster, EVERY_STORE } from '../../lab/cluster.ts';

const PLAN = { nodes: 2, pods: 2, programs: ['tcpdump'] };

describeCluster('pods of two nodes', EVERY_STORE, PLAN, (cluster) => {
  const pods = () => cluster.lab.nodes.flatMap((node) => node.pods);

  it('every pod reaches every other, and the underlay sees no pod address', async () => {
    await cluster.lab.underlay.refuse([parseSubnet(LAB_NETWORK)]);
    for (const from of pods()) {
      for (const to of pods()) {
        const report = await ping(from.namespace, to.address, { count: 3 });
        expect(report, `${from.name} to ${to.name}`).to.include({ received: 3, lost: 0 });
      }
    }
    expect(await cluster.lab.underlay.refused()).to.equal(0);
  });

  it('addresses are of the node’s own subnet, and each pod has its own', async () => {
    const seen = new Set(pods().map(({ address }) => address));
    expect(seen.size).to.equal(4);
    for (const node of cluster.lab.nodes) {
      const { lease } = await node.status();
      const subnet = parseSubnet(lease?.subnet ?? '');
      for (const pod of node.pods) expect(subnetContains(subnet, pod.address)).to.equal(true);
    }
  });

  it('a packet of the pods’ whole MTU fills one packet of the underlay', async () => {
    const [from, to] = [cluster.pod(1), cluster.pod(2)];
    const mtuBytes = (await cluster.node(1).status()).overlay?.mtuBytes ?? 0;
    expect(mtuBytes).to.equal(1450);
    const link = await runInside(from.namespace, ['ip', '-j', 'link', 'show', 'eth0']);
    expect(JSON.parse(link.stdout)[0].mtu).to.equal(mtuBytes);
    const capture = await Capture.start(cluster.node(1).namespace, NODE_INTERFACE, 'udp port 8472');
    const size = `${mtuBytes - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES}`;
    await runInside(from.namespace, ['busybox', 'ping', '-c', '1', '-s', size, to.address]);
    const frames = (await capture.stop()).map(({ bytes }) => takeApart(bytes, 8472));
    const [outer, inner] = (frames[0] ?? []).filter(({ kind }) => kind === 'ipv4');
    expect(outer?.header).to.include({ totalBytes: 1500, moreFragments: false });
    expect(inner?.header).to.include({ totalBytes: mtuBytes, moreFragments: false });
  });

  it('a node reaches the other’s pods, and a pod what is outside the overlay', async () => {
    const fromNode = await ping(cluster.node(1).namespace, cluster.pod(2).address, { count: 2 });
    expect(fromNode).to.include({ lost: 0 });
    const outside = await ping(cluster.pod(1).namespace, gatewayAddress, { count: 2 });
    expect(outside).to.include({ lost: 0 });
  });

  it('TCP carries bulk data whole', async () => {
    const [from, to] = [cluster.pod(1), cluster.pod(2)];
    const route = { from: from.namespace, to: to.namespace, address: to.address };
    const stream = await RunningStream.start(route, 0);
    const report = await stream.stop();
    expect(report.whole, JSON.stringify(report)).to.equal(true);
    expect(report.sink.bytes).to.be.greaterThan(100_000);
  });

  it('CHECK agrees with what ADD answered', async () => {
    for (const pod of pods()) await pod.check();
  });

  it('status --json says what the issue promises', async () => {
    const [first, second] = [await cluster.node(1).status(), await cluster.node(2).status()];
    expect(first).to.include({ node: 'node-1', ready: true });
    expect(first.version).to.match(/^\d+\.\d+\.\d+/);
    expect(first.store).to.include({ kind: cluster.parameters.store, healthy: true });
    expect(first.store.revision).to.be.a('string');
    expect(first.lease).to.have.all.keys(
      ...['subnet', 'publicIP', 'vtepMAC', 'expiresAt'],
      ...Object.keys(first.lease ?? {}),
    );
    expect(first.lease?.publicIP).to.equal(cluster.node(1).address);
    expect(Date.parse(first.lease?.expiresAt ?? '')).to.be.greaterThan(Date.now());
    expect(first.overlay).to.include({ device: 'vtep.1', vni: 1, port: 8472, mtuBytes: 1450 });
    expect(first.overlay).to.include({ datapath: 'kernel', bridge: 'vtep0' });
    expect(first.peers).to.have.length(1);
    expect(first.peers[0]).to.include({
      subnet: second.lease?.subnet,
      publicIP: second.lease?.publicIP,
      vtepMAC: second.lease?.vtepMAC,
      programmed: true,
    });
    expect(first.attachments.map(({ pod }) => pod)).to.have.members(['lab/pod-1-1', 'lab/pod-1-2']);
    expect(first.attachments.flatMap(({ ips }) => ips).map((ip) => ip.replace(/\/.*/, ''))).to.have.members(
      cluster.node(1).pods.map(({ address }) => address),
    );
    expect(first.reconcile).to.include.keys('passes', 'repairs', 'lastRepair');
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
    const subnet = parseSubnet(lease?.subnet ?? '');
    const lines = (await readFile(cluster.node(1).subnetFile, 'utf8')).trim().split('\n');
    expect(lines).to.include.members([
      `FLANNEL_NETWORK=${LAB_NETWORK}`,
      `FLANNEL_SUBNET=${addressAt(subnet, 1)}/${subnet.prefixLength}`,
      'FLANNEL_MTU=1450',
      'FLANNEL_IPMASQ=true',
    ]);
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
