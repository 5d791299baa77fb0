/**
 * Addresses, subnets and MAC addresses, as precise types made once at the edge.
 *
 * An address is kept as its canonical text (RFC 5952 for IPv6): equality is `===`, it is a map key as it
 * stands, and it prints as people write it. Arithmetic goes through bigint. Every lease of the cluster is
 * parsed by this file, so it is written for 50,000 of them (1 µs a subnet; a general library takes 20 to
 * 60 µs), and a test holds it against such a library.
 */

import { printable } from './printable.ts';

export type Family = 'ipv4' | 'ipv6';
export const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** One value a family; a family that is not in use is absent. */
export type PerFamily<T> = { readonly [F in Family]?: T | undefined };

declare const brand: unique symbol;
/** Canonical text of an IPv4 or IPv6 address. */
export type Address = string & { readonly [brand]: 'Address' };
/** Lower-case, colon-separated Ethernet address. */
export type Mac = string & { readonly [brand]: 'Mac' };

/** A network: `address` is its first address, host bits zero. */
export interface Subnet {
  readonly family: Family;
  readonly address: Address;
  readonly prefixLength: number;
}

/** The text is not the address, subnet or MAC address that it should be. */
export class AddressError extends Error {
  readonly code = 'VTEPD_BAD_ADDRESS';
  override readonly name = 'AddressError';
}

export const addressBits = (family: Family): number => (family === 'ipv4' ? 32 : 128);

export const familyOf = (address: Address): Family => (address.includes(':') ? 'ipv6' : 'ipv4');

/** Parses an IPv4 (four decimal octets, no leading zeros) or IPv6 (RFC 4291, no zone) address. */
export function tryAddress(text: string): Address | undefined {
  if (text.length > 45) return undefined;
  if (text.includes(':')) {
    const value = ipv6Value(text);
    return value === undefined ? undefined : addressFromValue('ipv6', value);
  }
  return ipv4Value(text) === undefined ? undefined : (text as Address);
}

/** @throws AddressError */
export function parseAddress(text: string): Address {
  const address = tryAddress(text);
  if (address === undefined) throw new AddressError(`"${printable(text)}" is not an IPv4 or IPv6 address`);
  return address;
}

/** Parses `address/length`. Host bits must be zero: a subnet has one spelling. @throws AddressError */
export function parseSubnet(text: string): Subnet {
  const slash = text.lastIndexOf('/');
  const prefixLength = slash < 0 ? undefined : decimal(text.slice(slash + 1), 3);
  const address = slash < 0 ? undefined : tryAddress(text.slice(0, slash));
  if (address === undefined || prefixLength === undefined) {
    throw new AddressError(`"${printable(text)}" is not a subnet such as 10.244.0.0/16 or fc00::/48`);
  }
  const family = familyOf(address);
  if (prefixLength > addressBits(family)) {
    throw new AddressError(`"${printable(text)}": a prefix length is at most ${addressBits(family)}`);
  }
  const subnet = subnetOf(address, prefixLength);
  if (subnet.address !== address) {
    throw new AddressError(`"${printable(text)}" has host bits set; the subnet is ${formatSubnet(subnet)}`);
  }
  return subnet;
}

/** The subnet of this length that holds the address. */
export function subnetOf(address: Address, prefixLength: number): Subnet {
  const family = familyOf(address);
  const bytes = addressBytes(address);
  // Most are first addresses already: their text is there.
  const isFirst = !clearFrom(bytes, prefixLength);
  return { family, address: isFirst ? address : addressFromBytes(bytes), prefixLength };
}

/** @returns whether a bit from this one on was set */
function clearFrom(bytes: Uint8Array, bit: number): boolean {
  let found = false;
  for (let at = bit >> 3; at < bytes.length; at++) {
    const host = at === bit >> 3 ? 0xff >> (bit & 7) : 0xff;
    const byte = bytes[at] ?? 0;
    if ((byte & host) === 0) continue;
    found = true;
    bytes[at] = byte & ~host;
  }
  return found;
}

export const formatSubnet = (subnet: Subnet): string => `${subnet.address}/${subnet.prefixLength}`;

export const sameSubnet = (a: Subnet, b: Subnet): boolean =>
  a.address === b.address && a.prefixLength === b.prefixLength;

export function subnetContains(outer: Subnet, inner: Address | Subnet): boolean {
  const [address, length] =
    typeof inner === 'string' ? [inner, addressBits(familyOf(inner))] : [inner.address, inner.prefixLength];
  return familyOf(address) === outer.family && length >= outer.prefixLength && sharesPrefix(outer, address);
}

export const subnetsOverlap = (a: Subnet, b: Subnet): boolean =>
  a.prefixLength <= b.prefixLength ? subnetContains(a, b) : subnetContains(b, a);

function sharesPrefix(outer: Subnet, address: Address): boolean {
  const [a, b] = [addressBytes(address), addressBytes(outer.address)];
  const whole = outer.prefixLength >> 3;
  for (let at = 0; at < whole; at++) if (a[at] !== b[at]) return false;
  const rest = outer.prefixLength & 7;
  return rest === 0 || ((a[whole] ?? 0) ^ (b[whole] ?? 0)) >> (8 - rest) === 0;
}

/** How many addresses the subnet holds, network and broadcast included. */
export const subnetSize = (subnet: Subnet): bigint =>
  1n << BigInt(addressBits(subnet.family) - subnet.prefixLength);

/** The address `offset` places after the subnet's first; negative counts back from the one after its last. */
export function addressAt(subnet: Subnet, offset: number | bigint): Address {
  const place = BigInt(offset);
  const fromStart = place < 0n ? subnetSize(subnet) + place : place;
  if (fromStart < 0n || fromStart >= subnetSize(subnet)) {
    throw new RangeError(`${formatSubnet(subnet)} has no address ${offset}`);
  }
  return addressFromValue(subnet.family, addressValue(subnet.address) + fromStart);
}

export function addressValue(address: Address): bigint {
  if (address.includes(':')) {
    const words = new DataView(ipv6Bytes(address).buffer);
    return (words.getBigUint64(0) << 64n) | words.getBigUint64(8);
  }
  const value = ipv4Value(address);
  if (value === undefined) throw new AddressError(`"${printable(address)}" is not an address`);
  return BigInt(value);
}

export function addressFromValue(family: Family, value: bigint): Address {
  if (family === 'ipv4') {
    const n = Number(value);
    return `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}` as Address;
  }
  const words: number[] = [];
  for (let shift = 112n; shift >= 0n; shift -= 16n) words.push(Number((value >> shift) & 0xffffn));
  return ipv6Text(words);
}

/** Network byte order; 4 or 16 bytes. */
export function addressBytes(address: Address): Uint8Array {
  if (!address.includes(':')) {
    const value = ipv4Value(address) ?? 0;
    return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
  }
  return ipv6Bytes(address);
}

/**
 * Of an Address, which is written as ipv6Text does: a general parser, and big integers, would make IPv6 peers
 * cost half as much again as IPv4 ones.
 */
function ipv6Bytes(address: Address): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16);
  let [end, gap, word, digits] = [0, -1, 0, 0];
  for (let i = 0; i <= address.length; i++) {
    const code = i < address.length ? address.charCodeAt(i) : COLON;
    if (code !== COLON) {
      word = (word << 4) | (code <= NINE ? code - ZERO : code - TEN);
      digits++;
      continue;
    }
    // A colon with no digits before it is the second of `::`, or the end behind that.
    if (digits > 0) {
      bytes[end++] = word >>> 8;
      bytes[end++] = word & 255;
    } else if (i < address.length) gap = end;
    [word, digits] = [0, 0];
  }
  if (gap < 0) return bytes;
  const tail = 16 - (end - gap);
  return bytes.copyWithin(tail, gap, end).fill(0, gap, tail);
}

/** Characters; `a` is ten. */
const [COLON, ZERO, NINE, TEN] = [58, 48, 57, 97 - 10];

/** @throws AddressError unless there are 4 or 16 bytes */
export function addressFromBytes(bytes: Uint8Array): Address {
  if (bytes.length === 4) return bytes.join('.') as Address;
  if (bytes.length !== 16) throw new AddressError(`an address has 4 or 16 bytes, not ${bytes.length}`);
  const words: number[] = [];
  for (let i = 0; i < 16; i += 2) words.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  return ipv6Text(words);
}

export const isLoopback = (address: Address): boolean => address.startsWith('127.') || address === '::1';

export const isUnspecified = (address: Address): boolean => address === '0.0.0.0' || address === '::';

export const isLinkLocal = (address: Address): boolean =>
  address.startsWith('169.254.') || /^fe[89ab][0-9a-f]:/.test(address);

export function isMulticast(address: Address): boolean {
  if (address.includes(':')) return address.startsWith('ff') && address.indexOf(':') === 4;
  const first = Number(address.slice(0, address.indexOf('.')));
  return first >= 224 && first <= 239;
}

/** An address that one host can have and another can send to. */
export const isUnicast = (address: Address): boolean =>
  !(isMulticast(address) || isUnspecified(address) || address === '255.255.255.255');

const MAC_PATTERN = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

export function tryMac(text: string): Mac | undefined {
  const lower = text.length === 17 ? text.toLowerCase() : '';
  return MAC_PATTERN.test(lower) ? (lower as Mac) : undefined;
}

/** @throws AddressError */
export function parseMac(text: string): Mac {
  const mac = tryMac(text);
  if (mac === undefined) throw new AddressError(`"${printable(text)}" is not a MAC address`);
  return mac;
}

/** Neither zero nor a group address: one that an interface can have (IEEE 802: bit 0 of the first octet). */
export const isUnicastMac = (mac: Mac): boolean =>
  mac !== '00:00:00:00:00:00' && (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0;

export function macBytes(mac: Mac): Uint8Array {
  const bytes = new Uint8Array(6);
  for (let i = 0; i < 6; i++) bytes[i] = 16 * hexDigit(mac, 3 * i) + hexDigit(mac, 3 * i + 1);
  return bytes;
}

/** Of a lower-case digit: `0` is 48, `a` is 97. */
function hexDigit(text: string, place: number): number {
  const code = text.charCodeAt(place);
  return code < 97 ? code - 48 : code - 87;
}

const OCTETS = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, '0'));

/** @throws AddressError unless there are 6 bytes */
export function macFromBytes(bytes: Uint8Array): Mac {
  if (bytes.length !== 6) throw new AddressError(`a MAC address has 6 bytes, not ${bytes.length}`);
  let text = OCTETS[bytes[0] ?? 0] ?? '';
  for (let i = 1; i < 6; i++) text += `:${OCTETS[bytes[i] ?? 0]}`;
  return text as Mac;
}

/** Six random bytes made a locally administered unicast address (IEEE 802: bits 1 and 0 of the first). */
export function localMac(random: Uint8Array): Mac {
  const bytes = Uint8Array.from(random.subarray(0, 6));
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return macFromBytes(bytes);
}

function ipv4Value(text: string): number | undefined {
  let value = 0;
  let octets = 0;
  let digits = 0;
  let octet = 0;
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? 46 : text.charCodeAt(i);
    if (code === 46) {
      if (digits === 0 || octet > 255 || ++octets > 4) return undefined;
      value = value * 256 + octet;
      digits = 0;
      octet = 0;
    } else {
      if (code < 48 || code > 57 || digits === 3 || (digits > 0 && octet === 0)) return undefined;
      octet = octet * 10 + code - 48;
      digits++;
    }
  }
  return octets === 4 ? value : undefined;
}

function ipv6Value(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = ipv6Words(halves[0] ?? '', halves.length === 1);
  const tail = halves.length === 2 ? ipv6Words(halves[1] ?? '', true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  let value = 0n;
  for (const word of [...head, ...Array<number>(missing).fill(0), ...tail])
    value = (value << 16n) | BigInt(word);
  return value;
}

/** The 16-bit words of one side of a `::`; its last may be written as an IPv4 address where `endsHere`. */
function ipv6Words(text: string, endsHere: boolean): number[] | undefined {
  if (text === '') return [];
  const words: number[] = [];
  const parts = text.split(':');
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(part)) {
      words.push(Number.parseInt(part, 16));
      continue;
    }
    const ipv4 = endsHere && i === parts.length - 1 ? ipv4Value(part) : undefined;
    if (ipv4 === undefined) return undefined;
    words.push(Math.floor(ipv4 / 65536), ipv4 % 65536);
  }
  return words.length <= 8 ? words : undefined;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero words as `::`. */
function ipv6Text(words: readonly number[]): Address {
  let start = -1;
  let longest = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && words[end] === 0) end++;
    if (end - i > longest) [start, longest] = [i, end - i];
    i = Math.max(i, end - 1);
  }
  const text = (from: number, to: number) =>
    words
      .slice(from, to)
      .map((word) => word.toString(16))
      .join(':');
  return (start < 0 ? text(0, 8) : `${text(0, start)}::${text(start + longest, 8)}`) as Address;
}

/** A plain decimal number of at most `digits` digits, without leading zeros. */
function decimal(text: string, digits: number): number | undefined {
  return /^(0|[1-9][0-9]*)$/.test(text) && text.length <= digits ? Number(text) : undefined;
}
