/** Has the kernel ask who has an address: its neighbour table, and a bridge's, know the answer then. */
import { createSocket } from 'node:dgram';
import { type Address, type Family, familyOf } from '../../store/address.ts';

/** RFC 863: nobody listens there, and nobody minds. */
const DISCARD_PORT = 9;

/** Sends an empty datagram to each address, from this namespace. What cannot be sent is nobody's news. */
export async function wakeNeighbours(addresses: readonly Address[]): Promise<void> {
  for (const family of ['ipv4', 'ipv6'] as const) {
    const own = addresses.filter((address) => familyOf(address) === family);
    if (own.length > 0) await wake(family, own);
  }
}

async function wake(family: Family, addresses: readonly Address[]): Promise<void> {
  const socket = createSocket(family === 'ipv4' ? 'udp4' : 'udp6');
  socket.on('error', () => {});
  try {
    await Promise.all(
      addresses.map(
        (address) =>
          new Promise<void>((resolve) =>
            socket.send(new Uint8Array(), DISCARD_PORT, address, () => resolve()),
          ),
      ),
    );
  } finally {
    socket.close();
  }
}
