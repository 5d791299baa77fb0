/**
 * Which flow an inner frame belongs to, as a number: by it the sending socket, and so the outer source port, is
 * chosen (RFC 7348, section 4.2), so that routers and network cards spread flows and keep each one in order.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from './ethernet.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from './ipv4.ts';

/** Murmur3's finalizer: every bit of the input moves about half of the output's. */
export function mix(value: number): number {
  let x = value;
  x = Math.imul(x ^ (x >>> 16), 0x85eb_ca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2_ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/**
 * Addresses, protocol and, where a packet has them, ports; MAC addresses for what is not IP. All fragments of a packet
 * have one hash. @param lengthBytes at least 14
 */
export function flowHash(view: DataView, frame: number, lengthBytes: number): number {
  const end = frame + lengthBytes;
  let type = view.getUint16(frame + 12);
  let ip = frame + 14;
  if ((type === 0x8100 || type === 0x88a8) && ip + 4 <= end) {
    type = view.getUint16(frame + 16);
    ip += 4;
  }
  if (type === ETHERTYPE_IPV4 && ip + 20 <= end) {
    const protocol = view.getUint8(ip + 9);
    let hash = mix(view.getUint32(ip + 12) ^ protocol);
    hash = mix(hash ^ view.getUint32(ip + 16));
    const transport = ip + (view.getUint8(ip) & 15) * 4;
    const isFragment = (view.getUint16(ip + 6) & 0x3fff) !== 0;
    return isFragment ? hash : ports(view, hash, protocol, transport, end);
  }
  if (type === ETHERTYPE_IPV6 && ip + 40 <= end) {
    const protocol = view.getUint8(ip + 6);
    let hash = protocol === 44 ? 0 : protocol;
    for (let at = ip + 8; at < ip + 40; at += 4) hash = mix(hash ^ view.getUint32(at));
    return ports(view, hash, protocol, ip + 40, end);
  }
  return mix(mix(view.getUint32(frame)) ^ mix(view.getUint32(frame + 4)) ^ view.getUint32(frame + 8));
}

function ports(view: DataView, hash: number, protocol: number, transport: number, end: number): number {
  if ((protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) || transport + 4 > end) return hash;
  return mix(hash ^ view.getUint32(transport));
}
