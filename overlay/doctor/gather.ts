/**
 * Reads what the doctor judges, changing nothing. Each reading stands alone: one that fails is a fact too. It
 * works with the daemon down, for that is when it is asked for.
 */
import { accessSync, constants, readFileSync, statfsSync } from 'node:fs';
import { connect } from 'node:net';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import { type InstalledCni, readInstalledCni } from '../../cni-shim/installed.ts';
import { FAMILIES, isUnspecified } from '../../store/address.ts';
import { networkFamilies } from '../../store/lease.ts';
import type { LeaseSnapshot } from '../../store/lease-store.ts';
import { isDeviceName, type Settings, type StoreSettings } from '../config/settings.ts';
import { FIREWALL_TABLE } from '../desired/firewall-table.ts';
import { chooseUnderlay, type Underlay } from '../desired/underlay.ts';
import { listAddresses } from '../kernel/address.ts';
import { probeFeatures, readCapabilities } from '../kernel/features.ts';
import { type Link, listLinks } from '../kernel/link.ts';
import { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { listDroppingChains } from '../kernel/nft-table.ts';
import { openNetfilter } from '../kernel/nftables.ts';
import { listOthersRoutes } from '../kernel/route.ts';
import { readSysctl } from '../kernel/sysctl.ts';
import { listUdpSockets, socketOwner } from '../kernel/udp-sockets.ts';
import { readUnderlayFacts } from '../kernel/underlay-facts.ts';
import { openStore, storeIdentity } from '../leases/open-store.ts';
import { SnapshotCache } from '../leases/snapshot-cache.ts';
import { askStatus } from '../ops/ask-status.ts';
import { messageWithCauses, silentLog } from '../ops/log.ts';
import { packageRoot, packageVersion } from '../ops/package.ts';
import type { DoctorFacts, Fault, FolderFact, HeldPort, Reading } from './facts.ts';
import { found, knownNetwork } from './network.ts';
import { tryTunnel } from './try-tunnel.ts';

/** A store that answers does so in a fraction of it. */
const STORE_DEADLINE_MS = 10_000;

/** Where runtimes look unless they are told otherwise. */
const DEFAULT_CONF_DIR = '/etc/cni/net.d';
/** The state directory grows by a few kilobytes; a full disk is what is looked for. */
const LEAST_FREE_BYTES = 1024 * 1024;

/** @throws the signal's reason when aborted; NetlinkError, SystemCallError where the kernel cannot be asked at all */
export async function gather(settings: Settings, signal: AbortSignal): Promise<DoctorFacts> {
  const [daemon, socketAnswers, store, cni] = await Promise.all([
    settings.http === undefined ? undefined : reading(() => askDaemon(settings, signal), signal),
    answers(settings.files.socket),
    reading(() => readStore(settings.store, signal), signal),
    readCni(settings, signal),
  ]);
  const status = found(daemon);
  const tunnel = status === undefined ? undefined : await reading(() => tryTunnel(status, signal), signal);
  using netlink = NetlinkSocket.open();
  const links = listLinks(netlink);
  const features = probeFeatures();
  const base = {
    version: packageVersion,
    kernel: release(),
    settings,
    capabilities: readCapabilities(),
    features,
    daemon,
    socketAnswers,
    store,
    cached:
      'found' in store
        ? undefined
        : new SnapshotCache(settings.files.stateDir, storeIdentity(settings.store), silentLog).read(),
    links,
    addresses: listAddresses(netlink),
    routes: FAMILIES.flatMap((family) => listOthersRoutes(netlink, family)),
    underlay: await reading(async () => findUnderlay(netlink, settings, store), signal),
    droppingChains: await reading(async () => readDroppingChains(), signal),
    legacyTables: readLegacyTables(),
    cni,
    tunnel,
    folders: readFolders(settings),
  };
  const withoutPort: DoctorFacts = { ...base, portHolders: [], sysctls: {} };
  const port = knownNetwork(withoutPort)?.tunnel?.port;
  return {
    ...base,
    portHolders: port === undefined ? [] : portHolders(port, found(base.underlay)),
    sysctls: readSysctls(settings, links, found(base.underlay)),
  };
}

async function reading<T>(read: () => Promise<T>, signal: AbortSignal): Promise<Reading<T>> {
  try {
    return { found: await read() };
  } catch (error) {
    signal.throwIfAborted();
    return { fault: faultOf(error) };
  }
}

function faultOf(error: unknown): Fault {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return { message: messageWithCauses(error), code: typeof code === 'string' ? code : undefined };
}

async function askDaemon({ http }: Settings, signal: AbortSignal) {
  if (http === undefined) throw new Error('--http is off');
  return (await askStatus(http, signal)).report;
}

/** Whether anybody listens on the unix socket. */
const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });

async function readStore(settings: StoreSettings, signal: AbortSignal): Promise<LeaseSnapshot> {
  if (settings.kind === 'embedded') {
    // To look into it must not make it, nor seed it.
    requireFolder(settings.path);
    const { netConfigPath: _, ...asItIs } = settings;
    return snapshotOf(asItIs, signal);
  }
  return snapshotOf(settings, signal);
}

function requireFolder(path: string): void {
  try {
    accessSync(path, constants.R_OK);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw missing ? new Error(`${path} does not exist`) : error;
  }
}

async function snapshotOf(settings: StoreSettings, signal: AbortSignal): Promise<LeaseSnapshot> {
  const store = await openStore(settings);
  try {
    return await store.snapshot(AbortSignal.any([signal, AbortSignal.timeout(STORE_DEADLINE_MS)]));
  } finally {
    await store.close();
  }
}

/** By the network's families; both, where the network is not known. */
function findUnderlay(
  netlink: NetlinkSocket,
  { underlay, overlay }: Settings,
  store: Reading<LeaseSnapshot>,
): Underlay {
  const facts = readUnderlayFacts(netlink, underlay, (name) => isDeviceName(overlay, name));
  const network = found(store)?.network;
  const families = network !== undefined && 'config' in network ? networkFamilies(network.config) : FAMILIES;
  return chooseUnderlay(underlay, facts, families, []);
}

function readDroppingChains() {
  using netlink = openNetfilter(undefined);
  return listDroppingChains(netlink).filter(({ table }) => table !== FIREWALL_TABLE);
}

/** Without iptables-legacy in use there is no such file. */
function readLegacyTables(): string[] {
  try {
    const names = readFileSync('/proc/thread-self/net/ip_tables_names', 'utf8');
    return names.split('\n').filter((name) => name !== '');
  } catch {
    return [];
  }
}

const portHolders = (port: number, underlay: Underlay | undefined): HeldPort[] =>
  listUdpSockets()
    .filter((socket) => socket.port === port && stands(socket.address, underlay))
    .map((socket) => ({ ...socket, owner: socketOwner(socket.inode) }));

/** A socket on another address of the node (the loopback's) is in nobody's way. */
const stands = (address: HeldPort['address'], underlay: Underlay | undefined): boolean =>
  isUnspecified(address) ||
  underlay === undefined ||
  FAMILIES.some((family) => underlay.localAddress[family] === address);

function readSysctls(
  { overlay }: Settings,
  links: readonly Link[],
  underlay: Underlay | undefined,
): Record<string, string | undefined> {
  const own = links.filter(({ name }) => isDeviceName(overlay, name)).map(({ name }) => name);
  const devices = [...own, ...(underlay === undefined ? [] : [underlay.link.name])];
  const paths = [
    ...devices.map((device) => `ipv4/conf/${device}/forwarding`),
    ...devices.map((device) => `ipv6/conf/${device}/force_forwarding`),
    'ipv6/conf/all/forwarding',
    ...devices.map((device) => `ipv4/conf/${device}/rp_filter`),
    'ipv4/conf/all/rp_filter',
    'bridge/bridge-nf-call-iptables',
    'bridge/bridge-nf-call-ip6tables',
  ];
  return Object.fromEntries(paths.map((path) => [path, readSysctl(path)]));
}

async function readCni({ cni }: Settings, signal: AbortSignal): Promise<Reading<InstalledCni> | undefined> {
  const confDir = cni.confDir ?? DEFAULT_CONF_DIR;
  const shimPath = join(packageRoot, 'build', 'vtepd-cni');
  const read = await reading(() => readInstalledCni(confDir, cni.binDir, shimPath), signal);
  const ours = found(read)?.configurations?.some(({ socket }) => socket !== undefined) === true;
  return cni.confDir === undefined && !ours ? undefined : read;
}

function readFolders({ files }: Settings): FolderFact[] {
  return [
    { option: 'state-dir', path: files.stateDir },
    { option: 'run-dir', path: files.runDir },
  ].map((folder) => ({ ...folder, problem: folderProblem(folder.path) }));
}

/** A folder that is not there yet is made by the daemon: then its parent counts. */
function folderProblem(path: string): string | undefined {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' || dirname(path) === path)
      return code === 'EROFS' ? 'the file system is read-only' : message;
    return folderProblem(dirname(path));
  }
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize < LEAST_FREE_BYTES ? 'its file system is full' : undefined;
}
