/**
 * Addresses of the node's subnet for pods: who holds which, and which is next. The truth is in two places
 * that say the same: here, for speed, and in the AddressStore's files. One address has one holder over all
 * networks of the node, since they share its subnet.
 *
 * Choosing is one short synchronous stretch, so no two callers ever see the same address free.
 */
import type { Log } from '../overlay/ops/log.ts';
import {
  type Address,
  FAMILIES,
  type Family,
  familyOf,
  formatSubnet,
  type PerFamily,
  type Subnet,
  subnetContains,
} from '../store/address.ts';
import { AddressPool } from './address-pool.ts';
import type { AddressStore, ReservedAddress } from './address-store.ts';
import type { AttachmentAddress, AttachmentKey } from './attachment.ts';
import { CNI_CODES, CniError } from './cni-error.ts';

/** How long the last address given may stay unwritten; losing it only makes the next round begin elsewhere. */
const SAVE_LAST_MS = 100;

export interface AddressRequest {
  readonly holder: AttachmentKey;
  readonly subnets: PerFamily<Subnet>;
  readonly gateways: PerFamily<Address>;
  /** These and no others, one a family. */
  readonly asked: readonly Address[];
  /** These if they are free. */
  readonly preferred: readonly Address[];
}

export interface AddressUse {
  readonly used: number;
  readonly free: number;
}

/** A file of another program holds the address that was chosen; it is known now: choose again. */
export class AddressTakenError extends Error {
  override readonly name = 'AddressTakenError';
  readonly code = 'VTEPD_ADDRESS_TAKEN';
  readonly address: Address;
  constructor(address: Address) {
    super(`${address} is reserved by another program`);
    this.address = address;
  }
}

export class Ipam {
  readonly #store: AddressStore;
  readonly #log: Log;
  /** Addresses that somebody may come back to: given to others last. */
  readonly #resting: readonly Address[];
  readonly #held = new Map<Address, AttachmentKey>();
  /** Those of #held that no attachment of ours holds: an earlier plugin's. */
  readonly #foreign = new Set<Address>();
  readonly #pools = new Map<string, AddressPool>();
  readonly #last = new Map<string, { readonly network: string; readonly address: Address }>();
  #saving: NodeJS.Timeout | undefined;

  /** @param resting of pods that are gone and may come back: given to others last */
  constructor(store: AddressStore, log: Log, resting: readonly Address[] = []) {
    this.#store = store;
    this.#resting = resting;
    this.#log = log;
  }

  /**
   * Brings files and memory together at start.
   * @param ours what our attachments hold; one whose file is gone gets it back
   * @returns addresses that two claim: they stay with the file's holder
   */
  load(ours: ReadonlyMap<Address, AttachmentKey>): Address[] {
    const disputed: Address[] = [];
    for (const { address, holder } of this.#store.list()) {
      const owner = ours.get(address);
      // A crash between the file's creation and its content: nobody was told of it.
      if (holder.containerID === '') {
        this.#store.discard(address, holder.network);
        continue;
      }
      if (owner !== undefined && !sameKey(owner, holder)) disputed.push(address);
      if (owner === undefined || !sameKey(owner, holder)) this.#foreign.add(address);
      this.#held.set(address, holder);
    }
    for (const [address, holder] of ours) {
      if (this.#held.has(address)) continue;
      this.#held.set(address, holder);
      this.#store.reserve(address, holder);
    }
    return disputed;
  }

  /** Addresses that another plugin has given out meanwhile: nobody else gets them until a DEL or a GC frees them. */
  hold(reserved: readonly ReservedAddress[]): Address[] {
    const unknown = reserved.filter(({ address }) => !this.#held.has(address));
    for (const { address, holder } of unknown) {
      this.#store.reserve(address, holder);
      this.#held.set(address, holder);
      this.#foreign.add(address);
    }
    return unknown.map(({ address }) => address);
  }

  /** Chooses an address of every family in use and holds it. @throws CniError when there is none */
  choose(request: AddressRequest): AttachmentAddress[] {
    checkAsked(request);
    const chosen: AttachmentAddress[] = [];
    try {
      for (const family of FAMILIES) {
        const [subnet, gateway] = [request.subnets[family], request.gateways[family]];
        if (subnet === undefined || gateway === undefined) continue;
        const address = this.#chooseOne(request, family, this.#pool(subnet, gateway));
        this.#held.set(address, request.holder);
        chosen.push({ address, prefixLength: subnet.prefixLength, gateway });
      }
      return chosen;
    } catch (error) {
      for (const { address } of chosen) this.#forget(address);
      throw error;
    }
  }

  /** Writes the files of chosen addresses. @throws AddressTakenError; the others are to be released then */
  write(holder: AttachmentKey, chosen: readonly AttachmentAddress[]): void {
    for (const { address } of chosen) {
      if (!this.#store.reserve(address, holder)) {
        this.#held.set(address, { network: holder.network, containerID: '', ifname: '' });
        this.#foreign.add(address);
        throw new AddressTakenError(address);
      }
      this.#rememberLast(holder.network, address);
    }
  }

  /** Removes the files of addresses that this holder has. They stay held until `free`. */
  async removeFiles(holder: AttachmentKey, addresses: readonly Address[]): Promise<void> {
    await Promise.all(addresses.map((address) => this.#store.release(address, holder)));
  }

  /** Frees addresses that this holder has; others stay. Nothing on disk may name it as their holder any more. */
  free(holder: AttachmentKey, addresses: readonly Address[]): void {
    for (const address of addresses) {
      const current = this.#held.get(address);
      if (current !== undefined && sameKey(current, holder)) this.#forget(address);
    }
  }

  /** Writes what has been waiting to be written. */
  close(): void {
    clearTimeout(this.#saving);
    this.#saveLast();
  }

  /** Whether the address's file and our memory agree that it is this holder's. */
  isReserved(holder: AttachmentKey, address: Address): boolean {
    const current = this.#held.get(address);
    return current !== undefined && sameKey(current, holder) && !this.#foreign.has(address);
  }

  /** Addresses that another plugin reserved on a network, as host-local did before us. */
  foreign(network: string): { readonly address: Address; readonly holder: AttachmentKey }[] {
    this.#refreshForeign();
    return [...this.#foreign].flatMap((address) => {
      const holder = this.#held.get(address);
      return holder?.network === network ? [{ address, holder }] : [];
    });
  }

  /** Of the subnets as they are now. */
  use(subnets: PerFamily<Subnet>, gateways: PerFamily<Address>): PerFamily<AddressUse> {
    const count = (family: Family): AddressUse | undefined => {
      const [subnet, gateway] = [subnets[family], gateways[family]];
      if (subnet === undefined || gateway === undefined) return undefined;
      let used = 0;
      for (const address of this.#held.keys()) if (subnetContains(subnet, address)) used++;
      return { used, free: Math.max(0, this.#pool(subnet, gateway).size - used) };
    };
    return { ipv4: count('ipv4'), ipv6: count('ipv6') };
  }

  /** Written at leisure: of many ADDs in a row only the last one's counts. */
  #rememberLast(network: string, address: Address): void {
    this.#last.set(`${network} ${familyOf(address)}`, { network, address });
    this.#saving ??= setTimeout(() => this.#saveLast(), SAVE_LAST_MS).unref();
  }

  #saveLast(): void {
    this.#saving = undefined;
    for (const { network, address } of this.#last.values()) {
      try {
        this.#store.rememberLast(network, familyOf(address), address);
      } catch (error) {
        this.#log.debug('the last address given could not be noted', { address, error });
      }
    }
    this.#last.clear();
  }

  #chooseOne(request: AddressRequest, family: Family, pool: AddressPool): Address {
    const asked = request.asked.find((address) => familyOf(address) === family);
    if (asked !== undefined) return this.#chooseAsked(asked, pool);
    const preferred = request.preferred.find(
      (address) =>
        subnetContains(pool.subnet, address) &&
        pool.objection(address) === undefined &&
        !this.#held.has(address),
    );
    if (preferred !== undefined) return preferred;
    const isHeld = (address: Address): boolean => this.#held.has(address);
    const next = pool.next(isHeld) ?? (this.#refreshForeign() ? pool.next(isHeld) : undefined);
    if (next === undefined) {
      throw new CniError(
        CNI_CODES.tryAgainLater,
        `no address of ${formatSubnet(pool.subnet)} is free: ${pool.size} pods have one each`,
      );
    }
    return next;
  }

  #chooseAsked(address: Address, pool: AddressPool): Address {
    const objection = subnetContains(pool.subnet, address)
      ? pool.objection(address)
      : `this node's subnet is ${formatSubnet(pool.subnet)}`;
    if (objection !== undefined) {
      throw new CniError(CNI_CODES.invalidConfig, `ips: a pod cannot have ${address}: ${objection}`);
    }
    if (this.#held.has(address)) this.#refreshForeign();
    const holder = this.#held.get(address);
    if (holder !== undefined) {
      throw new CniError(
        CNI_CODES.addressInUse,
        `ips: ${address} is in use by container ${holder.containerID}`,
      );
    }
    return address;
  }

  /** Whether an earlier plugin has given addresses back: it removes their files. */
  #refreshForeign(): boolean {
    if (this.#foreign.size === 0) return false;
    const reserved = new Map(this.#store.list().map((entry) => [entry.address, entry.holder]));
    let freed = false;
    for (const address of [...this.#foreign]) {
      const holder = reserved.get(address);
      if (holder !== undefined) {
        this.#held.set(address, holder);
        continue;
      }
      this.#forget(address);
      freed = true;
    }
    return freed;
  }

  #forget(address: Address): void {
    this.#held.delete(address);
    this.#foreign.delete(address);
    for (const pool of this.#pools.values()) pool.release(address);
  }

  #pool(subnet: Subnet, gateway: Address): AddressPool {
    const key = `${formatSubnet(subnet)} ${gateway}`;
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      const last = this.#store.lastGiven(subnet.family, (address) => subnetContains(subnet, address));
      pool = new AddressPool(subnet, gateway, last);
      for (const address of this.#resting) pool.release(address);
      this.#pools.set(key, pool);
    }
    return pool;
  }
}

const sameKey = (a: AttachmentKey, b: AttachmentKey): boolean =>
  a.containerID === b.containerID && a.ifname === b.ifname && a.network === b.network;

function checkAsked(request: AddressRequest): void {
  for (const family of FAMILIES) {
    const asked = request.asked.filter((address) => familyOf(address) === family);
    if (asked.length > 1) {
      throw new CniError(
        CNI_CODES.invalidConfig,
        `ips: a pod has one ${family} address, asked for are ${asked.join(', ')}`,
      );
    }
    if (asked.length === 1 && request.subnets[family] === undefined) {
      throw new CniError(
        CNI_CODES.invalidConfig,
        `ips: this node's lease has no ${family} subnet for ${asked[0]}`,
      );
    }
  }
}
