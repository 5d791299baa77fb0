/**
 * The network configuration that a runtime passes on stdin, parsed once into what the verbs need.
 *
 * Keys with an effect:
 * - `bridge`: must be the daemon's own bridge, when given (the verbs refuse another).
 * - `mtu`: the pod's MTU in bytes; may be less than the overlay's, not more; 0 is the overlay's.
 * - `hairpinMode`: the pod may reach itself through a service or a mapped port.
 * - `isGateway`, `isDefaultGateway`: false keeps the default route away (the cluster's is still set).
 * - `runtimeConfig.ips`, `.mac`; `args.cni.ips`, `.mac`; CNI_ARGS `IP`, `MAC`: asked-for addresses, in this
 *   order of precedence (CNI conventions). A prefix length on an address is ignored: it is the subnet's.
 * - `vtepd.sticky`, CNI_ARGS `VTEPD_STICKY` (which wins): a name; an attachment of the same name, network and
 *   interface gets the address that it had before, while that is free. Without it Kubernetes' pod namespace and
 *   name are that name; `"sticky": false` forgets.
 * - `dns`: handed through to the result.
 * - `cni.dev/valid-attachments`: GC's list. `prevResult`: CHECK's expectation.
 * - `socket`: read by the shim, to find the daemon.
 *
 * `ipMasq` is accepted and leaves no trace: masquerading is the node's (`vtepd run --ip-masq`), not a
 * network's. Any other key is ignored, `ipam` too: addresses come from the node's lease.
 */
import { z } from 'zod/v3';
import { type Address, isUnicastMac, type Mac, tryAddress, tryMac } from '../store/address.ts';
import { CNI_CODES, CniError } from './cni-error.ts';
import { CNI_VERSIONS, type CniVersion, knownVersion } from './versions.ts';

export interface AttachmentName {
  readonly containerID: string;
  readonly ifname: string;
}

export interface Dns {
  readonly nameservers?: readonly string[] | undefined;
  readonly domain?: string | undefined;
  readonly search?: readonly string[] | undefined;
  readonly options?: readonly string[] | undefined;
}

export interface NetworkConfiguration {
  readonly version: CniVersion;
  readonly name: string;
  readonly bridge: string | undefined;
  /** Bytes; undefined: the overlay's. */
  readonly mtuBytes: number | undefined;
  readonly hairpin: boolean;
  readonly defaultRoute: boolean;
  readonly addresses: readonly Address[];
  readonly mac: Mac | undefined;
  /** Under which the address is remembered; undefined: the pod's own name, false: not at all. */
  readonly sticky: string | false | undefined;
  readonly dns: Dns | undefined;
  readonly prevResult: unknown;
  readonly validAttachments: readonly AttachmentName[] | undefined;
}

/** Go marshals an absent list as null. */
const optional = <T extends z.ZodType>(type: T) => type.nullish();
const texts = optional(z.array(z.string()));
const wishes = optional(z.object({ ips: texts, mac: optional(z.string()) }));
const attachments = optional(z.array(z.object({ containerID: z.string(), ifname: z.string() })));

const schema = z.object({
  name: z.string(),
  bridge: optional(z.string()),
  isGateway: optional(z.boolean()),
  isDefaultGateway: optional(z.boolean()),
  ipMasq: optional(z.boolean()),
  mtu: optional(z.number().int().min(0).max(65535)),
  hairpinMode: optional(z.boolean()),
  socket: optional(z.string()),
  runtimeConfig: wishes,
  args: optional(z.object({ cni: wishes })),
  vtepd: optional(z.object({ sticky: optional(z.union([z.string(), z.literal(false)])) })),
  dns: optional(
    z.object({ nameservers: texts, domain: optional(z.string()), search: texts, options: texts }),
  ),
  prevResult: z.unknown().optional(),
  'cni.dev/valid-attachments': attachments,
  // What libcni wrote before the specification had settled on the name.
  'cni.dev/attachments': attachments,
});

/** A network's name becomes a folder's. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$/;
/** RFC 791 and RFC 8200: what every IPv4 or IPv6 link must carry; less is 0 or a mistake. */
const SMALLEST_MTU_BYTES = 576;

/**
 * @param args CNI_ARGS, for the addresses asked for there
 * @throws CniError 6 (not JSON), 1 (a version that is not spoken), 7 (a key's value, named)
 */
export function parseNetworkConfiguration(
  text: string,
  args: ReadonlyMap<string, string> = new Map(),
): NetworkConfiguration {
  const json = parseJson(text);
  const version = readVersion(json);
  const parsed = schema.safeParse(json);
  if (!parsed.success) throw invalid(issueText(parsed.error));
  const config = parsed.data;
  if (!NAME.test(config.name)) {
    throw invalid('name: must be letters, digits, "_", "." and "-", and begin with a letter or digit');
  }
  const mtuBytes = config.mtu ?? 0;
  if (mtuBytes !== 0 && mtuBytes < SMALLEST_MTU_BYTES) {
    throw invalid(
      `mtu: ${mtuBytes} bytes are too few; at least ${SMALLEST_MTU_BYTES}, or 0 for the overlay's`,
    );
  }
  const wanted = requested(config.runtimeConfig, config.args?.cni, args);
  return {
    version,
    name: config.name,
    bridge: config.bridge ?? undefined,
    mtuBytes: mtuBytes === 0 ? undefined : mtuBytes,
    hairpin: config.hairpinMode ?? false,
    defaultRoute: config.isGateway !== false && config.isDefaultGateway !== false,
    addresses: wanted.addresses,
    mac: wanted.mac,
    sticky: readSticky(config.vtepd?.sticky, args.get('VTEPD_STICKY')),
    dns: readDns(config.dns),
    prevResult: config.prevResult ?? undefined,
    validAttachments: config['cni.dev/valid-attachments'] ?? config['cni.dev/attachments'] ?? undefined,
  };
}

const invalid = (message: string): CniError => new CniError(CNI_CODES.invalidConfig, message);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CniError(CNI_CODES.decodeFailure, 'the network configuration on stdin is not JSON', { cause });
  }
}

const versionSchema = z.object({ cniVersion: z.string().optional() });

function readVersion(json: unknown): CniVersion {
  const parsed = versionSchema.safeParse(json);
  if (!parsed.success) throw invalid(issueText(parsed.error));
  // Without the key it is the first version's, says the specification.
  const text = parsed.data.cniVersion ?? '0.1.0';
  const version = knownVersion(text);
  if (version === undefined) {
    throw new CniError(
      CNI_CODES.incompatibleVersion,
      `cniVersion: "${text.slice(0, 32)}" is not supported; vtepd speaks ${CNI_VERSIONS.join(', ')}`,
    );
  }
  return version;
}

/** `runtimeConfig.ips[0]: expected string, received number` */
function issueText(error: z.ZodError): string {
  const issue = error.issues[0];
  const path = (issue?.path ?? []).map((part, i) =>
    typeof part === 'number' ? `[${part}]` : `${i === 0 ? '' : '.'}${String(part)}`,
  );
  const problem =
    issue?.code === 'invalid_type'
      ? `expected ${issue.expected}, received ${issue.received}`
      : (issue?.message ?? 'invalid');
  return path.length === 0 ? `the network configuration: ${problem}` : `${path.join('')}: ${problem}`;
}

interface Wishes {
  readonly ips?: readonly string[] | null | undefined;
  readonly mac?: string | null | undefined;
}

function requested(
  runtimeConfig: Wishes | null | undefined,
  cniArgs: Wishes | null | undefined,
  args: ReadonlyMap<string, string>,
): { readonly addresses: readonly Address[]; readonly mac: Mac | undefined } {
  const ip = args.get('IP');
  const ips = first<readonly string[]>([
    ['runtimeConfig.ips', nonEmpty(runtimeConfig?.ips)],
    ['args.cni.ips', nonEmpty(cniArgs?.ips)],
    ['CNI_ARGS IP', ip === undefined || ip === '' ? undefined : [ip]],
  ]);
  const mac = first<string>([
    ['runtimeConfig.mac', runtimeConfig?.mac],
    ['args.cni.mac', cniArgs?.mac],
    ['CNI_ARGS MAC', args.get('MAC')],
  ]);
  return {
    addresses: ips === undefined ? [] : ips.value.map((text) => readAddress(ips.key, text)),
    mac: mac === undefined || mac.value === '' ? undefined : readMac(mac.key, mac.value),
  };
}

const nonEmpty = (list: readonly string[] | null | undefined): readonly string[] | undefined =>
  list === null || list === undefined || list.length === 0 ? undefined : list;

function first<T>(
  candidates: readonly (readonly [string, T | null | undefined])[],
): { readonly key: string; readonly value: T } | undefined {
  for (const [key, value] of candidates) if (value !== undefined && value !== null) return { key, value };
  return undefined;
}

function readAddress(key: string, text: string): Address {
  const [host = '', length] = text.split('/');
  const address = tryAddress(host);
  if (address === undefined || (length !== undefined && !/^\d{1,3}$/.test(length))) {
    throw invalid(`${key}: "${text.slice(0, 64)}" is not an IPv4 or IPv6 address`);
  }
  return address;
}

function readMac(key: string, text: string): Mac {
  const mac = tryMac(text);
  if (mac === undefined || !isUnicastMac(mac)) {
    throw invalid(`${key}: "${text.slice(0, 64)}" is not a MAC address that an interface can have`);
  }
  return mac;
}

/** @param given by CNI_ARGS, for one container; the configuration's is for all that use it */
function readSticky(
  configured: string | false | null | undefined,
  given: string | undefined,
): string | false | undefined {
  const [key, text] = given === undefined ? ['vtepd.sticky', configured] : ['CNI_ARGS VTEPD_STICKY', given];
  if (text === undefined || text === null || text === false) return text ?? undefined;
  if (/^[\x21-\x7e]{1,253}$/.test(text)) return text;
  throw invalid(`${key}: must be a name of 1 to 253 printable characters without spaces, or false`);
}

function readDns(dns: z.infer<typeof schema>['dns']): Dns | undefined {
  if (dns === null || dns === undefined) return undefined;
  const { nameservers, domain, search, options } = dns;
  const read = {
    ...(nonEmpty(nameservers) === undefined ? {} : { nameservers: nameservers ?? [] }),
    ...(domain === undefined || domain === null || domain === '' ? {} : { domain }),
    ...(nonEmpty(search) === undefined ? {} : { search: search ?? [] }),
    ...(nonEmpty(options) === undefined ? {} : { options: options ?? [] }),
  };
  return Object.keys(read).length === 0 ? undefined : read;
}
