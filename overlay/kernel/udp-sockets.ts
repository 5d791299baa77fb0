/** UDP sockets of this network namespace and whose they are (`ss -lunp`), from /proc. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type Address, addressFromBytes } from '../../store/address.ts';

export interface UdpSocket {
  readonly address: Address;
  readonly port: number;
  /** A socket of the kernel's own (of a tunnel device) has one too, but no process that holds it. */
  readonly inode: number;
}

/** The program that holds a socket. */
export interface SocketOwner {
  readonly pid: number;
  readonly command: string;
}

export function listUdpSockets(): UdpSocket[] {
  return ['udp', 'udp6'].flatMap((name) => {
    try {
      return readUdpSockets(readFileSync(`/proc/thread-self/net/${name}`, 'utf8'));
    } catch (error) {
      // Without IPv6 there is no udp6.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  });
}

/** The lines behind the heading: `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`. */
export function readUdpSockets(text: string): UdpSocket[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const fields = line.trim().split(/\s+/);
      const [, local = ''] = fields;
      const [address = '', port = ''] = local.split(':');
      if (!/^([0-9A-F]{8}|[0-9A-F]{32})$/.test(address)) return [];
      return [
        { address: addressOf(address), port: Number.parseInt(port, 16), inode: Number(fields[9] ?? 0) },
      ];
    });
}

/** Words of 32 bits in the machine's order: the bytes of each stand backwards. */
function addressOf(hex: string): Address {
  const bytes = Buffer.from(hex, 'hex');
  bytes.swap32();
  return addressFromBytes(bytes);
}

/** Undefined: no process does (it is the kernel's own, or has ended), or none that we may look into. */
export function socketOwner(inode: number): SocketOwner | undefined {
  const wanted = `socket:[${inode}]`;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const fds = readdirSync(`/proc/${entry}/fd`);
      if (!fds.some((fd) => linkTo(`/proc/${entry}/fd/${fd}`) === wanted)) continue;
      const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      return { pid: Number(entry), command };
    } catch {
      // It has ended, or is another user's.
    }
  }
  return undefined;
}

function linkTo(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
