/** What may happen to a user-space tunnel in its life, and that it goes on, or says why not. */
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { CommandError } from '../../overlay/lab/command.ts';
import { ipBatch, runInside } from '../../overlay/lab/namespace.ts';
import { ping } from '../../overlay/lab/ping.ts';
import { RunningStream } from '../../overlay/lab/tcp.ts';
import { until } from '../../overlay/lab/wait.ts';
import { parseAddress, parseMac } from '../../store/address.ts';
import { need } from '../lab/capability.ts';
import { DEVICE, PORT, Rig, type RigEnd, VNI } from './rig.ts';

const DEADLINE_MS = 15_000;

describe('the user-space tunnel’s life', function () {
  this.timeout(60_000);
  let rig: Rig;

  before(async function () {
    need(this, 'root', 'ip', 'ping');
    rig = await Rig.create({ held: true, queues: 2 });
  });
  after(async () => {
    await rig?.close();
  });

  const stats = async (end: RigEnd) => {
    if (end.tunnel === undefined) throw new Error('no tunnel');
    return await end.tunnel.stats();
  };
  const answered = async (count = 3) =>
    (await ping(rig.one.namespace, rig.two.inner.ipv4, { count, patienceMs: 5000 })).received;

  /** Sends UDP datagrams from an address of a namespace, in a process of its own. */
  async function send(
    namespace: string,
    [from, to, port]: readonly [from: string, to: string, port: number],
    datagrams: readonly (readonly number[])[],
    times: number,
  ): Promise<void> {
    const program = `
      const socket = require('node:dgram').createSocket('udp4');
      const datagrams = ${JSON.stringify(datagrams)}.map((bytes) => Buffer.from(bytes));
      socket.bind(0, '${from}', async () => {
        for (let i = 0; i < ${times}; i++) for (const datagram of datagrams) {
          await new Promise((sent) => socket.send(datagram, ${port}, '${to}', sent));
        }
        socket.close();
      });`;
    await runInside(namespace, [process.execPath, '-e', program]);
  }

  /** To one's VXLAN port, from an address of two's. */
  const forge = (from: string, datagrams: readonly (readonly number[])[], times = 1): Promise<void> =>
    send(rig.two.namespace, [from, rig.one.underlay, PORT], datagrams, times);

  const HEADER = [8, 0, 0, 0, 0, 0, VNI, 0];
  const TO_ONE = [2, 0, 0, 0, 9, 1, 2, 0, 0, 0, 9, 2];

  it('hostile packets are dropped and counted by reason; what is not hostile goes on', async () => {
    await ipBatch(rig.two.namespace, ['addr replace 192.0.2.66/24 dev eth0']);
    const frame = [...TO_ONE, 8, 0, 1, 2, 3];
    const cases: Record<string, readonly number[][]> = {
      short: [[], HEADER, [...HEADER, ...TO_ONE]],
      flags: [
        [0, ...HEADER.slice(1), ...frame],
        [8, 1, ...HEADER.slice(2), ...frame],
        [...HEADER.slice(0, 7), 1, ...frame],
      ],
      vni: [[...HEADER.slice(0, 6), 2, 0, ...frame]],
      loop: [[...HEADER, ...TO_ONE.slice(0, 6), ...TO_ONE.slice(0, 6), 8, 0, 1]],
      giant: [[...HEADER, ...TO_ONE, 8, 0, ...new Array<number>(20_000).fill(7)]],
    };
    const before = (await stats(rig.one)).received.drops;
    await forge(rig.two.underlay, Object.values(cases).flat());
    await forge('192.0.2.66', [[...HEADER, ...frame], []], 50);
    const wanted: Record<string, number> = { ...before, stranger: (before.stranger ?? 0) + 100 };
    for (const [reason, packets] of Object.entries(cases)) {
      wanted[reason] = (before[reason] ?? 0) + packets.length;
    }
    await until(async () => (await stats(rig.one)).received.drops.stranger === wanted.stranger, {
      what: 'the drops',
      deadlineMs: DEADLINE_MS,
    });
    expect((await stats(rig.one)).received.drops).to.deep.equal(wanted);
    expect(await answered()).to.equal(3);
  });

  it('a storm of them costs no memory', async () => {
    const residentKiB = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${rig.one.tunnel?.pid}/status`, 'utf8'))?.[1]);
    const storm = () => forge('192.0.2.66', [[...HEADER, ...TO_ONE, 8, 0]], 5000);
    await storm();
    const before = residentKiB();
    await storm();
    expect(residentKiB() - before).to.be.below(16 * 1024);
    expect(await answered()).to.equal(3);
  });

  it('full queues, of the device and of the socket, drop and count; what comes after them passes', async () => {
    const pid = rig.one.tunnel?.pid ?? 0;
    const before = await stats(rig.one);
    process.kill(pid, 'SIGSTOP');
    try {
      // A queue of the device takes 1,000 frames, the socket's buffer 16 MiB at most, as the kernel counts them.
      await send(rig.one.namespace, [rig.one.inner.ipv4, rig.two.inner.ipv4, 9], [[1]], 2000);
      await forge(rig.two.underlay, [[0, ...new Array<number>(60_000).fill(7)]], 400);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    const { sent, received } = await stats(rig.one);
    const more = (drops: Readonly<Record<string, number>>, old: typeof drops, reason: string) =>
      (drops[reason] ?? 0) - (old[reason] ?? 0);
    expect(more(sent.drops, before.sent.drops, 'device_queue')).to.be.within(900, 1100);
    expect(more(received.drops, before.received.drops, 'socket_queue')).to.be.within(50, 399);
    expect(await answered()).to.equal(3);
  });

  it('a packet that comes out of the tunnel itself is not taken for a peer’s', async () => {
    // Two sends, through the tunnel, UDP to one's VXLAN port; the socket is bound to the underlay's address.
    await ipBatch(rig.two.namespace, [`route replace ${rig.one.underlay}/32 dev ${DEVICE} table 77`]);
    await ipBatch(rig.two.namespace, [
      'rule add priority 77 ipproto udp sport 7777 table 77',
      `neigh replace ${rig.one.underlay} lladdr ${rig.one.mac} dev ${DEVICE} nud permanent`,
    ]);
    await runInside(rig.one.namespace, ['sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=0']);
    await runInside(rig.one.namespace, [
      'sysctl',
      '-qw',
      `net.ipv4.conf.${DEVICE.replace('.', '/')}.rp_filter=0`,
    ]);
    const before = (await stats(rig.one)).received.drops.nested ?? 0;
    const program = `
      const socket = require('node:dgram').createSocket('udp4');
      socket.bind(7777, '${rig.two.underlay}', () =>
        socket.send(Buffer.from(${JSON.stringify([...HEADER, ...TO_ONE, 8, 0])}), ${PORT}, '${rig.one.underlay}', () => socket.close()));`;
    await runInside(rig.two.namespace, [process.execPath, '-e', program]);
    await until(async () => ((await stats(rig.one)).received.drops.nested ?? 0) > before, {
      what: 'the nested packet',
      deadlineMs: DEADLINE_MS,
    });
    await ipBatch(rig.two.namespace, ['rule del priority 77']);
  });

  it('a thread that dies is started again with the table it had', async () => {
    for (const failQueue of [0, 1]) await rig.one.tunnel?.ask({ failQueue });
    await until(async () => (await stats(rig.one)).workerRestarts === 2, {
      what: 'the threads to be started again',
      deadlineMs: DEADLINE_MS,
    });
    expect(await answered(10)).to.equal(10);
    expect(rig.one.tunnel?.log).to.include('started again');
  });

  it('a path that takes less: the sender is told, TCP goes on, and it goes back', async () => {
    const full = [
      'ping',
      '-n',
      '-q',
      '-c',
      '3',
      '-i',
      '0.2',
      '-W',
      '2',
      '-M',
      'do',
      '-s',
      `${rig.mtuBytes - 28}`,
    ];
    const ask = async () =>
      (await runInside(rig.one.namespace, [...full, rig.two.inner.ipv4], { tolerant: true })).stdout;
    await ipBatch(rig.one.namespace, [`route replace ${rig.two.underlay}/32 dev eth0 mtu 1300`]);
    // The first is lost where the kernel refuses it; the ones after it are answered with "fragmentation needed".
    const said = await ask();
    expect(said).to.match(/\b0 received.*\+[12] errors/s);
    expect((await stats(rig.one)).narrowPaths).to.deep.equal([{ remote: rig.two.underlay, mtuBytes: 1300 }]);
    expect((await stats(rig.one)).sent.drops.too_big).to.be.greaterThan(0);
    // What may be cut is cut: UDP without "don't fragment" arrives in fragments.
    await ipBatch(rig.one.namespace, ['route flush cache']);
    expect(await answered()).to.equal(3);
    const stream = await RunningStream.start(
      { from: rig.one.namespace, to: rig.two.namespace, address: rig.two.inner.ipv4 },
      0,
    );
    const packets = async () => (await stats(rig.one)).sent.packets;
    const before = await packets();
    try {
      await until(async () => (await packets()) > before + 2000, {
        what: 'TCP to flow',
        deadlineMs: DEADLINE_MS,
      });
    } finally {
      expect((await stream.stop()).whole).to.equal(true);
    }
    await ipBatch(rig.one.namespace, [`route del ${rig.two.underlay}/32 dev eth0`]);
    await until(
      async () => {
        await ipBatch(rig.one.namespace, ['route flush cache']);
        return / 3 received/.test(await ask());
      },
      { what: 'full packets to pass again', deadlineMs: DEADLINE_MS, everyMs: 500 },
    );
  });

  it('another underlay address, an underlay that goes and comes, and thousands of peers, while it runs', async () => {
    const moved = parseAddress('192.0.2.9');
    await ipBatch(rig.one.namespace, [`addr add ${moved}/24 dev eth0`]);
    await rig.one.tunnel?.ask({ local: moved });
    const peers = Array.from({ length: 5000 }, (_, i) => {
      const [high, low] = [i >> 8, i & 255];
      const mac = [2, 0, 1, 0, high, low].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
      return [parseMac(mac), parseAddress(`198.18.${high}.${low}`)] as const;
    });
    await rig.one.tunnel?.ask({ peers: [...peers, [rig.two.mac, rig.two.underlay]] });
    await rig.two.tunnel?.ask({ peers: [[rig.one.mac, moved]] });
    expect(await answered(10)).to.equal(10);
    await ipBatch(rig.one.namespace, ['link set dev eth0 down']);
    expect(await answered(1)).to.equal(0);
    await ipBatch(rig.one.namespace, ['link set dev eth0 up']);
    await until(async () => (await answered(1)) === 1, { what: 'the underlay', deadlineMs: DEADLINE_MS });
    await rig.one.tunnel?.ask({ peers: [[rig.two.mac, rig.two.underlay]] });
    await rig.one.tunnel?.ask({ local: rig.one.underlay });
    await rig.two.tunnel?.ask({ peers: [[rig.one.mac, rig.one.underlay]] });
    expect(await answered(10)).to.equal(10);
  });

  it('killed and started again, it goes on with the packets that waited', async () => {
    const stream = await RunningStream.start(
      { from: rig.two.namespace, to: rig.one.namespace, address: rig.one.inner.ipv4 },
      5,
    );
    const before = (await stats(rig.two)).sent.packets;
    await until(async () => (await stats(rig.two)).sent.packets > before + 100, {
      what: 'the stream',
      deadlineMs: DEADLINE_MS,
    });
    await rig.one.tunnel?.close('SIGKILL');
    const tunnel = await rig.openTunnel(rig.one);
    expect(tunnel.resumed).to.equal(true);
    expect(await answered(10)).to.equal(10);
    expect((await stream.stop()).whole).to.equal(true);
  });

  it('a device of another kind is not touched; a port that is taken is named', async () => {
    await ipBatch(rig.two.namespace, ['link add other0 type bridge']);
    const open = (device: string, port: number) =>
      rig.openTunnel(rig.two, { device, port }).then(
        () => 'opened',
        (error: unknown) => (error instanceof CommandError ? error.message : String(error)),
      );
    expect(await open('other0', 8473)).to.match(
      /other0 cannot be opened as a TAP device: EINVAL.*another kind/s,
    );
    expect(await open('tap9', PORT)).to.match(/192\.0\.2\.2:8472 cannot be bound: EADDRINUSE/);
  });

  it('a device that is taken away is a fault, told once', async () => {
    await ipBatch(rig.two.namespace, [`link del ${DEVICE}`]);
    await until(() => rig.two.tunnel?.log.includes('the tunnel cannot go on'), {
      what: 'the fault',
      deadlineMs: DEADLINE_MS,
    });
    expect(rig.two.tunnel?.log.match(/cannot go on/g)).to.have.length(1);
  });
});
