/** What the probe opens, tells and says, over sockets that answer as the test likes. */
import { expect } from 'chai';
import { wantOverlay } from '../../../overlay/desired/overlay.ts';
import { type EchoSocketEvents, EchoUnavailableError } from '../../../overlay/kernel/echo-socket.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { recordingLog } from '../../../overlay/ops/log.ts';
import { UnderlayProbe } from '../../../overlay/probe/underlay-probe.ts';
import { type Address, type Family, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import { delay } from '../../../store/backoff.ts';
import type { Lease } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const PEER = parseAddress('192.0.2.2');
const PEER6 = parseAddress('2001:db8::2');
const network = parseNetworkConfig(
  '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}',
);
const vtep = { vni: 1, mac: parseMac('02:00:00:00:00:01') };
const publicAddress = { ipv4: parseAddress('192.0.2.1'), ipv6: parseAddress('2001:db8::1') };
const lease: Lease = {
  key: '10.244.1.0-24&fd00:0:0:1::-64',
  subnets: { ipv4: parseSubnet('10.244.1.0/24'), ipv6: parseSubnet('fd00:0:0:1::/64') },
  attributes: { publicAddress, backend: 'vxlan', vtep: { ipv4: vtep, ipv6: vtep } },
};

const wanted = (mtuBytes = 1500) => {
  const link = { index: 2, name: 'eth0', mtuBytes, up: true };
  const underlay = { link, localAddress: publicAddress, publicAddress, why: 'is the only one' };
  return wantOverlay(network, lease, underlay, {
    deviceName: (_family, vni) => `vtep.${vni}`,
    bridgeName: 'vtep0',
    bridgeMac: vtep.mac,
  });
};

describe('probe: the underlay', () => {
  let probe: UnderlayProbe;
  let log: ReturnType<typeof recordingLog>;
  let told: [Family, Address, number | undefined][];
  let sockets: { readonly family: Family; readonly events: EchoSocketEvents; open: boolean }[];
  let widthBytes: number;

  function start(openable: readonly Family[] = ['ipv4', 'ipv6']): void {
    log = recordingLog();
    told = [];
    sockets = [];
    widthBytes = 1500;
    probe = new UnderlayProbe({
      intervalMs: 20,
      log,
      clock: () => performance.now(),
      sleep: (ms, signal) => delay(ms / 20, signal),
      random: Math.random,
      randomBytes: (count) => new Uint8Array(count),
      openSocket(family, events) {
        if (!openable.includes(family)) throw new EchoUnavailableError(`no ${family} here`);
        const socket = { family, events, open: true };
        sockets.push(socket);
        return {
          send(packet, destination) {
            if (packet.length <= widthBytes) setImmediate(() => answer(socket.events, packet, destination));
          },
          close() {
            socket.open = false;
          },
        };
      },
      pathMtu: (...what) => told.push(what),
    });
  }

  afterEach(async () => {
    await probe.close();
    expect(sockets.filter(({ open }) => open)).to.deep.equal([]);
  });

  const settled = (condition: () => boolean) =>
    until(condition, { what: 'the probe', deadlineMs: 20_000, everyMs: 5 });

  it('opens a socket a family, tells of a path that is narrow and that it no longer is, and counts them', async () => {
    start();
    probe.peerTouched('ipv4', PEER, true);
    probe.follow(wanted());
    expect(sockets.map(({ family }) => family)).to.deep.equal(['ipv4', 'ipv6']);
    await settled(() => probe.path('ipv4', PEER)?.mtuBytes === 1480);
    expect(told).to.deep.equal([]);
    widthBytes = 1400;
    await settled(() => told.length === 1);
    expect(told).to.deep.equal([['ipv4', PEER, 1400]]);
    const summary = { reachable: 1, unreachable: 0, unknown: 0, filtered: 0, reduced: 1 };
    expect(probe.summary('ipv4')).to.include(summary);
    expect(probe.summary('ipv6')).to.include({ reachable: 0, reduced: 0 });
    widthBytes = 1500;
    await settled(() => told.length === 2);
    expect(told[1]).to.deep.equal(['ipv4', PEER, undefined]);
    expect(log.entries.map(({ level, fields }) => [level, fields.peer, fields.mtuBytes])).to.deep.equal([
      ['warn', PEER, 1400],
      ['info', PEER, 1480],
    ]);
  });

  it('a peer that goes takes its MTU along', async () => {
    start();
    probe.follow(wanted());
    widthBytes = 1400;
    probe.peerTouched('ipv6', PEER6, true);
    await settled(() => told.length === 1);
    probe.peerTouched('ipv6', PEER6, false);
    expect(told).to.deep.equal([
      ['ipv6', PEER6, 1400],
      ['ipv6', PEER6, undefined],
    ]);
    expect(probe.path('ipv6', PEER6)).to.equal(undefined);
  });

  it('a socket that ends is opened again', () => {
    start();
    probe.follow(wanted());
    const [first] = sockets;
    if (first !== undefined) first.open = false;
    first?.events.closed();
    expect(probe.running).to.equal(true);
    probe.follow(wanted());
    expect(sockets.map(({ family, open }) => [family, open])).to.deep.equal([
      ['ipv4', false],
      ['ipv6', true],
      ['ipv4', true],
    ]);
  });

  it('says once what it lacks, and probes the family that it can', async () => {
    start(['ipv4']);
    probe.peerTouched('ipv4', PEER, true);
    probe.peerTouched('ipv6', PEER6, true);
    probe.follow(wanted());
    probe.follow(wanted());
    expect(probe).to.include({ running: true, lacks: 'no ipv6 here' });
    await settled(() => probe.path('ipv4', PEER)?.reachable === true);
    expect(probe.path('ipv6', PEER6)).to.equal(undefined);
    expect(log.entries.map(({ message }) => message)).to.deep.equal(['the underlay is not probed']);
  });
});

/** As a peer's kernel does; see prober.test.ts. */
function answer(events: EchoSocketEvents, packet: Buffer, from: Address): void {
  const reply = Buffer.from(packet);
  if (from.includes(':')) {
    reply[40] = 129;
    events.received(reply.subarray(40), from);
    return;
  }
  reply[20] = 0;
  events.received(reply, from);
}
