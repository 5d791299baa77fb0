/** The underlay, the tunnel's port and device, MTUs, routes, other programs' packet filters. Pure. */
import {
  FAMILIES,
  formatSubnet,
  isUnspecified,
  type Subnet,
  subnetContains,
  subnetsOverlap,
} from '../../store/address.ts';
import { isDeviceName } from '../config/settings.ts';
import { OVERHEAD_BYTES } from '../desired/overlay.ts';
import type { Link } from '../kernel/link.ts';
import { LINK_ALIAS } from '../reconcile/own-links.ts';
import type { DoctorFacts } from './facts.ts';
import { dataPathOf, found, knownNetwork, plural, several, statusOf } from './network.ts';
import { type Finding, failed, type Outcome, warning } from './report.ts';

const NO_NETWORK = 'the cluster’s network is not known: the store does not tell, nor does the daemon';

export function checkUnderlay(facts: DoctorFacts): Outcome {
  if ('fault' in facts.underlay) {
    const remedy = 'name the interface: --iface NAME, --iface-regex, --iface-can-reach or --public-ip';
    return { seen: '', findings: [failed('no-underlay', facts.underlay.fault.message, remedy)] };
  }
  const { link, publicAddress, localAddress, why } = facts.underlay.found;
  const findings: Finding[] = [];
  if (!link.up) {
    findings.push(failed('underlay-down', `${link.name} is down`, `ip link set ${link.name} up`));
  } else if (facts.links.find(({ index }) => index === link.index)?.carrier === false) {
    const remedy = 'check the cable, the switch port, or the machine that it is connected to';
    findings.push(failed('underlay-no-carrier', `${link.name} has no carrier`, remedy));
  }
  for (const network of knownNetwork(facts)?.networks ?? []) {
    const local = localAddress[network.family];
    if (local !== undefined && subnetContains(network, local)) {
      findings.push(
        failed(
          'underlay-in-network',
          `the underlay's address ${local} is inside the cluster's network ${formatSubnet(network)}`,
          'give the overlay a network that nothing else uses',
        ),
      );
    }
  }
  const addresses = FAMILIES.flatMap((family) => publicAddress[family] ?? []).join(', ');
  return { seen: `${link.name}, ${addresses}, MTU ${link.mtuBytes} (${why})`, findings };
}

/** Ours are known by their names; others by VXLAN's key: VNI and port. */
export function checkPort(facts: DoctorFacts): Outcome {
  const network = knownNetwork(facts);
  if (network === undefined) return { unknown: NO_NETWORK };
  const { tunnel } = network;
  if (tunnel === undefined) return { seen: 'the backend has no tunnel', findings: [] };
  const { vni, port } = tunnel;
  const findings: Finding[] = [];
  const others = facts.links.filter(({ name }) => !isOwn(facts, name));
  for (const { name, vxlanKey } of others) {
    if (vxlanKey?.vni !== vni || vxlanKey.port !== port) continue;
    findings.push(
      failed(
        'tunnel-taken',
        `${name} already has VNI ${vni} on port ${port}: the kernel lets two devices not share them`,
        `remove it (ip link del ${name}; flannel on this node is taken over by "vtepd migrate"), or give the network another VNI`,
      ),
    );
  }
  const userspace = dataPathOf(facts) === 'userspace';
  // Devices of the kernel share one socket, which no process holds.
  const kernels = facts.links.some(({ vxlanKey }) => vxlanKey?.port === port);
  for (const { address, owner } of facts.portHolders) {
    if (owner === undefined ? kernels : userspace && isVtepd(owner.command)) continue;
    const who = owner === undefined ? 'another program' : `${owner.command} (process ${owner.pid})`;
    findings.push(
      failed(
        'port-taken',
        `UDP port ${port} is held by ${who}${isUnspecified(address) ? '' : ` at ${address}`}`,
        `stop that program, or give the network another port (Backend.Port)`,
      ),
    );
  }
  const sharing = others.filter(({ vxlanKey }) => vxlanKey?.port === port && vxlanKey.vni !== vni);
  if (userspace && sharing.length > 0) {
    findings.push(
      failed(
        'port-shared',
        `${several(sharing.map(({ name }) => name))} of the kernel's uses UDP port ${port}, which user space cannot share`,
        'give the network another port (Backend.Port), or remove that device',
      ),
    );
  }
  const status = statusOf(facts);
  const devices = network.devices.filter(({ name }) => facts.links.some((link) => link.name === name));
  if (status?.overlay?.device != null && devices.length === 0) {
    const remedy = 'the daemon’s log says why it is not made; it is tried again all the time';
    findings.push(failed('device-missing', `the device ${status.overlay.device} is not there`, remedy));
  }
  for (const { name } of devices) {
    const link = facts.links.find((each) => each.name === name);
    if (link?.up === false) findings.push(failed('device-down', `${name} is down`, `ip link set ${name} up`));
  }
  return { seen: `VNI ${vni} on UDP port ${port}: nobody else has them`, findings };
}

const isOwn = ({ settings, links }: DoctorFacts, name: string): boolean =>
  isDeviceName(settings.overlay, name) ||
  links.some((link) => link.name === name && link.alias === LINK_ALIAS);

const isVtepd = (command: string | undefined): boolean => command !== undefined && /\bvtepd\b/.test(command);

/** Underlay, device, bridge, pods: each carries what the one before leaves. */
export function checkMtu(facts: DoctorFacts): Outcome {
  const network = knownNetwork(facts);
  const underlay = found(facts.underlay);
  if (network === undefined) return { unknown: NO_NETWORK };
  if (underlay === undefined) return { unknown: 'the underlay is not known' };
  const bridge = facts.links.find(({ name }) => name === facts.settings.overlay.bridge);
  const devices = network.devices.flatMap(({ family, name }) => {
    const link = facts.links.find((each) => each.name === name);
    return link === undefined ? [] : [{ family, link }];
  });
  const findings: Finding[] = [];
  const wish = network.mtuBytes;
  if (wish !== undefined && wish > underlay.link.mtuBytes) {
    findings.push(
      failed(
        'mtu-above-underlay',
        `Backend.MTU is ${wish}, but ${underlay.link.name} carries ${underlay.link.mtuBytes} bytes`,
        'lower Backend.MTU in the network configuration, or raise the MTU of the underlay on every node',
      ),
    );
  }
  for (const { family, link } of devices) {
    const most = underlay.link.mtuBytes - OVERHEAD_BYTES[family];
    if (link.mtuBytes <= most) continue;
    findings.push(
      failed(
        'mtu-too-large',
        `${link.name} has MTU ${link.mtuBytes}, but ${underlay.link.name} leaves ${most} bytes behind the outer headers: large packets are lost`,
        `ip link set ${link.name} mtu ${most}; the daemon does it, where it runs`,
      ),
    );
  }
  const [device] = devices;
  if (bridge !== undefined && device !== undefined && bridge.mtuBytes !== device.link.mtuBytes) {
    findings.push(
      warning(
        'mtu-differs',
        `${bridge.name} has MTU ${bridge.mtuBytes}, ${device.link.name} has ${device.link.mtuBytes}`,
        'the daemon makes them equal; where it does, find what changes them',
      ),
    );
  }
  findings.push(...largePods(facts, bridge));
  const reduced = (statusOf(facts)?.peers ?? []).filter(({ path, pathIPv6 }) =>
    [path, pathIPv6].some((each) => each?.mtuBytes != null && each.mtuBytes < each.fullBytes),
  );
  if (reduced.length > 0) {
    findings.push(
      warning(
        'path-mtu-reduced',
        `the way to ${several(reduced.map(({ publicIP, publicIPv6 }) => publicIP ?? publicIPv6 ?? ''))} swallows packets that ${underlay.link.name} says it carries`,
        'raise the MTU of the network between the nodes, or set Backend.MTU to what passes (vtepd status has the figures)',
      ),
    );
  }
  const chain = [
    underlay.link,
    ...devices.map(({ link }) => link),
    ...(bridge === undefined ? [] : [bridge]),
  ];
  return { seen: chain.map(({ name, mtuBytes }) => `${name} ${mtuBytes}`).join(', '), findings };
}

function largePods(facts: DoctorFacts, bridge: Link | undefined): Finding[] {
  if (bridge === undefined) return [];
  const large = facts.links.filter(
    ({ master, mtuBytes, kind }) => master === bridge.index && kind === 'veth' && mtuBytes > bridge.mtuBytes,
  );
  if (large.length === 0) return [];
  return [
    warning(
      'pods-mtu-larger',
      `${plural(large.length, 'pod has', 'pods have')} a larger MTU than ${bridge.name}: they were made before it shrank`,
      'TCP is told what fits; restart those pods where they send large packets by UDP',
    ),
  ];
}

/** Routes that lead pods' packets elsewhere: those inside the cluster's network that are not ours. */
export function checkRoutes(facts: DoctorFacts): Outcome {
  const network = knownNetwork(facts);
  if (network === undefined) return { unknown: NO_NETWORK };
  const own = new Set(facts.links.filter(({ name }) => isOwn(facts, name)).map(({ index }) => index));
  const nameOf = (index: number): string =>
    facts.links.find((link) => link.index === index)?.name ?? `interface ${index}`;
  const inside = (destination: Subnet): Subnet | undefined =>
    network.networks.find(
      (each) => subnetsOverlap(each, destination) && destination.prefixLength >= each.prefixLength,
    );
  const findings = facts.routes.flatMap(({ destination, linkIndex, unicast }) => {
    if (!unicast || linkIndex === undefined || own.has(linkIndex)) return [];
    const covered = inside(destination);
    if (covered === undefined) return [];
    const device = nameOf(linkIndex);
    return [
      failed(
        'route-conflict',
        `the route ${formatSubnet(destination)} by ${device} is inside the cluster's network ${formatSubnet(covered)}: packets to those pods go there`,
        `remove it (ip route del ${formatSubnet(destination)} dev ${device}) or the address that brings it, or give the overlay another network`,
      ),
    ];
  });
  return { seen: `no other route leads into ${network.networks.map(formatSubnet).join(', ')}`, findings };
}

export function checkFirewall(facts: DoctorFacts): Outcome {
  const { droppingChains, legacyTables, settings } = facts;
  if ('fault' in droppingChains) return { unknown: droppingChains.fault.message };
  const { bridge } = settings.overlay;
  const port = knownNetwork(facts)?.tunnel?.port;
  const findings = droppingChains.found.map(({ family, table, chain, hook }) =>
    hook === 'forward'
      ? warning(
          'forward-dropped',
          `chain ${family} ${table} ${chain} drops what it does not accept, pods' packets too; an accept of ours cannot override it`,
          `accept there what comes in or goes out by ${bridge}: nft insert rule ${family} ${table} ${chain} iifname ${bridge} accept, and the same with oifname`,
        )
      : warning(
          'input-dropped',
          `chain ${family} ${table} ${chain} drops what it does not accept, peers' encapsulated packets too`,
          `accept there UDP to port ${port ?? 'of the tunnel'}: nft insert rule ${family} ${table} ${chain} udp dport ${port ?? 8472} accept`,
        ),
  );
  if (legacyTables.includes('filter')) {
    findings.push(
      warning(
        'legacy-iptables',
        'iptables-legacy has a filter table, whose chains cannot be seen from here',
        `look for a policy of DROP: iptables-legacy -S FORWARD; accept ${bridge} there`,
      ),
    );
  }
  const status = statusOf(facts);
  const strangers = status?.firewall?.drops.vxlan_stranger ?? 0;
  if (strangers > 0) {
    findings.push(
      warning(
        'strangers-dropped',
        `${plural(strangers, 'packet')} with our VNI came from addresses that no lease names, and were dropped`,
        'a node behind NAT, or with another --public-ip than it sends from? its lease must name the address that is seen here (tcpdump)',
      ),
    );
  }
  return { seen: 'no chain of another program drops what it does not know', findings };
}
