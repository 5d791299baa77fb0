/**
 * Echo requests through the tunnel: that its packets arrive is what no look at this node alone can tell, for whatever
 * drops them (a rule here, the network between, a rule there) leaves no trace. The other end of the tunnel, the first
 * address of a peer's subnet, answers; flannel's does too.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type Address, type Family, parseSubnet } from '../../store/address.ts';
import { type EchoSocket, openEchoSocket } from '../kernel/echo-socket.ts';
import type { PeerStatus, StatusReport } from '../ops/status.ts';
import { echoRequest, minimumBytes, readEchoReply, TOKEN_BYTES } from '../probe/echo-packet.ts';
import type { TunnelTrial } from './facts.ts';

/** More would say no more: what is wrong here is wrong for all. */
const MOST_PEERS = 3;
const TRIES = 4;
/** From one try to the next, and after the last: a busy machine answers late. */
const WAIT_MS = 500;

interface Tried {
  readonly peer: string;
  readonly destination: Address;
  answered: boolean;
}

/** Asks a few peers that the tunnel leads to. @throws EchoUnavailableError, the signal's reason */
export async function tryTunnel(
  { lease, peers }: StatusReport,
  signal: AbortSignal,
): Promise<readonly TunnelTrial[]> {
  const family: Family = lease?.subnet === undefined ? 'ipv6' : 'ipv4';
  const own = family === 'ipv4' ? lease?.subnet : lease?.subnetIPv6;
  if (own === undefined) return [];
  const tried = peers.flatMap((peer) => endOf(peer, family) ?? []).slice(0, MOST_PEERS);
  if (tried.length === 0) return [];
  const identifier = randomBytes(2).readUInt16BE();
  const token = randomBytes(TOKEN_BYTES);
  const socket: EchoSocket = openEchoSocket(family, {
    received(bytes, source) {
      const reply = readEchoReply(family, bytes);
      if (reply?.identifier !== identifier || !token.equals(reply.token)) return;
      for (const each of tried) if (each.destination === source) each.answered = true;
    },
    closed() {},
  });
  try {
    const common = { source: parseSubnet(own).address, identifier, token, sizeBytes: minimumBytes(family) };
    for (let sequence = 0; sequence < TRIES && tried.some(({ answered }) => !answered); sequence++) {
      for (const { destination, answered } of tried) {
        // One that cannot be sent is not answered either.
        if (!answered) socket.send(echoRequest({ ...common, destination, sequence }), destination, () => {});
      }
      await answeredWithin(tried, WAIT_MS, signal);
    }
  } finally {
    socket.close();
  }
  return tried.map(({ peer, answered }) => ({ peer, answered }));
}

/** Where it is to be asked; undefined: not through the tunnel, or it is known that it does not answer. */
function endOf(peer: PeerStatus, family: Family): Tried | undefined {
  const [subnet, publicAddress, route, path] =
    family === 'ipv4'
      ? [peer.subnet, peer.publicIP, peer.route, peer.path]
      : [peer.subnetIPv6, peer.publicIPv6, peer.routeIPv6, peer.pathIPv6];
  if (!peer.programmed || route !== 'tunnel' || path?.reachable === false) return undefined;
  if (subnet === undefined || publicAddress === undefined) return undefined;
  return { peer: publicAddress, destination: parseSubnet(subnet).address, answered: false };
}

async function answeredWithin(tried: readonly Tried[], ms: number, signal: AbortSignal): Promise<void> {
  const begin = performance.now();
  while (performance.now() - begin < ms && tried.some(({ answered }) => !answered)) {
    await delay(10, undefined, { signal });
  }
}
