/**
 * What carries this node's tunnels, and the user-space ones themselves: one a device, opened when its device is
 * settled, closed when it is wanted no more. They are fed by the same tables as the kernel's devices
 * (peer-entries.ts), so peers come and go in them as entries do.
 *
 *     auto --the kernel refuses the vxlan device--> userspace, until the daemon ends or something else is asked for
 *
 * A tunnel that is closed at the daemon's end keeps its device, and a holder its queues and sockets for half a
 * minute, so that the next daemon goes on where this one stopped. Everywhere else the device goes with it.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { EndHolder, Tunnel, TunnelOptions } from '../../encap/tunnel-types.ts';
import type { Address, Family, Mac } from '../../store/address.ts';
import type { DataPath, DataPathWish } from '../desired/data-path.ts';
import type { WantedVxlan } from '../desired/overlay.ts';
import type { Log } from '../ops/log.ts';

export interface TunnelsOptions {
  readonly open: (options: TunnelOptions) => Promise<Tunnel>;
  /** Ends the process that holds an earlier tunnel's queues and sockets. @returns whether there was one */
  readonly endHolder: EndHolder;
  /** Where it is written who holds a device's queues while no daemon runs. */
  readonly runDir: string;
  /** SO_MARK of the sockets, by which the firewall lets their packets out. */
  readonly mark: number;
  readonly log: Log;
  /** A tunnel cannot go on. */
  readonly onFault: () => void;
}

/** What carries the packets, and why that. */
export interface DataPathState {
  readonly path: DataPath;
  readonly why: string;
}

export interface OpenTunnel {
  readonly family: Family;
  readonly device: string;
  readonly tunnel: Tunnel;
}

interface Opened extends OpenTunnel {
  readonly linkIndex: number;
  /** As the tunnel was last told. */
  wanted: WantedVxlan;
}

type Peers = ReadonlyMap<Mac, Address>;

export class Tunnels {
  readonly #options: TunnelsOptions;
  /** By the device's name. */
  readonly #opened = new Map<string, Opened>();
  /** Why the kernel has no vxlan, in its words. */
  #refusal: string | undefined;

  constructor(options: TunnelsOptions) {
    this.#options = options;
  }

  state({ path, why }: DataPathWish): DataPathState {
    if (path !== 'auto') return { path, why };
    return this.#refusal === undefined
      ? { path: 'kernel', why }
      : { path: 'userspace', why: `the kernel refuses a vxlan device: ${this.#refusal}` };
  }

  /** The kernel refused the device. @returns whether there is another way, which `state` tells from now on */
  kernelRefused(wish: DataPathWish, refusal: string): boolean {
    if (wish.path !== 'auto' || this.#refusal !== undefined) return false;
    this.#refusal = refusal;
    this.#options.log.warn(
      'the kernel refuses a vxlan device; the packets are carried in user space instead',
      {
        reason: refusal,
      },
    );
    return true;
  }

  /** The tunnel on this device. */
  of(device: string | undefined): Tunnel | undefined {
    return device === undefined ? undefined : this.#opened.get(device)?.tunnel;
  }

  get all(): readonly OpenTunnel[] {
    return [...this.#opened.values()];
  }

  /** Why packets do not pass, in user space; undefined: they do, or it is the kernel's business. */
  get fault(): string | undefined {
    for (const { device, tunnel } of this.#opened.values()) {
      if (tunnel.fault !== undefined) return `the tunnel on ${device} is down: ${tunnel.fault.message}`;
    }
    return undefined;
  }

  /** Whether the tunnel on this device can be told what is wanted now, instead of being opened anew. */
  fits(wanted: WantedVxlan, linkIndex: number | undefined): boolean {
    const opened = this.#opened.get(wanted.name);
    return (
      opened !== undefined &&
      opened.tunnel.fault === undefined &&
      opened.linkIndex === linkIndex &&
      opened.family === wanted.family &&
      opened.wanted.vni === wanted.vni &&
      opened.wanted.port === wanted.port
    );
  }

  /**
   * Opens a tunnel on the device, which is made when there is none.
   * @param peers in place before the first packet is read
   * @param linkIndex tells the device's index once it is there
   * @throws TunnelError
   */
  async open(wanted: WantedVxlan, peers: Peers, linkIndex: () => number): Promise<Tunnel> {
    const { open, runDir, mark, log, onFault } = this.#options;
    const { family, name: device, mac, vni, port, local, underlayMtuBytes } = wanted;
    const tunnel = await open({
      ...{ device, mac, vni, port, local, underlayMtuBytes, mark, peers, log, onFault },
      holderFile: holderFile(runDir, device),
    });
    try {
      this.#opened.set(device, { family, device, tunnel, linkIndex: linkIndex(), wanted });
    } catch (error) {
      await tunnel.close({ keep: false });
      throw error;
    }
    log.info('the tunnel is open in user space', {
      ...{ device, vni, port, address: local, resumed: tunnel.resumed },
    });
    return tunnel;
  }

  /** Tells a tunnel that fits what may change in its life. @returns what did. @throws TunnelError */
  adjust(wanted: WantedVxlan): readonly string[] {
    const opened = this.#opened.get(wanted.name);
    if (opened === undefined) return [];
    const { tunnel, wanted: before } = opened;
    const changes: string[] = [];
    if (before.local !== wanted.local) {
      tunnel.setLocal(wanted.local);
      changes.push(`local ${wanted.local}`);
    }
    if (before.mac !== wanted.mac) tunnel.setMac(wanted.mac);
    if (before.underlayMtuBytes !== wanted.underlayMtuBytes) {
      tunnel.setUnderlayMtu(wanted.underlayMtuBytes);
      changes.push(`underlay mtu ${wanted.underlayMtuBytes}`);
    }
    opened.wanted = wanted;
    return changes;
  }

  /** Ends the tunnel on this device, or what an earlier daemon's left behind. The device goes with it. */
  async discard(device: string): Promise<void> {
    const opened = this.#opened.get(device);
    this.#opened.delete(device);
    if (opened !== undefined) await opened.tunnel.close({ keep: false });
    await this.#options.endHolder(holderFile(this.#options.runDir, device));
  }

  /** The end of the daemon: the devices stay, and what arrives waits for the next one. */
  async close(): Promise<void> {
    const all = this.all;
    this.#opened.clear();
    await Promise.all(all.map(({ tunnel }) => tunnel.close({ keep: true })));
  }
}

const HOLDER_SUFFIX = '.holder';

/** The files in a run directory that may name one; none where there is no such directory. */
export function holderFiles(runDir: string): string[] {
  const names = existsSync(runDir) ? readdirSync(runDir) : [];
  return names.filter((name) => name.endsWith(HOLDER_SUFFIX)).map((name) => join(runDir, name));
}

/** Names the process that holds the device's queues while no daemon runs. */
export const holderFile = (runDir: string, device: string): string =>
  join(runDir, `${device}${HOLDER_SUFFIX}`);
