/**
 * This node's own Node: the only one that is written. Each write is a patch of what is ours, and only of a Node
 * that is still as it was read; whatever it was not, or a lost answer, means reading it again.
 *
 * What decides whose it is, is what stands in it: whoever has our node name and is not us is found by what it
 * writes, and is not fought.
 */
import { FAMILIES, type Family, type PerFamily, type Subnet, subnetsOverlap } from '../address.ts';
import type { Clock } from '../backoff.ts';
import {
  LeaseLostError,
  NoFreeSubnetError,
  PublicAddressConflictError,
  StoreUnavailableError,
} from '../errors.ts';
import {
  type Lease,
  type LeaseAttributes,
  type NetworkConfig,
  networkFamilies,
  sameAttributes,
} from '../lease.ts';
import { encodeLeaseKey } from '../lease-codec.ts';
import { isStillHeld, planClaim, planRenewal } from '../lease-ownership.ts';
import type { ClaimRequest, HeldLease } from '../lease-store.ts';
import { fitsNetwork } from '../subnet-choice.ts';
import { awaitNode } from './await-node.ts';
import { requireFit } from './network-source.ts';
import {
  annotationChanges,
  annotationRemovals,
  isMalformedLease,
  isReservation,
  leaseOf,
  subnetsOf,
  withOverwrites,
} from './node-lease.ts';
import { ANNOTATION_PREFIX, type NodeObject } from './node-object.ts';
import type { NodesApi } from './nodes-api.ts';

export interface OwnNodeOptions {
  readonly name: string;
  readonly api: NodesApi;
  /** Wall-clock milliseconds. */
  readonly now: Clock;
  /** Told of every reading of it. */
  readonly onRead: (node: NodeObject) => void;
  /** Its podCIDR is cut otherwise than the network configuration says, which has not followed it yet. */
  readonly onMisfit: () => void;
}

/** How often a Node that changes under our hands is looked at again before we wait. */
const REPLANS = 10;
const REASON = 'VtepdIsUp';

export class OwnNode {
  readonly name: string;
  readonly #options: OwnNodeOptions;
  /** What it was last written for, and what came of that: an operator's overwrites are between the two. */
  #written: { readonly asked: LeaseAttributes; readonly attributes: LeaseAttributes } | undefined;
  #isReady = false;
  /** It could not be claimed for want of a podCIDR: the next attempt waits for that. */
  #isAwaited = false;

  constructor(options: OwnNodeOptions) {
    this.name = options.name;
    this.#options = options;
  }

  /** @throws as LeaseStore.claim; NetworkConfigError when the podCIDR is not of the network */
  async claim(request: ClaimRequest, signal: AbortSignal): Promise<HeldLease> {
    for (let tries = 0; tries < REPLANS; tries++) {
      const node = await this.#read(signal);
      const subnets = this.#requireSubnets(node, request.network);
      const attributes = withOverwrites(request.attributes, node);
      const current = leaseOf(node, networkFamilies(request.network));
      const lease = current === undefined || isMalformedLease(current) ? undefined : current;
      this.#requireOurs({ ...request, attributes }, node, lease);
      const written = await this.#write(node, request.attributes, attributes, signal);
      if (written === undefined) continue;
      const times = this.#times(isReservation(node) ? 0 : request.ttlMs);
      const held: Lease = { key: encodeLeaseKey(subnets), subnets, attributes };
      return { lease: held, revision: written.resourceVersion, ...times };
    }
    throw this.#busy();
  }

  /** @throws as LeaseStore.renew */
  async renew(held: HeldLease, asked: LeaseAttributes, signal: AbortSignal): Promise<HeldLease> {
    const { key, subnets } = held.lease;
    const families = familiesOf(held);
    for (let tries = 0; tries < REPLANS; tries++) {
      const node = await this.#read(signal);
      const own = subnetsOf(node, families);
      if (own === undefined || encodeLeaseKey(own) !== key) throw await this.#lost(held, families, signal);
      const attributes = withOverwrites(asked, node);
      const current = leaseOf(node, families);
      const isUnreadable = current !== undefined && isMalformedLease(current);
      const plan = planRenewal(held, attributes, isUnreadable ? 'malformed' : current);
      const written = plan === 'keep' ? node : await this.#write(node, asked, attributes, signal);
      if (written === undefined) continue;
      this.#written = { asked, attributes };
      if (this.#isReady) await this.#writeCondition(written, signal);
      const revision = plan === 'keep' ? held.revision : written.resourceVersion;
      return { lease: { key, subnets, attributes }, revision, ...this.#times(held.ttlMs) };
    }
    throw this.#busy();
  }

  /** @throws as LeaseStore.release */
  async release(held: HeldLease, signal: AbortSignal): Promise<void> {
    const { api } = this.#options;
    for (let tries = 0; tries < REPLANS; tries++) {
      const node = await api.get(this.name, signal);
      if (node === undefined || isReservation(node)) return;
      const current = leaseOf(node, familiesOf(held));
      if (current?.key !== held.lease.key || isMalformedLease(current) || !isStillHeld(held, current)) return;
      if ((await api.patchAnnotations(node, annotationRemovals(node), signal)) !== undefined) return;
    }
    throw this.#busy();
  }

  /** The NetworkUnavailable condition, which keeps pods off a node, is false from now on. */
  async announceReady(signal: AbortSignal): Promise<void> {
    this.#isReady = true;
    await this.#writeCondition(await this.#read(signal), signal);
  }

  /**
   * An operator writes or removes an overwrite: the lease is still as we wrote it, but ought to be another. So
   * it is told as that, and whoever keeps it sees that it is not what it wrote, and renews it.
   */
  asItShallBe(node: NodeObject, lease: Lease): Lease {
    const written = this.#written;
    if (written === undefined || !sameAttributes(lease.attributes, written.attributes)) return lease;
    try {
      return { ...lease, attributes: withOverwrites(written.asked, node) };
    } catch {
      // The renewal says what is wrong with it.
      return lease;
    }
  }

  /** @throws StoreUnavailableError when there is no such Node */
  async #read(signal: AbortSignal): Promise<NodeObject> {
    const { api, onRead } = this.#options;
    if (this.#isAwaited) await awaitNode(api, this.name, signal);
    const node = await api.get(this.name, signal);
    this.#isAwaited = node === undefined || node.podCidrs.length === 0;
    if (node !== undefined) {
      onRead(node);
      return node;
    }
    throw new StoreUnavailableError(
      `Kubernetes has no Node "${this.name}": the kubelet registers it under the name that ` +
        '`kubectl get nodes` shows; --node-name (or NODE_NAME) must be that',
    );
  }

  #requireSubnets(node: NodeObject, network: NetworkConfig): PerFamily<Subnet> {
    if (node.podCidrs.length === 0) {
      throw new NoFreeSubnetError(
        `Node ${node.name} has no podCIDR yet: kube-controller-manager gives them when it runs with ` +
          '--allocate-node-cidrs=true and --cluster-cidr (kubeadm: networking.podSubnet; k3s does by itself), ' +
          'while its --cluster-cidr has any left',
      );
    }
    const subnets = subnetsOf(node, networkFamilies(network));
    if (subnets === undefined) {
      throw new StoreUnavailableError(`the podCIDRs of Node ${node.name} cannot be read`);
    }
    requireFit(node.name, network, subnets);
    if (fitsNetwork(network, subnets)) return subnets;
    this.#options.onMisfit();
    throw new StoreUnavailableError(
      `Node ${node.name}'s podCIDR is new; the network configuration follows it`,
    );
  }

  /** @throws PublicAddressConflictError when another daemon writes our Node */
  #requireOurs(request: ClaimRequest, node: NodeObject, lease: Lease | undefined): void {
    const plan = planClaim(request, {
      leases: new Map(lease === undefined ? [] : [[lease.key, lease]]),
      malformedKeys: [],
      isReservation: () => isReservation(node),
    });
    const { remembered } = request;
    const isRemembered = remembered !== undefined && encodeLeaseKey(remembered.subnets) === lease?.key;
    // A Node that we do not remember is ours by its name, whoever wrote it before.
    if (plan.type === 'adopt' || lease === undefined || !isRemembered) return;
    const at = FAMILIES.flatMap((family) => lease.attributes.publicAddress[family] ?? []).join(', ');
    throw new PublicAddressConflictError(
      `Node ${this.name}, which was ours, is written by another daemon, at ${at}: stop it, or give one of the ` +
        'two its own --node-name; if it is gone: ' +
        `kubectl annotate node ${this.name} ${ANNOTATION_PREFIX}kube-subnet-manager-`,
      lease.key,
      lease.attributes,
    );
  }

  /** Undefined: it changed meanwhile, or it is not known what became of it: look again. */
  async #write(
    node: NodeObject,
    asked: LeaseAttributes,
    attributes: LeaseAttributes,
    signal: AbortSignal,
  ): Promise<NodeObject | undefined> {
    const changes = annotationChanges(node, attributes);
    const isAsWanted = Object.keys(changes).length === 0;
    const written = isAsWanted ? node : await this.#options.api.patchAnnotations(node, changes, signal);
    if (written !== undefined) this.#written = { asked, attributes };
    return written;
  }

  async #writeCondition({ networkUnavailable }: NodeObject, signal: AbortSignal): Promise<void> {
    const isFalse = networkUnavailable?.status === 'False';
    if (isFalse && networkUnavailable.reason === REASON) return;
    const { api, now } = this.#options;
    const at = new Date(now()).toISOString().replace(/\.\d+Z$/, 'Z');
    const condition = {
      type: 'NetworkUnavailable',
      status: 'False',
      reason: REASON,
      message: 'vtepd has built the overlay: pods of this node are reached',
      lastHeartbeatTime: at,
      lastTransitionTime: (isFalse ? networkUnavailable.lastTransitionTime : undefined) ?? at,
    };
    await api.patchCondition(this.name, condition, signal);
  }

  /** Nothing ends by itself; the time says when the lease is looked at again. */
  #times(ttlMs: number): Pick<HeldLease, 'ttlMs' | 'expiresAt'> {
    return ttlMs === 0 ? { ttlMs } : { ttlMs, expiresAt: this.#options.now() + ttlMs };
  }

  /** Our Node has other podCIDRs now: it was made anew. Who has the old ones is told where somebody has. */
  async #lost(
    { lease: { key, subnets }, ttlMs }: HeldLease,
    families: readonly Family[],
    signal: AbortSignal,
  ): Promise<LeaseLostError> {
    const { nodes } = await this.#options.api.list(signal);
    const holder = nodes
      .map((node) => leaseOf(node, families))
      .filter((lease): lease is Lease => lease !== undefined && !isMalformedLease(lease))
      .find((lease) => families.some((family) => overlap(subnets[family], lease.subnets[family])));
    const message = `Node ${this.name} was made anew and has another podCIDR than ${key}`;
    // Not ours to use, whoever has it; but of a reservation its operator has said so.
    const how = holder === undefined && ttlMs === 0 ? 'expired' : 'taken';
    return new LeaseLostError(message, how, holder?.attributes);
  }

  #busy(): StoreUnavailableError {
    return new StoreUnavailableError(
      `Kubernetes: Node ${this.name} is rewritten again and again by somebody else`,
    );
  }
}

const familiesOf = ({ lease: { subnets } }: HeldLease): Family[] =>
  FAMILIES.filter((family) => subnets[family] !== undefined);

const overlap = (a: Subnet | undefined, b: Subnet | undefined): boolean =>
  a !== undefined && b !== undefined && subnetsOverlap(a, b);
