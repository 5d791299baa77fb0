/** An attachment: one pod interface, and everything that was decided about it. */
import { createHash } from 'node:crypto';
import { z } from 'zod/v3';
import { POD_INTERFACE_PREFIX } from '../overlay/desired/pods.ts';
import {
  type Address,
  addressBytes,
  familyOf,
  formatSubnet,
  localMac,
  type Mac,
  parseAddress,
  parseMac,
  parseSubnet,
  type Subnet,
} from '../store/address.ts';

/** What identifies an attachment (CNI specification: the primary key of a plugin's state). */
export interface AttachmentKey {
  readonly network: string;
  readonly containerID: string;
  readonly ifname: string;
}

export interface AttachmentAddress {
  readonly address: Address;
  readonly prefixLength: number;
  readonly gateway: Address;
}

export interface AttachmentRoute {
  readonly destination: Subnet;
  readonly gateway: Address;
}

export interface Attachment extends AttachmentKey {
  readonly hostInterface: string;
  readonly mac: Mac;
  readonly addresses: readonly AttachmentAddress[];
  readonly routes: readonly AttachmentRoute[];
  readonly bridge: string;
  readonly mtuBytes: number;
  readonly hairpin: boolean;
  /** Kubernetes' `namespace/name`. */
  readonly pod: string | undefined;
  /** The name under which its address is remembered for its successor; absent: it is not. */
  readonly sticky?: string | undefined;
  /** The runtime's path of the pod's namespace, for people. */
  readonly netns: string;
}

/** As in logs: `CONTAINER:INTERFACE`. */
export const attachmentText = (key: AttachmentKey): string => `${key.containerID}:${key.ifname}`;

/**
 * The node's side of the pod's veth: the prefix and 60 bits of a hash of the key, in 15 characters, an
 * interface name's longest. The same key always has the same name: what a crash left behind is found by it.
 */
export function hostInterfaceName(key: AttachmentKey): string {
  const hash = createHash('sha256').update(`${key.network}\n${key.containerID}\n${key.ifname}`).digest();
  let bits = hash.readBigUInt64BE(0);
  let text = '';
  while (text.length < 15 - POD_INTERFACE_PREFIX.length) {
    text += 'abcdefghijklmnopqrstuvwxyz234567'[Number(bits & 31n)];
    bits >>= 5n;
  }
  return POD_INTERFACE_PREFIX + text;
}

/**
 * A pod's MAC, made from its address: an address that is used again keeps its MAC, so no neighbour on the
 * bridge holds a stale one. Locally administered.
 */
export function macOfAddress(address: Address): Mac {
  const bytes = addressBytes(address);
  return familyOf(address) === 'ipv4'
    ? localMac(Uint8Array.of(0x0a, 0x76, ...bytes))
    : localMac(createHash('sha256').update(bytes).digest());
}

const recordSchema = z.object({
  version: z.literal(1),
  network: z.string(),
  containerID: z.string(),
  ifname: z.string(),
  netns: z.string(),
  pod: z.string().optional(),
  sticky: z.string().optional(),
  mac: z.string().transform(parseMac),
  addresses: z.array(
    z.object({
      address: z.string().transform(parseAddress),
      prefixLength: z.number().int(),
      gateway: z.string().transform(parseAddress),
    }),
  ),
  routes: z.array(
    z.object({
      destination: z.string().transform(parseSubnet),
      gateway: z.string().transform(parseAddress),
    }),
  ),
  bridge: z.string(),
  mtuBytes: z.number().int(),
  hairpin: z.boolean(),
});

/** The attachment's record on disk: JSON, for people too. */
export function formatRecord(attachment: Attachment): string {
  const { hostInterface: _, routes, ...rest } = attachment;
  const record = {
    version: 1,
    ...rest,
    routes: routes.map((route) => ({ ...route, destination: formatSubnet(route.destination) })),
  };
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/** @throws an Error that says what is wrong with the record */
export function parseRecord(text: string): Attachment {
  const { version: _, ...rest } = recordSchema.parse(JSON.parse(text));
  return { ...rest, pod: rest.pod, hostInterface: hostInterfaceName(rest) };
}
