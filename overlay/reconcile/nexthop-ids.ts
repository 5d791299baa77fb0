/**
 * Which nexthop object stands for which gateway, for one family. Ids are kept over a restart by what the
 * kernel holds, and never collide with those of others.
 */
import type { Address, Family } from '../../store/address.ts';

/**
 * Ids of our nexthop objects count up from here: far from the small ones that people choose, and each family
 * by itself, so that two devices never choose the same one.
 */
const FIRST_NEXTHOP_ID: Readonly<Record<Family, number>> = { ipv4: 0x76_00_00_00, ipv6: 0x76_80_00_00 };

export class NexthopIds {
  readonly #idOfGateway = new Map<Address, number>();
  readonly #gatewayOfId = new Map<number, Address>();
  readonly #foreign = new Set<number>();
  #next: number;

  constructor(family: Family) {
    this.#next = FIRST_NEXTHOP_ID[family];
  }

  of(gateway: Address): number | undefined {
    return this.#idOfGateway.get(gateway);
  }

  gatewayOf(id: number): Address | undefined {
    return this.#gatewayOfId.get(id);
  }

  /** The gateway's id; a new one if it has none. */
  for(gateway: Address): number {
    const known = this.#idOfGateway.get(gateway);
    if (known !== undefined) return known;
    while (this.#gatewayOfId.has(this.#next) || this.#foreign.has(this.#next)) this.#next++;
    this.assign(gateway, this.#next);
    return this.#next;
  }

  assign(gateway: Address, id: number): void {
    this.#idOfGateway.set(gateway, id);
    this.#gatewayOfId.set(id, gateway);
  }

  /** Ids that are in use for something else. */
  replaceForeign(ids: Iterable<number>): void {
    this.#foreign.clear();
    for (const id of ids) this.#foreign.add(id);
  }

  foreignCame(id: number): void {
    this.#foreign.add(id);
  }

  foreignWent(id: number): void {
    this.#foreign.delete(id);
  }
}
