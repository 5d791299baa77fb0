/**
 * The same objects by iproute2: `ip -batch` for neighbours, nexthop objects and routes, `bridge -batch` for
 * the FDB, `nft -f` for the peer filter's sets. One process each, text made beforehand, on a device a family
 * that stands already: the least that the kernel and the usual tools need.
 */
import { run } from '../../overlay/lab/command.ts';
import { familiesOf, type LabFamilies } from '../../overlay/lab/lab-network.ts';
import { ipBatch, runInside } from '../../overlay/lab/namespace.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import { type Address, type Family, formatSubnet, type PerFamily } from '../../store/address.ts';
import { VXLAN_DEVICES } from './kernel-counts.ts';
import { MAX_PEERS, numberedPeer, PORT, VNI } from './peers.ts';

const FIRST_NEXTHOP_ID = 0x76_00_00_00;
const PROTOCOL = 118;
/** Gateway routes in great number: half a minute for 50,000. */
const TIMEOUT_MS = 180_000;

export interface BatchTimes {
  /** Neighbours, FDB, nexthops, routes: what the daemon's peers have. */
  readonly totalMs: number;
  /** The peer filter's sets besides, in one transaction; not in the total. */
  readonly nftMs: number;
}

/** nftables' type of the set of peers. */
const SET_TYPE: Readonly<Record<Family, string>> = { ipv4: 'ipv4_addr', ipv6: 'ipv6_addr' };
/** Each family's nexthops have identifiers of their own. */
const FIRST_ID: Readonly<Record<Family, number>> = {
  ipv4: FIRST_NEXTHOP_ID,
  ipv6: FIRST_NEXTHOP_ID + MAX_PEERS,
};

/** @param local the node's underlay addresses */
export async function programByBatch(
  namespace: string,
  local: PerFamily<Address>,
  count: number,
  families: LabFamilies,
  withNexthops: boolean,
): Promise<BatchTimes> {
  const [ip, bridge]: [string[], string[]] = [[], []];
  const elements: Record<Family, string[]> = { ipv4: [], ipv6: [] };
  const [nexthops, routes]: [string[], string[]] = [[], []];
  for (let number = 0; number < count; number++) {
    for (const { family, subnet, publicAddress, vtep } of numberedPeer(number, families).sides) {
      const device = VXLAN_DEVICES[family];
      const gateway = `via ${subnet.address} dev ${device} onlink`;
      const id = FIRST_ID[family] + number;
      ip.push(`neigh replace ${subnet.address} lladdr ${vtep.mac} dev ${device} nud permanent`);
      bridge.push(`fdb replace ${vtep.mac} dev ${device} dst ${publicAddress} self permanent`);
      if (withNexthops) nexthops.push(`nexthop replace id ${id} ${gateway} proto ${PROTOCOL}`);
      const target = withNexthops ? `nhid ${id}` : gateway;
      routes.push(`route replace ${formatSubnet(subnet)} ${target} proto ${PROTOCOL}`);
      elements[family].push(publicAddress);
    }
  }
  const used = familiesOf(families);
  await ipBatch(
    namespace,
    used.flatMap((family) => {
      const device = VXLAN_DEVICES[family];
      const where = `id ${VNI} local ${local[family]} dev ${NODE_INTERFACE} dstport ${PORT}`;
      return [`link add ${device} type vxlan ${where} nolearning`, `link set ${device} up`];
    }),
  );
  const sets = used.map((family) => `add set inet reference ${family} { type ${SET_TYPE[family]}; }\n`);
  const table = `add table inet reference\n${sets.join('')}`;
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
  const additions = used.map(
    (family) => `add element inet reference ${family} { ${elements[family].join(', ')} }\n`,
  );
  await runInside(namespace, ['nft', '-f', '-'], {
    input: additions.join(''),
    timeoutMs: TIMEOUT_MS,
  });
  return { totalMs: neighboursMs + fdbMs + routesMs, nftMs: performance.now() - begin };
}
