/**
 * Peers between tunnel and direct route against a real kernel: thousands of them, an earlier run of another
 * kind, a kernel without nexthop objects, and a link that comes and goes.
 *
 *     [ namespace: vtun0 198.18.0.1/15, fd00:18::1/64 | vtep.9 | vtbr9 ]     peers exist as leases only
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { wantOverlay } from '../../../overlay/desired/overlay.ts';
import type { PeerContext } from '../../../overlay/desired/peer-table.ts';
import { type Underlay, withReach } from '../../../overlay/desired/underlay.ts';
import { Firewall } from '../../../overlay/kernel/firewall.ts';
import { KernelMonitor } from '../../../overlay/kernel/monitor.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { listFdb, listNeighbours } from '../../../overlay/kernel/neighbour.ts';
import { NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { listNexthops, listOthersRoutes, listRoutes } from '../../../overlay/kernel/route.ts';
import { ROUTE_PROTOCOL } from '../../../overlay/kernel/rtnetlink.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { silentLog } from '../../../overlay/ops/log.ts';
import { FirewallPass } from '../../../overlay/reconcile/firewall-pass.ts';
import { Reconciler } from '../../../overlay/reconcile/reconciler.ts';
import {
  addressAt,
  FAMILIES,
  macFromBytes,
  parseAddress,
  parseMac,
  parseSubnet,
  subnetOf,
} from '../../../store/address.ts';
import type { Lease, NetworkConfig } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const networkOf = (backend: object): NetworkConfig =>
  parseNetworkConfig(
    JSON.stringify({
      ...{ Network: '10.0.0.0/8', EnableIPv6: true, IPv6Network: 'fd10::/32', IPv6SubnetLen: 64 },
      Backend: { VNI: 9, ...backend },
    }),
  );
const TUNNEL = networkOf({ Type: 'vxlan' });
const DIRECT = networkOf({ Type: 'vxlan', DirectRouting: true });
const HOST_GW = networkOf({ Type: 'host-gw' });

/** The nth node of a large cluster, as a node of this backend writes it. */
function leaseOf(n: number, { backend }: NetworkConfig): Lease {
  const subnets = {
    ipv4: subnetOf(addressAt(parseSubnet('10.0.0.0/8'), (1 << 16) + (n << 8)), 24),
    ipv6: subnetOf(addressAt(parseSubnet('fd10::/32'), BigInt(n + 1) << 64n), 64),
  };
  const mac = (family: number) => macFromBytes(Uint8Array.of(2, family, 0, 0, n >> 8, n & 255));
  const vni = backend.vni;
  return {
    key: `lease-${n}`,
    subnets,
    attributes: {
      publicAddress: {
        ipv4: addressAt(parseSubnet('198.18.0.0/15'), n + 10),
        ipv6: addressAt(parseSubnet('fd00:18::/64'), n + 10),
      },
      backend: backend.type,
      vtep: backend.type === 'vxlan' ? { ipv4: { vni, mac: mac(4) }, ipv6: { vni, mac: mac(6) } } : {},
    },
  };
}

const OWN_MACS = { ipv4: parseMac('02:ff:00:00:00:01'), ipv6: parseMac('02:ff:00:00:00:06') };

function ownLease({ backend }: NetworkConfig): Lease {
  const { vni } = backend;
  return {
    key: 'own',
    subnets: { ipv4: parseSubnet('10.254.254.0/24'), ipv6: parseSubnet('fd10:0:ffff::/64') },
    attributes: {
      publicAddress: { ipv4: parseAddress('198.18.0.1'), ipv6: parseAddress('fd00:18::1') },
      backend: backend.type,
      vtep:
        backend.type === 'vxlan'
          ? { ipv4: { vni, mac: OWN_MACS.ipv4 }, ipv6: { vni, mac: OWN_MACS.ipv6 } }
          : {},
    },
  };
}

describe('direct routes in the kernel', function () {
  this.timeout(60_000);
  const namespace = `vtdir${randomBytes(3).toString('hex')}`;
  const path = `/run/netns/${namespace}`;
  let netlink: NetlinkSocket;
  let firewall: Firewall;
  let reconciler: Reconciler | undefined;
  let monitor: KernelMonitor | undefined;

  const ip = (...argv: string[]): string =>
    execFileSync('ip', ['-n', namespace, ...argv], { encoding: 'utf8' });
  const indexOf = (name: string): number => Number(ip('-o', 'link', 'show', name).split(':')[0]);
  const routes = (): string[] =>
    ['-4', '-6'].flatMap((family) =>
      ip(family, 'route', 'show', 'proto', String(ROUTE_PROTOCOL)).trim().split(/ *\n/).filter(Boolean),
    );

  function underlay(): Underlay {
    const address = { ipv4: parseAddress('198.18.0.1'), ipv6: parseAddress('fd00:18::1') };
    const found: Underlay = {
      link: { index: indexOf('vtun0'), name: 'vtun0', mtuBytes: 1500, up: true },
      localAddress: address,
      publicAddress: address,
      why: 'is the only one',
    };
    return withReach(
      found,
      FAMILIES.flatMap((family) => listOthersRoutes(netlink, family)),
    );
  }

  /** Takes the network up, with a reconciler of its own unless there is one. */
  async function follow(
    network: NetworkConfig,
    leases: readonly Lease[],
    nexthops = true,
  ): Promise<Reconciler> {
    reconciler ??= new Reconciler({
      netlink,
      firewall: new FirewallPass(firewall, { masquerade: true, peerFilter: true, podFilter: true }),
      pods: { ports: () => [] },
      log: silentLog,
      metrics: { pass() {}, repair() {}, leaseToKernel() {} },
      resyncIntervalMs: 3_600_000,
      withNexthops: nexthops,
      onPeerAddress() {},
      onPass() {},
    });
    const here = underlay();
    const own = ownLease(network);
    const overlay = wantOverlay(network, own, here, {
      deviceName: (family, vni) => `${family === 'ipv4' ? 'vtep' : 'vtep6'}.${vni}`,
      bridgeName: 'vtbr9',
      bridgeMac: parseMac('02:ff:00:00:00:02'),
    });
    const context: PeerContext = {
      network,
      families: overlay.families,
      ownKey: own.key,
      ownSubnets: own.subnets,
      ownPublicAddress: here.publicAddress,
      ownMac: OWN_MACS,
      reach: here.reach,
    };
    reconciler.setOverlay(overlay, context, [own, ...leases]);
    await reconciler.settled();
    return reconciler;
  }

  /** Ends this daemon; what it programmed stays. */
  async function end(): Promise<void> {
    await reconciler?.close();
    reconciler = undefined;
  }

  beforeEach(() => {
    execFileSync('ip', ['netns', 'add', namespace]);
    ip('link', 'add', 'vtun0', 'type', 'veth', 'peer', 'name', 'vtun1');
    ip('addr', 'add', '198.18.0.1/15', 'dev', 'vtun0');
    ip('addr', 'add', 'fd00:18::1/64', 'dev', 'vtun0', 'nodad');
    for (const name of ['vtun0', 'vtun1']) ip('link', 'set', name, 'up');
    netlink = inNamespace(path, () => NetlinkSocket.open());
    firewall = Firewall.open({ namespace: path });
  });

  afterEach(async () => {
    await monitor?.close();
    monitor = undefined;
    await end();
    firewall?.close();
    netlink?.close();
    execFileSync('ip', ['netns', 'del', namespace]);
  });

  /** Neighbours, FDB entries, nexthop objects over each device, and routes, of both families. */
  function count(): { tunnel: number[]; direct: number[] } {
    const all = listNexthops(netlink)?.filter(({ protocol }) => protocol === ROUTE_PROTOCOL) ?? [];
    const link = indexOf('vtun0');
    const direct = new Map(all.map(({ id, linkIndex }) => [id, linkIndex === link] as const));
    const held = FAMILIES.flatMap((family) => listRoutes(netlink, family, ROUTE_PROTOCOL));
    const devices = ['vtep.9', 'vtep6.9'].map(indexOf);
    const neighbours = devices.flatMap((index) => listNeighbours(netlink, index));
    const sum = (isDirect: boolean) => [
      [...direct.values()].filter((each) => each === isDirect).length,
      held.filter(({ nexthopId }) => direct.get(nexthopId ?? 0) === isDirect).length,
    ];
    return {
      tunnel: [
        neighbours.filter(({ permanent }) => permanent).length,
        devices.flatMap((index) => listFdb(netlink, index)).length,
        ...sum(false),
      ],
      direct: sum(true),
    };
  }

  it('moves thousands of peers from the tunnel to the link and back, and repairs nothing on the way', async () => {
    const leases = Array.from({ length: 1000 }, (_, n) => leaseOf(n, DIRECT));
    const made = await follow(TUNNEL, leases);
    expect(count()).to.deep.equal({ tunnel: [2000, 2000, 2000, 2000], direct: [0, 0] });
    await follow(DIRECT, leases);
    expect(count()).to.deep.equal({ tunnel: [0, 0, 0, 0], direct: [2000, 2000] });
    expect([...made.peers.values()].flatMap((peer) => made.missing(peer))).to.deep.equal([]);
    ip('route', 'add', '198.18.0.0/23', 'via', '198.18.255.1');
    await follow(DIRECT, leases);
    // 198.18.0.10 to 198.18.1.255 are behind a router now.
    expect(count()).to.deep.equal({ tunnel: [502, 502, 502, 502], direct: [1498, 1498] });
    await follow(TUNNEL, leases);
    expect(count()).to.deep.equal({ tunnel: [2000, 2000, 2000, 2000], direct: [0, 0] });
    expect(made.state.repairs).to.equal(0);
  });

  it('takes over what an earlier run with the same direct routes left, and changes nothing', async () => {
    const leases = [leaseOf(1, DIRECT), leaseOf(2, DIRECT)];
    await follow(DIRECT, leases);
    const before = [...routes(), ip('nexthop')];
    await end();
    await follow(DIRECT, leases);
    expect([...routes(), ip('nexthop')]).to.deep.equal(before);
  });

  it('clears what an earlier run of another kind left: direct routes, tunnels, devices', async () => {
    await follow(DIRECT, [leaseOf(1, DIRECT)]);
    await end();
    await follow(TUNNEL, [leaseOf(1, TUNNEL)]);
    expect(routes().join()).not.to.include('vtun0');
    expect(ip('nexthop', 'show', 'dev', 'vtun0')).to.equal('');
    await end();
    await follow(HOST_GW, [leaseOf(1, HOST_GW)]);
    expect(routes()).to.have.length(2);
    expect(routes().join()).not.to.include('vtep');
    expect(ip('-o', 'link', 'show', 'type', 'vxlan')).to.equal('');
    await end();
    await follow(TUNNEL, []);
    expect([...routes(), ip('nexthop').trim()]).to.deep.equal(['']);
  });

  it('a stranger’s route and nexthop object over the same link stay', async () => {
    ip('nexthop', 'add', 'id', '77', 'via', '198.18.9.9', 'dev', 'vtun0');
    ip('route', 'add', '10.1.1.0/24', 'via', '198.18.8.8', 'metric', '700');
    await follow(DIRECT, [leaseOf(1, DIRECT)]);
    await follow(DIRECT, []);
    expect(routes()).to.deep.equal([]);
    expect(ip('nexthop')).to.match(/^id 77 /);
    expect(ip('route', 'show', '10.1.1.0/24')).to.match(/via 198\.18\.8\.8/);
  });

  it('uses gateway routes on a kernel without nexthop objects', async () => {
    const leases = [leaseOf(1, DIRECT)];
    await follow(DIRECT, leases, false);
    expect(ip('nexthop')).to.equal('');
    expect(routes()).to.have.length(2);
    expect(routes()[0]).to.match(/^10\.1\.1\.0\/24 via 198\.18\.0\.11 dev vtun0 onlink$/);
    await follow(TUNNEL, leases);
    expect(routes()[0]).to.match(/^10\.1\.1\.0\/24 via 10\.1\.1\.0 dev vtep\.9 onlink$/);
    await follow(DIRECT, leases);
    expect(routes()[0]).to.match(/^10\.1\.1\.0\/24 via 198\.18\.0\.11 dev vtun0 onlink$/);
    expect(routes()).to.have.length(2);
  });

  it('two leases of one node share its gateway, and the second stays when the first goes', async () => {
    const [first, second] = [leaseOf(1, HOST_GW), leaseOf(2, HOST_GW)];
    const twin = { ...second, attributes: first.attributes };
    const made = await follow(HOST_GW, [first, twin]);
    expect(listNexthops(netlink)).to.have.length(2);
    expect(routes()).to.have.length(4);
    made.leaseGone(first.key, performance.now());
    await made.settled();
    expect(listNexthops(netlink)).to.have.length(2);
    expect(routes()).to.have.length(2);
  });

  it('without the link it waits, and has nothing to say against pods; with it, everything is there', async () => {
    const made = await follow(HOST_GW, [leaseOf(1, HOST_GW), leaseOf(2, HOST_GW)]);
    monitor = inNamespace(
      path,
      () =>
        new KernelMonitor({
          routing: (message) => made.announced(message),
          netfilter() {},
          lost: () => made.lookAgain(),
        }),
    );
    ip('link', 'set', 'vtun1', 'down');
    const missing = () => [...made.peers.values()].flatMap((peer) => made.missing(peer)).length;
    await until(() => missing() === 8, { what: 'the loss to be seen', deadlineMs: 10_000 });
    await made.settled();
    expect([made.fault, made.state.failing]).to.deep.equal([undefined, undefined]);
    ip('link', 'set', 'vtun1', 'up');
    await until(() => missing() === 0, { what: 'the routes to be back', deadlineMs: 10_000 });
    expect(routes()).to.have.length(4);
  });
});
