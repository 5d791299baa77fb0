/**
 * A pod's interface in the kernel: made from the node's side, addressed through the netlink socket that the
 * shim opened in the pod's namespace, and compared with what it should be.
 */
import { addAddress, listAddresses } from '../overlay/kernel/address.ts';
import { addVeth, deleteLink, findLink, type Link, setHairpin, setLink } from '../overlay/kernel/link.ts';
import { readLinkState } from '../overlay/kernel/link-state.ts';
import { type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from '../overlay/kernel/netlink-message.ts';
import { NetlinkError, type NetlinkSocket } from '../overlay/kernel/netlink-socket.ts';
import { listRoutes, setRoute } from '../overlay/kernel/route.ts';
import { executeSlowly } from '../overlay/kernel/slow-netlink.ts';
import { familyOf, formatSubnet } from '../store/address.ts';
import type { Attachment, AttachmentRoute } from './attachment.ts';
import { type PreviousResult, routeKey } from './result.ts';

/** The pod's routes are the pod's: not marked as the daemon's own, which it would tidy up (RTPROT_STATIC). */
const POD_ROUTE_PROTOCOL = 4;
const LOOPBACK_INDEX = 1;
const ENODEV = 19;

/**
 * `ip link add HOST mtu N master BRIDGE up type veth peer IFNAME address MAC netns POD`, and hairpin where it
 * was asked for. @throws NetlinkError; EEXIST when either name is taken
 */
export function createPodLink(
  node: NetlinkSocket,
  attachment: Attachment,
  bridgeIndex: number,
  namespaceFd: number,
): void {
  const veth = addVeth({
    name: attachment.hostInterface,
    mtuBytes: attachment.mtuBytes,
    master: bridgeIndex,
    up: true,
    far: { name: attachment.ifname, mac: attachment.mac, namespaceFd },
  });
  const requests = attachment.hairpin ? [veth, setHairpin(attachment.hostInterface, true)] : [veth];
  const [failure] = node.execute(requests, () => `create ${attachment.ifname} in the pod`);
  if (failure !== undefined) throw failure.error;
}

/**
 * In the pod: `ip link set lo up; ip address add ADDRESS dev IFNAME nodad; ip link set IFNAME up;
 * ip route add ...`. A route that the pod has already, by another interface, is left as it is.
 * @returns the routes that are by this interface now @throws NetlinkError
 */
export function configurePodLink(pod: NetlinkSocket, attachment: Attachment): AttachmentRoute[] {
  const link = findLink(pod, attachment.ifname);
  if (link === undefined)
    throw new NetlinkError(ENODEV, undefined, `configure ${attachment.ifname} in the pod`);
  const before: NetlinkRequest[] = [
    setLink(LOOPBACK_INDEX, { up: true }),
    ...attachment.addresses.map(({ address, prefixLength }) =>
      addAddress({ linkIndex: link.index, address, prefixLength }),
    ),
    setLink(link.index, { up: true }),
  ];
  const routes = attachment.routes.map((route) => ({
    ...setRoute({ ...route, linkIndex: link.index, protocol: POD_ROUTE_PROTOCOL }),
    flags: NLM_F_CREATE | NLM_F_EXCL,
  }));
  const failures = pod.execute([...before, ...routes], (i) =>
    i < before.length
      ? `configure ${attachment.ifname} in the pod`
      : `add route ${routeText(attachment.routes[i - before.length])} in the pod`,
  );
  const had = new Set<number>();
  for (const { index, error } of failures) {
    if (index < before.length || error.code !== 'EEXIST') throw error;
    had.add(index - before.length);
  }
  return attachment.routes.filter((_, i) => !had.has(i));
}

/**
 * What of the way between pod and bridge does not carry packets yet, in words. In this order, for on newer kernels
 * each look brings on what the next one sees. @throws NetlinkError; ENODEV when either end is gone
 */
export function idlePart(
  node: NetlinkSocket,
  pod: NetlinkSocket,
  { ifname, hostInterface, bridge }: Attachment,
): string | undefined {
  const far = readLinkState(pod, ifname);
  if (far === undefined) throw new NetlinkError(ENODEV, undefined, `raise ${ifname} in the pod`);
  if (!far.running) return `${ifname} in the pod has no carrier`;
  const host = readLinkState(node, hostInterface);
  if (host === undefined) throw new NetlinkError(ENODEV, undefined, `plug ${hostInterface} in`);
  if (!host.running) return `${hostInterface} has no carrier`;
  if (!host.forwarding) return `${hostInterface} is a port of ${bridge} that does not forward`;
  return readLinkState(node, bridge)?.running === true ? undefined : `${bridge} has no carrier`;
}

/** Removes the pod's end where the node's end could not be found; not on the event loop. */
export async function removePodLink(pod: NetlinkSocket, link: Link): Promise<void> {
  const [failure] = await executeSlowly(
    pod,
    [deleteLink(link.index)],
    () => `remove ${link.name} in the pod`,
  );
  if (failure !== undefined && failure.error.code !== 'ENODEV') throw failure.error;
}

/** What in the kernel is not as ADD made it, in words; empty when all is well. */
export function comparePodLink(
  node: NetlinkSocket,
  pod: NetlinkSocket,
  attachment: Attachment,
  expected: PreviousResult,
  bridgeIndex: number,
): string[] {
  const wrong: string[] = [];
  const host = findLink(node, attachment.hostInterface);
  if (host === undefined) wrong.push(`${attachment.hostInterface} is missing on the node`);
  else if (!host.up) wrong.push(`${attachment.hostInterface} is down on the node`);
  else if (host.master !== bridgeIndex) {
    wrong.push(`${attachment.hostInterface} is not a port of ${attachment.bridge}`);
  }
  const link = findLink(pod, attachment.ifname);
  if (link === undefined) return [...wrong, `${attachment.ifname} is missing in the pod`];
  if (!link.up) wrong.push(`${attachment.ifname} is down in the pod`);
  if (expected.mac !== undefined && link.mac !== expected.mac) {
    wrong.push(`${attachment.ifname} has MAC ${link.mac ?? 'none'}, not ${expected.mac}`);
  }
  const present = new Set(
    listAddresses(pod)
      .filter((one) => one.linkIndex === link.index)
      .map(({ address, prefixLength }) => `${address}/${prefixLength}`),
  );
  for (const { address, prefixLength } of expected.addresses) {
    if (!present.has(`${address}/${prefixLength}`)) {
      wrong.push(`${attachment.ifname} lacks the address ${address}/${prefixLength}`);
    }
  }
  return [...wrong, ...missingRoutes(pod, attachment, expected, link.index)];
}

/** Only those that ADD made and the result still names: a later plugin may have changed the others. */
function missingRoutes(
  pod: NetlinkSocket,
  attachment: Attachment,
  expected: PreviousResult,
  linkIndex: number,
): string[] {
  const key = ({ destination, gateway }: AttachmentRoute): string =>
    routeKey(formatSubnet(destination), gateway);
  const wanted = attachment.routes.filter((route) => expected.routes.has(key(route)));
  const families = new Set(wanted.map((route) => familyOf(route.gateway)));
  const present = new Set(
    [...families]
      .flatMap((family) => listRoutes(pod, family))
      .filter((route) => route.linkIndex === linkIndex)
      .map((route) => routeKey(formatSubnet(route.destination), route.gateway ?? '')),
  );
  return wanted
    .filter((route) => !present.has(key(route)))
    .map((route) => `the pod lacks the route ${routeText(route)}`);
}

const routeText = (route: AttachmentRoute | undefined): string =>
  route === undefined ? '' : `${formatSubnet(route.destination)} via ${route.gateway}`;
