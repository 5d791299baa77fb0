/**
 * The cluster's network configuration as flannel keeps it in `<prefix>/config`: the same fields, defaults and
 * rules, so that one document serves both. Where flannel leaves a mistake for later (a VNI that no header can
 * carry, SubnetMin after SubnetMax), it is refused here, by the field's name.
 */
import { z } from 'zod/v3';
import {
  type Address,
  addressAt,
  addressBits,
  addressValue,
  type Family,
  familyOf,
  formatSubnet,
  type Subnet,
  subnetContains,
  subnetOf,
  subnetSize,
  tryAddress,
} from './address.ts';
import { NetworkConfigError } from './errors.ts';
import { jsonDepthExceeds, said, withFieldNames } from './json-text.ts';
import type { BackendConfig, FamilyNetwork, NetworkConfig } from './lease.ts';
import { printable } from './printable.ts';

/** A configuration is some 200 bytes, with comments of other programs perhaps some thousand. */
export const MAX_NETWORK_CONFIG_BYTES = 65536;
const MAX_DEPTH = 32;
/** What the kernel and flannel use; not IANA's 4789. */
export const DEFAULT_VXLAN_PORT = 8472;
const DEFAULT_VNI = 1;
/** RFC 791's least datagram that every host takes, and RFC 8200's least link MTU. */
const MIN_MTU_BYTES: Record<Family, number> = { ipv4: 576, ipv6: 1280 };

const text = z.string(said('must be text'));
const flag = z.boolean(said('must be true or false'));
const whole = (min: number, max: number) => {
  const problem = `must be a whole number from ${min} to ${max}`;
  return z.number(said(problem)).int(problem).min(min, problem).max(max, problem);
};

const FIELDS = [
  ...['EnableIPv4', 'EnableIPv6', 'Network', 'SubnetLen', 'SubnetMin', 'SubnetMax'],
  ...['IPv6Network', 'IPv6SubnetLen', 'IPv6SubnetMin', 'IPv6SubnetMax', 'Backend'],
];
const BACKEND_FIELDS = ['Type', 'VNI', 'Port', 'DirectRouting', 'MTU'];

const backendSchema = z.preprocess(
  (data) => withFieldNames(data, BACKEND_FIELDS),
  z.object(
    {
      Type: z
        .string(said('must be there, as text'))
        .regex(/^[\w.-]{1,32}$/, 'must name a backend, such as vxlan'),
      VNI: whole(1, 2 ** 24 - 1).nullish(),
      // Zero is Go's for "not set".
      Port: whole(0, 65535).nullish(),
      DirectRouting: flag.nullish(),
      MTU: whole(0, 65535).nullish(),
    },
    said('must be an object'),
  ),
);

const configSchema = z.object({
  EnableIPv4: flag.nullish(),
  EnableIPv6: flag.nullish(),
  Network: text.nullish(),
  SubnetLen: whole(0, 32).nullish(),
  SubnetMin: text.nullish(),
  SubnetMax: text.nullish(),
  IPv6Network: text.nullish(),
  IPv6SubnetLen: whole(0, 128).nullish(),
  IPv6SubnetMin: text.nullish(),
  IPv6SubnetMax: text.nullish(),
  Backend: backendSchema.nullish(),
});

/** How the two families' fields are called, and flannel's numbers for each. */
const FAMILY_RULES = {
  ipv4: { prefix: '', defaultLength: 24, maxLength: 30, maxNetworkLength: 28, example: '10.244.0.0/16' },
  ipv6: {
    prefix: 'IPv6',
    defaultLength: 64,
    maxLength: 126,
    maxNetworkLength: 124,
    example: 'fc00:244::/48',
  },
} as const;

/** Reads the stored document. @throws NetworkConfigError naming the field (`(document)` for the whole) */
export function parseNetworkConfig(document: Uint8Array | string): NetworkConfig {
  const parsed = configSchema.safeParse(withFieldNames(parseDocument(document), FIELDS));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new NetworkConfigError(issue?.path.map(String).join('.') ?? '', issue?.message ?? 'cannot be read');
  }
  const fields = parsed.data;
  const ipv4 = fields.EnableIPv4 ?? true;
  const ipv6 = fields.EnableIPv6 ?? false;
  if (!ipv4 && !ipv6) throw new NetworkConfigError('EnableIPv4', 'is false, and EnableIPv6 is not true');
  const networks = {
    ...(ipv4 && {
      ipv4: familyNetwork('ipv4', fields.Network, fields.SubnetLen, fields.SubnetMin, fields.SubnetMax),
    }),
    ...(ipv6 && {
      ipv6: familyNetwork(
        'ipv6',
        fields.IPv6Network,
        fields.IPv6SubnetLen,
        fields.IPv6SubnetMin,
        fields.IPv6SubnetMax,
      ),
    }),
  };
  return { networks, backend: backendOf(fields.Backend, ipv6 ? 'ipv6' : 'ipv4') };
}

function parseDocument(document: Uint8Array | string): object {
  const refuse = (problem: string, cause?: unknown) =>
    new NetworkConfigError('(document)', problem, { cause });
  const bytes = typeof document === 'string' ? Buffer.byteLength(document) : document.length;
  if (bytes > MAX_NETWORK_CONFIG_BYTES) {
    throw refuse(`is ${bytes} bytes long; at most ${MAX_NETWORK_CONFIG_BYTES} make sense`);
  }
  const source = typeof document === 'string' ? document : new TextDecoder().decode(document);
  if (jsonDepthExceeds(source, MAX_DEPTH)) throw refuse(`is nested deeper than ${MAX_DEPTH}`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(source);
  } catch (error) {
    throw refuse(`is not JSON: ${printable(error instanceof Error ? error.message : '', 120)}`);
  }
  if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed;
  throw refuse('is not a JSON object');
}

function backendOf(fields: z.infer<typeof backendSchema> | null | undefined, widest: Family): BackendConfig {
  const mtuBytes = fields?.MTU || undefined;
  if (mtuBytes !== undefined && mtuBytes < MIN_MTU_BYTES[widest]) {
    throw new NetworkConfigError(
      'Backend.MTU',
      `must be at least ${MIN_MTU_BYTES[widest]}, or 0 for the default`,
    );
  }
  return {
    // A document without a Backend means flannel's oldest one.
    type: fields?.Type ?? 'udp',
    vni: fields?.VNI ?? DEFAULT_VNI,
    port: fields?.Port || DEFAULT_VXLAN_PORT,
    directRouting: fields?.DirectRouting ?? false,
    mtuBytes,
  };
}

function familyNetwork(
  family: Family,
  networkText: string | null | undefined,
  length: number | null | undefined,
  min: string | null | undefined,
  max: string | null | undefined,
): FamilyNetwork {
  const rules = FAMILY_RULES[family];
  const field = (name: string) => `${rules.prefix}${name}`;
  const network = parseNetwork(family, networkText);
  const subnetLength = length || defaultLength(family, network);
  if (subnetLength > rules.maxLength) {
    throw new NetworkConfigError(
      field('SubnetLen'),
      `must be at most ${rules.maxLength}: a node needs addresses`,
    );
  }
  // Four at least: the first is not used by default, and one node is no network.
  if (subnetLength < network.prefixLength + 2) {
    const problem = `must be at least ${network.prefixLength + 2}, so that ${formatSubnet(network)} holds four subnets`;
    throw new NetworkConfigError(field('SubnetLen'), problem);
  }
  const size = subnetSize(subnetOf(network.address, subnetLength));
  const bound = (name: string, value: string | null | undefined, standard: Address): Address => {
    if (value === undefined || value === null || value === '') return standard;
    const address = tryAddress(value);
    if (address === undefined || familyOf(address) !== family) {
      throw new NetworkConfigError(field(name), `"${printable(value)}" is not an address of this family`);
    }
    if (addressValue(address) === 0n) return standard;
    if (!subnetContains(network, address)) {
      throw new NetworkConfigError(field(name), `${address} is not in ${formatSubnet(network)}`);
    }
    const aligned = subnetOf(address, subnetLength).address;
    if (aligned === address) return address;
    throw new NetworkConfigError(
      field(name),
      `${address} is not where a /${subnetLength} begins (${aligned} is)`,
    );
  };
  // The first subnet is skipped by default: its first address is the network's own.
  const subnetMin = bound('SubnetMin', min, addressAt(network, size));
  const subnetMax = bound('SubnetMax', max, addressAt(network, -size));
  if (addressValue(subnetMin) > addressValue(subnetMax)) {
    throw new NetworkConfigError(
      field('SubnetMax'),
      `${subnetMax} is before ${field('SubnetMin')} ${subnetMin}`,
    );
  }
  return { network, subnetLength, subnetMin, subnetMax };
}

/** Host bits are dropped, as Go's ParseCIDR drops them. */
function parseNetwork(family: Family, value: string | null | undefined): Subnet {
  const { prefix, example, maxNetworkLength } = FAMILY_RULES[family];
  const name = `${prefix}Network`;
  if (value === undefined || value === null || value === '') {
    throw new NetworkConfigError(name, `is missing; write one such as ${example}`);
  }
  const match = /^([0-9a-f:.]+)\/(0|[1-9]\d{0,2})$/i.exec(value);
  const address = tryAddress(match?.[1] ?? '');
  const length = Number(match?.[2]);
  if (address === undefined || familyOf(address) !== family || length > addressBits(family)) {
    throw new NetworkConfigError(name, `"${printable(value)}" is not a network such as ${example}`);
  }
  if (length === 0 || length > maxNetworkLength) {
    throw new NetworkConfigError(name, `must have a prefix length from 1 to ${maxNetworkLength}`);
  }
  return subnetOf(address, length);
}

/** flannel's: a /24 (IPv6: /64) a node, or a quarter of a network that has no four of these. */
function defaultLength(family: Family, network: Subnet): number {
  const standard = FAMILY_RULES[family].defaultLength;
  return network.prefixLength <= standard - 2 ? standard : network.prefixLength + 2;
}

/** The stored form of a network configuration: parses to the same. */
export function encodeNetworkConfig(config: NetworkConfig): string {
  const { ipv4, ipv6 } = config.networks;
  const { type, datapath, vni, port, directRouting, mtuBytes } = config.backend;
  return JSON.stringify({
    EnableIPv4: ipv4 !== undefined,
    EnableIPv6: ipv6 !== undefined,
    ...(ipv4 && {
      Network: formatSubnet(ipv4.network),
      SubnetLen: ipv4.subnetLength,
      SubnetMin: ipv4.subnetMin,
      SubnetMax: ipv4.subnetMax,
    }),
    ...(ipv6 && {
      IPv6Network: formatSubnet(ipv6.network),
      IPv6SubnetLen: ipv6.subnetLength,
      IPv6SubnetMin: ipv6.subnetMin,
      IPv6SubnetMax: ipv6.subnetMax,
    }),
    Backend: {
      Type: datapath === undefined ? type : 'udp',
      VNI: vni,
      Port: port,
      DirectRouting: directRouting,
      MTU: mtuBytes,
    },
  });
}
