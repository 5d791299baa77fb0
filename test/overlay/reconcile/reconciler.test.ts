/**
 * The reconcile loop against a real kernel, without a store or a cluster: what the cluster tests cannot set
 * up. Kernels without nexthop objects, thousands of peers, an entry that the kernel refuses.
 *
 *     [ namespace: vtun0 192.0.2.1 | vtep.9 | vtbr9 ]     peers exist as leases only
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { expect } from 'chai';
import { type OverlayIdentity, type WantedOverlay, wantOverlay } from '../../../overlay/desired/overlay.ts';
import type { PeerContext } from '../../../overlay/desired/peer-table.ts';
import type { Underlay } from '../../../overlay/desired/underlay.ts';
import { Firewall } from '../../../overlay/kernel/firewall.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { listFdb, listNeighbours } from '../../../overlay/kernel/neighbour.ts';
import { NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { listNexthops, listRoutes } from '../../../overlay/kernel/route.ts';
import { ROUTE_PROTOCOL } from '../../../overlay/kernel/rtnetlink.ts';
import { silentLog } from '../../../overlay/ops/log.ts';
import { FirewallPass } from '../../../overlay/reconcile/firewall-pass.ts';
import { Reconciler } from '../../../overlay/reconcile/reconciler.ts';
import { addressAt, macFromBytes, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import type { Lease } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const network = parseNetworkConfig('{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan","VNI":9}}');

/** The nth node of a large cluster. */
function leaseOf(n: number, remote = addressAt(parseSubnet('198.18.0.0/15'), n + 1)): Lease {
  const subnet = parseSubnet(`10.${1 + (n >> 8)}.${n & 255}.0/24`);
  const mac = macFromBytes(Uint8Array.of(2, 0, 0, 0, n >> 8, n & 255));
  return {
    key: `${subnet.address}-24`,
    subnets: { ipv4: subnet },
    attributes: { publicAddress: { ipv4: remote }, backend: 'vxlan', vtep: { ipv4: { vni: 9, mac } } },
  };
}

const own: Lease = {
  key: '10.254.254.0-24',
  subnets: { ipv4: parseSubnet('10.254.254.0/24') },
  attributes: {
    publicAddress: { ipv4: parseAddress('192.0.2.1') },
    backend: 'vxlan',
    vtep: { ipv4: { vni: 9, mac: parseMac('02:ff:00:00:00:01') } },
  },
};

const identity: OverlayIdentity = {
  deviceName: (_family, vni) => `vtep.${vni}`,
  bridgeName: 'vtbr9',
  bridgeMac: parseMac('02:ff:00:00:00:02'),
};

describe('Reconciler', function () {
  this.timeout(30_000);
  const namespace = `vtrec${randomBytes(3).toString('hex')}`;
  const path = `/run/netns/${namespace}`;
  let netlink: NetlinkSocket;
  let firewall: Firewall;
  let reconciler: Reconciler | undefined;
  let passes: { failed: boolean }[];

  const ip = (...argv: string[]): string =>
    execFileSync('ip', ['-n', namespace, ...argv], { encoding: 'utf8' });

  function wanted(): { overlay: WantedOverlay; context: PeerContext } {
    const [line] = ip('-o', 'link', 'show', 'vtun0').split(':');
    const underlay: Underlay = {
      link: { index: Number(line), name: 'vtun0', mtuBytes: 1500, up: true },
      localAddress: { ipv4: parseAddress('192.0.2.1') },
      publicAddress: { ipv4: parseAddress('192.0.2.1') },
      why: 'is the only one',
    };
    const context: PeerContext = {
      network,
      families: ['ipv4'],
      ownKey: own.key,
      ownSubnets: own.subnets,
      ownPublicAddress: underlay.publicAddress,
      ownMac: { ipv4: parseMac('02:ff:00:00:00:01') },
    };
    return { overlay: wantOverlay(network, own, underlay, identity), context };
  }

  /** Sysctls are the calling thread's namespace's: there, no device has the names that are used here. */
  async function converge(withNexthops: boolean, leases: readonly Lease[]): Promise<Reconciler> {
    passes = [];
    const made = new Reconciler({
      netlink,
      firewall: new FirewallPass(firewall, { masquerade: true, peerFilter: true, podFilter: true }),
      pods: { ports: () => [] },
      log: silentLog,
      metrics: { pass: (report) => passes.push(report), repair() {}, leaseToKernel() {} },
      resyncIntervalMs: 3_600_000,
      withNexthops,
      onPeerAddress() {},
      onPass() {},
    });
    reconciler = made;
    const { overlay, context } = wanted();
    made.setOverlay(overlay, context, [own, ...leases]);
    await made.settled();
    return made;
  }

  beforeEach(() => {
    execFileSync('ip', ['netns', 'add', namespace]);
    ip('link', 'add', 'vtun0', 'type', 'veth', 'peer', 'name', 'vtun1');
    ip('addr', 'add', '192.0.2.1/24', 'dev', 'vtun0');
    ip('link', 'set', 'vtun0', 'up');
    netlink = inNamespace(path, () => NetlinkSocket.open());
    firewall = Firewall.open({ namespace: path });
  });

  afterEach(async () => {
    await reconciler?.close();
    reconciler = undefined;
    firewall?.close();
    netlink?.close();
    execFileSync('ip', ['netns', 'del', namespace]);
  });

  const vxlanIndex = (): number => Number(ip('-o', 'link', 'show', 'vtep.9').split(':')[0]);

  it('leaves nothing to put right when the last pod of a bridge goes: its MTU is its own', async () => {
    await converge(true, []);
    ip('link', 'add', 'vtport', 'mtu', '1450', 'type', 'veth', 'peer', 'name', 'vtpod');
    ip('link', 'set', 'vtport', 'master', 'vtbr9');
    ip('link', 'del', 'vtport');
    // The kernel follows the ports of a bridge that was never told an MTU but at its birth.
    expect(ip('-o', 'link', 'show', 'vtbr9')).to.include(' mtu 1450 ');
  });

  it('programs thousands of peers whole, and takes them away again', async () => {
    const leases = Array.from({ length: 3000 }, (_, n) => leaseOf(n));
    const made = await converge(true, leases);
    const index = vxlanIndex();
    const count = () => [
      listNeighbours(netlink, index).filter(({ permanent }) => permanent).length,
      listFdb(netlink, index).length,
      listNexthops(netlink)?.length,
      listRoutes(netlink, 'ipv4', ROUTE_PROTOCOL).length,
      firewall.observe().elements.peers4.size,
    ];
    expect(count()).to.deep.equal([3000, 3000, 3000, 3000, 3000]);
    expect([...made.peers.values()].flatMap((peer) => made.missing(peer))).to.deep.equal([]);
    for (const { key } of leases.slice(10)) made.leaseGone(key, performance.now());
    await made.settled();
    expect(count()).to.deep.equal([10, 10, 10, 10, 10]);
  });

  it('uses gateway routes on a kernel without nexthop objects, and nexthop objects once there are some', async () => {
    await converge(false, [leaseOf(5), leaseOf(6)]);
    expect(ip('nexthop')).to.equal('');
    expect(ip('route', 'show', 'proto', String(ROUTE_PROTOCOL)).trim().split(/ *\n/)).to.deep.equal([
      '10.1.5.0/24 via 10.1.5.0 dev vtep.9 onlink',
      '10.1.6.0/24 via 10.1.6.0 dev vtep.9 onlink',
    ]);
    await reconciler?.close();
    await converge(true, [leaseOf(5)]);
    expect(ip('route', 'show', 'proto', String(ROUTE_PROTOCOL)).trim()).to.match(
      /^10\.1\.5\.0\/24 nhid \d+ via 10\.1\.5\.0 dev vtep\.9 onlink$/,
    );
  });

  it('moves a peer’s entries when its lease changes, and counts no repair', async () => {
    const made = await converge(true, [leaseOf(5)]);
    made.leaseChanged(leaseOf(5, parseAddress('198.51.100.5')), performance.now());
    await made.settled();
    expect(listFdb(netlink, vxlanIndex()).map(({ remote }) => remote)).to.deep.equal(['198.51.100.5']);
    expect([...firewall.observe().elements.peers4]).to.deep.equal(['198.51.100.5']);
    expect(made.state.repairs).to.equal(0);
  });

  for (const withNexthops of [true, false]) {
    const how = withNexthops ? 'nexthop objects' : 'gateway routes';
    it(`the route of a narrow path has its MTU, by ${how}: only it, through changes, and no longer than that`, async () => {
      const remote = parseAddress('198.51.100.5');
      const made = await converge(withNexthops, [leaseOf(5, remote), leaseOf(6)]);
      const index = vxlanIndex();
      const mtus = () => listRoutes(netlink, 'ipv4', ROUTE_PROTOCOL).map(({ mtuBytes }) => mtuBytes);
      for (const [pathBytes, routeBytes] of [
        [1400, 1350],
        [1300, 1250],
        [undefined, undefined],
        [1300, 1250],
        // As much as the device takes: the route says nothing.
        [1500, undefined],
        [600, 550],
      ]) {
        made.setPathMtu('ipv4', remote, pathBytes);
        await made.settled();
        expect(mtus(), `${pathBytes}`).to.have.members([routeBytes, undefined]);
      }
      expect(made.state.repairs).to.equal(0);
      // Somebody takes the MTU off the route.
      ip('route', 'del', '10.1.5.0/24', 'proto', String(ROUTE_PROTOCOL));
      ip(
        'route',
        'add',
        '10.1.5.0/24',
        'via',
        '10.1.5.0',
        'dev',
        'vtep.9',
        'onlink',
        'proto',
        String(ROUTE_PROTOCOL),
      );
      made.lookAgain();
      await made.settled();
      expect(mtus()).to.have.members([550, undefined]);
      made.leaseGone(leaseOf(5).key, performance.now());
      await made.settled();
      expect(mtus()).to.deep.equal([undefined]);
      expect(vxlanIndex()).to.equal(index);
    });
  }

  it('a device of another kind in the way: says so, and works once it is gone', async () => {
    ip('link', 'add', 'vtep.9', 'type', 'bridge');
    let refusal: unknown;
    await converge(true, [leaseOf(5)]).catch((error: unknown) => {
      refusal = error;
    });
    expect(refusal).to.have.property('code', 'VTEPD_DEVICE_CONFLICT');
    expect(refusal)
      .to.have.property('message')
      .that.matches(/vtep\.9 is a bridge device: name another with --device/);
    expect(reconciler?.fault).to.match(/vtep\.9 is a bridge/);
    ip('link', 'del', 'vtep.9');
    await reconciler?.settled();
    expect(reconciler?.fault).to.equal(undefined);
    expect(listFdb(netlink, vxlanIndex())).to.have.length(1);
  });

  it('another VXLAN device with the VNI and port: is named, and not touched', async () => {
    ip('link', 'add', 'flannel.9', 'type', 'vxlan', 'id', '9', 'dstport', '8472', 'local', '192.0.2.1');
    let refusal: unknown;
    await converge(true, []).catch((error: unknown) => {
      refusal = error;
    });
    expect(refusal)
      .to.have.property('message')
      .that.matches(/flannel\.9 already has VNI 9 on port 8472/);
    expect(ip('link', 'show', 'flannel.9')).to.include('flannel.9');
  });

  it('stays in its own namespace', () => {
    expect(readlinkSync('/proc/thread-self/ns/net')).to.equal(readlinkSync(`/proc/${process.pid}/ns/net`));
  });
});
