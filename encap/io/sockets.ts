/**
 * The UDP sockets of a tunnel. One, or one a queue, is bound to the VXLAN port and receives. Others, bound to ports of
 * the ephemeral range, send: a socket has one source port, and flows are to be spread over many. (A raw socket could
 * choose the port of each packet, but has no UDP_SEGMENT: every packet would cross the kernel on its own.)
 */
import { bind, close, errnoName, getsockname, setsockopt, socket } from '../../overlay/kernel/libc.ts';
import { AF_INET, AF_INET6, socketAddress } from '../../overlay/kernel/socket-address.ts';
import { type Address, familyOf } from '../../store/address.ts';
import { TunnelError } from '../tunnel-types.ts';
import { addressOf, EACCES, EADDRINUSE, EPERM, getsockopt, lastErrno } from './calls.ts';

const SOCK_DGRAM_CLOEXEC_NONBLOCK = 2 | 0o2000000 | 0o4000;

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_REUSEPORT = 15;
const SO_ATTACH_FILTER = 26;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_MARK = 36;
const SO_MEMINFO = 55;
/** linux/sock_diag.h: the ninth number of SO_MEMINFO. */
const SK_MEMINFO_DROPS = 8;

const IPPROTO_IP = 0;
const IP_PKTINFO = 8;
const IP_MTU_DISCOVER = 10;
const IP_MTU = 14;
const IP_FREEBIND = 15;
const IPPROTO_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
const IPV6_MTU = 24;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const IPV6_DONTFRAG = 62;
const IPV6_FREEBIND = 78;
const PMTUDISC_DO = 2;

const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;

/** What waits while a worker is kept from running: at 10 Gbit/s, 6 ms. */
const BUFFER_BYTES = 8 << 20;

/** Source ports. Enough for ECMP and the queues of network cards to spread by; each costs a descriptor. */
export const SOURCE_PORTS = 16;

export interface SocketParameters {
  readonly local: Address;
  readonly port: number;
  readonly mark: number;
}

export interface TunnelSockets {
  /** Not blocking; the owner closes all. */
  readonly receivers: readonly number[];
  readonly senders: readonly number[];
  /** Sends nothing: connected to a peer, it says what the path takes (`pathMtuOf`). */
  readonly pathProbe: number;
  /** The kernel cuts trains of packets that it is given as one (UDP_SEGMENT). */
  readonly trains: boolean;
}

/** @throws TunnelError */
export function openSockets(parameters: SocketParameters, receiverCount: number): TunnelSockets {
  const receivers: number[] = [];
  try {
    // The first is bound like one that shares its port with nobody, so that a stranger's is noticed.
    const first = openReceiver(parameters, false);
    receivers.push(first);
    if (receiverCount > 1) requireOption(first, SOL_SOCKET, SO_REUSEPORT, 1, 'SO_REUSEPORT');
    while (receivers.length < receiverCount) receivers.push(openReceiver(parameters, true));
    return { receivers, ...openSenders(parameters) };
  } catch (error) {
    for (const fd of receivers) close(fd);
    throw error;
  }
}

/** Receivers that were taken over, and senders of our own. @throws TunnelError */
export function adoptReceivers(parameters: SocketParameters, receivers: readonly number[]): TunnelSockets {
  return { receivers, ...openSenders(parameters) };
}

export function closeSockets(sockets: TunnelSockets): void {
  for (const fd of [...sockets.receivers, ...sockets.senders, sockets.pathProbe]) close(fd);
}

function openSenders(parameters: SocketParameters): Omit<TunnelSockets, 'receivers'> {
  const opened: number[] = [];
  try {
    while (opened.length < SOURCE_PORTS + 1) opened.push(openSender(parameters));
  } catch (error) {
    for (const fd of opened) close(fd);
    throw error;
  }
  const [pathProbe = -1, ...senders] = opened;
  // Setting a segment size of 0 changes nothing, and fails where the kernel has none.
  const trains = senders.every((fd) => setOption(fd, SOL_UDP, UDP_SEGMENT, 0));
  return { senders, pathProbe, trains };
}

function openReceiver(parameters: SocketParameters, shared: boolean): number {
  return opened(parameters, (fd, isIpv4) => {
    if (shared) requireOption(fd, SOL_SOCKET, SO_REUSEPORT, 1, 'SO_REUSEPORT');
    setBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    // Without it packets come one by one.
    setOption(fd, SOL_UDP, UDP_GRO, 1);
    if (isIpv4) requireOption(fd, IPPROTO_IP, IP_PKTINFO, 1, 'IP_PKTINFO');
    else requireOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, 'IPV6_RECVPKTINFO');
    return parameters.port;
  });
}

function openSender(parameters: SocketParameters): number {
  return opened(parameters, (fd, isIpv4) => {
    setBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
    // "Don't fragment", and an error instead of a packet that the path is known not to take.
    if (isIpv4) requireOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO, 'IP_MTU_DISCOVER');
    else {
      requireOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO, 'IPV6_MTU_DISCOVER');
      requireOption(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1, 'IPV6_DONTFRAG');
    }
    takeNothing(fd);
    return 0;
  });
}

/** `prepare` sets options and says the port. */
function opened(parameters: SocketParameters, prepare: (fd: number, isIpv4: boolean) => number): number {
  const { local, mark } = parameters;
  const isIpv4 = familyOf(local) === 'ipv4';
  const fd = socket(isIpv4 ? AF_INET : AF_INET6, SOCK_DGRAM_CLOEXEC_NONBLOCK, 0);
  if (fd < 0) throw refused(`a UDP socket cannot be opened: ${errnoName(lastErrno())}`);
  try {
    if (mark !== 0) requireOption(fd, SOL_SOCKET, SO_MARK, mark, 'SO_MARK');
    // The address may be away for a while, as that of an interface that goes down and up again.
    if (isIpv4) requireOption(fd, IPPROTO_IP, IP_FREEBIND, 1, 'IP_FREEBIND');
    else {
      requireOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, 'IPV6_V6ONLY');
      setOption(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
    }
    const port = prepare(fd, isIpv4);
    const address = socketAddress(local, port);
    if (bind(fd, address, address.length) < 0) throw bindFailure(lastErrno(), local, port);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

function bindFailure(errno: number, local: Address, port: number): TunnelError {
  const where = familyOf(local) === 'ipv6' ? `[${local}]:${port}` : `${local}:${port}`;
  const what = `UDP ${where} cannot be bound: ${errnoName(errno)}`;
  if (errno !== EADDRINUSE) return refused(what);
  return refused(
    `${what}. A kernel vxlan device or another program has the port ("ss -lunp sport = ${port}")`,
  );
}

const refused = (message: string): TunnelError => new TunnelError('VTEPD_TUNNEL_SOCKET', message);

function requireOption(fd: number, level: number, option: number, value: number, name: string): void {
  if (setOption(fd, level, option, value)) return;
  const errno = lastErrno();
  const remedy = errno === EPERM || errno === EACCES ? ' (it takes CAP_NET_ADMIN)' : '';
  throw refused(`a UDP socket refuses ${name}: ${errnoName(errno)}${remedy}`);
}

function setOption(fd: number, level: number, option: number, value: number): boolean {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return setsockopt(fd, level, option, bytes, bytes.length) === 0;
}

/** Past net.core.*mem_max where we may, up to it elsewhere. */
function setBuffer(fd: number, force: number, plain: number): void {
  if (!setOption(fd, SOL_SOCKET, force, BUFFER_BYTES)) setOption(fd, SOL_SOCKET, plain, BUFFER_BYTES);
}

/** A filter of one instruction, "return 0" (struct sock_filter). */
const RETURN_0 = Buffer.alloc(72);
RETURN_0.writeUInt16LE(0x06, 0);
/** struct sock_fprog. */
const FILTER = Buffer.alloc(16);
FILTER.writeUInt16LE(1, 0);

/** Whatever is sent to a socket that nobody reads is dropped at once. */
function takeNothing(fd: number): void {
  // Named here, RETURN_0 stays: a constant of a module that no function names is collected once the module has run, and
  // the kernel read what came to lie in its place.
  FILTER.writeBigUInt64LE(BigInt(addressOf(RETURN_0)), 8);
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, FILTER, FILTER.length) < 0) {
    throw refused(`a UDP socket refuses a filter: ${errnoName(lastErrno())}`);
  }
}

/** Where a socket is bound; undefined for what is no such socket. */
export function boundTo(fd: number): Buffer | undefined {
  const out = Buffer.alloc(28);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(out.length);
  if (getsockname(fd, out, length) < 0) return undefined;
  return out.subarray(0, length.readUInt32LE());
}

/** SO_MARK. */
export function markOf(fd: number): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  return getsockopt(fd, SOL_SOCKET, SO_MARK, value, length) < 0 ? 0 : value.readUInt32LE();
}

/** Packets that the kernel dropped because the socket's buffer was full; since the socket was opened. */
export function droppedByKernel(fd: number): number {
  const numbers = Buffer.alloc(36);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(numbers.length);
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, numbers, length) < 0) return 0;
  return numbers.readUInt32LE(4 * SK_MEMINFO_DROPS);
}

/** The path MTU to where a connected socket sends; 0: not known. */
export function pathMtuOf(fd: number, isIpv4: boolean): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  const [level, option] = isIpv4 ? [IPPROTO_IP, IP_MTU] : [IPPROTO_IPV6, IPV6_MTU];
  return getsockopt(fd, level, option, value, length) < 0 ? 0 : value.readUInt32LE();
}
