/** The user-space tunnel carries what kernel vxlan carries, to another of its kind and to kernel vxlan. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { decodeEthernet } from '../../encap/wire/ethernet.ts';
import { decodeIpv4 } from '../../encap/wire/ipv4.ts';
import { Capture } from '../../overlay/lab/capture.ts';
import { run } from '../../overlay/lab/command.ts';
import { ipBatch, runInside } from '../../overlay/lab/namespace.ts';
import { RunningStream } from '../../overlay/lab/tcp.ts';
import { until } from '../../overlay/lab/wait.ts';
import { FAMILIES } from '../../store/address.ts';
import { need } from '../lab/capability.ts';
import { DEVICE, PORT, Rig, type RigEnd, type RigOptions, UNDERLAY_MTU } from './rig.ts';

const KINDS: readonly (RigOptions & { readonly name: string })[] = [
  { name: 'user space to user space', two: 'userspace', queues: 2 },
  { name: 'user space to kernel vxlan', two: 'kernel' },
  { name: 'user space to kernel vxlan over IPv6', two: 'kernel', outer: 'ipv6' },
];

/** More than a window, so that large sends and merged packets are among it. */
const STREAM_BYTES = 6e6;

for (const { name, ...options } of KINDS) {
  describe(`the user-space tunnel, ${name}`, function () {
    this.timeout(60_000);
    let rig: Rig;

    before(async function () {
      need(this, 'root', 'ip', 'ping');
      rig = await Rig.create(options);
    });
    after(async () => {
      await rig?.close();
    });

    /** iputils' ping, which can forbid fragments. @returns how many answers */
    async function answers(
      from: RigEnd,
      to: string,
      bytes: number,
      more: readonly string[] = [],
    ): Promise<number> {
      const command = ['ping', '-n', '-q', '-c', '3', '-i', '0.05', '-W', '5', '-s', `${bytes}`, ...more, to];
      const { stdout } = await runInside(from.namespace, command, { tolerant: true });
      return Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
    }

    it('small packets, packets of the MTU, and fragments, both ways and in both families', async () => {
      for (const from of [rig.one, rig.two]) {
        for (const family of FAMILIES) {
          const to = rig.other(from).inner[family];
          const largest = rig.mtuBytes - (family === 'ipv4' ? 28 : 48);
          expect(await answers(from, to, 0)).to.equal(3);
          expect(await answers(from, to, largest, ['-M', 'do'])).to.equal(3);
          expect(await answers(from, to, 9000)).to.equal(3);
        }
      }
    });

    it('TCP both ways, whole, in both families', async () => {
      for (const from of [rig.one, rig.two]) {
        for (const family of FAMILIES) {
          const to = rig.other(from);
          const stream = await RunningStream.start(
            { from: from.namespace, to: to.namespace, address: to.inner[family] },
            0,
          );
          const device = `/sys/class/net/eth0/statistics/tx_bytes`;
          const sent = async () => Number((await runInside(from.namespace, ['cat', device])).stdout);
          try {
            const before = await sent();
            await until(async () => (await sent()) - before > STREAM_BYTES, {
              what: 'the stream to get through',
              deadlineMs: 30_000,
              everyMs: 100,
            });
          } finally {
            const report = await stream.stop();
            expect(report.whole, JSON.stringify(report)).to.equal(true);
          }
        }
      }
    });

    if (options.two === 'kernel' && options.outer === undefined) {
      it('broadcast: what kernel vxlan sends to all arrives, and is answered; ours has nobody to send it to, as it has not', async () => {
        const { one, two } = rig;
        const forget = ({ namespace }: RigEnd, { inner }: RigEnd) =>
          ipBatch(namespace, [`neigh del ${inner.ipv4} dev ${DEVICE}`]);
        const know = ({ namespace }: RigEnd, { inner, mac }: RigEnd) =>
          ipBatch(namespace, [`neigh replace ${inner.ipv4} lladdr ${mac} dev ${DEVICE} nud permanent`]);
        const group = async () => (await one.tunnel?.stats())?.sent.drops.group ?? 0;
        const toAll = (verb: string) =>
          run('bridge', [
            ...['-n', two.namespace, 'fdb', verb, '00:00:00:00:00:00'],
            ...['dev', DEVICE, 'dst', one.underlay],
          ]);
        // Neither has an entry for "all": who asks by ARP gets no answer.
        const before = await group();
        for (const end of [two, one]) {
          await forget(end, rig.other(end));
          expect(await answers(end, rig.other(end).inner.ipv4, 0, ['-W', '1'])).to.equal(0);
          await know(end, rig.other(end));
        }
        expect(await group()).to.be.greaterThan(before);
        await forget(two, one);
        await toAll('append');
        expect(await answers(two, one.inner.ipv4, 0)).to.equal(3);
        await toAll('del');
        await know(two, one);
      });
    }

    it('right on the wire: every checksum, no packet larger than the underlay’s, none to be fragmented', async function () {
      need(this, 'tshark', 'tcpdump', 'iperf3');
      // Without the underlay's offloads the packets on it are those of a real network.
      await runInside(rig.one.namespace, ['ethtool', '-K', 'eth0', 'tx', 'off', 'gso', 'off', 'tso', 'off'], {
        tolerant: true,
      });
      const filter = `src host ${rig.one.underlay} and udp dst port ${PORT}`;
      const capture = await Capture.start(rig.one.namespace, 'eth0', filter);
      const dir = await mkdtemp(join(tmpdir(), 'vtepd-encap-'));
      try {
        for (const family of FAMILIES) {
          const stream = await RunningStream.start(
            { from: rig.one.namespace, to: rig.two.namespace, address: rig.two.inner[family] },
            0,
          );
          await capture.untilCaptured(family === 'ipv4' ? 300 : 600);
          await stream.stop();
          await answers(rig.one, rig.two.inner[family], 3000);
        }
        const packets = (await capture.stop()).map(({ bytes }) => bytes);
        for (const bytes of packets) {
          expect(bytes.length).to.be.at.most(UNDERLAY_MTU + 14);
          const ethernet = decodeEthernet(bytes);
          const ip = ethernet.fault === undefined ? decodeIpv4(ethernet.payload) : ethernet;
          if (ip.fault === undefined) expect(ip.header.dontFragment).to.equal(true);
        }
        await writeFile(join(dir, 'wire.pcap'), capture.pcap);
        const { stdout } = await run('tshark', [
          ...['-n', '-r', join(dir, 'wire.pcap'), '-d', `udp.port==${PORT},vxlan`],
          ...['ip', 'tcp', 'udp'].flatMap((each) => ['-o', `${each}.check_checksum:TRUE`]),
          ...['-T', 'fields', '-e', 'frame.protocols', '-e', '_ws.malformed'],
          ...['ip', 'tcp', 'udp', 'icmp', 'icmpv6'].flatMap((each) => ['-e', `${each}.checksum.status`]),
        ]);
        const lines = stdout.trimEnd().split('\n');
        expect(lines.length).to.be.at.least(600);
        for (const line of lines) {
          const [protocols = '', malformed, ...states] = line.split('\t');
          expect(protocols).to.include('vxlan:eth');
          expect(malformed, line).to.equal('');
          // 0: bad; 1: good; 2: not verified, as of a fragment.
          expect(states.join(',').split(','), line).not.to.include('0');
        }
      } finally {
        await capture.stop().catch(() => {});
        await rm(dir, { recursive: true });
      }
    });

    it('counts both directions, drops nothing', async () => {
      const stats = await rig.one.tunnel?.stats();
      expect(stats?.sent.packets).to.be.greaterThan(600);
      expect(stats?.received.packets).to.be.greaterThan(600);
      expect(stats?.sent.bytes).to.be.greaterThan(STREAM_BYTES);
      for (const direction of [stats?.sent, stats?.received]) {
        const { group, device_queue, socket_queue, socket_full, ...others } = direction?.drops ?? {};
        for (const [reason, count] of Object.entries(others)) expect(count, reason).to.equal(0);
      }
    });
  });
}
