/** A node where all is well, as the doctor knows it; tests spoil one thing each. */
import type { InstalledCni } from '../../../cni-shim/installed.ts';
import { loadSettings } from '../../../overlay/config/load-settings.ts';
import type { Settings } from '../../../overlay/config/settings.ts';
import type { DoctorFacts } from '../../../overlay/doctor/facts.ts';
import type { Link } from '../../../overlay/kernel/link.ts';
import type { Route } from '../../../overlay/kernel/route.ts';
import { type Address, type Mac, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import type { Lease } from '../../../store/lease.ts';
import type { LeaseSnapshot } from '../../../store/lease-store.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';
import { statusReport } from '../ops/status-report.ts';

export const OWN_ADDRESS: Address = parseAddress('192.0.2.1');
export const OWN_MAC: Mac = parseMac('02:00:00:00:00:01');
export const UNDERLAY_INDEX = 2;
export const OTHER_INDEX = 9;

/** What `vtepd run` takes without further words, but for these. */
const { settings } = await loadSettings({
  flags: new Map([
    ['node-name', ['node-1']],
    ['etcd-endpoints', ['http://192.0.2.9:2379']],
    ['cni-conf-dir', ['/etc/cni/net.d']],
  ]),
  environment: {},
});
export const SETTINGS: Settings = settings;

export function link(index: number, name: string, otherwise: Partial<Link> = {}): Link {
  return {
    index,
    name,
    kind: undefined,
    mac: undefined,
    mtuBytes: 1500,
    up: true,
    carrier: true,
    loopback: false,
    alias: undefined,
    master: undefined,
    group: 0,
    hairpin: false,
    vxlan: undefined,
    noLinkLocalLearn: false,
    lower: undefined,
    isTap: false,
    ...otherwise,
  };
}

export const vxlanLink = (index: number, name: string, vni: number, port: number): Link =>
  link(index, name, {
    kind: 'vxlan',
    mtuBytes: 1450,
    vxlan: { vni, port, local: OWN_ADDRESS, learning: false },
    vxlanKey: { vni, port },
  });

export const OWN_DEVICE: Link = { ...vxlanLink(3, 'vtep.1', 1, 8472), alias: 'vtepd', mac: OWN_MAC };

export const LINKS: readonly Link[] = [
  link(1, 'lo', { loopback: true, mtuBytes: 65_536 }),
  link(UNDERLAY_INDEX, 'eth0'),
  OWN_DEVICE,
  link(4, 'vtep0', { kind: 'bridge', mtuBytes: 1450, alias: 'vtepd' }),
  link(5, 'vt1', { kind: 'veth', mtuBytes: 1450, master: 4 }),
  link(OTHER_INDEX, 'docker0', { kind: 'bridge' }),
];

export function route(destination: string, linkIndex: number): Route {
  return {
    destination: parseSubnet(destination),
    table: 254,
    protocol: 2,
    metric: undefined,
    linkIndex,
    gateway: undefined,
    nexthopId: undefined,
    preferredSource: undefined,
    mtuBytes: undefined,
    unicast: true,
    connected: true,
  };
}

export function lease(subnet: string, address: string, mac: string): Lease {
  return {
    key: subnet.replace('/', '-'),
    subnets: { ipv4: parseSubnet(subnet) },
    attributes: {
      publicAddress: { ipv4: parseAddress(address) },
      backend: 'vxlan',
      vtep: { ipv4: { vni: 1, mac: parseMac(mac) } },
    },
  };
}

export const OWN_LEASE: Lease = lease('10.244.5.0/24', OWN_ADDRESS, OWN_MAC);
export const PEER_LEASE: Lease = lease('10.244.6.0/24', '192.0.2.2', '02:00:00:00:00:02');

export const NETWORK = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}';

export function snapshot(
  leases: readonly Lease[] = [OWN_LEASE, PEER_LEASE],
  otherwise: Partial<LeaseSnapshot> = {},
): LeaseSnapshot {
  return {
    revision: '42',
    leases: new Map(leases.map((each) => [each.key, each])),
    malformed: [],
    network: { config: parseNetworkConfig(NETWORK) },
    ...otherwise,
  };
}

export const INSTALLED: InstalledCni = {
  confDir: '/etc/cni/net.d',
  configurations: [
    {
      file: '/etc/cni/net.d/10-vtepd.conflist',
      plugins: ['vtepd-cni', 'portmap'],
      socket: '/run/vtepd/vtepd.sock',
    },
  ],
  plugin: { path: '/opt/cni/bin/vtepd-cni', state: 'there', current: true },
};

const works = { state: 'works' } as const;

export function healthyFacts(otherwise: Partial<DoctorFacts> = {}): DoctorFacts {
  return {
    version: '0.1.0',
    kernel: '6.1.0',
    settings: SETTINGS,
    capabilities: { netAdmin: true, netRaw: true, sysAdmin: true },
    features: { vxlan: works, bridge: works, nexthop: works, nftables: works, tun: works },
    daemon: { found: statusReport() },
    socketAnswers: true,
    store: { found: snapshot() },
    links: LINKS,
    addresses: [],
    routes: [
      route('0.0.0.0/0', UNDERLAY_INDEX),
      route('192.0.2.0/24', UNDERLAY_INDEX),
      route('172.17.0.0/16', OTHER_INDEX),
      route('10.0.0.0/8', UNDERLAY_INDEX),
      route('10.244.5.0/24', 4),
    ],
    underlay: {
      found: {
        link: { index: UNDERLAY_INDEX, name: 'eth0', mtuBytes: 1500, up: true },
        localAddress: { ipv4: OWN_ADDRESS },
        publicAddress: { ipv4: OWN_ADDRESS },
        why: 'has the ipv4 default route',
      },
    },
    portHolders: [{ address: parseAddress('0.0.0.0'), port: 8472, inode: 12 }],
    droppingChains: { found: [] },
    legacyTables: [],
    sysctls: {
      'ipv4/conf/vtep0/forwarding': '1',
      'ipv4/conf/vtep.1/forwarding': '1',
      'ipv4/conf/eth0/forwarding': '1',
      'ipv4/conf/eth0/rp_filter': '0',
      'ipv4/conf/all/rp_filter': '0',
      'ipv6/conf/vtep0/force_forwarding': '0',
      'ipv6/conf/all/forwarding': '0',
      'bridge/bridge-nf-call-iptables': '1',
      'bridge/bridge-nf-call-ip6tables': undefined,
    },
    cni: { found: INSTALLED },
    folders: [
      { option: 'state-dir', path: '/var/lib/vtepd' },
      { option: 'run-dir', path: '/run/vtepd' },
    ],
    ...otherwise,
  };
}
