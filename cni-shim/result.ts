/**
 * ADD's result, in the format of each version of the specification, and what is read back of it on CHECK.
 *
 * 0.3.0 to 0.4.0: every entry of `ips` names its `version`. 1.0.0 dropped that. 1.1.0 has the interfaces'
 * `mtu`. What is common: the pod's interface is the one with a `sandbox`, and `ips` points at it.
 */
import { z } from 'zod/v3';
import {
  type Address,
  familyOf,
  formatSubnet,
  type Mac,
  subnetOf,
  tryAddress,
  tryMac,
} from '../store/address.ts';
import type { Attachment } from './attachment.ts';
import { CNI_CODES, CniError } from './cni-error.ts';
import type { Dns } from './network-configuration.ts';
import { type CniVersion, isAtLeast } from './versions.ts';

const SANDBOX_INTERFACE = 2;

/** @param bridgeMac, @param hostMac the two interfaces' on the node, where known */
export function formatResult(
  version: CniVersion,
  attachment: Attachment,
  dns: Dns | undefined,
  bridgeMac: Mac | undefined,
  hostMac: Mac | undefined,
): string {
  const mtu = isAtLeast(version, '1.1.0') ? { mtu: attachment.mtuBytes } : {};
  const mac = (value: Mac | undefined) => (value === undefined ? {} : { mac: value });
  return JSON.stringify({
    cniVersion: version,
    interfaces: [
      { name: attachment.bridge, ...mac(bridgeMac) },
      { name: attachment.hostInterface, ...mac(hostMac), ...mtu },
      { name: attachment.ifname, mac: attachment.mac, ...mtu, sandbox: attachment.netns },
    ],
    ips: attachment.addresses.map(({ address, prefixLength, gateway }) => ({
      ...(isAtLeast(version, '1.0.0') ? {} : { version: familyOf(address) === 'ipv4' ? '4' : '6' }),
      interface: SANDBOX_INTERFACE,
      address: `${address}/${prefixLength}`,
      gateway,
    })),
    routes: attachment.routes.map(({ destination, gateway }) => ({
      dst: formatSubnet(destination),
      gw: gateway,
    })),
    // Its place was fixed as an object, empty or not, before 1.0.0.
    ...(dns !== undefined ? { dns } : isAtLeast(version, '1.0.0') ? {} : { dns: {} }),
  });
}

/** What an earlier ADD, of any version, answered about the pod's interface. */
export interface PreviousResult {
  readonly mac: Mac | undefined;
  readonly addresses: readonly { readonly address: Address; readonly prefixLength: number }[];
  /** `DST via GATEWAY`, as formatted by routeKey. */
  readonly routes: ReadonlySet<string>;
}

export const routeKey = (destination: string, gateway: string): string => `${destination} via ${gateway}`;

const resultSchema = z.object({
  interfaces: z
    .array(z.object({ name: z.string(), mac: z.string().nullish(), sandbox: z.string().nullish() }))
    .nullish(),
  ips: z
    .array(
      z.object({ address: z.string(), gateway: z.string().nullish(), interface: z.number().int().nullish() }),
    )
    .nullish(),
  routes: z.array(z.object({ dst: z.string(), gw: z.string().nullish() })).nullish(),
});

/**
 * Reads CHECK's `prevResult`. Interfaces and addresses of other plugins in the chain are left out.
 * @throws CniError 7 when it is not a result, or says nothing of the interface
 */
export function parsePreviousResult(result: unknown, ifname: string): PreviousResult {
  const parsed = resultSchema.safeParse(result);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw invalid(`prevResult.${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? 'invalid'}`);
  }
  const interfaces = parsed.data.interfaces ?? [];
  const place = interfaces.findIndex((one) => one.name === ifname && (one.sandbox ?? '') !== '');
  const own = interfaces[place];
  if (own === undefined) throw invalid(`prevResult.interfaces: has no ${ifname} in a sandbox`);
  const ips = (parsed.data.ips ?? []).filter((ip) => (ip.interface ?? place) === place);
  return {
    mac: tryMac(own.mac ?? ''),
    addresses: ips.map((ip) => readCidr(ip.address)),
    routes: new Set(
      (parsed.data.routes ?? []).map(({ dst, gw }) => {
        const { address, prefixLength } = readCidr(dst);
        const gateway = tryAddress(gw ?? '');
        return routeKey(formatSubnet(subnetOf(address, prefixLength)), gateway ?? '');
      }),
    ),
  };
}

const invalid = (message: string): CniError => new CniError(CNI_CODES.invalidConfig, message);

function readCidr(text: string): { readonly address: Address; readonly prefixLength: number } {
  const [host = '', length = ''] = text.split('/');
  const address = tryAddress(host);
  const prefixLength = Number(length);
  if (address === undefined || !/^\d{1,3}$/.test(length) || prefixLength > (host.includes(':') ? 128 : 32)) {
    throw invalid(`prevResult: "${text.slice(0, 64)}" is not an address with its prefix length`);
  }
  return { address, prefixLength };
}
