/**
 * Gives the node back to flannel, with vtepd's daemon ended: what flanneld, its CNI plugins and the runtime
 * expect to find, and nothing of ours that would stand in their way. Pods and flows go on.
 *
 *     routes as flannel's, then ours away --> filters away --> ports by their names, host-local's files,
 *     what the plugin needs for a DEL --> CNI configuration --> our records
 *
 * The devices stay as they are: flanneld takes one with the same parameters for its own. The lease stays in the
 * store, where flanneld finds it by its public address. Every step can be repeated; the record goes last.
 */
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { listReserved, type ReservedAddress } from '../../cni-shim/address-store.ts';
import { type Attachment, attachmentText } from '../../cni-shim/attachment.ts';
import { AttachmentRecords } from '../../cni-shim/attachment-records.ts';
import { CONFLIST_NAME } from '../../cni-shim/conflist.ts';
import { DurableFiles } from '../../cni-shim/durable-files.ts';
import { type Address, FAMILIES, formatSubnet } from '../../store/address.ts';
import type { Settings } from '../config/settings.ts';
import { readFileIfThere, writeFileAtomically } from '../kernel/files.ts';
import { Firewall } from '../kernel/firewall.ts';
import { type Link, listLinks, setLink } from '../kernel/link.ts';
import type { NetlinkRequest } from '../kernel/netlink-message.ts';
import { NetlinkSocket } from '../kernel/netlink-socket.ts';
import {
  deleteNexthop,
  deleteRoute,
  listNexthops,
  listRoutes,
  type Nexthop,
  prependRoute,
  type Route,
} from '../kernel/route.ts';
import { ROUTE_PROTOCOL } from '../kernel/rtnetlink.ts';
import { LINK_ALIAS } from '../reconcile/own-links.ts';
import { cachedResultName } from './cached-result.ts';
import { delegatedConfiguration } from './delegated.ts';
import { flannelPlaces, lockState, renameLink } from './take-over.ts';
import type { Step } from './take-over-plan.ts';
import { forgetTakenOver, readTakenOver, SET_ASIDE, type TakenOver } from './taken-over.ts';

/** Nothing was taken over from flannel on this node. */
export class NothingTakenOverError extends Error {
  override readonly name = 'NothingTakenOverError';
  readonly code = 'VTEPD_NOTHING_TAKEN_OVER';
}

/** RTPROT_BOOT: what a route has by whom no protocol is named, as flannel's. */
const DEFAULT_PROTOCOL = 3;

export interface GiveBackOptions {
  readonly settings: Settings;
  readonly dryRun: boolean;
}

/** @returns what was done, or would be @throws NothingTakenOverError, StateInUseError, NetlinkError, NftablesError */
export async function giveBack({ settings, dryRun }: GiveBackOptions): Promise<Step[]> {
  const { stateDir } = settings.files;
  const record = readTakenOver(stateDir);
  if (record === undefined) {
    throw new NothingTakenOverError(
      `${stateDir} knows of nothing that was taken over from flannel: there is nothing to give back`,
    );
  }
  using _lock = lockState(stateDir);
  using netlink = NetlinkSocket.open();
  const giving = new GivingBack(netlink, settings, record, dryRun);
  giving.routes();
  giving.filters();
  await giving.pods();
  giving.devices();
  giving.configuration();
  giving.records();
  return giving.steps;
}

class GivingBack {
  readonly steps: Step[] = [];
  readonly #netlink: NetlinkSocket;
  readonly #settings: Settings;
  readonly #record: TakenOver;
  readonly #dryRun: boolean;

  constructor(netlink: NetlinkSocket, settings: Settings, record: TakenOver, dryRun: boolean) {
    this.#netlink = netlink;
    this.#settings = settings;
    this.#record = record;
    this.#dryRun = dryRun;
  }

  /** Each peer has flannel's route before ours goes. */
  routes(): void {
    const nexthops = new Map((listNexthops(this.#netlink) ?? []).map((one) => [one.id, one] as const));
    const add: NetlinkRequest[] = [];
    const remove: NetlinkRequest[] = [];
    let count = 0;
    for (const family of FAMILIES) {
      const present = new Set(
        listRoutes(this.#netlink, family)
          .filter(({ protocol }) => protocol === DEFAULT_PROTOCOL)
          .map(({ destination }) => formatSubnet(destination)),
      );
      for (const route of listRoutes(this.#netlink, family, ROUTE_PROTOCOL)) {
        const flannels = flannelRoute(route, nexthops);
        if (flannels !== undefined && !present.has(formatSubnet(route.destination))) add.push(flannels);
        remove.push(deleteRoute({ destination: route.destination, metric: route.metric }));
        count++;
      }
    }
    for (const { id, protocol } of nexthops.values())
      if (protocol === ROUTE_PROTOCOL) remove.push(deleteNexthop(id));
    if (count > 0) this.#step('later', `${count} routes are as flannel makes them`);
    if (this.#dryRun) return;
    const [refused] = this.#netlink.execute(add, () => "add flannel's routes");
    if (refused !== undefined && refused.error.code !== 'EEXIST') throw refused.error;
    const failure = this.#netlink
      .execute(remove, () => 'remove our routes')
      .find(({ error }) => error.code !== 'ESRCH' && error.code !== 'ENOENT');
    if (failure !== undefined) throw failure.error;
  }

  /** flanneld makes its rules when it starts; masquerading rests until then. */
  filters(): void {
    this.#step('later', 'the packet filter of vtepd is removed; flanneld makes its own when it starts');
    if (this.#dryRun) return;
    const firewall = Firewall.open();
    try {
      firewall.remove();
    } finally {
      firewall.close();
    }
  }

  async pods(): Promise<void> {
    if (!this.#record.pods) return;
    const { stateDir } = this.#settings.files;
    const files = new DurableFiles(join(stateDir, 'scratch'));
    try {
      const { stored } = new AttachmentRecords(join(stateDir, 'attachments'), files).load();
      const links = new Map(listLinks(this.#netlink).map((link) => [link.name, link] as const));
      const attachments = stored
        .map(({ attachment }) => attachment)
        .filter(({ hostInterface }) => links.has(hostInterface));
      for (const attachment of attachments) this.#pod(attachment, links.get(attachment.hostInterface));
      this.#addresses(attachments);
    } finally {
      await files.close();
    }
  }

  #pod(attachment: Attachment, link: Link | undefined): void {
    const { hostInterface, containerID } = attachment;
    const was = this.#record.ports.find((port) => port.hostInterface === hostInterface)?.was;
    // One of vtepd's gets a name as the bridge plugin would make it.
    const name = was ?? hostInterface.replace(/^vtp/, 'veth').slice(0, 12);
    this.#step('pod', `${attachmentText(attachment)}: ${hostInterface} becomes ${name}`);
    if (this.#dryRun || link === undefined) return;
    if (name !== hostInterface) renameLink(this.#netlink, link.index, hostInterface, name);
    const path = join(this.#settings.cni.dataDir, 'flannel', containerID);
    if (existsSync(path)) return;
    // By it, and by it alone, flannel's plugin knows what a DEL has to undo.
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const conf = delegatedConfiguration(attachment, this.#settings.cni.dataDir);
    writeFileAtomically(path, `${JSON.stringify(conf)}\n`, 0o600);
  }

  /** host-local's files say who has which address: exactly those that somebody has. */
  #addresses(attachments: readonly Attachment[]): void {
    const { stateDir } = this.#settings.files;
    const root = join(this.#settings.cni.dataDir, 'networks');
    const ours = join(stateDir, 'networks');
    const held = new Map<Address, ReservedAddress>();
    for (const reserved of existsSync(ours) ? listReserved(ours) : []) held.set(reserved.address, reserved);
    for (const attachment of attachments)
      for (const { address } of attachment.addresses) held.set(address, { address, holder: attachment });
    const theirs = existsSync(root) ? listReserved(root) : [];
    const gone = theirs.filter(
      ({ address, holder }) => holder.network === this.#record.network && !held.has(address),
    );
    for (const { address } of gone) this.#step('address', `${address} is free`);
    for (const { address, holder } of held.values())
      this.#step('address', `${address} is reserved for ${holder.containerID} in host-local’s files`);
    if (this.#dryRun) return;
    for (const { address, holder } of gone) {
      rmSync(join(root, holder.network, address), { force: true });
      this.#forgetContainer(holder.containerID, holder.network, holder.ifname);
    }
    for (const { address, holder } of held.values()) {
      const folder = join(root, holder.network);
      mkdirSync(folder, { recursive: true, mode: 0o755 });
      // The bytes are host-local's own.
      writeFileSync(join(folder, address), `${holder.containerID}\r\n${holder.ifname}`, { mode: 0o600 });
    }
    for (const index of [0, 1]) {
      const last = readFileIfThere(join(ours, this.#record.network, `last_reserved_ip.${index}`));
      if (last !== undefined)
        writeFileSync(join(root, this.#record.network, `last_reserved_ip.${index}`), last.trim());
    }
  }

  /** Its DEL went to vtepd: nobody else would remove what was remembered of it. */
  #forgetContainer(containerID: string, network: string, ifname: string): void {
    const { dataDir } = this.#settings.cni;
    for (const path of [
      join(dataDir, 'flannel', containerID),
      join(dataDir, 'results', cachedResultName(network, containerID, ifname)),
    ]) {
      rmSync(path, { force: true });
    }
  }

  /** Ours no more, so that `vtepd cleanup` leaves them alone. */
  devices(): void {
    for (const { name, index, alias } of listLinks(this.#netlink)) {
      if (alias !== LINK_ALIAS) continue;
      this.#step(name === this.#record.bridge ? 'bridge' : 'device', `${name} is flannel's`);
      if (!this.#dryRun) this.#netlink.request(setLink(index, { alias: '' }), `take the alias off ${name}`);
    }
  }

  configuration(): void {
    const { conflist, pods } = this.#record;
    if (conflist === undefined || !pods) return;
    const { confDir } = flannelPlaces(this.#settings);
    this.#step('later', `${conflist} is the CNI configuration again`);
    if (this.#dryRun) return;
    if (existsSync(conflist + SET_ASIDE)) renameSync(conflist + SET_ASIDE, conflist);
    rmSync(join(confDir, CONFLIST_NAME), { force: true });
  }

  /** MACs and lease stay, for the day when vtepd comes back. */
  records(): void {
    if (this.#dryRun) return;
    const { stateDir } = this.#settings.files;
    if (this.#record.pods) {
      for (const folder of [join(stateDir, 'attachments'), join(stateDir, 'networks')]) {
        rmSync(folder, { recursive: true, force: true });
      }
    }
    forgetTakenOver(stateDir);
  }

  #step(kind: Step['kind'], what: string): void {
    this.steps.push({ kind, what });
  }
}

/** `ip route add SUBNET via GATEWAY dev DEVICE onlink`, as flannel has it; undefined where ours led nowhere. */
function flannelRoute(route: Route, nexthops: ReadonlyMap<number, Nexthop>): NetlinkRequest | undefined {
  const { destination, nexthopId } = route;
  const nexthop = nexthopId === undefined ? route : nexthops.get(nexthopId);
  if (nexthop?.gateway === undefined || nexthop.linkIndex === undefined) return undefined;
  return prependRoute({
    destination,
    gateway: nexthop.gateway,
    linkIndex: nexthop.linkIndex,
    onlink: nexthop.gateway === destination.address,
    protocol: DEFAULT_PROTOCOL,
  });
}
