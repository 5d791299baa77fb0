/**
 * The same objects by iproute2: `ip -batch` for neighbours, nexthop objects and routes, `bridge -batch` for
 * the FDB, `nft -f` for the peer filter's set. One process each, text made beforehand, on a device that
 * stands already: the least that the kernel and the usual tools need.
 */
import { run } from '../../overlay/lab/command.ts';
import { ipBatch, runInside } from '../../overlay/lab/namespace.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import { type Address, formatSubnet } from '../../store/address.ts';
import { VXLAN_DEVICE } from './kernel-counts.ts';
import { numberedPeer, PORT, VNI } from './peers.ts';

const FIRST_NEXTHOP_ID = 0x76_00_00_00;
const PROTOCOL = 118;
/** Gateway routes in great number: half a minute for 50,000. */
const TIMEOUT_MS = 180_000;

export interface BatchTimes {
  /** Neighbours, FDB, nexthops, routes: what the daemon's peers have. */
  readonly totalMs: number;
  /** The peer filter's set besides, in one transaction; not in the total. */
  readonly nftMs: number;
}

/** @param local the node's underlay address */
export async function programByBatch(
  namespace: string,
  local: Address,
  count: number,
  withNexthops: boolean,
): Promise<BatchTimes> {
  const [ip, bridge, elements]: [string[], string[], string[]] = [[], [], []];
  const [nexthops, routes]: [string[], string[]] = [[], []];
  for (let number = 0; number < count; number++) {
    const { subnet, publicAddress, lease } = numberedPeer(number);
    const mac = lease.attributes.vtep.ipv4?.mac;
    const gateway = `via ${subnet.address} dev ${VXLAN_DEVICE} onlink`;
    const id = FIRST_NEXTHOP_ID + number;
    ip.push(`neigh replace ${subnet.address} lladdr ${mac} dev ${VXLAN_DEVICE} nud permanent`);
    bridge.push(`fdb replace ${mac} dev ${VXLAN_DEVICE} dst ${publicAddress} self permanent`);
    if (withNexthops) nexthops.push(`nexthop replace id ${id} ${gateway} proto ${PROTOCOL}`);
    const target = withNexthops ? `nhid ${id}` : gateway;
    routes.push(`route replace ${formatSubnet(subnet)} ${target} proto ${PROTOCOL}`);
    elements.push(publicAddress);
  }
  await ipBatch(namespace, [
    `link add ${VXLAN_DEVICE} type vxlan id ${VNI} local ${local} dev ${NODE_INTERFACE} dstport ${PORT} nolearning`,
    `link set ${VXLAN_DEVICE} up`,
  ]);
  const table = 'add table inet reference\nadd set inet reference peers { type ipv4_addr; }\n';
  await runInside(namespace, ['nft', '-f', '-'], { input: table });
  const timed = async (
    program: string,
    args: readonly string[],
    lines: readonly string[],
  ): Promise<number> => {
    const begin = performance.now();
    await run(program, args, { input: `${lines.join('\n')}\n`, timeoutMs: TIMEOUT_MS });
    return performance.now() - begin;
  };
  const inIt = ['-n', namespace, '-batch', '-'];
  const neighboursMs = await timed('ip', inIt, ip);
  const fdbMs = await timed('bridge', inIt, bridge);
  const routesMs = await timed('ip', inIt, [...nexthops, ...routes]);
  const begin = performance.now();
  const input = `add element inet reference peers { ${elements.join(', ')} }`;
  await runInside(namespace, ['nft', '-f', '-'], { input, timeoutMs: TIMEOUT_MS });
  return { totalMs: neighboursMs + fdbMs + routesMs, nftMs: performance.now() - begin };
}
