/**
 * Which address of the node's subnet a pod gets next. First those that no pod has had since the daemon
 * started, in a round that begins after the last one given before; then the released ones, the one released
 * longest ago first. So an address rests as long as it can before another pod has it.
 */
import {
  type Address,
  addressAt,
  addressBits,
  addressValue,
  formatSubnet,
  type Subnet,
  subnetContains,
} from '../store/address.ts';

/**
 * Of a larger subnet only its beginning is given out, except on request: a node has a few hundred pods, and
 * a round over a /64 would never end.
 */
const LARGEST_POOL = 2 ** 20;

export class AddressPool {
  readonly subnet: Subnet;
  readonly #gateway: Address;
  /** Offsets in the subnet, inclusive. */
  readonly #first: number;
  readonly #last: number;
  #cursor: number;
  #stepsLeft: number;
  readonly #released = new Set<Address>();

  /** @param lastGiven where an earlier run's round had come to */
  constructor(subnet: Subnet, gateway: Address, lastGiven: Address | undefined) {
    this.subnet = subnet;
    this.#gateway = gateway;
    [this.#first, this.#last] = usableOffsets(subnet);
    this.#stepsLeft = Math.max(0, this.#last - this.#first + 1);
    const given = lastGiven === undefined ? undefined : this.#offset(lastGiven);
    this.#cursor = given ?? this.#last;
  }

  /** How many addresses can be given out at all. */
  get size(): number {
    return Math.max(0, this.#last - this.#first + 1) - (this.#offset(this.#gateway) === undefined ? 0 : 1);
  }

  /** Undefined when none is free. The caller holds it from now on. */
  next(isHeld: (address: Address) => boolean): Address | undefined {
    while (this.#stepsLeft > 0) {
      this.#stepsLeft--;
      this.#cursor = this.#cursor >= this.#last ? this.#first : this.#cursor + 1;
      const address = addressAt(this.subnet, this.#cursor);
      if (address !== this.#gateway && !isHeld(address) && !this.#released.has(address)) return address;
    }
    for (const address of this.#released) {
      this.#released.delete(address);
      if (!isHeld(address)) return address;
    }
    return undefined;
  }

  /** Why this very address can be nobody's, or undefined. */
  objection(address: Address): string | undefined {
    if (address === this.#gateway) return 'it is the gateway';
    const [first, last] = [addressAt(this.subnet, 0), addressAt(this.subnet, -1)];
    if (this.subnet.prefixLength < addressBits(this.subnet.family) - 1) {
      if (address === first) return `it is the address of ${formatSubnet(this.subnet)} itself`;
      if (address === last && this.subnet.family === 'ipv4') return 'it is the broadcast address';
    }
    return undefined;
  }

  release(address: Address): void {
    this.#released.delete(address);
    if (this.#offset(address) !== undefined) this.#released.add(address);
  }

  /** The place in the subnet of an address that may be given out. */
  #offset(address: Address): number | undefined {
    if (!subnetContains(this.subnet, address)) return undefined;
    const offset = Number(addressValue(address) - addressValue(this.subnet.address));
    return offset >= this.#first && offset <= this.#last ? offset : undefined;
  }
}

function usableOffsets(subnet: Subnet): readonly [number, number] {
  const hostBits = addressBits(subnet.family) - subnet.prefixLength;
  const last = Math.min(2 ** hostBits, LARGEST_POOL) - 1;
  if (hostBits <= 1) return [0, last];
  return [1, subnet.family === 'ipv4' && 2 ** hostBits <= LARGEST_POOL ? last - 1 : last];
}
