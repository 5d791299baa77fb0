/**
 * A program of its own, run inside a node's namespace by convergence.ts: the reconciler alone, given all
 * leases at once.
 *
 *   reconciler-program.js PEERS nexthops|gateways ipv4|ipv6|dual
 *
 * Prints one line of JSON, a ReconcilerRun, when everything is programmed.
 */
import { wantOverlay } from '../../overlay/desired/overlay.ts';
import { chooseUnderlay } from '../../overlay/desired/underlay.ts';
import { Firewall } from '../../overlay/kernel/firewall.ts';
import { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { readUnderlayFacts } from '../../overlay/kernel/underlay-facts.ts';
import { familiesOf, type LabFamilies } from '../../overlay/lab/lab-network.ts';
import { silentLog } from '../../overlay/ops/log.ts';
import { createMetrics } from '../../overlay/ops/metrics.ts';
import { FirewallPass } from '../../overlay/reconcile/firewall-pass.ts';
import { Reconciler } from '../../overlay/reconcile/reconciler.ts';
import { type Family, parseMac, parseSubnet, type Subnet } from '../../store/address.ts';
import type { Lease, Vtep } from '../../store/lease.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { oneOfFamilies } from './families.ts';
import { VXLAN_DEVICES } from './kernel-counts.ts';
import { networkConfig, numberedPeer, VNI } from './peers.ts';

export interface ReconcilerRun {
  /** From the leases in memory to all of their entries in the kernel. */
  readonly convergeMs: number;
  /** Of this process, meanwhile: the kernel's share is the system time. */
  readonly cpuMs: { readonly user: number; readonly system: number };
}

const OWN_SUBNETS = { ipv4: parseSubnet('10.250.0.0/24'), ipv6: parseSubnet('fc00:76:0:fa00::/64') };
const VTEP_MAC = parseMac('0a:be:ff:00:00:01');
const BRIDGE_MAC = parseMac('0a:be:ff:00:00:02');
const NEVER_MS = 2 ** 31 - 1;

async function converge(count: number, withNexthops: boolean, families: LabFamilies): Promise<ReconcilerRun> {
  const leases = Array.from({ length: count }, (_, number) => numberedPeer(number, families).lease);
  const network = parseNetworkConfig(networkConfig(families));
  using netlink = NetlinkSocket.open();
  using firewall = Firewall.open();
  const used = familiesOf(families);
  const wishes = { names: [], patterns: [], publicAddress: {} };
  const facts = readUnderlayFacts(netlink, wishes, () => false);
  const underlay = chooseUnderlay(wishes, facts, used, []);
  const subnets: { [F in Family]?: Subnet } = {};
  const vtep: { [F in Family]?: Vtep } = {};
  for (const family of used) {
    subnets[family] = OWN_SUBNETS[family];
    vtep[family] = { vni: VNI, mac: VTEP_MAC };
  }
  const own: Lease = {
    key: 'own',
    subnets,
    attributes: { publicAddress: underlay.publicAddress, backend: 'vxlan', vtep },
  };
  const wanted = wantOverlay(network, own, underlay, {
    deviceName: (family) => VXLAN_DEVICES[family],
    bridgeName: 'vtep0',
    bridgeMac: BRIDGE_MAC,
  });
  const reconciler = new Reconciler({
    netlink,
    firewall: new FirewallPass(firewall, { masquerade: true, peerFilter: true, podFilter: true }),
    pods: { ports: () => [] },
    log: silentLog,
    metrics: createMetrics(),
    resyncIntervalMs: NEVER_MS,
    withNexthops,
    onPeerAddress() {},
    onPass: () => {},
  });
  try {
    const context = {
      network,
      families: wanted.families,
      ownKey: own.key,
      ownSubnets: own.subnets,
      ownPublicAddress: underlay.publicAddress,
      ownMac: Object.fromEntries(used.map((family) => [family, VTEP_MAC])),
    };
    const cpu = process.cpuUsage();
    const begin = performance.now();
    reconciler.setOverlay(wanted, context, leases);
    await reconciler.settled();
    const convergeMs = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    return { convergeMs, cpuMs: { user: user / 1000, system: system / 1000 } };
  } finally {
    await reconciler.close();
  }
}

const [count, how, families = ''] = process.argv.slice(2);
const result = await converge(Number(count), how === 'nexthops', oneOfFamilies(families));
process.stdout.write(`${JSON.stringify(result)}\n`);
