/**
 * The kernel's settings of devices (`sysctl net.ipv4.conf.DEVICE`, `net.ipv6.conf.DEVICE`) that an overlay
 * needs, and where the two families differ.
 *
 * IPv4 forwards by the device that a packet comes in by. IPv6 looks at one switch for the whole host, `all`,
 * and a device's own `forwarding` only says that it acts as a router; from kernel 6.17 on a device's
 * `force_forwarding` does what IPv4's `forwarding` does. On older kernels the switch has to be turned, and
 * turning it makes every interface forget the default route that it learned from a router, unless its
 * `accept_ra` is 2: so that comes first, on each interface that accepts advertisements.
 */
import { readdirSync } from 'node:fs';
import type { Family } from '../../store/address.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';

/** Hears what had to be changed: `net.ipv4/conf/vtep0/forwarding = 1`. */
export type SettingListener = (what: string) => void;

const ACCEPT_AS_HOST_ONLY = '1';
const ACCEPT_AS_ROUTER_TOO = '2';
const STRICT = '1';
const LOOSE = '2';

/**
 * For a device of ours, before it comes up: no router advertisement is taken from a pod (CVE-2020-10749);
 * IPv6 is on where it is needed, whatever the host's default for new devices is; and its link-local address,
 * by which the bridge asks for pods, is used at once (a bridge is only up from its first pod on, which would
 * wait a second for duplicate address detection otherwise).
 */
export function settleOwnDevice(device: string, families: readonly Family[], changed: SettingListener): void {
  set(`ipv6/conf/${device}/accept_ra`, '0', changed);
  set(`ipv6/conf/${device}/accept_dad`, '0', changed);
  if (families.includes('ipv6')) set(`ipv6/conf/${device}/disable_ipv6`, '0', changed);
}

/** Whether this kernel lets IPv6 be forwarded by device (6.17 on). */
export const forwardsIpv6ByDevice = (): boolean => readSysctl('ipv6/conf/all/force_forwarding') !== undefined;

/**
 * Lets packets that come in by these devices be forwarded.
 * @param byDevice as forwardsIpv6ByDevice(): tests take a newer kernel for an older one
 */
export function settleForwarding(
  family: Family,
  devices: readonly string[],
  changed: SettingListener,
  byDevice: boolean = forwardsIpv6ByDevice(),
): void {
  const setting = family === 'ipv4' ? 'forwarding' : 'force_forwarding';
  if (family === 'ipv4' || byDevice) {
    for (const device of devices) set(`${family}/conf/${device}/${setting}`, '1', changed);
    return;
  }
  if (readSysctl('ipv6/conf/all/forwarding') === '1') return;
  for (const device of readdirSync('/proc/sys/net/ipv6/conf')) {
    const path = `ipv6/conf/${device}/accept_ra`;
    if (device !== 'all' && readSysctl(path) === ACCEPT_AS_HOST_ONLY)
      set(path, ACCEPT_AS_ROUTER_TOO, changed);
  }
  set('ipv6/conf/all/forwarding', '1', changed);
}

/**
 * The stricter of `all` and the device's own rp_filter counts, and strict drops what comes from a peer whose
 * route is not programmed yet; loose, on the device, wins over both. IPv6 has no such filter.
 */
export function settleReversePath(devices: readonly string[], changed: SettingListener): void {
  for (const device of devices) {
    const own = readSysctl(`ipv4/conf/${device}/rp_filter`);
    const strict = own === STRICT || (own === '0' && readSysctl('ipv4/conf/all/rp_filter') === STRICT);
    if (strict) set(`ipv4/conf/${device}/rp_filter`, LOOSE, changed);
  }
}

function set(path: string, value: string, changed: SettingListener): void {
  const present = readSysctl(path);
  if (present === undefined || present === value) return;
  writeSysctl(path, value);
  changed(`net.${path} = ${value}`);
}
