/** The TAP device: `ip tuntap add mode tap multi_queue vnet_hdr name NAME`, and its queues. */
import { close, errnoName } from '../../overlay/kernel/libc.ts';
import { TunnelError } from '../tunnel-types.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import {
  EBADFD,
  EBUSY,
  EINVAL,
  ioctl,
  ioctlValue,
  lastErrno,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  open,
} from './calls.ts';

// linux/if_tun.h: _IOW('T', n, int), and TUNGETIFF's _IOR.
const TUNSETIFF = 0x4004_54ca;
const TUNSETPERSIST = 0x4004_54cb;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNGETIFF = 0x8004_54d2;
const TUNSETVNETHDRSZ = 0x4004_54d8;

const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;

/** What the kernel may leave to us: checksums, and cutting TCP (also with ECN) and, from Linux 6.2 on, UDP. */
const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_TSO_ECN = 0x08;
const TUN_F_USO = 0x60;
const OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;

export interface Tap {
  readonly device: string;
  /** Not blocking; the owner closes them. */
  readonly queues: readonly number[];
  /** The kernel takes and gives large UDP frames (USO). */
  readonly largeUdp: boolean;
}

/** @throws TunnelError */
export function openTap(device: string, queueCount: number): Tap {
  const queues: number[] = [];
  try {
    while (queues.length < queueCount) queues.push(openQueue(device));
    for (const queue of queues) {
      if (ioctlValue(queue, TUNSETPERSIST, 1) < 0) throw failed('TUNSETPERSIST', lastErrno());
    }
    return { device, queues, largeUdp: setOffloads(queues) };
  } catch (error) {
    for (const queue of queues) close(queue);
    throw error;
  }
}

/** Offload headers and offloads, as `openTap` sets them, on queues that were taken over. @throws TunnelError */
export function adoptTap(device: string, queues: readonly number[]): Tap {
  return { device, queues, largeUdp: setOffloads(queues) };
}

/** The device a queue belongs to; undefined: it is no queue, or the device is gone. */
export function tapOf(queue: number): string | undefined {
  const request = Buffer.alloc(IFREQ_BYTES);
  if (ioctl(queue, TUNGETIFF, request) < 0) return undefined;
  const flags = request.readUInt16LE(IFNAMSIZ);
  if ((flags & FLAGS) !== FLAGS) return undefined;
  return request.toString('latin1', 0, request.indexOf(0));
}

/** The device goes when its last queue is closed: `ip link del NAME`. */
export function removeWithLastQueue(tap: Tap): void {
  const [queue] = tap.queues;
  // A device that is gone already is what is wanted.
  if (queue !== undefined) ioctlValue(queue, TUNSETPERSIST, 0);
}

function openQueue(device: string): number {
  const queue = open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (queue < 0) {
    throw new TunnelError(
      'VTEPD_TUNNEL_NO_TUN',
      `/dev/net/tun cannot be opened: ${errnoName(lastErrno())}. The user-space data path needs it: load the ` +
        'kernel module "tun", and give the daemon this device where it runs in a container',
    );
  }
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(device, 0, IFNAMSIZ - 1, 'latin1');
  request.writeUInt16LE(FLAGS, IFNAMSIZ);
  if (ioctl(queue, TUNSETIFF, request) < 0) {
    const errno = lastErrno();
    close(queue);
    throw new TunnelError(
      'VTEPD_TUNNEL_DEVICE',
      `${device} cannot be opened as a TAP device: ${reason(errno)}`,
    );
  }
  return queue;
}

function reason(errno: number): string {
  const name = errnoName(errno);
  if (errno === EINVAL) {
    return `${name}: a device of another kind has this name; remove it ("ip link del") or choose another name`;
  }
  if (errno === EBUSY) return `${name}: another process has it open`;
  if (errno === EBADFD) return `${name}: the device was taken away meanwhile`;
  return name;
}

/** @returns whether UDP is among them */
function setOffloads(queues: readonly number[]): boolean {
  const headerBytes = Buffer.alloc(4);
  headerBytes.writeInt32LE(VNET_HEADER_BYTES);
  for (const queue of queues) {
    if (ioctl(queue, TUNSETVNETHDRSZ, headerBytes) < 0) throw failed('TUNSETVNETHDRSZ', lastErrno());
  }
  const [first] = queues;
  if (first === undefined) return false;
  if (ioctlValue(first, TUNSETOFFLOAD, OFFLOADS | TUN_F_USO) >= 0) return true;
  if (ioctlValue(first, TUNSETOFFLOAD, OFFLOADS) < 0) throw failed('TUNSETOFFLOAD', lastErrno());
  return false;
}

const failed = (what: string, errno: number): TunnelError =>
  new TunnelError('VTEPD_TUNNEL_DEVICE', `the TAP device refuses ${what}: ${errnoName(errno)}`);
