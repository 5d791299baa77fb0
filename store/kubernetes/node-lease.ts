/**
 * A Node as a lease, and a lease as a Node's annotations, as flannel has them:
 *
 *   spec.podCIDRs         the subnets: the controller's to give, and never changed once given
 *   kube-subnet-manager   "true", else it is no lease
 *   backend-type          vxlan, host-gw
 *   public-ip             192.0.2.5            public-ipv6        2001:db8::5
 *   backend-data          {"VNI":1,...}        backend-v6-data    {"VNI":1,...}   (`null` without a tunnel)
 *   public-ip-overwrite, public-ipv6-overwrite  what an operator wants in place of the node's own address
 *
 * The lease's key is its subnets, as in etcd. Families that the cluster's network has not are left out, whatever
 * the Node says of them. flannel takes no notice of a Node without an address of every family of the network.
 */
import {
  type Address,
  FAMILIES,
  type Family,
  familyOf,
  isUnicast,
  type PerFamily,
  type Subnet,
  subnetOf,
  tryAddress,
} from '../address.ts';
import { StoreUnavailableError } from '../errors.ts';
import type { Lease, LeaseAttributes, MalformedLease } from '../lease.ts';
import { decodeLease, encodeLease, encodeLeaseKey, leaseName, MAX_LEASE_BYTES } from '../lease-codec.ts';
import { ANNOTATION_PREFIX, fields, type NodeObject } from './node-object.ts';

const MANAGED = 'kube-subnet-manager';
const BACKEND_TYPE = 'backend-type';
const PUBLIC: Readonly<Record<Family, string>> = { ipv4: 'public-ip', ipv6: 'public-ipv6' };
const DATA: Readonly<Record<Family, string>> = { ipv4: 'backend-data', ipv6: 'backend-v6-data' };
const OVERWRITE: Readonly<Record<Family, string>> = {
  ipv4: 'public-ip-overwrite',
  ipv6: 'public-ipv6-overwrite',
};
/** The same in flannel's document in etcd, which the codec reads. */
const FIELD: Readonly<Record<string, string>> = {
  [PUBLIC.ipv4]: 'PublicIP',
  [PUBLIC.ipv6]: 'PublicIPv6',
  [BACKEND_TYPE]: 'BackendType',
  [DATA.ipv4]: 'BackendData',
  [DATA.ipv6]: 'BackendV6Data',
};
const OURS = [MANAGED, BACKEND_TYPE, PUBLIC.ipv4, PUBLIC.ipv6, DATA.ipv4, DATA.ipv6];

/** The first subnet of each of these families; undefined when a podCIDR is none. */
export function subnetsOf(node: NodeObject, families: readonly Family[]): PerFamily<Subnet> | undefined {
  const subnets: { [F in Family]?: Subnet } = {};
  for (const text of node.podCidrs) {
    const subnet = podSubnet(text);
    if (subnet === undefined) return undefined;
    if (families.includes(subnet.family)) subnets[subnet.family] ??= subnet;
  }
  return subnets;
}

/** Host bits are dropped, as Go's ParseCIDR drops them. */
function podSubnet(text: string): Subnet | undefined {
  const [, address = '', digits] = /^([0-9a-f:.]{2,45})\/(\d{1,3})$/i.exec(text) ?? [];
  const parsed = tryAddress(address);
  const length = Number(digits);
  if (parsed === undefined || length < 1 || length > (familyOf(parsed) === 'ipv4' ? 32 : 128))
    return undefined;
  return subnetOf(parsed, length);
}

export const isMalformedLease = (read: Lease | MalformedLease): read is MalformedLease => 'reason' in read;

/** The lease that a Node is, or why it cannot be read; undefined: it is none. Never throws. */
export function leaseOf(node: NodeObject, families: readonly Family[]): Lease | MalformedLease | undefined {
  if (node.annotations[MANAGED] !== 'true') return undefined;
  if (node.podCidrs.length === 0) return { key: leaseName(node.name), reason: 'the Node has no podCIDR' };
  const subnets = subnetsOf(node, families);
  if (subnets !== undefined && subnets.ipv4 === undefined && subnets.ipv6 === undefined) {
    return { key: leaseName(node.name), reason: "no podCIDR is of the cluster network's families" };
  }
  const key = subnets === undefined ? node.podCidrs.join('&').replaceAll('/', '-') : encodeLeaseKey(subnets);
  const text = leaseText(node, families);
  return 'reason' in text ? { key: leaseName(key), reason: text.reason } : decodeLease(key, text.text);
}

/** What etcd would hold for this lease. Annotations that we do not know count by their length alone. */
function leaseText(
  { annotations }: NodeObject,
  families: readonly Family[],
): { readonly text: string } | { readonly reason: string } {
  let text = '';
  let bytes = 0;
  const absent = FAMILIES.filter((family) => !families.includes(family)).flatMap((family) => [
    PUBLIC[family],
    DATA[family],
  ]);
  for (const name in annotations) {
    const value = annotations[name] ?? '';
    bytes += name.length + value.length;
    if (absent.includes(name) || name === MANAGED || bytes > MAX_LEASE_BYTES) continue;
    const field = FIELD[name] ?? name;
    if (name === DATA.ipv4 || name === DATA.ipv6) {
      if (!isJson(value)) return { reason: `${field}: not JSON` };
      text += `,"${field}":${value}`;
    } else text += `,${JSON.stringify(field)}:${JSON.stringify(value)}`;
  }
  if (bytes > MAX_LEASE_BYTES) {
    return { reason: `${bytes} bytes long; a lease has at most ${MAX_LEASE_BYTES}` };
  }
  return { text: `{${text.slice(1)}}` };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** An operator has decided this node's address: its lease is a reservation, which is never given back. */
export const isReservation = ({ annotations }: NodeObject): boolean =>
  FAMILIES.some((family) => (annotations[OVERWRITE[family]] ?? '') !== '');

/**
 * The attributes with the addresses that an operator has written in place of ours.
 * @throws StoreUnavailableError naming an annotation that holds none
 */
export function withOverwrites(attributes: LeaseAttributes, node: NodeObject): LeaseAttributes {
  const publicAddress: { [F in Family]?: Address | undefined } = { ...attributes.publicAddress };
  for (const family of FAMILIES) {
    const text = node.annotations[OVERWRITE[family]] ?? '';
    if (text === '' || publicAddress[family] === undefined) continue;
    const address = tryAddress(text);
    if (address === undefined || familyOf(address) !== family || !isUnicast(address)) {
      const name = ANNOTATION_PREFIX + OVERWRITE[family];
      throw new StoreUnavailableError(
        `the annotation ${name} of Node ${node.name} is no ${family} address of a node; correct or remove it`,
      );
    }
    publicAddress[family] = address;
  }
  return { ...attributes, publicAddress };
}

/** The values of OURS that a Node with these attributes has; null: it has none. */
type Annotations = Readonly<Record<string, string | null>>;

/** What of a Node's annotations must change for it to be this lease. Fields of others in the data are kept. */
export function annotationChanges(node: NodeObject, attributes: LeaseAttributes): Annotations {
  const wanted: Record<string, string | null> = { [MANAGED]: 'true', [BACKEND_TYPE]: attributes.backend };
  const before = leaseText(node, FAMILIES);
  const stored = fields(JSON.parse(encodeLease(attributes, 'text' in before ? before.text : undefined)));
  for (const family of FAMILIES) {
    const address = attributes.publicAddress[family];
    wanted[PUBLIC[family]] = address ?? null;
    const data = stored[FIELD[DATA[family]] ?? ''];
    wanted[DATA[family]] = address === undefined ? null : JSON.stringify(data ?? null);
  }
  return differences(node, wanted);
}

/** What takes the lease off a Node. */
export const annotationRemovals = (node: NodeObject): Annotations =>
  differences(node, Object.fromEntries(OURS.map((name) => [name, null])));

function differences({ annotations }: NodeObject, wanted: Annotations): Annotations {
  const changes: Record<string, string | null> = {};
  for (const [name, value] of Object.entries(wanted)) {
    const before = annotations[name] ?? null;
    if (before !== value && !sameJson(name, before, value)) changes[ANNOTATION_PREFIX + name] = value;
  }
  return changes;
}

/** flannel may write the same data in another order. */
function sameJson(name: string, a: string | null, b: string | null): boolean {
  if ((name !== DATA.ipv4 && name !== DATA.ipv6) || a === null || b === null || !isJson(a)) return false;
  const [x, y] = [fields(JSON.parse(a)), fields(JSON.parse(b))];
  const names = Object.keys(x);
  return (
    names.length === Object.keys(y).length &&
    names.every((each) => JSON.stringify(x[each]) === JSON.stringify(y[each])) &&
    (a === 'null') === (b === 'null')
  );
}
