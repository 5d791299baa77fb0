/**
 * Kernel settings under /proc/sys/net (`sysctl`). They belong to the network namespace of the thread that
 * opens the file, which outside `inNamespace` is the daemon's own. A device's name may hold dots, so
 * settings are named by path, not with dots.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { attributes, type MessageWriter, type NetlinkMessage } from './netlink-message.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import { AF_UNSPEC, familyNumber, RTM_GETLINK, RTM_NEWNETCONF } from './rtnetlink.ts';

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

/**
 * The same settings at a place where a container may write them: runtimes mount /proc/sys read-only in all that
 * are not privileged, and manifests/vtepd.yaml mounts the node's here. Which network namespace they belong to
 * is the writing thread's matter, not the mount's.
 */
const CONTAINER_ROOT = '/host/proc/sys/net';

/** /proc/sys is read-only, and there is no other way to it. */
export class SysctlReadOnlyError extends Error {
  override readonly name = 'SysctlReadOnlyError';
  readonly code = 'VTEPD_SYSCTL_READ_ONLY';
}

/** `sysctl -w net.PATH=VALUE` @throws SysctlReadOnlyError, NodeJS.ErrnoException */
export function writeSysctl(path: string, value: string): void {
  try {
    writeFileSync(`${ROOT}/${path}`, value);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EROFS') throw cause;
    if (!existsSync(CONTAINER_ROOT)) {
      throw new SysctlReadOnlyError(
        `${ROOT}/${path} cannot be set to ${value}, because /proc/sys is read-only here: in a container, mount the node's ${ROOT} at ${CONTAINER_ROOT}, as manifests/vtepd.yaml does; under systemd, give it ReadWritePaths=${ROOT}`,
        { cause },
      );
    }
    writeFileSync(`${CONTAINER_ROOT}/${path}`, value);
  }
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

const LINK_HEADER_BYTES = 16;
const IFLA_IFNAME = 3;
const IFLA_AF_SPEC = 26;
const IFLA_INET6_CONF = 2;
/** A place in the kernel's array of a device's settings, four bytes each (linux/ipv6.h). */
const DEVCONF_DISABLE_IPV6 = 26;

/**
 * `sysctl net.ipv6.conf.DEVICE.disable_ipv6` in the namespace of the socket, which need not be ours: a link tells
 * it too. False where the kernel has no IPv6. Netlink cannot write it. @throws NetlinkError
 */
export function isIpv6Disabled(netlink: NetlinkSocket, device: string): boolean {
  const write = (w: MessageWriter): void => {
    w.u8(AF_UNSPEC).u8(0).u16(0).u32(0).u32(0).u32(0);
    w.attributeText(IFLA_IFNAME, device);
  };
  const read = ({ body }: NetlinkMessage): { readonly disabled: boolean } => {
    const none = Buffer.alloc(0);
    const families = attributes(body, LINK_HEADER_BYTES)[IFLA_AF_SPEC] ?? none;
    const ipv6 = attributes(families)[familyNumber('ipv6')] ?? none;
    const settings = attributes(ipv6)[IFLA_INET6_CONF] ?? none;
    const at = 4 * DEVCONF_DISABLE_IPV6;
    return { disabled: settings.length >= at + 4 && settings.readInt32LE(at) !== 0 };
  };
  const doing = `look whether ${device} has IPv6`;
  return netlink.get({ type: RTM_GETLINK, flags: 0, write }, read, doing)?.disabled === true;
}
