/**
 * What a runtime's CNI library remembers of an ADD: `<data>/results/<network>-<container>-<interface>`, JSON.
 * libcni since 0.8 wraps the result and says of which call it is; before, the file was the bare result.
 * (github.com/containernetworking/cni, libcni/api.go)
 */
import {
  type Address,
  familyOf,
  formatSubnet,
  type Mac,
  type Subnet,
  subnetOf,
  tryAddress,
  tryMac,
} from '../../store/address.ts';

export interface CachedResult {
  /** The node's end of the pod's interface. */
  readonly hostInterface: string | undefined;
  readonly mac: Mac | undefined;
  readonly addresses: readonly CachedAddress[];
  readonly routes: readonly { readonly destination: Subnet; readonly gateway: Address }[];
  /** The path of the pod's namespace. */
  readonly netns: string | undefined;
  /** Kubernetes' `namespace/name`. */
  readonly pod: string | undefined;
}

export interface CachedAddress {
  readonly address: Address;
  readonly prefixLength: number;
  readonly gateway: Address | undefined;
}

export const cachedResultName = (network: string, containerID: string, ifname: string): string =>
  `${network}-${containerID}-${ifname}`;

/** @returns undefined where it is no result @param bridge is not the pod's, though named in the result too */
export function parseCachedResult(text: string, ifname: string, bridge: string): CachedResult | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(parsed)) return undefined;
  const result = parsed.kind === 'cniCacheV1' ? parsed.result : parsed;
  if (!isRecord(result)) return undefined;
  const interfaces = list(result.interfaces);
  const isInPod = (one: Record<string, unknown>): boolean => Boolean(one.sandbox);
  const pod = interfaces.find((one) => isInPod(one) && one.name === ifname);
  const host = interfaces.find((one) => !isInPod(one) && one.name !== bridge);
  const addresses = list(result.ips).flatMap(cachedAddress);
  const args = Array.isArray(parsed.cniArgs) ? parsed.cniArgs : [];
  const argument = (name: string): string | undefined =>
    textOf(args.find((pair) => Array.isArray(pair) && pair[0] === name)?.[1]);
  const name = argument('K8S_POD_NAME');
  return {
    hostInterface: textOf(host?.name),
    mac: tryMac(textOf(pod?.mac) ?? ''),
    addresses,
    routes: list(result.routes).flatMap((route) => cachedRoute(route, addresses)),
    netns: textOf(pod?.sandbox) ?? textOf(parsed.netns),
    pod: name === undefined ? undefined : `${argument('K8S_POD_NAMESPACE') ?? 'default'}/${name}`,
  };
}

function cachedAddress({ address, gateway }: Record<string, unknown>): CachedAddress[] {
  const subnet = parsePrefix(textOf(address));
  const host = tryAddress(textOf(address)?.split('/')[0] ?? '');
  if (subnet === undefined || host === undefined) return [];
  return [{ address: host, prefixLength: subnet.prefixLength, gateway: tryAddress(textOf(gateway) ?? '') }];
}

/** A route without a gateway is by the address's, as the plugins make it. */
function cachedRoute(
  { dst, gw }: Record<string, unknown>,
  addresses: readonly CachedAddress[],
): CachedResult['routes'] {
  const destination = parsePrefix(textOf(dst));
  if (destination === undefined) return [];
  const same = addresses.find(({ address }) => familyOf(address) === destination.family);
  const gateway = tryAddress(textOf(gw) ?? '') ?? same?.gateway;
  return gateway === undefined ? [] : [{ destination, gateway }];
}

function parsePrefix(text: string | undefined): Subnet | undefined {
  const [host = '', length = ''] = text?.split('/') ?? [];
  const address = tryAddress(host);
  const bits = Number(length);
  if (address === undefined || !/^\d{1,3}$/.test(length)) return undefined;
  if (bits > (familyOf(address) === 'ipv4' ? 32 : 128)) return undefined;
  return subnetOf(address, bits);
}

/** For messages. */
export const addressText = ({ address, prefixLength }: CachedAddress): string =>
  formatSubnet({ family: familyOf(address), address, prefixLength });

const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : undefined;

const list = (value: unknown): Record<string, unknown>[] =>
  Array.isArray(value) ? value.filter(isRecord) : [];

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
