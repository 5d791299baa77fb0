/**
 * What flannel left on this node, as the kernel and its CNI plugins' files show it. Only looked at: nothing is
 * changed here.
 *
 *     flannel.<VNI>, flannel-v6.<VNI>      the daemon's devices, with the VTEP MACs that the peers know
 *     cni0                                 its plugins' bridge, with the pods' ports
 *     <conf>/10-flannel.conflist           names the network, and the bridge where it is another
 *     <data>/networks/<network>/ADDRESS    host-local: who has which address
 *     <data>/results/...                   the runtime: which port is whose
 *
 * A pod that the runtime's files do not tell of is found by its address: the node's neighbour table has its MAC,
 * the bridge's the port behind which that MAC is.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { listReserved, type ReservedAddress } from '../../cni-shim/address-store.ts';
import { type AttachmentKey, hostInterfaceName } from '../../cni-shim/attachment.ts';
import type { Address, Family, Mac, PerFamily } from '../../store/address.ts';
import { type LinkAddress, listAddresses } from '../kernel/address.ts';
import { readFileIfThere } from '../kernel/files.ts';
import { type Link, listLinks } from '../kernel/link.ts';
import { listLearned, listNeighbours } from '../kernel/neighbour.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { processInOurNetwork } from '../kernel/processes.ts';
import { wakeNeighbours } from '../kernel/wake-neighbours.ts';
import { LINK_ALIAS } from '../reconcile/own-links.ts';
import { type CachedResult, cachedResultName, parseCachedResult } from './cached-result.ts';

export interface FlannelFacts {
  /** A flanneld that runs in this network namespace. */
  readonly pid: number | undefined;
  readonly devices: PerFamily<Link>;
  readonly bridgeName: string;
  readonly bridge: Link | undefined;
  readonly conflist: FlannelConflist | undefined;
  /** Of the devices and the bridge. */
  readonly addresses: readonly LinkAddress[];
  /** Every address that host-local has given to somebody, of every network. */
  readonly reservations: readonly ReservedAddress[];
  /** Those of them whose interface was found. */
  readonly pods: readonly FlannelPod[];
}

export interface FlannelConflist {
  readonly path: string;
  /** The network's. */
  readonly name: string;
  readonly bridge: string | undefined;
}

export interface FlannelPod extends AttachmentKey {
  readonly port: Link;
  readonly mac: Mac;
  readonly addresses: readonly Address[];
  /** What the runtime remembers, if it does. */
  readonly cached: CachedResult | undefined;
}

export interface FlannelPlaces {
  readonly confDir: string;
  readonly dataDir: string;
}

export const FLANNEL_DAEMON = 'flanneld';
/** The bridge that flannel's CNI plugin delegates to, unless told otherwise. */
const DEFAULT_BRIDGE = 'cni0';
const DEVICE = /^flannel(-v6)?\.\d+$/;

/** A pod answers ARP at once, or not at all. */
const ANSWER_MS = 1000;
const LOOK_AGAIN_MS = 50;

/** Whether flannel may have been here at all: one dump of links, and one look at a directory. */
export function hasFlannelTraces(netlink: NetlinkSocket, { confDir }: FlannelPlaces): boolean {
  const strangers = listLinks(netlink).filter(({ alias }) => alias !== LINK_ALIAS);
  if (strangers.some(isFlannelDevice)) return true;
  const conflist = findConflist(confDir);
  const bridge = conflist?.bridge ?? DEFAULT_BRIDGE;
  return conflist !== undefined && strangers.some(({ name, kind }) => kind === 'bridge' && name === bridge);
}

const isFlannelDevice = ({ name, kind }: Link): boolean => kind === 'vxlan' && DEVICE.test(name);

/** @throws NetlinkError, NodeJS.ErrnoException */
export async function observeFlannel(netlink: NetlinkSocket, places: FlannelPlaces): Promise<FlannelFacts> {
  const links = listLinks(netlink);
  const conflist = findConflist(places.confDir);
  const bridgeName = conflist?.bridge ?? DEFAULT_BRIDGE;
  const bridge = links.find(({ name, kind }) => name === bridgeName && kind === 'bridge');
  const device = (family: Family): Link | undefined =>
    links.find(
      (link) => isFlannelDevice(link) && link.name.startsWith('flannel-v6.') === (family === 'ipv6'),
    );
  const [ipv4, ipv6] = [device('ipv4'), device('ipv6')];
  const ours = new Set([bridge?.index, ipv4?.index, ipv6?.index]);
  const networks = join(places.dataDir, 'networks');
  const reservations = existsSync(networks)
    ? listReserved(networks).filter(({ holder }) => isNamed(holder))
    : [];
  return {
    pid: processInOurNetwork(FLANNEL_DAEMON),
    devices: { ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }) },
    bridgeName,
    bridge,
    conflist,
    addresses: listAddresses(netlink).filter(({ linkIndex }) => ours.has(linkIndex)),
    reservations,
    pods: bridge === undefined ? [] : await findPods(netlink, links, bridge, reservations, places.dataDir),
  };
}

const isNamed = ({ containerID }: AttachmentKey): boolean => containerID !== '';

/** The first list whose plugin is flannel's; what cannot be read is nobody's. */
function findConflist(confDir: string): FlannelConflist | undefined {
  const names = existsSync(confDir) ? readdirSync(confDir).sort() : [];
  for (const name of names.filter((each) => /\.(conflist|conf|json)$/.test(each))) {
    const path = join(confDir, name);
    const list = parseJson(textOf(path));
    const plugin = Array.isArray(list?.plugins) ? list.plugins[0] : list;
    if (!isRecord(plugin) || plugin.type !== 'flannel' || typeof list?.name !== 'string') continue;
    const bridge = isRecord(plugin.delegate) ? plugin.delegate.bridge : undefined;
    return { path, name: list.name, bridge: typeof bridge === 'string' ? bridge : undefined };
  }
  return undefined;
}

/** A folder of that name, or one that has just gone, is no configuration. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

async function findPods(
  netlink: NetlinkSocket,
  links: readonly Link[],
  bridge: Link,
  reservations: readonly ReservedAddress[],
  dataDir: string,
): Promise<FlannelPod[]> {
  const ports = links.filter(({ master }) => master === bridge.index);
  const byKey = new Map<string, { key: AttachmentKey; addresses: Address[] }>();
  for (const { address, holder } of reservations) {
    // An early host-local wrote no interface's name; it is eth0 nearly everywhere.
    const key = { ...holder, ifname: holder.ifname === '' ? 'eth0' : holder.ifname };
    const text = JSON.stringify([key.network, key.containerID, key.ifname]);
    const known = byKey.get(text);
    if (known === undefined) byKey.set(text, { key, addresses: [address] });
    else known.addresses.push(address);
  }
  const found: FlannelPod[] = [];
  const unknown: { key: AttachmentKey; addresses: Address[]; cached: CachedResult | undefined }[] = [];
  for (const { key, addresses } of byKey.values()) {
    const cached = readCached(dataDir, key, bridge.name);
    const renamed = hostInterfaceName(key);
    const port = ports.find(({ name }) => name === cached?.hostInterface || name === renamed);
    if (port !== undefined && cached?.mac !== undefined)
      found.push({ ...key, port, mac: cached.mac, addresses, cached });
    else unknown.push({ key, addresses, cached });
  }
  return [...found, ...(await findByAddress(netlink, bridge, ports, unknown))];
}

function readCached(dataDir: string, key: AttachmentKey, bridge: string): CachedResult | undefined {
  const name = cachedResultName(key.network, key.containerID, key.ifname);
  if (name.includes('/')) return undefined;
  const text = readFileIfThere(join(dataDir, 'results', name));
  return text === undefined ? undefined : parseCachedResult(text, key.ifname, bridge);
}

async function findByAddress(
  netlink: NetlinkSocket,
  bridge: Link,
  ports: readonly Link[],
  wanted: readonly { key: AttachmentKey; addresses: Address[]; cached: CachedResult | undefined }[],
): Promise<FlannelPod[]> {
  if (wanted.length === 0 || ports.length === 0 || !bridge.up) return [];
  const look = (): FlannelPod[] => {
    const macs = new Map(listNeighbours(netlink, bridge.index).map(({ address, mac }) => [address, mac]));
    const learned = listLearned(netlink, bridge.index);
    return wanted.flatMap(({ key, addresses, cached }) => {
      const mac = addresses.map((address) => macs.get(address)).find((each) => each !== undefined);
      const port = mac && ports.find(({ index }) => index === learned.get(mac));
      return mac === undefined || port === undefined ? [] : [{ ...key, port, mac, addresses, cached }];
    });
  };
  let found = look();
  const deadline = performance.now() + ANSWER_MS;
  if (found.length < wanted.length) await wakeNeighbours(wanted.flatMap(({ addresses }) => addresses));
  while (found.length < wanted.length && performance.now() < deadline) {
    await delay(LOOK_AGAIN_MS);
    found = look();
  }
  return found;
}

function parseJson(text: string): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return isRecord(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
