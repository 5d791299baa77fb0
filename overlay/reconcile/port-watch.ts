/**
 * The pods' ports as the kernel announces them. A port on its way in or out is announced several times in a few
 * milliseconds, most of them neither here nor there: so bad news of one is only noted, and looked into once.
 */
import type { PodPort, PodSource } from '../desired/pods.ts';
import { findLink, type Link } from '../kernel/link.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { portNeedsRepair } from './devices.ts';

export class PortWatch {
  readonly #pods: Pick<PodSource, 'ports'>;
  /** By name, as PodSource last gave them. */
  #ports: ReadonlyMap<string, PodPort> = new Map();
  /** Of these the last announcement was not as it should be. */
  readonly #doubtful = new Set<string>();

  constructor(pods: Pick<PodSource, 'ports'>) {
    this.#pods = pods;
  }

  get ports(): readonly PodPort[] {
    return [...this.#ports.values()];
  }

  /** Takes up what PodSource says now. */
  read(): readonly PodPort[] {
    const ports = this.#pods.ports();
    this.#ports = new Map(ports.map((port) => [port.hostInterface, port] as const));
    return ports;
  }

  get isDoubtful(): boolean {
    return this.#doubtful.size > 0;
  }

  gone(link: Link): void {
    this.#doubtful.delete(link.name);
  }

  /** @returns whether the link is a port */
  announced(link: Link, bridgeIndex: number | undefined): boolean {
    const port = this.#ports.get(link.name);
    if (port === undefined) return false;
    if (portNeedsRepair(link, port, bridgeIndex)) this.#doubtful.add(link.name);
    else this.#doubtful.delete(link.name);
    return true;
  }

  /**
   * Whether a port that the last news of was bad is bad still: it may have been on its way there. One on its
   * way out is not looked at, for the look would wait for the kernel to be done with it.
   */
  hasBad(netlink: NetlinkSocket, bridgeIndex: number | undefined): boolean {
    if (this.#doubtful.size === 0) return false;
    const doubtful = this.#pods.ports().filter(({ hostInterface }) => this.#doubtful.has(hostInterface));
    this.#doubtful.clear();
    return doubtful.some((port) => {
      const link = findLink(netlink, port.hostInterface);
      return link !== undefined && portNeedsRepair(link, port, bridgeIndex);
    });
  }
}
