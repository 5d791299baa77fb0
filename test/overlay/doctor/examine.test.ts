/**
 * Every finding of the doctor: what brings it about, and that nothing else does. One table of all findings, since it
 * is also held against the list of those that there are: so it is long.
 */
import { expect } from 'chai';
import type { InstalledCni } from '../../../cni-shim/installed.ts';
import { CHECKS, examine } from '../../../overlay/doctor/examine.ts';
import type { DoctorFacts } from '../../../overlay/doctor/facts.ts';
import { renderDoctor } from '../../../overlay/doctor/render.ts';
import type { DoctorReport, Finding } from '../../../overlay/doctor/report.ts';
import type { PathStatus, PeerStatus, StatusReport } from '../../../overlay/ops/status.ts';
import { parseAddress } from '../../../store/address.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';
import { statusReport } from '../ops/status-report.ts';
import {
  healthyFacts,
  INSTALLED,
  LINKS,
  lease,
  link,
  OTHER_INDEX,
  OWN_ADDRESS,
  OWN_DEVICE,
  OWN_LEASE,
  OWN_MAC,
  PEER_LEASE,
  route,
  SETTINGS,
  snapshot,
  vxlanLink,
} from './healthy-facts.ts';

interface Case {
  /** The check, the finding, its severity. */
  readonly expected: readonly [check: string, id: string, severity: Finding['severity']];
  readonly facts: Partial<DoctorFacts>;
  /** What its cause or remedy must name. */
  readonly names: readonly string[];
  /** Others that the same fact brings about. */
  readonly also?: readonly string[];
}

const healthy = healthyFacts();
const lacks = (reason: string) => ({ state: 'lacks', reason }) as const;
const daemon = (otherwise: Partial<StatusReport>): Partial<DoctorFacts> => ({
  daemon: { found: statusReport(otherwise) },
});
const kernel = (feature: string, reason: string, overlay: object = {}): Partial<DoctorFacts> => ({
  features: { ...healthy.features, [feature]: lacks(reason) },
  settings: { ...SETTINGS, overlay: { ...SETTINGS.overlay, ...overlay } },
});
const fault = (code: string, message: string) => ({ fault: { code, message } });
const underlayOf = (otherwise: object): Partial<DoctorFacts> => {
  if ('fault' in healthy.underlay) throw new Error('the healthy node has an underlay');
  const { found } = healthy.underlay;
  return { underlay: { found: { ...found, ...otherwise } } };
};
const networkOf = (json: string): Partial<DoctorFacts> => ({
  store: { found: snapshot(undefined, { network: { config: parseNetworkConfig(json) } }) },
});
const linksWith = (name: string, otherwise: object): Partial<DoctorFacts> => ({
  links: LINKS.map((each) => (each.name === name ? { ...each, ...otherwise } : each)),
});
const cni = (otherwise: Partial<InstalledCni>): Partial<DoctorFacts> => ({
  cni: { found: { ...INSTALLED, ...otherwise } },
});
const ours = INSTALLED.configurations?.[0] ?? { file: '', plugins: [] };
const path = (otherwise: Partial<PathStatus>): PathStatus => ({
  reachable: true,
  rttMs: 1,
  mtuBytes: 1500,
  fullBytes: 1500,
  reason: null,
  ...otherwise,
});
const peer = (otherwise: Partial<PeerStatus> = {}): PeerStatus => ({
  subnet: '10.244.6.0/24',
  publicIP: '192.0.2.2',
  route: 'tunnel',
  programmed: true,
  missing: [],
  path: path({}),
  ...otherwise,
});
const forward = { family: 'ip', table: 'filter', chain: 'FORWARD', hook: 'forward' } as const;
const held = (inode: number, command: string): Partial<DoctorFacts> => ({
  portHolders: [
    { address: parseAddress('0.0.0.0'), port: 8472, inode: 12 },
    { address: parseAddress('0.0.0.0'), port: 8472, inode, owner: { pid: 77, command } },
  ],
});

const CASES: readonly Case[] = [
  {
    expected: ['rights', 'no-net-admin', 'failed'],
    facts: { capabilities: { netAdmin: false, netRaw: true, sysAdmin: false } },
    names: ['CAP_NET_ADMIN', 'root'],
  },
  {
    expected: ['rights', 'no-net-raw', 'warning'],
    facts: { capabilities: { netAdmin: true, netRaw: false, sysAdmin: false } },
    names: ['CAP_NET_RAW', '--probe=false'],
  },
  {
    expected: ['kernel', 'no-vxlan', 'failed'],
    facts: kernel('vxlan', 'EOPNOTSUPP', { datapath: 'kernel' }),
    names: ['EOPNOTSUPP', 'modprobe vxlan', '--datapath auto'],
  },
  {
    expected: ['kernel', 'no-vxlan', 'warning'],
    facts: kernel('vxlan', 'EOPNOTSUPP'),
    names: ['user space'],
  },
  {
    expected: ['kernel', 'no-tun', 'failed'],
    facts: {
      ...kernel('tun', 'ENOENT', { datapath: 'userspace' }),
      daemon: undefined,
    },
    names: ['ENOENT', '/dev/net/tun'],
  },
  {
    expected: ['kernel', 'no-bridge', 'failed'],
    facts: kernel('bridge', 'EOPNOTSUPP'),
    names: ['modprobe bridge'],
  },
  {
    expected: ['kernel', 'no-nftables', 'failed'],
    facts: kernel('nftables', 'libnftables.so.1 cannot be loaded'),
    names: ['libnftables.so.1', 'modprobe nf_tables'],
  },
  {
    expected: ['kernel', 'no-nftables', 'warning'],
    facts: kernel('nftables', 'none', { masquerade: false, peerFilter: false, podFilter: false }),
    names: ['--peer-filter=false'],
  },
  {
    expected: ['kernel', 'no-nexthop-objects', 'warning'],
    facts: kernel('nexthop', 'the kernel is older than 5.3'),
    names: ['5.3'],
  },
  {
    expected: ['folders', 'folder-unusable', 'failed'],
    facts: { folders: [{ option: 'state-dir', path: '/mnt/state', problem: 'its file system is full' }] },
    names: ['/mnt/state', 'full', '--state-dir'],
  },
  {
    expected: ['daemon', 'daemon-down', 'failed'],
    facts: { daemon: fault('VTEPD_STATUS_UNAVAILABLE', 'connect ECONNREFUSED'), socketAnswers: false },
    names: ['ECONNREFUSED', 'vtepd run'],
  },
  {
    expected: ['daemon', 'daemon-down', 'failed'],
    facts: { daemon: undefined, socketAnswers: false },
    names: ['/run/vtepd/vtepd.sock'],
  },
  {
    expected: ['daemon', 'daemon-elsewhere', 'failed'],
    facts: { daemon: fault('VTEPD_STATUS_UNAVAILABLE', 'connect ECONNREFUSED') },
    names: ['ECONNREFUSED', '--http'],
  },
  {
    expected: ['daemon', 'not-ready', 'failed'],
    facts: daemon({ ready: false, reason: 'no lease yet' }),
    names: ['no lease yet'],
  },
  {
    expected: ['daemon', 'daemon-store', 'warning'],
    facts: daemon({ store: { ...statusReport().store, healthy: false, reason: 'no leader' } }),
    names: ['no leader'],
  },
  {
    expected: ['daemon', 'kernel-refuses', 'failed'],
    facts: daemon({ reconcile: { ...statusReport().reconcile, failing: 'add route: EINVAL' } }),
    names: ['add route: EINVAL'],
  },
  {
    expected: ['daemon', 'configuration-not-in-use', 'warning'],
    facts: daemon({ configuration: { ...statusReport().configuration, problem: 'bridge: too long' } }),
    names: ['bridge: too long', 'vtepd config check'],
  },
  {
    expected: ['daemon', 'needs-restart', 'warning'],
    facts: daemon({ configuration: { ...statusReport().configuration, needRestart: ['bridge'] } }),
    names: ['bridge', 'restart'],
  },
  {
    expected: ['daemon', 'other-version', 'warning'],
    facts: { version: '0.2.0' },
    names: ['0.1.0', '0.2.0'],
  },
  {
    expected: ['daemon', 'no-address', 'warning'],
    facts: daemon({ addresses: { used: 253, free: 0 } }),
    names: ['SubnetLen'],
  },
  {
    expected: ['store', 'store-unreachable', 'failed'],
    facts: { store: fault('VTEPD_STORE_UNAVAILABLE', 'connect ECONNREFUSED 192.0.2.9:2379') },
    names: ['ECONNREFUSED', '--etcd-endpoints'],
  },
  {
    expected: ['store', 'store-refuses', 'failed'],
    facts: { store: fault('VTEPD_STORE_ACCESS', 'permission denied') },
    names: ['permission denied', '--etcd-username', '--etcd-prefix'],
  },
  {
    expected: ['store', 'store-unreachable', 'failed'],
    facts: { store: fault('VTEPD_STORE_UNAVAILABLE', 'self-signed certificate in certificate chain') },
    names: ['--etcd-cafile'],
  },
  {
    expected: ['store', 'store-unreachable', 'failed'],
    facts: {
      store: fault('ENOENT', 'no such file or directory'),
      settings: { ...SETTINGS, store: { kind: 'embedded', path: '/srv/leases' } },
    },
    names: ['--embedded-path'],
  },
  {
    expected: ['network', 'no-network', 'failed'],
    facts: { store: { found: snapshot(undefined, { network: undefined }) } },
    names: ['etcdctl put /coreos.com/network/config'],
  },
  {
    expected: ['network', 'network-unusable', 'failed'],
    facts: { store: { found: snapshot(undefined, { network: { fault: new Error('SubnetLen: 40') } }) } },
    names: ['SubnetLen: 40'],
  },
  {
    expected: ['network', 'network-not-in-use', 'failed'],
    facts: daemon({ network: { problem: 'another Type', former: [] } }),
    names: ['another Type'],
  },
  {
    expected: ['network', 'family-lacking', 'warning'],
    facts: networkOf(
      '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00:244::/48", "Backend": {"Type": "vxlan"}}',
    ),
    names: ['IPv6', 'eth0'],
  },
  {
    expected: ['underlay', 'no-underlay', 'failed'],
    facts: { underlay: fault('VTEPD_NO_UNDERLAY', 'there is no default route') },
    names: ['there is no default route', '--iface'],
    also: ['address-claimed'],
  },
  {
    expected: ['underlay', 'underlay-down', 'failed'],
    facts: underlayOf({ link: { index: 2, name: 'eth0', mtuBytes: 1500, up: false } }),
    names: ['eth0 is down', 'ip link set eth0 up'],
  },
  {
    expected: ['underlay', 'underlay-no-carrier', 'failed'],
    facts: linksWith('eth0', { carrier: false }),
    names: ['eth0 has no carrier'],
  },
  {
    expected: ['underlay', 'underlay-in-network', 'failed'],
    facts: networkOf('{"Network": "192.0.0.0/16", "Backend": {"Type": "vxlan"}}'),
    names: ['192.0.2.1', '192.0.0.0/16'],
    also: ['route-conflict'],
  },
  {
    expected: ['port', 'tunnel-taken', 'failed'],
    facts: { links: [...LINKS, vxlanLink(20, 'flannel.1', 1, 8472)] },
    names: ['flannel.1', 'VNI 1', '8472', 'ip link del flannel.1', 'vtepd migrate'],
  },
  {
    expected: ['port', 'port-taken', 'failed'],
    facts: held(4711, 'otherd --listen 8472'),
    names: ['8472', 'otherd --listen 8472', '77', 'Backend.Port'],
  },
  {
    expected: ['port', 'port-shared', 'failed'],
    facts: {
      links: [...LINKS, vxlanLink(20, 'flannel.9', 9, 8472)],
      ...daemon({ overlay: { ...overlayStatus(), datapath: 'userspace' } }),
    },
    names: ['flannel.9', '8472'],
  },
  {
    expected: ['port', 'device-missing', 'failed'],
    facts: { links: LINKS.filter(({ name }) => name !== 'vtep.1'), portHolders: [] },
    names: ['vtep.1'],
  },
  {
    expected: ['port', 'device-down', 'failed'],
    facts: linksWith('vtep.1', { up: false }),
    names: ['ip link set vtep.1 up'],
  },
  {
    expected: ['mtu', 'mtu-above-underlay', 'failed'],
    facts: networkOf('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "MTU": 9000}}'),
    names: ['9000', '1500', 'Backend.MTU'],
  },
  {
    expected: ['mtu', 'mtu-too-large', 'failed'],
    facts: {
      links: LINKS.map((each) =>
        ['vtep.1', 'vtep0'].includes(each.name) ? { ...each, mtuBytes: 1500 } : each,
      ),
    },
    names: ['vtep.1', '1500', '1450', 'ip link set vtep.1 mtu 1450'],
  },
  {
    expected: ['mtu', 'mtu-differs', 'warning'],
    facts: linksWith('vtep0', { mtuBytes: 1500 }),
    names: ['vtep0 has MTU 1500', 'vtep.1 has 1450'],
  },
  {
    expected: ['mtu', 'pods-mtu-larger', 'warning'],
    facts: linksWith('vt1', { mtuBytes: 1500 }),
    names: ['1 pod has', 'vtep0'],
  },
  {
    expected: ['mtu', 'path-mtu-reduced', 'warning'],
    facts: daemon({ peers: [peer({ path: path({ mtuBytes: 1400 }) })] }),
    names: ['192.0.2.2', 'Backend.MTU'],
  },
  {
    expected: ['lease', 'no-lease', 'warning'],
    facts: { store: { found: snapshot([PEER_LEASE]) }, daemon: undefined },
    names: ['no lease of this node', 'vtepd run'],
  },
  {
    expected: ['lease', 'lease-gone', 'failed'],
    facts: { store: { found: snapshot([PEER_LEASE]) } },
    names: ['10.244.5.0/24'],
  },
  {
    expected: ['lease', 'address-claimed', 'failed'],
    facts: { store: { found: snapshot([lease('10.244.5.0/24', OWN_ADDRESS, '02:00:00:00:00:99')]) } },
    names: ['02:00:00:00:00:99', OWN_MAC, '--public-ip'],
  },
  {
    expected: ['leases', 'mac-twice', 'failed'],
    facts: { store: { found: snapshot([OWN_LEASE, lease('10.244.7.0/24', '192.0.2.3', OWN_MAC)]) } },
    names: ['192.0.2.1, 192.0.2.3', OWN_MAC, '--state-dir'],
  },
  {
    expected: ['leases', 'address-twice', 'failed'],
    facts: {
      store: {
        found: snapshot([OWN_LEASE, PEER_LEASE, lease('10.244.7.0/24', '192.0.2.2', '02:00:00:00:00:03')]),
      },
    },
    names: ['10.244.6.0/24, 10.244.7.0/24', '192.0.2.2', '--public-ip'],
  },
  {
    expected: ['leases', 'subnets-overlap', 'failed'],
    facts: {
      store: {
        found: snapshot([OWN_LEASE, PEER_LEASE, lease('10.244.6.128/25', '192.0.2.3', '02:00:00:00:00:03')]),
      },
    },
    names: ['10.244.6.0/24', '10.244.6.128/25', '192.0.2.3'],
  },
  {
    expected: ['leases', 'leases-unreadable', 'warning'],
    facts: { store: { found: snapshot(undefined, { malformed: [{ key: 'x', reason: 'no JSON' }] }) } },
    names: ['x (no JSON)', 'vtepd leases'],
  },
  {
    expected: ['leases', 'leases-not-used', 'warning'],
    facts: daemon({ skipped: [{ key: '10.244.9.0-24', reason: 'a multicast MAC' }] }),
    names: ['10.244.9.0-24 (a multicast MAC)'],
  },
  {
    expected: ['routes', 'route-conflict', 'failed'],
    facts: { routes: [...healthy.routes, route('10.244.6.0/25', OTHER_INDEX)] },
    names: ['10.244.6.0/25', 'docker0', '10.244.0.0/16', 'ip route del 10.244.6.0/25 dev docker0'],
  },
  {
    expected: ['settings', 'forwarding-off', 'failed'],
    facts: { sysctls: { ...healthy.sysctls, 'ipv4/conf/vtep0/forwarding': '0' } },
    names: ['net/ipv4/conf/vtep0/forwarding', 'sysctl -w net/ipv4/conf/vtep0/forwarding=1'],
  },
  {
    expected: ['settings', 'forwarding-off', 'failed'],
    facts: daemon({ lease: { ...leaseStatus(), subnetIPv6: 'fc00:244::/64' } }),
    names: ['net/ipv6/conf/vtep0/force_forwarding'],
  },
  {
    expected: ['settings', 'rp-filter-strict', 'failed'],
    facts: {
      ...daemon({ peers: [peer({ route: 'direct' })] }),
      sysctls: { ...healthy.sysctls, 'ipv4/conf/all/rp_filter': '1' },
    },
    names: ['sysctl -w net/ipv4/conf/eth0/rp_filter=2'],
  },
  {
    expected: ['settings', 'bridge-nf-call', 'warning'],
    facts: { droppingChains: { found: [forward] } },
    names: ['bridge-nf-call-iptables = 1', 'vtep0'],
    also: ['forward-dropped'],
  },
  {
    expected: ['firewall', 'forward-dropped', 'warning'],
    facts: { droppingChains: { found: [forward] }, sysctls: {} },
    names: ['ip filter FORWARD', 'iifname vtep0 accept'],
  },
  {
    expected: ['firewall', 'input-dropped', 'warning'],
    facts: { droppingChains: { found: [{ family: 'inet', table: 'host', chain: 'in', hook: 'input' }] } },
    names: ['inet host in', 'udp dport 8472 accept'],
  },
  {
    expected: ['firewall', 'legacy-iptables', 'warning'],
    facts: { legacyTables: ['nat', 'filter'], sysctls: {} },
    names: ['iptables-legacy -S FORWARD'],
  },
  {
    expected: ['firewall', 'strangers-dropped', 'warning'],
    facts: daemon({ firewall: { drops: { vxlan_stranger: 12 }, foreignDrops: [] } }),
    names: ['12 packets', '--public-ip'],
  },
  {
    expected: ['peers', 'peers-incomplete', 'failed'],
    facts: daemon({ peers: [peer({ programmed: false, missing: ['route 10.244.6.0/24'] })] }),
    names: ['192.0.2.2 (route 10.244.6.0/24)'],
  },
  {
    expected: ['peers', 'peers-unreachable', 'failed'],
    facts: daemon({ peers: [peer({ path: path({ reachable: false }) }), peer()] }),
    names: ['1 peer of 2', '192.0.2.2', 'ping'],
  },
  {
    expected: ['peers', 'tunnel-blocked', 'failed'],
    facts: {
      tunnel: {
        found: [
          { peer: '192.0.2.2', answered: false },
          { peer: '192.0.2.3', answered: true },
        ],
      },
    },
    names: ['from 192.0.2.2, but from 192.0.2.3 it does', 'UDP port 8472', 'nft list ruleset'],
  },
  {
    expected: ['cni', 'cni-not-installed', 'failed'],
    facts: cni({ configurations: [] }),
    names: ['/etc/cni/net.d', 'vtepd cni install'],
  },
  {
    expected: ['cni', 'cni-other-first', 'failed'],
    facts: cni({
      configurations: [{ file: '/etc/cni/net.d/05-flannel.conflist', plugins: ['flannel'] }, ours],
    }),
    names: ['05-flannel.conflist (flannel)', '10-vtepd.conflist'],
  },
  {
    expected: ['cni', 'cni-other-socket', 'failed'],
    facts: cni({ configurations: [{ ...ours, socket: '/run/other.sock' }] }),
    names: ['/run/other.sock', '/run/vtepd/vtepd.sock', '--run-dir'],
  },
  {
    expected: ['cni', 'plugin-missing', 'failed'],
    facts: cni({ plugin: { path: '/opt/cni/bin/vtepd-cni', state: 'missing' } }),
    names: ['/opt/cni/bin/vtepd-cni is missing', 'vtepd cni install'],
  },
  {
    expected: ['cni', 'plugin-differs', 'warning'],
    facts: cni({ plugin: { ...INSTALLED.plugin, current: false } }),
    names: ['/opt/cni/bin/vtepd-cni', 'vtepd cni install'],
  },
];

function overlayStatus() {
  const { overlay } = statusReport();
  if (overlay === null) throw new Error('the sample report has an overlay');
  return overlay;
}

function leaseStatus() {
  const { lease: found } = statusReport();
  if (found === null) throw new Error('the sample report has a lease');
  return found;
}

const findingsOf = (report: DoctorReport): (Finding & { readonly check: string })[] =>
  report.checks.flatMap(({ id, findings }) => findings.map((each) => ({ ...each, check: id })));

describe('vtepd doctor’s judgement', () => {
  it('of a node where all is well: every check is ok, nothing is found', () => {
    const report = examine(healthy);
    expect(findingsOf(report)).to.deep.equal([]);
    expect(report.checks.map(({ id, state }) => `${id} ${state}`)).to.deep.equal(
      CHECKS.map(({ id }) => `${id} ok`),
    );
    expect(report.healthy).to.equal(true);
  });

  for (const { expected, facts, names, also = [] } of CASES) {
    const [check, id, severity] = expected;
    it(`${check}: ${id} (${severity}): ${names[0]}`, () => {
      const report = examine(healthyFacts(facts));
      const all = findingsOf(report);
      const found = all.find((each) => each.id === id && each.check === check);
      expect(found?.severity, JSON.stringify(all)).to.equal(severity);
      for (const name of names) expect(`${found?.cause} | ${found?.remedy}`).to.contain(name);
      expect(found?.remedy).to.not.equal('');
      const others = all.filter((each) => each !== found && each.id !== id && !also.includes(each.id));
      expect(others).to.deep.equal([]);
      expect(report.healthy).to.equal(!all.some((each) => each.severity === 'failed'));
      expect(report.checks.find((each) => each.id === check)?.state).to.equal(severity);
    });
  }

  it('no finding is without a test', () => {
    const tested = new Set(CASES.map(({ expected: [, id] }) => id));
    const known = CASES.flatMap(({ facts }) => findingsOf(examine(healthyFacts(facts)))).map(({ id }) => id);
    expect([...new Set(known)].filter((id) => !tested.has(id))).to.deep.equal([]);
  });

  it('a lease that a change of the network left behind is no second node', () => {
    const former = lease('10.244.77.0/24', OWN_ADDRESS, OWN_MAC);
    expect(
      findingsOf(examine(healthyFacts({ store: { found: snapshot([OWN_LEASE, former]) } }))),
    ).to.deep.equal([]);
  });

  it('in user space the daemon itself holds the port', () => {
    const userspace = daemon({ overlay: { ...overlayStatus(), datapath: 'userspace' } });
    const facts = healthyFacts({ ...userspace, ...held(4711, 'node /usr/local/bin/vtepd run') });
    expect(findingsOf(examine(facts))).to.deep.equal([]);
  });

  it('with daemon and store down, the view on disk tells the network', () => {
    const down = healthyFacts({
      daemon: fault('VTEPD_STATUS_UNAVAILABLE', 'connect ECONNREFUSED'),
      socketAnswers: false,
      store: fault('VTEPD_STORE_UNAVAILABLE', 'connect ECONNREFUSED'),
      cached: snapshot(),
      links: [...LINKS, vxlanLink(20, 'flannel.1', 1, 8472)],
    });
    const report = examine(down);
    expect(findingsOf(report).map(({ id }) => id)).to.deep.equal([
      'daemon-down',
      'store-unreachable',
      'tunnel-taken',
    ]);
    const unknown = report.checks.filter(({ state }) => state === 'unknown').map(({ id }) => id);
    expect(unknown).to.deep.equal(['network', 'lease', 'leases', 'peers']);
    const blind = examine({ ...down, cached: undefined });
    expect(blind.checks.find(({ id }) => id === 'port')?.state).to.equal('unknown');
  });

  it('a network without a tunnel has no port to lose and no device to miss', () => {
    const facts = healthyFacts({
      ...networkOf('{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}'),
      daemon: undefined,
      links: LINKS.filter((each) => each !== OWN_DEVICE).map((each) =>
        each.name === 'vtep0' || each.name === 'vt1' ? { ...each, mtuBytes: 1500 } : each,
      ),
    });
    expect(findingsOf(examine(facts))).to.deep.equal([]);
  });

  it('thousands of leases are examined in one go', () => {
    const leases = Array.from({ length: 5000 }, (_, n) =>
      lease(
        `10.${n >> 8}.${n & 255}.0/24`,
        `172.16.${n >> 8}.${n & 255}`,
        `02:00:00:01:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`,
      ),
    );
    const facts = healthyFacts({ store: { found: snapshot(leases) }, daemon: undefined });
    expect(findingsOf(examine(facts)).map(({ id }) => id)).to.deep.equal(['no-lease']);
  });

  it('reads from the top: a line a check, cause and remedy below, what it comes to at the end', () => {
    const text = renderDoctor(
      examine(healthyFacts({ links: [...LINKS, vxlanLink(20, 'flannel.1', 1, 8472)], version: '0.2.0' })),
    );
    expect(text).to.match(/^ok {7}rights {6}CAP_NET_ADMIN/);
    expect(text).to.match(/\nWARNING {2}daemon\n {9}- the daemon is vtepd 0\.1\.0.*\n {11}remedy: restart/);
    expect(text).to.match(/\nFAILED {3}VXLAN\n {9}! flannel\.1 already has VNI 1.*\n {11}remedy: remove it/);
    expect(text).to.match(/\nnode-1: 1 broken, 1 warning\.\n$/);
    expect(renderDoctor(examine(healthy))).to.match(/\nnode-1: nothing is broken\.\n$/);
  });

  it('prints nothing that a terminal would take for a command', () => {
    const hostile = link(20, 'x\u001b[2J', {
      kind: 'vxlan',
      vxlanKey: { vni: 1, port: 8472 },
    });
    expect(renderDoctor(examine(healthyFacts({ links: [...LINKS, hostile] })))).to.not.contain('\u001b');
  });
});
