/**
 * What the kernel can do, found by doing it in a network namespace made for the purpose: which modules it
 * would load on demand, no file tells. Nothing of it is left.
 */
import { accessSync, constants, readFileSync } from 'node:fs';
import { type Address, type Mac, parseAddress, parseMac } from '../../store/address.ts';
import { SystemCallError } from './libc.ts';
import { addBridge, addVxlan } from './link.ts';
import { inNewNamespace } from './namespace.ts';
import type { NetlinkRequest } from './netlink-message.ts';
import { NetlinkSocket } from './netlink-socket.ts';
import { Nftables, openNetfilter } from './nftables.ts';
import { listNexthops } from './route.ts';

export type FeatureName = 'vxlan' | 'bridge' | 'nexthop' | 'nftables' | 'tun';

/** `unknown`: it could not be tried. */
export interface Feature {
  readonly state: 'works' | 'lacks' | 'unknown';
  /** Why it does not work, or could not be tried. */
  readonly reason?: string | undefined;
}

const MAC: Mac = parseMac('02:00:00:00:00:01');
const LOCAL: Address = parseAddress('127.0.0.1');
const MTU_BYTES = 1400;
const TUN = '/dev/net/tun';

export function probeFeatures(): Record<FeatureName, Feature> {
  const tun = tried(() => accessSync(TUN, constants.R_OK | constants.W_OK));
  try {
    return inNewNamespace(() => {
      using netlink = NetlinkSocket.open();
      const add = (request: NetlinkRequest) => tried(() => netlink.request(request, 'try a device'));
      const vxlan = { name: 'vxlan0', mac: MAC, mtuBytes: MTU_BYTES, vni: 1, port: 8472, local: LOCAL };
      return {
        vxlan: add(addVxlan({ ...vxlan, learning: false })),
        bridge: add(addBridge({ name: 'bridge0', mac: MAC, mtuBytes: MTU_BYTES })),
        nexthop: tried(() => {
          if (listNexthops(netlink) === undefined) throw new Error('the kernel is older than 5.3');
        }),
        nftables: tried(tryNftables),
        tun,
      };
    });
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    const unknown: Feature = {
      state: 'unknown',
      reason: `a namespace to try it in cannot be made (${error.code}; CAP_SYS_ADMIN is needed)`,
    };
    return { vxlan: unknown, bridge: unknown, nexthop: unknown, nftables: unknown, tun };
  }
}

/** Both families of tables that we make. */
function tryNftables(): void {
  openNetfilter(undefined).close();
  using nftables = Nftables.open();
  nftables.run('add table inet vtepd\nadd table bridge vtepd\n');
}

function tried(attempt: () => void): Feature {
  try {
    attempt();
    return { state: 'works' };
  } catch (error) {
    return { state: 'lacks', reason: error instanceof Error ? error.message : String(error) };
  }
}

const CAPABILITIES = { netAdmin: 12, netRaw: 13, sysAdmin: 21 } as const;
export type Capabilities = Readonly<Record<keyof typeof CAPABILITIES, boolean>>;

/** `grep CapEff /proc/self/status` */
export function readCapabilities(): Capabilities {
  const text = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const effective = BigInt(`0x${text}`);
  const has = (bit: number): boolean => (effective & (1n << BigInt(bit))) !== 0n;
  return {
    netAdmin: has(CAPABILITIES.netAdmin),
    netRaw: has(CAPABILITIES.netRaw),
    sysAdmin: has(CAPABILITIES.sysAdmin),
  };
}
