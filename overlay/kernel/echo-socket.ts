/**
 * Raw ICMP and ICMPv6 sockets, through the npm package raw-socket: an optional dependency, for it is compiled
 * for one version of Node when it is installed, and may not be.
 *
 * Packets are sent with the header that they come with (IP_HDRINCL), as large as the interface takes, and never
 * in fragments: IP_PMTUDISC_PROBE keeps what the kernel believes of the path, which is what is being checked,
 * out of it. Needs CAP_NET_RAW.
 */
import { createRequire } from 'node:module';
import { type Address, type Family, tryAddress } from '../../store/address.ts';

/** Echo requests cannot be sent from here. Everything else works. */
export class EchoUnavailableError extends Error {
  override readonly name = 'EchoUnavailableError';
  readonly code = 'VTEPD_ECHO_UNAVAILABLE';
}

export interface EchoSocketEvents {
  /** The bytes are the socket's: what is to be kept of them is copied before this returns. */
  received(bytes: Uint8Array, source: Address): void;
  /** It ended by itself. */
  closed(): void;
}

export interface EchoSocket {
  /** Sends a packet that begins with its IP header. It is the socket's until it is sent. */
  send(packet: Buffer, destination: Address, failed: (reason: string) => void): void;
  close(): void;
}

/** The parts of raw-socket that are used here. */
interface RawSocketModule {
  createSocket(options: { addressFamily: number; protocol: number; bufferSize: number }): RawSocket;
}

interface RawSocket {
  on(event: 'message', listener: (bytes: Buffer, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  on(event: 'close', listener: () => void): void;
  setOption(level: number, option: number, value: Buffer, length: number): void;
  send(
    packet: Buffer,
    offset: number,
    length: number,
    destination: string,
    sent: (error: Error | null) => void,
  ): void;
  close(): void;
}

/** Constants of the socket interface (include/uapi/linux/in.h, in6.h, icmp.h, icmpv6.h; asm-generic/socket.h). */
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_RAW = 255;
const ICMP_FILTER = 1;
const ICMPV6_FILTER = 1;
const IPPROTO_IP = 0;
const IP_HDRINCL = 3;
const IP_MTU_DISCOVER = 10;
const IPPROTO_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
const IPV6_HDRINCL = 36;
const PMTUDISC_PROBE = 3;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const ECHO_REPLY_V4 = 0;
const ECHO_REPLY_V6 = 129;

/** raw-socket's own numbers. */
const ADDRESS_FAMILY: Readonly<Record<Family, number>> = { ipv4: 1, ipv6: 2 };

/** The largest packet there is. */
const BUFFER_BYTES = 65_536;
/** Replies of some 300 paths while the event loop is busy for a second. */
const RECEIVE_BUFFER_BYTES = 1 << 20;

/** Loads raw-socket. @throws EchoUnavailableError */
export function loadRawSocket(): RawSocketModule {
  try {
    return createRequire(import.meta.url)('raw-socket') as RawSocketModule;
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'MODULE_NOT_FOUND';
    const remedy =
      'install a C++ compiler, make and Python, and run "npm rebuild raw-socket" where vtepd is installed';
    throw new EchoUnavailableError(
      missing
        ? `the npm package raw-socket is not installed or was not compiled: ${remedy}`
        : `the npm package raw-socket was compiled for another Node than ${process.version}: ${remedy}`,
      { cause: error },
    );
  }
}

/** A socket in the calling thread's network namespace. @throws EchoUnavailableError */
export function openEchoSocket(family: Family, events: EchoSocketEvents): EchoSocket {
  const module = loadRawSocket();
  let socket: RawSocket;
  try {
    socket = module.createSocket({
      addressFamily: ADDRESS_FAMILY[family],
      protocol: family === 'ipv4' ? IPPROTO_ICMP : IPPROTO_ICMPV6,
      bufferSize: BUFFER_BYTES,
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const name = family === 'ipv4' ? 'ICMP' : 'ICMPv6';
    throw new EchoUnavailableError(`a raw ${name} socket needs the capability CAP_NET_RAW: ${reason}`, {
      cause: error,
    });
  }
  try {
    for (const [level, option, value] of optionsOf(family))
      socket.setOption(level, option, value, value.length);
  } catch (error) {
    socket.close();
    throw new EchoUnavailableError('this kernel does not take the options of a raw ICMP socket', {
      cause: error,
    });
  }
  try {
    socket.setOption(SOL_SOCKET, SO_RCVBUFFORCE, int(RECEIVE_BUFFER_BYTES), 4);
  } catch {
    // Without CAP_NET_ADMIN it keeps the size that it has, which does for hundreds of peers.
  }
  socket.on('message', (bytes, source) => {
    const address = tryAddress(source);
    if (address !== undefined) events.received(bytes, address);
  });
  // One failed read, which says nothing: what was lost with it counts as lost. An error that ends the socket
  // is followed by 'close'.
  socket.on('error', () => {});
  socket.on('close', () => events.closed());
  return {
    send(packet, destination, failed) {
      socket.send(packet, 0, packet.length, destination, (error) => {
        if (error !== null) failed(error.message);
      });
    },
    close: () => socket.close(),
  };
}

function optionsOf(family: Family): [level: number, option: number, value: Buffer][] {
  if (family === 'ipv4') {
    return [
      [IPPROTO_IP, IP_HDRINCL, int(1)],
      [IPPROTO_IP, IP_MTU_DISCOVER, int(PMTUDISC_PROBE)],
      // A bit that is set keeps a type away.
      [SOL_RAW, ICMP_FILTER, int(~(1 << ECHO_REPLY_V4))],
    ];
  }
  const filter = Buffer.alloc(32, 0xff);
  filter.writeInt32LE(~(1 << (ECHO_REPLY_V6 % 32)), 4 * Math.floor(ECHO_REPLY_V6 / 32));
  return [
    [IPPROTO_IPV6, IPV6_HDRINCL, int(1)],
    [IPPROTO_IPV6, IPV6_MTU_DISCOVER, int(PMTUDISC_PROBE)],
    [IPPROTO_ICMPV6, ICMPV6_FILTER, filter],
  ];
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}
