/**
 * The choice of a free subnet: pure, uniform over what is free, exact when nearly everything is taken.
 *
 * A pool numbers the subnets from SubnetMin to SubnetMax and remembers only what is taken, so that an IPv6
 * network of 2^62 subnets costs no more than its leases. While most are free, a few random tries find one;
 * when these fail, the free ones are counted exactly.
 */
import {
  type Address,
  addressFromValue,
  addressValue,
  type Family,
  type PerFamily,
  type Subnet,
} from './address.ts';
import { NoFreeSubnetError } from './errors.ts';
import { type FamilyNetwork, type NetworkConfig, networkFamilies } from './lease.ts';

/** At least 0 and less than 1. */
export type Random = () => number;

/** At nine tenths taken, this many tries miss once in thirty times; then the exact count decides. */
const RANDOM_TRIES = 32;

/** Whether these could be a lease's subnets under this configuration: families, lengths and bounds. */
export function fitsNetwork(network: NetworkConfig, subnets: PerFamily<Subnet>): boolean {
  return (['ipv4', 'ipv6'] as const).every((family) => {
    const [cut, subnet] = [network.networks[family], subnets[family]];
    if (cut === undefined || subnet === undefined) return cut === undefined && subnet === undefined;
    const value = addressValue(subnet.address);
    return (
      subnet.prefixLength === cut.subnetLength &&
      value >= addressValue(cut.subnetMin) &&
      value <= addressValue(cut.subnetMax)
    );
  });
}

/** The subnets of a network that may be leased, and which of them are taken. */
export class SubnetPool {
  readonly #network: NetworkConfig;
  readonly #families: ReadonlyMap<Family, FamilyPool>;

  constructor(network: NetworkConfig, taken: Iterable<PerFamily<Subnet>> = []) {
    this.#network = network;
    this.#families = new Map(
      networkFamilies(network).map((family) => [family, new FamilyPool(family, network.networks[family])]),
    );
    for (const subnets of taken) this.take(subnets);
  }

  /** Whatever these overlap is free no more. They may be of any length and lie anywhere. */
  take(subnets: PerFamily<Subnet>): void {
    for (const [family, pool] of this.#families) {
      const subnet = subnets[family];
      if (subnet !== undefined) pool.take(subnet);
    }
  }

  /** Whether these subnets fit the network and overlap nothing that is taken. */
  isFree(subnets: PerFamily<Subnet>): boolean {
    if (!fitsNetwork(this.#network, subnets)) return false;
    return [...this.#families].every(([family, pool]) => {
      const subnet = subnets[family];
      return subnet !== undefined && pool.isFree(subnet);
    });
  }

  /** A random free subnet of each family of the network. @throws NoFreeSubnetError */
  choose(random: Random): PerFamily<Subnet> {
    return Object.fromEntries([...this.#families].map(([family, pool]) => [family, pool.choose(random)]));
  }
}

class FamilyPool {
  readonly #family: Family;
  readonly #length: number;
  readonly #first: bigint;
  readonly #hostBits: bigint;
  readonly #count: bigint;
  /** Places that are taken one by one, and runs of them (leases larger than the network's subnets). */
  readonly #places = new Set<bigint>();
  readonly #runs: { readonly from: bigint; readonly to: bigint }[] = [];

  constructor(family: Family, cut: FamilyNetwork | undefined) {
    if (cut === undefined) throw new RangeError(`the network has no ${family}`);
    this.#family = family;
    this.#length = cut.subnetLength;
    this.#hostBits = BigInt((family === 'ipv4' ? 32 : 128) - cut.subnetLength);
    this.#first = addressValue(cut.subnetMin) >> this.#hostBits;
    this.#count = (addressValue(cut.subnetMax) >> this.#hostBits) - this.#first + 1n;
  }

  take(subnet: Subnet): void {
    const from = this.#placeOf(subnet.address);
    const size = subnet.prefixLength >= this.#length ? 1n : 1n << BigInt(this.#length - subnet.prefixLength);
    if (size > 1n) this.#runs.push({ from, to: from + size - 1n });
    else if (from >= 0n && from < this.#count) this.#places.add(from);
  }

  isFree(subnet: Subnet): boolean {
    return this.#isFreePlace(this.#placeOf(subnet.address));
  }

  choose(random: Random): Subnet {
    for (let i = 0; i < RANDOM_TRIES; i++) {
      const place = randomBelow(this.#count, random);
      if (this.#isFreePlace(place)) return this.#subnetAt(place);
    }
    return this.#subnetAt(this.#chooseExactly(random));
  }

  /** Walks the gaps between what is taken to the n-th free place, n random. */
  #chooseExactly(random: Random): bigint {
    const gaps = this.#gaps();
    const free = gaps.reduce((sum, { from, to }) => sum + (to - from + 1n), 0n);
    if (free === 0n) throw this.#exhausted();
    let left = randomBelow(free, random);
    for (const { from, to } of gaps) {
      const size = to - from + 1n;
      if (left < size) return from + left;
      left -= size;
    }
    throw this.#exhausted();
  }

  #gaps(): { from: bigint; to: bigint }[] {
    const taken = [...this.#runs, ...Array.from(this.#places, (place) => ({ from: place, to: place }))];
    taken.sort((a, b) => (a.from < b.from ? -1 : a.from > b.from ? 1 : 0));
    const gaps: { from: bigint; to: bigint }[] = [];
    let next = 0n;
    for (const { from, to } of taken) {
      if (from >= this.#count) break;
      if (from > next) gaps.push({ from: next, to: from - 1n });
      if (to >= next) next = to + 1n;
    }
    if (next < this.#count) gaps.push({ from: next, to: this.#count - 1n });
    return gaps;
  }

  #isFreePlace(place: bigint): boolean {
    return !this.#places.has(place) && !this.#runs.some((run) => place >= run.from && place <= run.to);
  }

  #placeOf(address: Address): bigint {
    return (addressValue(address) >> this.#hostBits) - this.#first;
  }

  #subnetAt(place: bigint): Subnet {
    const address = addressFromValue(this.#family, (this.#first + place) << this.#hostBits);
    return { family: this.#family, address, prefixLength: this.#length };
  }

  #exhausted(): NoFreeSubnetError {
    const [first, last] = [this.#subnetAt(0n).address, this.#subnetAt(this.#count - 1n).address];
    return new NoFreeSubnetError(
      `all ${this.#count} subnets from ${first}/${this.#length} to ${last}/${this.#length} are leased; ` +
        'remove leases of nodes that are gone, or widen the network configuration',
    );
  }
}

/** Uniform below `limit` (as far as `random` is), 48 bits at a time. */
function randomBelow(limit: bigint, random: Random): bigint {
  const bits = (n: number) => BigInt(Math.floor(random() * n));
  if (limit <= 2n ** 48n) return bits(Number(limit));
  let value = 0n;
  // 48 bits more than the limit has, so that the remainder favours nothing noticeably.
  for (let range = 1n; range < limit << 48n; range <<= 48n) value = (value << 48n) | bits(2 ** 48);
  return value % limit;
}
