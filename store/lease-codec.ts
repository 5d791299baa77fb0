/**
 * A lease as flannel stores it in etcd, byte for byte, so that nodes of both can share a cluster.
 *
 *   key    10.244.5.0-24                           one family
 *          10.244.5.0-24&fc00:0:0:5::-64           both
 *          0.0.0.0-0&fc00:0:0:5::-64               IPv6 only (flannel writes the absent IPv4 subnet as zero)
 *   value  {"PublicIP":"192.0.2.5","PublicIPv6":null,"BackendType":"vxlan",
 *           "BackendData":{"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"},"BackendV6Data":{...}}
 *
 * PublicIP is always there (0.0.0.0 without IPv4) and PublicIPv6 is null without IPv6; the others are left
 * out when empty. Field names are read regardless of case, as Go's decoder does. flannel keeps the VNI in
 * 16 bits: a larger one is legal here, but a flannel node cannot read that lease.
 *
 * Everything read here is hostile input: whatever it is, the answer is a lease or a named reason.
 */
import {
  type Address,
  type Family,
  familyOf,
  type PerFamily,
  parseSubnet,
  type Subnet,
  tryAddress,
  tryMac,
} from './address.ts';
import { jsonDepthExceeds, withFieldNames } from './json-text.ts';
import type { Lease, LeaseAttributes, MalformedLease, Vtep } from './lease.ts';
import { printable } from './printable.ts';

/** A real lease takes some 200 bytes; what is twenty times that was not written by a node of the cluster. */
export const MAX_LEASE_BYTES = 4096;
/** A real lease is 2 deep; unknown fields may be deeper. */
const MAX_DEPTH = 16;
const MAX_VNI = 2 ** 24 - 1;
/** What flannel takes for VNI when the configuration, or a lease of its old versions, has none. */
const DEFAULT_VNI = 1;
/** An absent IPv4 subnet in the key of an IPv6-only lease. */
const NO_IPV4 = '0.0.0.0-0';

const FIELDS = ['PublicIP', 'PublicIPv6', 'BackendType', 'BackendData', 'BackendV6Data'] as const;
const VTEP_FIELDS = ['VNI', 'VtepMAC'] as const;

/** What is wrong with a field. Its message is the lease's reason: our words, with nothing of the hostile value. */
class FieldError extends Error {}

function refuse(field: string, problem: string): never {
  throw new FieldError(`${field}: ${problem}`);
}

/** Go writes an absent field as null, or not at all. */
const isAbsent = (value: unknown): value is undefined | null => value === undefined || value === null;

function readAddress(field: string, value: unknown, family: Family): Address | undefined {
  if (isAbsent(value)) return undefined;
  const address = typeof value === 'string' ? tryAddress(value) : undefined;
  if (address !== undefined && familyOf(address) === family) return address;
  return refuse(field, `not an ${family === 'ipv4' ? 'IPv4' : 'IPv6'} address`);
}

function readBackend(value: unknown): string {
  if (isAbsent(value)) return '';
  if (typeof value !== 'string') return refuse('BackendType', 'not text');
  return /^[\w.-]{0,32}$/.test(value) ? value : refuse('BackendType', 'not a backend name');
}

function readVtep(field: string, value: unknown): Vtep | undefined {
  if (isAbsent(value)) return undefined;
  if (!isObject(value)) return refuse(field, 'not an object');
  const { VNI: vni = DEFAULT_VNI, VtepMAC } = withFieldNames(value, VTEP_FIELDS);
  if (typeof vni !== 'number' || !Number.isInteger(vni)) return refuse(`${field}.VNI`, 'not a whole number');
  if (vni < 1) return refuse(`${field}.VNI`, 'less than 1');
  if (vni > MAX_VNI) return refuse(`${field}.VNI`, `more than ${MAX_VNI}`);
  if (typeof VtepMAC !== 'string') return refuse(`${field}.VtepMAC`, 'missing or not text');
  return { vni, mac: tryMac(VtepMAC) ?? refuse(`${field}.VtepMAC`, 'not a MAC address') };
}

export const isMalformed = (decoded: Lease | MalformedLease): decoded is MalformedLease =>
  'reason' in decoded;

/** The key as it may be shown, and as the lease is known by: a well-formed key is its own name. */
export const leaseName = (key: string): string => printable(key, 128);

/** The subnets that a key names; undefined if flannel would not have written it so. */
export function decodeLeaseKey(key: string): PerFamily<Subnet> | undefined {
  const parts = key.split('&');
  const ipv4 = parts[0] === NO_IPV4 ? undefined : keySubnet(parts[0]);
  const ipv6 = keySubnet(parts[1]);
  const subnets: PerFamily<Subnet> = {
    ...(ipv4?.family === 'ipv4' && { ipv4 }),
    ...(ipv6?.family === 'ipv6' && { ipv6 }),
  };
  return (subnets.ipv4 ?? subnets.ipv6) !== undefined && encodeLeaseKey(subnets) === key
    ? subnets
    : undefined;
}

/** The key of a lease. At least one family must be there. */
export function encodeLeaseKey(subnets: PerFamily<Subnet>): string {
  const part = (subnet: Subnet) => `${subnet.address}-${subnet.prefixLength}`;
  const ipv4 = subnets.ipv4 === undefined ? NO_IPV4 : part(subnets.ipv4);
  return subnets.ipv6 === undefined ? ipv4 : `${ipv4}&${part(subnets.ipv6)}`;
}

function keySubnet(part: string | undefined): Subnet | undefined {
  const dash = part?.lastIndexOf('-') ?? -1;
  if (part === undefined || dash < 0 || part.length > 64) return undefined;
  try {
    const subnet = parseSubnet(`${part.slice(0, dash)}/${part.slice(dash + 1)}`);
    return subnet.prefixLength === 0 ? undefined : subnet;
  } catch {
    return undefined;
  }
}

/** Reads a stored lease. Never throws: what cannot be read is a MalformedLease with a short reason. */
export function decodeLease(key: string, value: Uint8Array | string): Lease | MalformedLease {
  const subnets = decodeLeaseKey(key);
  if (subnets === undefined) return { key: leaseName(key), reason: 'the key does not name a subnet' };
  const attributes = decodeAttributes(value);
  return typeof attributes === 'string' ? { key, reason: attributes } : { key, subnets, attributes };
}

/** The attributes, or the reason why they cannot be read. */
export function decodeAttributes(value: Uint8Array | string): LeaseAttributes | string {
  const raw = parseObject(value);
  if (typeof raw === 'string') return raw;
  try {
    return readAttributes(withFieldNames(raw, FIELDS));
  } catch (error) {
    if (error instanceof FieldError) return error.message;
    throw error;
  }
}

function readAttributes(fields: Readonly<Record<string, unknown>>): LeaseAttributes | string {
  const ipv4 = readAddress('PublicIP', fields.PublicIP, 'ipv4');
  const ipv6 = readAddress('PublicIPv6', fields.PublicIPv6, 'ipv6');
  const backend = readBackend(fields.BackendType);
  const isVxlan = backend === 'vxlan';
  const vtep4 = isVxlan ? readVtep('BackendData', fields.BackendData) : undefined;
  const vtep6 = isVxlan ? readVtep('BackendV6Data', fields.BackendV6Data) : undefined;
  const publicAddress = {
    ...(ipv4 !== undefined && ipv4 !== '0.0.0.0' && { ipv4 }),
    ...(ipv6 !== undefined && ipv6 !== '::' && { ipv6 }),
  };
  if (publicAddress.ipv4 === undefined && publicAddress.ipv6 === undefined) return 'no public address';
  return { publicAddress, backend, vtep: { ...(vtep4 && { ipv4: vtep4 }), ...(vtep6 && { ipv6: vtep6 }) } };
}

/**
 * The stored form of a lease. Fields that `earlier` (the text that is being replaced) has and flannel's
 * schema has not are kept, unless the whole would become too long for a lease.
 */
export function encodeLease(attributes: LeaseAttributes, earlier?: Uint8Array | string): string {
  const before = earlier === undefined ? {} : parseObject(earlier);
  const kept = typeof before === 'string' ? {} : before;
  const text = encodeOver(attributes, kept);
  return byteLength(text) > MAX_LEASE_BYTES ? encodeOver(attributes, {}) : text;
}

function encodeOver(attributes: LeaseAttributes, earlier: Record<string, unknown>): string {
  const named = withFieldNames(earlier, FIELDS);
  const vtep = (value: Vtep | undefined, field: 'BackendData' | 'BackendV6Data') =>
    value && { VNI: value.vni, VtepMAC: value.mac, ...unknownFields(named[field], VTEP_FIELDS) };
  // The order and the empty values are Go's: flannel's own text comes out the same.
  return JSON.stringify({
    PublicIP: attributes.publicAddress.ipv4 ?? '0.0.0.0',
    PublicIPv6: attributes.publicAddress.ipv6 ?? null,
    BackendType: attributes.backend === '' ? undefined : attributes.backend,
    BackendData: vtep(attributes.vtep.ipv4, 'BackendData'),
    BackendV6Data: vtep(attributes.vtep.ipv6, 'BackendV6Data'),
    ...unknownFields(earlier, FIELDS),
  });
}

function unknownFields(data: unknown, known: readonly string[]): Record<string, unknown> {
  if (!isObject(data)) return {};
  const names = new Set(known.map((name) => name.toLowerCase()));
  return Object.fromEntries(Object.entries(data).filter(([name]) => !names.has(name.toLowerCase())));
}

function parseObject(value: Uint8Array | string): Record<string, unknown> | string {
  const bytes = typeof value === 'string' ? byteLength(value) : value.length;
  if (bytes > MAX_LEASE_BYTES) return `${bytes} bytes long; a lease has at most ${MAX_LEASE_BYTES}`;
  try {
    const text = typeof value === 'string' ? value : utf8.decode(value);
    if (jsonDepthExceeds(text, MAX_DEPTH)) return `nested deeper than ${MAX_DEPTH}`;
    const parsed: unknown = JSON.parse(text);
    return isObject(parsed) ? parsed : 'not a JSON object';
  } catch {
    return 'not JSON';
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

const byteLength = (text: string): number => Buffer.byteLength(text);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
