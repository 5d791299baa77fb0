/**
 * Kernel settings under /proc/sys/net (`sysctl`). They belong to the network namespace of the thread that
 * opens the file, which outside `inNamespace` is the daemon's own. A device's name may hold dots, so
 * settings are named by path, not with dots.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { attributes, type NetlinkMessage } from './netlink-message.ts';
import { RTM_NEWNETCONF } from './rtnetlink.ts';

const ROOT = '/proc/sys/net';

/** `sysctl -n net.PATH`; undefined where the kernel has no such setting (no IPv6, no such device). */
export function readSysctl(path: string): string | undefined {
  try {
    return readFileSync(`${ROOT}/${path}`, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** `sysctl -w net.PATH=VALUE` */
export function writeSysctl(path: string, value: string): void {
  writeFileSync(`${ROOT}/${path}`, value);
}

const NETCONFA_IFINDEX = 1;

/**
 * The device whose forwarding or rp_filter changed (RTM_NEWNETCONF); negative: that of all or of the default.
 * The kernel announces no other setting.
 */
export function changedSettings({ type, body }: NetlinkMessage): number | undefined {
  if (type !== RTM_NEWNETCONF || body.length < 4) return undefined;
  const index = attributes(body, 4)[NETCONFA_IFINDEX];
  return index !== undefined && index.length >= 4 ? index.readInt32LE(0) : undefined;
}
