/** Whether this machine can carry an overlay at all: rights, the kernel's features, its settings, folders. Pure. */
import type { FeatureName } from '../kernel/features.ts';
import type { DoctorFacts } from './facts.ts';
import { dataPathOf, found, plural, statusOf } from './network.ts';
import { type Finding, failed, type Outcome, warning } from './report.ts';

export function checkRights({ capabilities }: DoctorFacts): Outcome {
  const findings: Finding[] = [];
  if (!capabilities.netAdmin) {
    findings.push(
      failed(
        'no-net-admin',
        'this process lacks CAP_NET_ADMIN: the daemon could not make devices, and much of what follows cannot be seen',
        'run it as root, or with the capabilities NET_ADMIN and NET_RAW (in a pod: securityContext.capabilities)',
      ),
    );
  } else if (!capabilities.netRaw) {
    findings.push(
      warning(
        'no-net-raw',
        'CAP_NET_RAW is missing: the way to the peers cannot be probed',
        'add the capability NET_RAW, or switch the probe off (--probe=false)',
      ),
    );
  }
  return { seen: 'CAP_NET_ADMIN and CAP_NET_RAW', findings };
}

const MODULES: Readonly<Record<FeatureName, string>> = {
  vxlan: 'vxlan',
  bridge: 'bridge',
  nexthop: 'nexthop objects',
  nftables: 'nftables',
  tun: 'TUN/TAP',
};

export function checkKernel(facts: DoctorFacts): Outcome {
  const { features, settings } = facts;
  const lacks = (name: FeatureName): boolean => features[name].state === 'lacks';
  const because = (name: FeatureName): string => `${MODULES[name]}: ${features[name].reason ?? 'no reason'}`;
  const findings: Finding[] = [];
  const userspace = dataPathOf(facts) === 'userspace';
  if (lacks('vxlan') && settings.overlay.datapath === 'kernel') {
    findings.push(
      failed(
        'no-vxlan',
        because('vxlan'),
        'load the module (modprobe vxlan), or let vtepd carry the packets itself: --datapath auto',
      ),
    );
  } else if (lacks('vxlan') && !lacks('tun')) {
    findings.push(
      warning(
        'no-vxlan',
        `${because('vxlan')}; packets are carried in user space, which is slower`,
        'load the module (modprobe vxlan)',
      ),
    );
  }
  if (userspace && lacks('tun')) {
    findings.push(
      failed(
        'no-tun',
        because('tun'),
        'load the module (modprobe tun) and give the daemon the device /dev/net/tun',
      ),
    );
  }
  if (lacks('bridge'))
    findings.push(failed('no-bridge', because('bridge'), 'load the module: modprobe bridge'));
  if (lacks('nftables')) {
    const { masquerade, peerFilter, podFilter } = settings.overlay;
    const remedy =
      'install libnftables1 and load nf_tables (modprobe nf_tables), or switch off what needs it: --ip-masq=false --peer-filter=false --pod-filter=false';
    const needed = masquerade || peerFilter || podFilter;
    findings.push((needed ? failed : warning)('no-nftables', because('nftables'), remedy));
  }
  if (lacks('nexthop')) {
    findings.push(
      warning(
        'no-nexthop-objects',
        `${because('nexthop')}: routes have gateways, whose programming takes quadratic time in the number of peers`,
        'use a kernel from 5.3 on for clusters of thousands of nodes',
      ),
    );
  }
  const untried = Object.values(features).find(({ state }) => state === 'unknown');
  if (untried !== undefined && findings.length === 0) return { unknown: untried.reason ?? 'not tried' };
  const works = (Object.keys(MODULES) as FeatureName[]).filter((name) => features[name].state === 'works');
  return { seen: `Linux ${facts.kernel}: ${works.map((name) => MODULES[name]).join(', ')}`, findings };
}

/** Those that the daemon sets at its start: another value now was set by somebody else. */
export function checkSettings(facts: DoctorFacts): Outcome {
  const { sysctls, settings } = facts;
  const findings: Finding[] = [];
  const status = statusOf(facts);
  const set = (path: string, value: string): string => `sysctl -w net/${path}=${value}`;
  if (status?.ready === true) {
    for (const path of notForwarding(facts)) {
      findings.push(
        failed(
          'forwarding-off',
          `net/${path} is 0: what pods send and receive is not forwarded; somebody switched it off`,
          `${set(path, '1')}; find what sets it (/etc/sysctl.d, a configuration manager)`,
        ),
      );
    }
  }
  const underlay = found(facts.underlay)?.link.name;
  if (underlay !== undefined && status?.peers.some(({ route }) => route === 'direct') === true) {
    const own = sysctls[`ipv4/conf/${underlay}/rp_filter`];
    const strict = own === '1' || (own === '0' && sysctls['ipv4/conf/all/rp_filter'] === '1');
    if (strict) {
      findings.push(
        failed(
          'rp-filter-strict',
          `${underlay} has a strict rp_filter: packets of peers with direct routes are dropped where their way back differs`,
          set(`ipv4/conf/${underlay}/rp_filter`, '2'),
        ),
      );
    }
  }
  const drops = found(facts.droppingChains) ?? [];
  const filtered = drops.some(({ hook }) => hook === 'forward') || facts.legacyTables.includes('filter');
  for (const [family, tables] of [
    ['IPv4', 'bridge/bridge-nf-call-iptables'],
    ['IPv6', 'bridge/bridge-nf-call-ip6tables'],
  ] as const) {
    if (sysctls[tables] !== '1' || !filtered) continue;
    findings.push(
      warning(
        'bridge-nf-call',
        `bridged ${family} packets pass the host's packet filter (${tables.slice(7)} = 1), which has chains that drop: pods of one node may not reach each other`,
        `allow ${settings.overlay.bridge} in those chains, or ${set(tables, '0')}`,
      ),
    );
  }
  return { seen: 'forwarding, rp_filter and bridge-nf-call are as they should be', findings };
}

/** IPv4 forwards by device; IPv6 too from kernel 6.17 on, and by one switch before. */
function notForwarding(facts: DoctorFacts): string[] {
  const { sysctls } = facts;
  const lease = statusOf(facts)?.lease;
  const off = Object.keys(sysctls).filter((path) => sysctls[path] === '0');
  const byDevice = Object.entries(sysctls).some(
    ([path, value]) => path.endsWith('/force_forwarding') && value !== undefined,
  );
  return off.filter((path) => {
    if (path.startsWith('ipv4/')) return path.endsWith('/forwarding') && lease?.subnet !== undefined;
    if (lease?.subnetIPv6 === undefined) return false;
    return byDevice
      ? path.endsWith('/force_forwarding') && sysctls['ipv6/conf/all/forwarding'] === '0'
      : path === 'ipv6/conf/all/forwarding';
  });
}

export function checkFolders({ folders }: DoctorFacts): Outcome {
  const findings = folders.flatMap(({ option, path, problem }) =>
    problem === undefined
      ? []
      : [
          failed(
            'folder-unusable',
            `${path} (--${option}): ${problem}`,
            `make it writable for the daemon, free space on its file system, or name another with --${option}`,
          ),
        ],
  );
  return { seen: `${plural(folders.length, 'folder')} can be written`, findings };
}
