/**
 * A program of its own, run inside a node's namespace by convergence.ts: the reconciler alone, given all
 * leases at once.
 *
 *   reconciler-program.js PEERS nexthops|gateways
 *
 * Prints one line of JSON, a ReconcilerRun, when everything is programmed.
 */
import { wantOverlay } from '../../overlay/desired/overlay.ts';
import { chooseUnderlay } from '../../overlay/desired/underlay.ts';
import { Firewall } from '../../overlay/kernel/firewall.ts';
import { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { readUnderlayFacts } from '../../overlay/kernel/underlay-facts.ts';
import { silentLog } from '../../overlay/ops/log.ts';
import { createMetrics } from '../../overlay/ops/metrics.ts';
import { FirewallPass } from '../../overlay/reconcile/firewall-pass.ts';
import { Reconciler } from '../../overlay/reconcile/reconciler.ts';
import { parseMac, parseSubnet } from '../../store/address.ts';
import type { Lease } from '../../store/lease.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { NETWORK_CONFIG, numberedPeer, VNI } from './peers.ts';

export interface ReconcilerRun {
  /** From the leases in memory to all of their entries in the kernel. */
  readonly convergeMs: number;
  /** Of this process, meanwhile: the kernel's share is the system time. */
  readonly cpuMs: { readonly user: number; readonly system: number };
}

const OWN_SUBNET = parseSubnet('10.250.0.0/24');
const VTEP_MAC = parseMac('0a:be:ff:00:00:01');
const BRIDGE_MAC = parseMac('0a:be:ff:00:00:02');
const NEVER_MS = 2 ** 31 - 1;

async function converge(count: number, withNexthops: boolean): Promise<ReconcilerRun> {
  const leases = Array.from({ length: count }, (_, number) => numberedPeer(number).lease);
  const network = parseNetworkConfig(NETWORK_CONFIG);
  using netlink = NetlinkSocket.open();
  using firewall = Firewall.open();
  const wishes = { names: [], patterns: [], publicAddress: {} };
  const facts = readUnderlayFacts(netlink, wishes, () => false);
  const underlay = chooseUnderlay(wishes, facts, ['ipv4'], []);
  const vtep = { ipv4: { vni: VNI, mac: VTEP_MAC } };
  const own: Lease = {
    key: 'own',
    subnets: { ipv4: OWN_SUBNET },
    attributes: { publicAddress: underlay.publicAddress, backend: 'vxlan', vtep },
  };
  const wanted = wantOverlay(network, own, underlay, {
    deviceName: (_family, vni) => `vtep.${vni}`,
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
      ownMac: { ipv4: VTEP_MAC },
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

const [count, how] = process.argv.slice(2);
const result = await converge(Number(count), how === 'nexthops');
process.stdout.write(`${JSON.stringify(result)}\n`);
