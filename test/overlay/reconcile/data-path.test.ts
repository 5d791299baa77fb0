/**
 * Which data path is taken, and the devices' change from the one to the other, against a real kernel. The tunnel
 * here is only its table: what it carries is tested in test/encap and by the cluster tests. Its TAP is real.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { openTap, removeWithLastQueue, type Tap } from '../../../encap/io/tap.ts';
import type { DirectionStats, Tunnel, TunnelOptions } from '../../../encap/tunnel-types.ts';
import type { DataPathChoice } from '../../../overlay/desired/data-path.ts';
import { carriedNetwork } from '../../../overlay/desired/data-path.ts';
import { wantOverlay } from '../../../overlay/desired/overlay.ts';
import { close } from '../../../overlay/kernel/libc.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { listFdb } from '../../../overlay/kernel/neighbour.ts';
import { NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { silentLog } from '../../../overlay/ops/log.ts';
import { FirewallPass } from '../../../overlay/reconcile/firewall-pass.ts';
import { Reconciler } from '../../../overlay/reconcile/reconciler.ts';
import { Tunnels } from '../../../overlay/reconcile/tunnels.ts';
import { type Address, type Mac, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import type { Lease, NetworkConfig } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';
import { need } from '../../lab/capability.ts';

const networkOf = (backend: object): NetworkConfig =>
  carriedNetwork(parseNetworkConfig(JSON.stringify({ Network: '10.0.0.0/8', Backend: backend })));

const OWN_MAC = parseMac('02:ff:00:00:00:01');
const PEER_MAC = parseMac('02:00:00:00:00:05');
const OTHER_MAC = parseMac('02:00:00:00:00:06');

const leaseOf = (subnet: string, remote: string, mac: Mac): Lease => ({
  key: `${subnet}-24`,
  subnets: { ipv4: parseSubnet(`${subnet}/24`) },
  attributes: {
    publicAddress: { ipv4: parseAddress(remote) },
    backend: 'vxlan',
    vtep: { ipv4: { vni: 9, mac } },
  },
});

const own = leaseOf('10.254.254.0', '192.0.2.1', OWN_MAC);
const peer = leaseOf('10.1.5.0', '198.51.100.5', PEER_MAC);
const other = leaseOf('10.1.6.0', '198.51.100.6', OTHER_MAC);

const NO_TRAFFIC: DirectionStats = { packets: 0, bytes: 0, batches: [], drops: {} };

describe('data path', function () {
  this.timeout(30_000);
  const namespace = `vtdp${randomBytes(3).toString('hex')}`;
  const path = `/run/netns/${namespace}`;
  let runDir: string;
  let netlink: NetlinkSocket;
  let tunnels: Tunnels;
  let reconciler: Reconciler;
  /** What was opened, with what it began with, and how it was closed. */
  let opened: {
    readonly options: TunnelOptions;
    readonly tunnel: TableTunnel;
    readonly initial: [Mac, Address][];
  }[];

  const ip = (...argv: string[]): string =>
    execFileSync('ip', ['-n', namespace, ...argv], { encoding: 'utf8' });
  const link = (name = 'vtep.9'): string => ip('-o', '-d', 'link', 'show', name);

  /** A tunnel's table, on a TAP with a queue that nobody reads. */
  class TableTunnel implements Tunnel {
    readonly device: string;
    fault: Error | undefined;
    readonly resumed = false;
    readonly peers: Map<Mac, Address>;
    closed: { readonly keep: boolean } | undefined;
    local: Address;
    underlayMtuBytes: number;
    readonly #tap: Tap;

    constructor(options: TunnelOptions) {
      this.device = options.device;
      this.peers = new Map(options.peers);
      this.local = options.local;
      this.underlayMtuBytes = options.underlayMtuBytes;
      this.#tap = inNamespace(path, () => openTap(options.device, 1));
    }
    setPeer(mac: Mac, remote: Address): void {
      this.peers.set(mac, remote);
    }
    deletePeer(mac: Mac): boolean {
      return this.peers.delete(mac);
    }
    replacePeers(peers: Iterable<readonly [Mac, Address]>): void {
      this.peers.clear();
      for (const [mac, remote] of peers) this.peers.set(mac, remote);
    }
    setUnderlayMtu(bytes: number): void {
      this.underlayMtuBytes = bytes;
    }
    setLocal(local: Address): void {
      this.local = local;
    }
    setMac(): void {}
    stats() {
      return { sent: NO_TRAFFIC, received: NO_TRAFFIC, narrowPaths: [], workerRestarts: 0 };
    }
    async close(how: { readonly keep: boolean }): Promise<void> {
      this.closed = how;
      if (!how.keep) removeWithLastQueue(this.#tap);
      for (const queue of this.#tap.queues) close(queue);
    }
  }

  const isThere = (device: string): boolean => ip('-o', 'link').includes(` ${device}: `);

  before(function () {
    need(this, 'root', 'ip', '/dev/net/tun');
  });

  beforeEach(() => {
    execFileSync('ip', ['netns', 'add', namespace]);
    ip('link', 'add', 'vtun0', 'type', 'veth', 'peer', 'name', 'vtun1');
    ip('addr', 'add', '192.0.2.1/24', 'dev', 'vtun0');
    ip('link', 'set', 'vtun0', 'up');
    runDir = mkdtempSync(join(tmpdir(), 'vtepd-data-path-'));
    netlink = inNamespace(path, () => NetlinkSocket.open());
    opened = [];
    tunnels = new Tunnels({
      async open(options) {
        const tunnel = new TableTunnel(options);
        opened.push({ options, tunnel, initial: [...tunnel.peers] });
        return tunnel;
      },
      endHolder: async () => false,
      runDir,
      mark: 0x1000,
      log: silentLog,
      onFault: () => reconciler.lookAgain(),
    });
    reconciler = new Reconciler({
      netlink,
      tunnels,
      firewall: new FirewallPass(undefined, { masquerade: false, peerFilter: false, podFilter: false }),
      pods: { ports: () => [] },
      log: silentLog,
      metrics: { pass() {}, repair() {}, leaseToKernel() {} },
      resyncIntervalMs: 3_600_000,
      withNexthops: true,
      onPeerAddress() {},
      onPass() {},
    });
  });

  afterEach(async () => {
    await reconciler.close();
    await tunnels.close();
    netlink.close();
    execFileSync('ip', ['netns', 'del', namespace]);
    rmSync(runDir, { recursive: true, force: true });
  });

  interface Wish {
    readonly datapath: DataPathChoice;
    readonly backend?: object;
    readonly mtuBytes?: number;
    readonly local?: string;
    readonly leases?: readonly Lease[];
  }

  async function settle({
    datapath,
    backend = {},
    mtuBytes = 1500,
    local = '192.0.2.1',
    leases = [peer],
  }: Wish) {
    const network = networkOf({ Type: 'vxlan', VNI: 9, ...backend });
    const index = Number(ip('-o', 'link', 'show', 'vtun0').split(':')[0]);
    const publicAddress = { ipv4: parseAddress(local) };
    const underlay = {
      link: { index, name: 'vtun0', mtuBytes, up: true },
      localAddress: publicAddress,
      publicAddress,
      why: 'is the only one',
    };
    const identity = {
      deviceName: (_family: string, vni: number) => `vtep.${vni}`,
      bridgeName: 'vtbr9',
      bridgeMac: parseMac('02:ff:00:00:00:02'),
      datapath,
    };
    const context = {
      network,
      families: ['ipv4' as const],
      ownKey: own.key,
      ownSubnets: own.subnets,
      ownPublicAddress: publicAddress,
      ownMac: { ipv4: OWN_MAC },
    };
    reconciler.setOverlay(wantOverlay(network, own, underlay, identity), context, [own, ...leases]);
    await reconciler.settled();
    await reconciler.settled();
  }

  const last = () => {
    const found = opened.at(-1);
    if (found === undefined) throw new Error('no tunnel was opened');
    return found;
  };

  it('userspace: a TAP in the place of the vxlan, and the FDB in the tunnel from its first packet on', async () => {
    await settle({ datapath: 'userspace' });
    expect(reconciler.datapath).to.deep.equal({ path: 'userspace', why: '--datapath userspace' });
    expect(reconciler.fault).to.equal(undefined);
    expect(link())
      .to.match(/ mtu 1450 .* tun type tap /)
      .and.to.match(/<.*\bUP\b/);
    expect(link()).to.include('link/ether 02:ff:00:00:00:01').and.to.include('alias vtepd');
    const { options, initial, tunnel } = last();
    expect(options).to.include({ device: 'vtep.9', vni: 9, port: 8472, local: '192.0.2.1', mark: 0x1000 });
    expect(options.holderFile).to.equal(join(runDir, 'vtep.9.holder'));
    expect(initial).to.deep.equal([[PEER_MAC, '198.51.100.5']]);
    expect(ip('neigh', 'show', 'dev', 'vtep.9', 'nud', 'permanent')).to.include(`lladdr ${PEER_MAC}`);
    expect(ip('route', 'show', '10.1.5.0/24')).to.include('dev vtep.9');
    const [made] = reconciler.peers.values();
    expect(made && reconciler.missing(made)).to.deep.equal([]);

    // Peers come and go in the table alone.
    reconciler.leaseChanged(other, performance.now());
    reconciler.leaseChanged(leaseOf('10.1.5.0', '198.51.100.55', PEER_MAC), performance.now());
    await reconciler.settled();
    expect([...tunnel.peers]).to.deep.equal([
      [PEER_MAC, '198.51.100.55'],
      [OTHER_MAC, '198.51.100.6'],
    ]);
    reconciler.leaseGone(peer.key, performance.now());
    await reconciler.settled();
    expect([...tunnel.peers.keys()]).to.deep.equal([OTHER_MAC]);
    expect(opened).to.have.length(1);
    expect(reconciler.state.repairs).to.equal(0);
  });

  it('what changed in the table behind our back is put right by a full look', async () => {
    await settle({ datapath: 'userspace' });
    const { tunnel } = last();
    tunnel.setPeer(PEER_MAC, parseAddress('203.0.113.1'));
    tunnel.setPeer(OTHER_MAC, parseAddress('203.0.113.2'));
    reconciler.lookAgain();
    await reconciler.settled();
    expect([...tunnel.peers]).to.deep.equal([[PEER_MAC, '198.51.100.5']]);
    expect(reconciler.state.lastRepair?.objects).to.include(`fdb ${PEER_MAC} 198.51.100.5`);
  });

  it('auto: the kernel’s; user space once the kernel refuses the kind, which it says', async () => {
    await settle({ datapath: 'auto' });
    expect(reconciler.datapath).to.deep.equal({ path: 'kernel', why: 'the kernel has vxlan' });
    expect(opened).to.deep.equal([]);
    ip('link', 'del', 'vtep.9');
    withoutVxlan(netlink);
    reconciler.lookAgain();
    await reconciler.settled();
    await reconciler.settled();
    expect(reconciler.datapath?.path).to.equal('userspace');
    expect(reconciler.datapath?.why).to.match(/^the kernel refuses a vxlan device: .*Unknown device type/);
    expect(link()).to.include('type tap');
    expect([...last().tunnel.peers]).to.deep.equal([[PEER_MAC, '198.51.100.5']]);
    expect(reconciler.fault).to.equal(undefined);
  });

  it('kernel: with a kernel that refuses, not ready, and the remedy is named', async () => {
    withoutVxlan(netlink);
    await settle({ datapath: 'kernel' }).catch(() => {});
    expect(reconciler.fault).to.match(/Unknown device type.*--datapath userspace/);
    expect(opened).to.deep.equal([]);
  });

  it('from the kernel to user space and back: the device is replaced, and the entries follow', async () => {
    await settle({ datapath: 'kernel' });
    expect(link()).to.include('vxlan id 9');
    await settle({ datapath: 'userspace' });
    expect(link()).to.include('type tap');
    expect(last().initial).to.deep.equal([[PEER_MAC, '198.51.100.5']]);
    await settle({ datapath: 'kernel' });
    expect(last().tunnel.closed).to.deep.equal({ keep: false });
    expect(link()).to.include('vxlan id 9');
    const index = Number(link().split(':')[0]);
    expect(listFdb(netlink, index).map(({ remote }) => remote)).to.deep.equal(['198.51.100.5']);
    expect(reconciler.tunnels).to.deep.equal([]);
    expect(reconciler.fault).to.equal(undefined);
  });

  it('a network whose backend is udp selects user space, and vxlan the kernel’s again', async () => {
    await settle({ datapath: 'auto', backend: { Type: 'udp' } });
    expect(reconciler.datapath).to.deep.equal({
      path: 'userspace',
      why: 'the network’s Backend.Type is "udp"',
    });
    await settle({ datapath: 'auto' });
    expect(link()).to.include('vxlan id 9');
    await settle({ datapath: 'kernel', backend: { Type: 'udp' } });
    expect(link()).to.include('vxlan id 9');
  });

  it('local address and MTUs change in the tunnel’s life; VNI and port open another', async () => {
    await settle({ datapath: 'userspace' });
    await settle({ datapath: 'userspace', local: '192.0.2.7', mtuBytes: 1400 });
    expect(last().tunnel).to.include({ local: '192.0.2.7', underlayMtuBytes: 1400 });
    expect(link()).to.include(' mtu 1350 ');
    expect(opened).to.have.length(1);
    await settle({ datapath: 'userspace', backend: { Port: 4789 } });
    expect(opened).to.have.length(2);
    expect(opened[0]?.tunnel.closed).to.deep.equal({ keep: false });
    expect(last().options).to.include({ vni: 9, port: 4789 });
    await settle({ datapath: 'userspace', backend: { VNI: 10 }, leases: [] });
    expect(opened[1]?.tunnel.closed).to.deep.equal({ keep: false });
    expect(last().options).to.include({ vni: 10, device: 'vtep.10' });
    expect(isThere('vtep.9')).to.equal(false);
    expect(reconciler.tunnels.map(({ device }) => device)).to.deep.equal(['vtep.10']);
  });

  it('a tunnel that cannot go on: not ready, naming why, until another stands', async () => {
    await settle({ datapath: 'userspace' });
    const { tunnel, options } = last();
    tunnel.fault = new Error('its threads die');
    expect(reconciler.fault).to.match(/the tunnel on vtep\.9 is down: its threads die/);
    options.onFault?.(tunnel.fault);
    await reconciler.settled();
    expect(tunnel.closed).to.deep.equal({ keep: false });
    expect(opened).to.have.length(2);
    expect(last().initial).to.deep.equal([[PEER_MAC, '198.51.100.5']]);
    expect(reconciler.fault).to.equal(undefined);
  });

  it('the end keeps the device for the next one', async () => {
    await settle({ datapath: 'userspace' });
    await reconciler.close();
    await tunnels.close();
    expect(last().tunnel.closed).to.deep.equal({ keep: true });
    expect(isThere('vtep.9')).to.equal(true);
  });

  it('a stranger’s device with the name is neither taken nor removed', async () => {
    ip('link', 'add', 'vtep.9', 'type', 'bridge');
    await settle({ datapath: 'userspace' }).catch(() => {});
    expect(reconciler.fault).to.match(/vtep\.9 is a bridge device: name another with --device/);
    ip('link', 'del', 'vtep.9');
    ip('tuntap', 'add', 'mode', 'tap', 'name', 'vtep.9');
    await settle({ datapath: 'kernel' }).catch(() => {});
    expect(reconciler.fault).to.match(/vtep\.9 is a tun device: name another with --device/);
    expect(isThere('vtep.9')).to.equal(true);
  });
});

/** Asks the kernel for a kind that it does not have wherever a vxlan is asked for: its refusal is the real one. */
function withoutVxlan(netlink: NetlinkSocket): void {
  netlink.request = (request, doing) =>
    NetlinkSocket.prototype.request.call(
      netlink,
      {
        ...request,
        write(writer) {
          const start = writer.length;
          request.write(writer);
          const written = writer.bytes.subarray(start);
          const kind = written.indexOf('vxlan\0');
          if (kind >= 0) written.write('nolan', kind);
        },
      },
      doing,
    );
}
