/**
 * Frames as bytes, honest or forged: tests say exactly what is on the wire. Written apart from encap/wire,
 * which is tested elsewhere: a mistake there must not hide one here.
 */
import { type Address, addressBytes, familyOf, type Mac, macBytes } from '../../../store/address.ts';

export const IPV4 = 0x0800;
export const ARP = 0x0806;
export const IPV6 = 0x86dd;
export const VLAN = 0x8100;

const UDP = 17;
const ICMPV6 = 58;

export interface Ends<T> {
  readonly from: T;
  readonly to: T;
}

const u16 = (value: number): Buffer => Buffer.from([value >>> 8, value & 0xff]);
const u32 = (value: number): Buffer => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)]);

export const ethernet = (macs: Ends<Mac>, type: number, payload: Uint8Array): Buffer =>
  Buffer.concat([macBytes(macs.to), macBytes(macs.from), u16(type), payload]);

/** A frame with the addresses' own protocol. */
export const packet = (macs: Ends<Mac>, ip: Ends<Address>, protocol: number, payload: Buffer): Buffer =>
  ethernet(macs, typeOf(ip), ipPacket(ip, protocol, payload));

/** A UDP datagram in a packet in a frame, with its checksum. */
export const udp = (macs: Ends<Mac>, ip: Ends<Address>, ports: Ends<number>, payload: Uint8Array): Buffer =>
  packet(macs, ip, UDP, datagram(ip, ports, payload));

/** The same in fragments, of which the first has this many bytes (a multiple of 8) of the datagram. */
export function udpFragments(
  macs: Ends<Mac>,
  ip: Ends<Address>,
  ports: Ends<number>,
  payload: Uint8Array,
  firstBytes: number,
): Buffer[] {
  const whole = datagram(ip, ports, payload);
  const id = Math.floor(Math.random() * 0xffff);
  return [whole.subarray(0, firstBytes), whole.subarray(firstBytes)].map((part, i) => {
    const offset = i === 0 ? 0 : firstBytes;
    const more = i === 0;
    if (familyOf(ip.from) === 'ipv4') {
      const field = (offset >>> 3) | (more ? 0x2000 : 0);
      return ethernet(macs, IPV4, Buffer.concat([ipv4Header(ip, UDP, part.length, id, field), part]));
    }
    const fragment = Buffer.concat([Buffer.from([UDP, 0]), u16(offset | (more ? 1 : 0)), u32(id)]);
    return packet(macs, ip, 44, Buffer.concat([fragment, part]));
  });
}

/** RFC 7348: flags with the I bit, the VNI, the inner frame. */
export const vxlan = (vni: number, frame: Uint8Array): Buffer =>
  Buffer.concat([u32(0x08000000), u32(vni << 8), frame]);

export const arp = (
  macs: Ends<Mac>,
  operation: 1 | 2,
  sender: { readonly mac: Mac; readonly address: Address },
  target: { readonly mac: Mac; readonly address: Address },
): Buffer =>
  ethernet(
    macs,
    ARP,
    Buffer.concat([
      Buffer.from([0, 1, 8, 0, 6, 4, 0, operation]),
      macBytes(sender.mac),
      addressBytes(sender.address),
      macBytes(target.mac),
      addressBytes(target.address),
    ]),
  );

/**
 * An ICMPv6 message of this type about a target, as neighbour solicitation and advertisement are (RFC 4861).
 * `more` stands where options do: a bridge may cut off what comes after a packet.
 */
export function ndp(
  macs: Ends<Mac>,
  ip: Ends<Address>,
  type: number,
  target: Address,
  more: Uint8Array,
): Buffer {
  const message = Buffer.concat([Buffer.from([type, 0, 0, 0, 0, 0, 0, 0]), addressBytes(target), more]);
  checksum(ip, ICMPV6, message).copy(message, 2);
  return ethernet(macs, IPV6, Buffer.concat([ipv6Header(ip, ICMPV6, message.length, 255), message]));
}

export const broadcast = 'ff:ff:ff:ff:ff:ff' as Mac;

const typeOf = (ip: Ends<Address>): number => (familyOf(ip.from) === 'ipv4' ? IPV4 : IPV6);

function datagram(ip: Ends<Address>, ports: Ends<number>, payload: Uint8Array): Buffer {
  const bytes = Buffer.concat([u16(ports.from), u16(ports.to), u16(8 + payload.length), u16(0), payload]);
  checksum(ip, UDP, bytes).copy(bytes, 6);
  return bytes;
}

function ipPacket(ip: Ends<Address>, protocol: number, payload: Buffer): Buffer {
  const header =
    familyOf(ip.from) === 'ipv4'
      ? ipv4Header(ip, protocol, payload.length, 0, 0)
      : ipv6Header(ip, protocol, payload.length, 64);
  return Buffer.concat([header, payload]);
}

function ipv4Header(
  ip: Ends<Address>,
  protocol: number,
  length: number,
  id: number,
  fragment: number,
): Buffer {
  const header = Buffer.concat([
    Buffer.from([0x45, 0]),
    u16(20 + length),
    u16(id),
    u16(fragment),
    Buffer.from([64, protocol, 0, 0]),
    addressBytes(ip.from),
    addressBytes(ip.to),
  ]);
  u16(folded(header)).copy(header, 10);
  return header;
}

const ipv6Header = (ip: Ends<Address>, protocol: number, length: number, hopLimit: number): Buffer =>
  Buffer.concat([
    u32(0x60000000),
    u16(length),
    Buffer.from([protocol, hopLimit]),
    addressBytes(ip.from),
    addressBytes(ip.to),
  ]);

/** With the pseudo-header; the field itself must be zero. */
function checksum(ip: Ends<Address>, protocol: number, bytes: Buffer): Buffer {
  const pseudo = [addressBytes(ip.from), addressBytes(ip.to), u32(bytes.length), u32(protocol)];
  const sum = folded(Buffer.concat([...pseudo, bytes]));
  return u16(sum === 0 ? 0xffff : sum);
}

/** The ones' complement of the ones' complement sum (RFC 1071). */
function folded(bytes: Buffer): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
