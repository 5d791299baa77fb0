/**
 * Where the overlay and the pods meet. `cni-shim/` implements PodSource and calls PodNetwork; the overlay
 * implements PodNetwork and reads PodSource. Neither imports the other's verbs or loops.
 */
import type { Address, Mac, PerFamily, Subnet } from '../../store/address.ts';

/** How the node's side of every pod's interface is named: this and a hash of the attachment. */
export const POD_INTERFACE_PREFIX = 'vtp';

/** The node's side of one attachment: what must be a port of the bridge, and what may pass through it. */
export interface PodPort {
  readonly hostInterface: string;
  /** The pod's own address and MAC: nothing else may come in through this port. */
  readonly mac: Mac;
  readonly addresses: readonly Address[];
  readonly hairpin: boolean;
}

export interface PodSource {
  /** Every attachment whose pod should have a working network now. */
  ports(): readonly PodPort[];
  /** Every address that an attachment holds, those of pods about to come or on their way out too. */
  addresses(): readonly Address[];
}

/** What an attachment is built from. */
export interface PodNetworkFacts {
  readonly bridge: string;
  readonly bridgeIndex: number;
  /** This node's lease. */
  readonly subnets: PerFamily<Subnet>;
  /** The bridge's address in each: the pods' gateway. */
  readonly gateways: PerFamily<Address>;
  /** The whole cluster's network. */
  readonly clusterNetworks: PerFamily<Subnet>;
  readonly mtuBytes: number;
}

export type Readiness = { readonly ready: true } | { readonly ready: false; readonly reason: string };

export interface PodNetwork {
  /** Ready means: a pod attached now really works. */
  readiness(): Readiness;
  /** Undefined until the lease is held and the bridge stands. */
  facts(): PodNetworkFacts | undefined;
  /** Programs what PodSource says now (bridge ports, pod filter); resolves when the kernel holds it. */
  settlePods(): Promise<void>;
}
