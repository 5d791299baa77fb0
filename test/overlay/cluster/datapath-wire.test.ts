/**
 * What a tunnel in user space puts on the underlay, and what it takes from it, with a kernel's at the other end:
 *
 *   pod 1 -- vtep0 [node 1] vtep.1 (TAP, vtepd) ==== underlay ==== vtep.1 (kernel vxlan) [node 2] vtep0 -- pod 2
 *
 * The underlay's interfaces have no offloads here: every packet is seen as a wire would carry it.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { VXLAN_HEADER_BYTES } from '../../../encap/wire/vxlan.ts';
import { ENCAPSULATED_MARK } from '../../../overlay/desired/firewall.ts';
import { Capture } from '../../../overlay/lab/capture.ts';
import { run } from '../../../overlay/lab/command.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { TunnelTraffic } from '../../../overlay/ops/status.ts';
import {
  type Address,
  addressAt,
  familyOf,
  parseAddress,
  parseMac,
  parseSubnet,
} from '../../../store/address.ts';
import { describeCluster, EMBEDDED, MIXED_DUAL, pingPod } from '../../lab/cluster.ts';
import { inFamily } from '../../lab/in-family.ts';
import { ethernet, IPV4, udp, vxlan } from '../firewall/frames.ts';
import { sendUdp, Wire } from '../firewall/wire.ts';

const PORT = 8472;
const UNDERLAY_MTU = 1500;
const ETHERNET_BYTES = 14;
const DEADLINE_MS = 10_000;

const OFFLOADS_OFF = ['tx', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off', 'tx-udp-segmentation', 'off'];

describeCluster(
  'on the wire',
  [MIXED_DUAL],
  { nodes: 2, programs: ['tcpdump', 'tshark', 'ethtool'] },
  (cluster) => {
    it('every kind of traffic, both ways: no bad checksum, no packet too large, every layer decoded', async () => {
      for (const node of cluster.lab.nodes) {
        await node.exec(['ethtool', '-K', NODE_INTERFACE, ...OFFLOADS_OFF]);
      }
      const capture = await Capture.start(cluster.node(1).namespace, NODE_INTERFACE, `udp port ${PORT}`);
      try {
        for (const [from, to] of [
          [cluster.pod(1), cluster.pod(2)],
          [cluster.pod(2), cluster.pod(1)],
        ] as const) {
          for (const address of to.addresses) await everyKind(from, to, address);
        }
      } finally {
        await capture.stop();
      }
      const file = join(cluster.lab.dir, 'datapath.pcap');
      await writeFile(file, capture.pcap);
      const text = (await run('tcpdump', ['-nvv', '-T', 'vxlan', '-r', file])).stdout;
      expect(text.match(/^.*(\bbad |incorrect|malformed|truncated).*$/gim) ?? []).to.deep.equal([]);
      const packets = await fields(file, '', ['frame.len', 'vxlan.vni', 'frame.protocols', 'tcp.len']);
      expect(Math.max(...packets.map(([bytes]) => Number(bytes)))).to.be.at.most(
        UNDERLAY_MTU + ETHERNET_BYTES,
      );
      expect(new Set(packets.map(([, vni]) => vni))).to.deep.equal(new Set(['1']));
      const protocols = packets.map(([, , text = '']) => text.replace(/^.*:vxlan:/, '')).join(' ');
      for (const inner of [
        'eth:ethertype:ip:icmp',
        'eth:ethertype:ipv6:icmpv6',
        'ip:tcp',
        'ipv6:tcp',
        'ip:udp',
      ]) {
        expect(protocols).to.include(inner);
      }
      // Large sends were cut to what fills a packet.
      expect(packets.some(([, , , bytes = '']) => Number(bytes) > 1300)).to.equal(true);
      const faults = [
        '_ws.malformed',
        ...['ip', 'tcp', 'udp', 'icmp', 'icmpv6'].map((layer) => `${layer}.checksum.status == "Bad"`),
      ].join(' || ');
      expect(await fields(file, faults, ['frame.number', 'frame.protocols'])).to.deep.equal([]);
    });

    it('flows are spread over source ports, and a flow keeps its own', async () => {
      const capture = await Capture.start(cluster.node(1).namespace, NODE_INTERFACE, `udp dst port ${PORT}`);
      const [from, to] = [cluster.pod(1), cluster.pod(2)];
      for (let port = 20_000; port < 20_016; port++) {
        for (let i = 0; i < 3; i++) sendUdp(from.namespace, to.address, port, Buffer.from('flow'));
      }
      await capture.untilCaptured(48);
      await capture.stop();
      const file = join(cluster.lab.dir, 'flows.pcap');
      await writeFile(file, capture.pcap);
      const source = cluster.node(1).address;
      const seen = await fields(file, `ip.src == ${source} && udp.dstport >= 20000 && udp.dstport < 20016`, [
        'udp.srcport',
        'udp.dstport',
      ]);
      // Outer and inner, in this order.
      const outer = new Set(seen.map(([ports = '']) => ports.split(',')[0]));
      expect(outer.size).to.be.greaterThan(4);
      const streams = await fields(join(cluster.lab.dir, 'datapath.pcap'), `ip.src == ${source} && tcp`, [
        'udp.srcport',
        'tcp.srcport',
        'tcp.dstport',
        'ip.dst',
      ]);
      const portOf = new Map<string, string>();
      for (const [port = '', ...flow] of streams) {
        expect(port).to.equal(portOf.get(flow.join()) ?? port);
        portOf.set(flow.join(), port);
      }
      expect(streams.length).to.be.greaterThan(100);
    });

    it('what a pod, another process or a stranger sends as the tunnel’s is dropped, and the tunnel’s is not', async () => {
      const node = cluster.node(1);
      const far = await cluster.node(2).status();
      const macs = { ...MACS, to: parseMac(inFamily(far.lease, 'ipv4').vtepMAC) };
      const pods = { from: cluster.pod(1).address, to: cluster.pod(2).address };
      const forged = vxlan(1, udp(macs, pods, { from: 9, to: 9 }, Buffer.from('forged')));
      const target = cluster.node(2).address;
      using wire = new Wire(cluster.pod(2).namespace, 'eth0');
      const drops = async (reason: string) => (await node.status()).firewall?.drops[reason] ?? 0;
      const counted = async (reason: string, send: () => unknown) => {
        const before = await drops(reason);
        send();
        await until(async () => (await drops(reason)) > before, {
          what: `${reason} to be counted`,
          deadlineMs: DEADLINE_MS,
        });
      };
      await counted('vxlan_pod', () => sendUdp(cluster.pod(1).namespace, target, PORT, forged));
      await counted('vxlan_forged', () => sendUdp(node.namespace, target, PORT, forged));
      await counted('vxlan_stranger', () =>
        sendUdp(cluster.lab.underlay.namespace, node.address, PORT, forged),
      );
      expect(await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).to.include({ lost: 0 });
      expect(wire.find('forged')).to.equal(undefined);
    });
  },
);

/** Pings, at the MTU, in fragments; UDP, small and in fragments; bulk TCP. */
async function everyKind(from: Pod, to: Pod, address: Address): Promise<void> {
  const family = familyOf(address);
  for (const sizeBytes of [56, family === 'ipv4' ? 1402 : 1382, 4000, 20_000]) {
    const ping = ['busybox', 'ping', '-c', '2', '-i', '0.01', '-W', '2', '-s', `${sizeBytes}`, address];
    const { stdout } = await runInside(from.namespace, ping, { tolerant: true });
    expect(stdout, `${sizeBytes} bytes to ${address}`).to.include(' 0% packet loss');
  }
  {
    using wire = new Wire(to.namespace, 'eth0');
    const marker = `udp-${from.name}-${family}`;
    sendUdp(from.namespace, address, 7000, Buffer.from(marker));
    sendUdp(
      from.namespace,
      address,
      7000,
      Buffer.concat([Buffer.alloc(30_000, 'x'), Buffer.from(`${marker}-end`)]),
    );
    await wire.expect(marker);
    await wire.expect(`${marker}-end`);
  }
  const stream = await RunningStream.start(
    { from: from.namespace, to: to.namespace, address, port: 5400 },
    0,
  );
  const report = await stream.stop();
  expect(report.whole, JSON.stringify(report)).to.equal(true);
  expect(report.sink.bytes).to.be.greaterThan(100_000);
}

/** What tshark finds in the packets that match, a row of texts each. */
async function fields(file: string, filter: string, names: readonly string[]): Promise<string[][]> {
  const checks = ['ip', 'tcp', 'udp'].flatMap((layer) => ['-o', `${layer}.check_checksum:TRUE`]);
  const { stdout } = await run('tshark', [
    ...['-n', '-r', file, '-d', `udp.port==${PORT},vxlan`, ...checks],
    ...(filter === '' ? [] : ['-Y', filter]),
    ...['-T', 'fields', ...names.flatMap((name) => ['-e', name])],
  ]);
  return stdout.split('\n').flatMap((line) => (line === '' ? [] : [line.split('\t')]));
}

const MACS = { from: parseMac('02:00:00:00:99:01'), to: parseMac('02:00:00:00:99:02') };

describeCluster(
  'hostile packets',
  [{ ...EMBEDDED, datapath: 'mixed' }],
  // What the packet filter would drop reaches the tunnel here.
  { nodes: 2, daemonArguments: ['--peer-filter=false'] },
  (cluster) => {
    const received = async (): Promise<TunnelTraffic> => {
      const { tunnels } = await cluster.node(1).status();
      const [tunnel] = tunnels;
      if (tunnel === undefined) throw new Error('node 1 has no tunnel in user space');
      return tunnel.received;
    };
    /** From node 2, a peer. */
    const send = (payload: Buffer, source?: Address) => {
      const options = { mark: ENCAPSULATED_MARK, ...(source !== undefined && { source }) };
      return sendUdp(cluster.node(2).namespace, cluster.node(1).address, PORT, payload, options);
    };

    it('are dropped, and counted by reason', async () => {
      const [own, far] = [await cluster.node(1).status(), await cluster.node(2).status()];
      const vtep = parseMac(inFamily(own.lease, 'ipv4').vtepMAC);
      const peerVtep = parseMac(inFamily(far.lease, 'ipv4').vtepMAC);
      const ip = { from: cluster.pod(2).address, to: cluster.pod(1).address };
      const frame = udp({ from: peerVtep, to: vtep }, ip, { from: 1, to: 2 }, Buffer.from('hello'));
      const good = vxlan(1, frame);
      const flagless = Buffer.from(good);
      flagless.writeUInt32BE(0, 0);
      const looped = vxlan(1, udp({ from: vtep, to: vtep }, ip, { from: 1, to: 2 }, Buffer.from('x')));
      const stranger = parseAddress('192.0.2.99');
      await cluster.node(2).exec(['ip', 'addr', 'add', `${stranger}/24`, 'dev', NODE_INTERFACE]);
      const cases: readonly [reason: string, payload: Buffer, source?: Address][] = [
        ['short', Buffer.alloc(0)],
        ['short', good.subarray(0, VXLAN_HEADER_BYTES - 1)],
        ['short', good.subarray(0, VXLAN_HEADER_BYTES + 5)],
        ['flags', flagless],
        ['vni', vxlan(2, frame)],
        ['loop', looped],
        ['giant', vxlan(1, ethernet(MACS, IPV4, Buffer.alloc(20_000, 0x45)))],
        ['stranger', good, stranger],
      ];
      for (const [reason, payload, source] of cases) {
        const before = (await received()).drops[reason] ?? 0;
        expect(send(payload, source), reason).to.equal(0);
        await until(async () => ((await received()).drops[reason] ?? 0) === before + 1, {
          what: `one more to be counted as ${reason}`,
          deadlineMs: DEADLINE_MS,
        });
      }
      const text = (await cluster.node(1).vtepd(['status'])).stdout;
      expect(text).to.match(/vtep\.1 received .* dropped .*3 short.*1 flags.*1 vni/);
      expect(await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).to.include({ lost: 0 });
    });

    it('nested in the tunnel’s own: a packet of the overlay for the tunnel’s port is no way in', async () => {
      const [own, far] = [await cluster.node(1).status(), await cluster.node(2).status()];
      const macs = {
        from: parseMac(inFamily(far.lease, 'ipv4').vtepMAC),
        to: parseMac(inFamily(own.lease, 'ipv4').vtepMAC),
      };
      const pods = { from: cluster.pod(2).address, to: cluster.pod(1).address };
      const inner = vxlan(1, udp(macs, pods, { from: 9, to: 9 }, Buffer.from('nested-once')));
      const gateway = addressAt(parseSubnet(inFamily(own.lease, 'ipv4').subnet), 1);
      const nested = udp(macs, { from: pods.from, to: gateway }, { from: PORT, to: PORT }, inner);
      using wire = new Wire(cluster.pod(1).namespace, 'eth0');
      send(vxlan(1, nested));
      send(vxlan(1, udp(macs, pods, { from: 9, to: 9 }, Buffer.from('sent-after'))));
      await wire.expect('sent-after');
      expect(wire.find('nested-once')).to.equal(undefined);
    });

    it('a storm of them: memory does not grow, and honest packets pass again', async () => {
      const junk = [
        Buffer.alloc(3),
        Buffer.alloc(1400),
        vxlan(1, Buffer.alloc(60)),
        vxlan(3, Buffer.alloc(900)),
      ];
      const rss = async () => {
        const { stdout } = await run('ps', ['-o', 'rss=', '-p', `${cluster.node(1).daemon?.pid}`]);
        return Number(stdout) / 1024;
      };
      const storm = () => {
        for (let i = 0; i < 8000; i++) send(junk[i % junk.length] as Buffer);
      };
      storm();
      const before = await rss();
      storm();
      storm();
      expect((await rss()) - before, 'MiB more').to.be.below(30);
      const { drops } = await received();
      expect(drops.short).to.be.greaterThan(1000);
      expect(await pingPod(cluster.pod(2), cluster.pod(1), { count: 3 })).to.include({ lost: 0 });
      expect(await cluster.node(1).status()).to.include({ ready: true });
    });
  },
);
