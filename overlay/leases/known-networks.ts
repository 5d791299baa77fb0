/**
 * The networks that the cluster has had, as this node remembers them: the current one last. One that no lease lies
 * in any more is forgotten; but not before the kernel has lost what was programmed for it, since it is known by
 * that network.
 */
import { FAMILIES, sameSubnet } from '../../store/address.ts';
import type { Lease, NetworkConfig } from '../../store/lease.ts';
import { networksInUse } from '../desired/former-networks.ts';
import type { Log } from '../ops/log.ts';
import type { NodeMemory } from './node-memory.ts';

/** How often it is looked whether somebody's leases still lie in a former network. */
const CHECK_INTERVAL_MS = 2000;

export interface KnownNetworksOptions {
  readonly memory: Pick<NodeMemory, 'networks' | 'rememberNetworks'>;
  readonly log: Log;
  /** The current network and every lease there is; undefined while that is not certain. */
  readonly look: () => { readonly network: NetworkConfig; readonly leases: Iterable<Lease> } | undefined;
  readonly onForgotten: () => void;
}

export class KnownNetworks {
  readonly #options: KnownNetworksOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: KnownNetworksOptions) {
    this.#options = options;
  }

  /** This is the current one from now on. */
  take(network: NetworkConfig): void {
    const { memory } = this.#options;
    memory.rememberNetworks([...this.#otherThan(network), network]);
  }

  /** Looks in a while, again and again, until none is left to be forgotten. */
  forgetLater(): void {
    if (this.#options.memory.networks.length < 2) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#forget();
    }, CHECK_INTERVAL_MS);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #forget(): void {
    const { memory, log, look, onForgotten } = this.#options;
    const seen = look();
    const earlier = seen === undefined ? [] : this.#otherThan(seen.network);
    const inUse = seen === undefined ? [] : networksInUse(earlier, seen.network, seen.leases);
    if (seen === undefined || inUse.length === earlier.length) {
      this.forgetLater();
      return;
    }
    memory.rememberNetworks([...inUse, seen.network]);
    log.info('no lease lies in a former network any more; it is forgotten', {
      count: earlier.length - inUse.length,
    });
    onForgotten();
  }

  #otherThan(network: NetworkConfig): NetworkConfig[] {
    return this.#options.memory.networks.filter((config) => !isSameSpace(config, network));
  }
}

/** Pods' addresses lie in the same networks, whatever else differs. */
const isSameSpace = (a: NetworkConfig, b: NetworkConfig): boolean =>
  FAMILIES.every((family) => {
    const [x, y] = [a.networks[family]?.network, b.networks[family]?.network];
    return x === undefined || y === undefined ? x === y : sameSubnet(x, y);
  });
