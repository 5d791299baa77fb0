/**
 * Every attachment of this node: in memory for speed, in records and address files for a restart.
 *
 * What an attachment goes through, and what a crash there leaves for the next start:
 *
 *     reserved   record (.adding), then address files     no link: record and addresses are given up
 *     standing   the link exists, the runtime may or      kept: an ADD again rebuilds it, a DEL removes it
 *                may not have the answer
 *     attached   the runtime has it; record renamed       kept; without its link (a reboot) given up
 *     leaving    the link is being removed                as attached
 *
 * The record comes before the address files and goes after them, so there is never an address of ours that
 * no record names; and it outlives the link, so there is never a link of ours without a record.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { POD_INTERFACE_PREFIX, type PodPort, type PodSource } from '../overlay/desired/pods.ts';
import { lockFile } from '../overlay/kernel/file-lock.ts';
import { listLinks } from '../overlay/kernel/link.ts';
import { NetlinkSocket } from '../overlay/kernel/netlink-socket.ts';
import type { Log } from '../overlay/ops/log.ts';
import type { Address, PerFamily, Subnet } from '../store/address.ts';
import { AddressStore, type ReservedAddress } from './address-store.ts';
import { type Attachment, type AttachmentKey, attachmentText, hostInterfaceName } from './attachment.ts';
import { AttachmentRecords } from './attachment-records.ts';
import { DurableFiles } from './durable-files.ts';
import { hasCode } from './files.ts';
import { type AddressRequest, AddressTakenError, type AddressUse, Ipam } from './ipam.ts';
import { StickyAddresses } from './sticky-addresses.ts';

export type AttachmentPhase = 'reserved' | 'standing' | 'attached' | 'leaving';

export interface RegisteredAttachment {
  readonly attachment: Attachment;
  readonly phase: AttachmentPhase;
}

/** One row of `vtepd status`. */
export interface AttachmentRow {
  readonly containerID: string;
  readonly ifname: string;
  readonly ips: readonly Address[];
  readonly mac: string;
  /** Kubernetes' `namespace/name`. */
  readonly pod: string | undefined;
}

export interface RegistryOptions {
  readonly stateDir: string;
  readonly log: Log;
  /** A netlink socket in the node's namespace, closed again; default: the calling thread's. */
  readonly openNetlink?: (() => NetlinkSocket) | undefined;
}

/** Another vtepd uses the state directory. */
export class StateInUseError extends Error {
  override readonly name = 'StateInUseError';
  readonly code = 'VTEPD_STATE_IN_USE';
}

export class AttachmentRegistry implements PodSource {
  readonly #log: Log;
  readonly #lock: Disposable;
  readonly #files: DurableFiles;
  readonly #records: AttachmentRecords;
  readonly #ipam: Ipam;
  readonly #sticky: StickyAddresses;
  readonly #entries = new Map<string, RegisteredAttachment>();
  #ports: readonly PodPort[] | undefined;

  private constructor(log: Log, lock: Disposable, stateDir: string) {
    this.#log = log;
    this.#lock = lock;
    this.#files = new DurableFiles(join(stateDir, 'scratch'));
    this.#records = new AttachmentRecords(join(stateDir, 'attachments'), this.#files);
    this.#sticky = new StickyAddresses(join(stateDir, 'sticky.json'), log);
    const addresses = new AddressStore(join(stateDir, 'networks'), this.#files);
    this.#ipam = new Ipam(addresses, log, this.#sticky.all());
  }

  /**
   * Reads what is on disk and gives up what has no link any more.
   * @throws StateInUseError; NodeJS.ErrnoException when the directory cannot be read or written
   */
  static async open({ stateDir, log, openNetlink }: RegistryOptions): Promise<AttachmentRegistry> {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const lock = lockState(stateDir);
    try {
      const registry = new AttachmentRegistry(log, lock, stateDir);
      using netlink = (openNetlink ?? (() => NetlinkSocket.open()))();
      const links = listLinks(netlink).map((link) => link.name);
      await registry.#load(new Set(links.filter((name) => name.startsWith(POD_INTERFACE_PREFIX))));
      return registry;
    } catch (error) {
      lock[Symbol.dispose]();
      throw error;
    }
  }

  ports(): readonly PodPort[] {
    this.#ports ??= [...this.#entries.values()].flatMap(({ attachment, phase }) =>
      phase === 'standing' || phase === 'attached'
        ? [
            {
              hostInterface: attachment.hostInterface,
              mac: attachment.mac,
              addresses: attachment.addresses.map(({ address }) => address),
              hairpin: attachment.hairpin,
            },
          ]
        : [],
    );
    return this.#ports;
  }

  addresses(): readonly Address[] {
    return [...this.#entries.values()].flatMap(({ attachment }) =>
      attachment.addresses.map(({ address }) => address),
    );
  }

  rows(): AttachmentRow[] {
    return [...this.#entries.values()].map(({ attachment }) => ({
      containerID: attachment.containerID,
      ifname: attachment.ifname,
      ips: attachment.addresses.map(({ address }) => address),
      mac: attachment.mac,
      pod: attachment.pod,
    }));
  }

  /** Addresses of the node's subnets: held by pods, and free for more. */
  addressUse(subnets: PerFamily<Subnet>, gateways: PerFamily<Address>): PerFamily<AddressUse> {
    return this.#ipam.use(subnets, gateways);
  }

  find(key: AttachmentKey): RegisteredAttachment | undefined {
    return this.#entries.get(hostInterfaceName(key));
  }

  all(): RegisteredAttachment[] {
    return [...this.#entries.values()];
  }

  /** The addresses that a pod of this name had here before; perhaps another's by now. */
  rememberedFor({ network, ifname }: AttachmentKey, sticky: string | undefined): readonly Address[] {
    return sticky === undefined ? [] : this.#sticky.of({ network, ifname, name: sticky });
  }

  /**
   * Gives an attachment its addresses, in phase `reserved`. On disk, though not yet flushed.
   * @param complete makes the attachment of the addresses chosen
   * @throws CniError when there is no address
   */
  async reserve(
    request: AddressRequest,
    complete: (addresses: Attachment['addresses']) => Attachment,
  ): Promise<Attachment> {
    for (;;) {
      const addresses = this.#ipam.choose(request);
      const attachment = complete(addresses);
      try {
        this.#records.write(attachment);
        this.#ipam.write(request.holder, addresses);
        this.#set(attachment, 'reserved');
        return attachment;
      } catch (error) {
        await this.#giveUp(attachment);
        // What was written has been removed, but its descriptors are open until they are flushed.
        await this.#files.flushed().catch(() => {});
        if (!(error instanceof AddressTakenError)) throw error;
        this.#log.warn('an address is reserved by another program; taking the next', {
          address: error.address,
          attachment: attachmentText(attachment),
        });
      }
    }
  }

  /** Resolves when all that was reserved before is on disk. */
  flushed(): Promise<void> {
    return this.#files.flushed();
  }

  /** The link is there. @param attachment as it turned out: fewer routes, perhaps */
  stands(attachment: Attachment): void {
    const planned = this.#entries.get(attachment.hostInterface)?.attachment;
    if (attachment.routes.length !== planned?.routes.length) this.#records.write(attachment);
    this.#set(attachment, 'standing');
  }

  /** The runtime has the answer. */
  confirm(attachment: Attachment): void {
    this.#set(attachment, 'attached');
    this.#records.confirm(attachment.hostInterface);
  }

  /** The link is about to be removed: the overlay stops caring for it. */
  leaves(attachment: Attachment): void {
    this.#set(attachment, 'leaving');
  }

  /** The link could not be removed: an ADD or a DEL will try again. */
  remains(attachment: Attachment): void {
    this.#set(attachment, 'standing');
  }

  /** Nothing holds the addresses any more: they are free, and the attachment is forgotten. */
  async release(attachment: Attachment): Promise<void> {
    await this.#giveUp(attachment);
    this.#entries.delete(attachment.hostInterface);
    this.#ports = undefined;
  }

  /** Whether an address's reservation is in order. */
  isReserved(attachment: Attachment, address: Address): boolean {
    return this.#ipam.isReserved(attachment, address);
  }

  /**
   * Frees what an earlier plugin, or a record that cannot be read, reserved on a network.
   * @param isStale asked of every holder that is no attachment of ours
   */
  async releaseForeign(network: string, isStale: (holder: AttachmentKey) => boolean): Promise<Address[]> {
    const stale = this.#ipam.foreign(network).filter(({ holder }) => isStale(holder));
    for (const { address, holder } of stale) {
      await this.#ipam.removeFiles(holder, [address]);
      await this.#records.remove(hostInterfaceName(holder));
      this.#ipam.free(holder, [address]);
    }
    return stale.map(({ address }) => address);
  }

  /** What another plugin gave out while both could: see Ipam.hold. @returns those that were not known */
  hold(reserved: readonly ReservedAddress[]): Address[] {
    return this.#ipam.hold(reserved);
  }

  /** Afterwards nothing is open, and another daemon may use the directory. */
  async close(): Promise<void> {
    this.#ipam.close();
    this.#sticky.close();
    await this.#files.close();
    this.#lock[Symbol.dispose]();
  }

  async #load(links: Set<string>): Promise<void> {
    const { stored, malformed } = this.#records.load();
    for (const { path, error } of malformed) {
      this.#log.error('the record of an attachment cannot be read; its addresses stay reserved', {
        path,
        error,
      });
    }
    const gone = stored.filter(({ attachment }) => !links.has(attachment.hostInterface));
    for (const { attachment } of gone) await this.#giveUp(attachment);
    if (gone.length > 0) {
      this.#log.info('addresses of pods that are gone were given up', { count: gone.length });
    }
    const ours = new Map<Address, AttachmentKey>();
    for (const { attachment, progress } of stored) {
      if (!links.delete(attachment.hostInterface)) continue;
      this.#set(attachment, progress === 'attached' ? 'attached' : 'standing');
      for (const { address } of attachment.addresses) ours.set(address, attachment);
    }
    for (const address of this.#ipam.load(ours)) {
      this.#log.error('two attachments claim one address; remove one of the pods', { address });
    }
    await this.#files.flushed();
    for (const device of links) {
      this.#log.warn('a pod interface has no record: was the state directory removed? Delete that pod', {
        device,
      });
    }
  }

  /** Only when no file names the attachment any more may another have its addresses. */
  async #giveUp(attachment: Attachment): Promise<void> {
    const addresses = attachment.addresses.map(({ address }) => address);
    const { network, ifname, sticky } = attachment;
    if (sticky !== undefined) this.#sticky.remember({ network, ifname, name: sticky }, addresses);
    await this.#ipam.removeFiles(attachment, addresses);
    await this.#records.remove(attachment.hostInterface);
    this.#ipam.free(attachment, addresses);
  }

  #set(attachment: Attachment, phase: AttachmentPhase): void {
    this.#entries.set(attachment.hostInterface, { attachment, phase });
    this.#ports = undefined;
  }
}

function lockState(stateDir: string): Disposable {
  try {
    return lockFile(join(stateDir, 'lock'));
  } catch (cause) {
    if (!hasCode(cause, 'EAGAIN')) throw cause;
    throw new StateInUseError(`another vtepd uses ${stateDir}; give each its own --state-dir`, { cause });
  }
}
