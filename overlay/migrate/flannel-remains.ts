/**
 * What flannel left and ours replaces: its routes, its packet filter rules, its CNI configuration. They go when
 * ours stand, not before, so that no packet is ever without a way; and each start looks again, for a flanneld
 * that was started in between makes them anew.
 */
import { existsSync } from 'node:fs';
import { access, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { listReserved, type ReservedAddress } from '../../cni-shim/address-store.ts';
import { CONFLIST_NAME } from '../../cni-shim/conflist.ts';
import { type Address, formatSubnet, subnetContains } from '../../store/address.ts';
import { clusterNetworksOf, type WantedOverlay } from '../desired/overlay.ts';
import { listFlannelRules } from '../kernel/flannel-rules.ts';
import { findLink } from '../kernel/link.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { deleteRoute, listOthersRoutes, type Route, RT_TABLE_MAIN } from '../kernel/route.ts';
import type { Log } from '../ops/log.ts';
import { SET_ASIDE, type TakenOver } from './taken-over.ts';

/** flannel names no protocol of its own: its routes have what a route has by default (RTPROT_BOOT). */
const DEFAULT_PROTOCOL = 3;
/** Of thousands of routes a line of the log names some. */
const SHOWN = 10;
const FIRST_RETRY_MS = 10_000;
/** What cannot be removed now (a program that is missing) may be for days; it harms nobody meanwhile. */
const LAST_RETRY_MS = 3_600_000;

export interface RemainsOptions {
  readonly record: TakenOver;
  readonly netlink: NetlinkSocket;
  /** Where ours was installed; absent: the daemon installs none. */
  readonly confDir?: string | undefined;
  /** Where host-local's files are. */
  readonly dataDir: string;
  /** Keeps addresses from being given to others. @returns those that were not known */
  readonly hold: (reserved: readonly ReservedAddress[]) => readonly Address[];
  readonly log: Log;
}

export class FlannelRemains {
  readonly #options: RemainsOptions;
  #state: 'left' | 'removing' | 'gone' = 'left';
  #removing: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = FIRST_RETRY_MS;

  constructor(options: RemainsOptions) {
    this.#options = options;
  }

  /** Everything of ours stands. Returns at once; told again and again, it does its work once. */
  ready(wanted: WantedOverlay): void {
    if (this.#state !== 'left') return;
    this.#state = 'removing';
    this.#removing = this.#remove(wanted).then(
      () => {
        this.#state = 'gone';
      },
      (error: unknown) => {
        this.#options.log.warn('something of flannel’s could not be removed; trying again', { error });
        this.#retry = setTimeout(() => {
          this.#state = 'left';
        }, this.#retryMs);
        this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
      },
    );
  }

  async close(): Promise<void> {
    clearTimeout(this.#retry);
    await this.#removing;
  }

  /** Each part on its own: one that cannot be removed does not keep the others. @throws the first of their errors */
  async #remove(wanted: WantedOverlay): Promise<void> {
    const outcomes = [
      await settled(async () => this.#removeRoutes(wanted)),
      await settled(() => this.#setConfigurationAside()),
      await settled(() => this.#removeRules()),
    ];
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  async #removeRules(): Promise<void> {
    const { log } = this.#options;
    for (const rules of await listFlannelRules()) {
      if (rules.needed) {
        log.warn('rules of flannel’s stay: the chain before them drops what nobody accepts', {
          rules: rules.name,
        });
        continue;
      }
      await rules.remove();
      log.info('removed rules of flannel’s', { rules: rules.name });
    }
  }

  /** A runtime takes the first list by name: flannel's has been winning, and its plugins gave addresses out. */
  async #setConfigurationAside(): Promise<void> {
    const { log, record, confDir } = this.#options;
    const { conflist } = record;
    if (conflist === undefined || !record.pods || confDir === undefined || !(await isThere(conflist))) return;
    if (!(await isThere(join(confDir, CONFLIST_NAME))))
      throw new Error(`${CONFLIST_NAME} is not installed yet`);
    this.#holdLate();
    await rename(conflist, conflist + SET_ASIDE);
    log.info('set flannel’s CNI configuration aside', { path: conflist + SET_ASIDE });
    // Those of calls that were under way.
    this.#holdLate();
  }

  #holdLate(): void {
    const { dataDir, hold, record, log } = this.#options;
    const networks = join(dataDir, 'networks');
    if (!existsSync(networks)) return;
    const reserved = listReserved(networks).filter(({ holder }) => holder.network === record.network);
    const late = hold(reserved.filter(({ holder }) => holder.containerID !== ''));
    for (const address of late)
      log.info('a pod that flannel’s plugins attached meanwhile keeps its address', { address });
  }

  #removeRoutes(wanted: WantedOverlay): void {
    const { netlink, record, log } = this.#options;
    const routes = wanted.families.flatMap((family) => {
      const device = wanted.vxlan[family]?.name;
      const links = [wanted.underlay.link.index, device && findLink(netlink, device)?.index];
      return listOthersRoutes(netlink, family).filter(
        (route) => links.includes(route.linkIndex) && isFlannelRoute(route, wanted),
      );
    });
    const failures = netlink.execute(
      routes.map((route) => deleteRoute(route)),
      (i) => `remove ${record.from}'s route to ${routes[i] && formatSubnet(routes[i].destination)}`,
    );
    const failure = failures.find(({ error }) => error.code !== 'ESRCH');
    if (failure !== undefined) throw failure.error;
    if (routes.length === 0) return;
    const subnets = routes.slice(0, SHOWN).map(({ destination }) => formatSubnet(destination));
    log.info('removed routes of flannel’s', { count: routes.length, subnets });
  }
}

/** A node's subnet of the cluster by a gateway, on a device that flannel uses, and nobody's by protocol. */
export function isFlannelRoute(route: Route, wanted: WantedOverlay): boolean {
  const { destination, gateway, protocol, table, unicast } = route;
  if (!unicast || table !== RT_TABLE_MAIN || protocol !== DEFAULT_PROTOCOL || gateway === undefined)
    return false;
  const length = wanted.network.networks[destination.family]?.subnetLength;
  if (destination.prefixLength !== length) return false;
  return clusterNetworksOf(wanted, destination.family).some((network) =>
    subnetContains(network, destination),
  );
}

const settled = async (part: () => Promise<void>): Promise<PromiseSettledResult<void>> =>
  (await Promise.allSettled([part()]))[0];

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
