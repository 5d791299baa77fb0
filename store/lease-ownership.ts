/**
 * Whose lease is it, and what may be done with it: the rules that every store shares, without a store.
 *
 * A node is known by what it wrote: its remembered attributes, or its public address together with its VTEP
 * MAC (persisted, so it outlives address changes). A public address alone is enough for a lease that nobody
 * remembers (a machine installed anew) or that carries no VTEP (a reservation as an operator writes it), but
 * not against our own memory: then another daemon uses our address.
 */
import { FAMILIES, formatSubnet, type PerFamily, type Subnet, subnetsOverlap } from './address.ts';
import { LeaseLostError, PublicAddressConflictError } from './errors.ts';
import { type Lease, type LeaseAttributes, sameAttributes } from './lease.ts';
import { decodeLeaseKey, encodeLeaseKey } from './lease-codec.ts';
import type { ClaimRequest, HeldLease, RememberedLease } from './lease-store.ts';
import { fitsNetwork, SubnetPool } from './subnet-choice.ts';

/** What a claim is decided on: everything the store holds. */
export interface ClaimGround {
  readonly leases: ReadonlyMap<string, Lease>;
  /** Keys of entries that cannot be read; their subnets are taken all the same. */
  readonly malformedKeys: readonly string[];
  isReservation(key: string): boolean;
}

export type ClaimPlan =
  | { readonly type: 'adopt'; readonly lease: Lease }
  /** `first` is tried before the pool is asked; the pool knows everything that is taken. */
  | { readonly type: 'create'; readonly first: PerFamily<Subnet> | undefined; readonly pool: SubnetPool };

/**
 * Which lease to take over, or what to create: the remembered lease while it is ours; a reservation for our
 * public address; any lease of our public address if nothing is remembered; the remembered subnets anew; any.
 * @throws PublicAddressConflictError
 */
export function planClaim(request: ClaimRequest, ground: ClaimGround): ClaimPlan {
  const { network, attributes, remembered } = request;
  const fits = (lease: Lease) => fitsNetwork(network, lease.subnets);
  const rememberedKey = remembered && encodeLeaseKey(remembered.subnets);
  const candidate = ground.leases.get(rememberedKey ?? '');
  if (remembered !== undefined && candidate !== undefined && fits(candidate)) {
    if (isOurs(candidate.attributes, attributes, remembered)) return { type: 'adopt', lease: candidate };
    if (samePublicAddress(candidate.attributes, attributes)) throw conflict(candidate);
  }
  const ofOurAddress = [...ground.leases.values()].filter(
    (lease) => lease.key !== rememberedKey && samePublicAddress(lease.attributes, attributes) && fits(lease),
  );
  const adopted =
    ofOurAddress.find((lease) => ground.isReservation(lease.key)) ??
    ofOurAddress.find(
      (lease) => remembered === undefined || isOurs(lease.attributes, attributes, remembered),
    );
  if (adopted !== undefined) return { type: 'adopt', lease: adopted };
  const pool = new SubnetPool(network, takenSubnets(ground));
  const first = remembered !== undefined && pool.isFree(remembered.subnets) ? remembered.subnets : undefined;
  return { type: 'create', first, pool };
}

function* takenSubnets(ground: ClaimGround): Generator<PerFamily<Subnet>> {
  for (const lease of ground.leases.values()) yield lease.subnets;
  for (const key of ground.malformedKeys) {
    const subnets = decodeLeaseKey(key);
    if (subnets !== undefined) yield subnets;
  }
}

function isOurs(written: LeaseAttributes, ours: LeaseAttributes, remembered: RememberedLease): boolean {
  return (
    sameAttributes(written, remembered.attributes) ||
    (samePublicAddress(written, ours) && (hasNoVtep(written) || sameVtepMac(written, ours)))
  );
}

/** By the first family that both have: a node may gain or lose the other. */
function samePublicAddress(a: LeaseAttributes, b: LeaseAttributes): boolean {
  const family = FAMILIES.find(
    (each) => a.publicAddress[each] !== undefined && b.publicAddress[each] !== undefined,
  );
  return family !== undefined && a.publicAddress[family] === b.publicAddress[family];
}

function sameVtepMac(a: LeaseAttributes, b: LeaseAttributes): boolean {
  const family = FAMILIES.find((each) => a.vtep[each] !== undefined && b.vtep[each] !== undefined);
  return family !== undefined && a.vtep[family]?.mac === b.vtep[family]?.mac;
}

const hasNoVtep = (attributes: LeaseAttributes): boolean => FAMILIES.every((each) => !attributes.vtep[each]);

const shown = (attributes: LeaseAttributes): string =>
  FAMILIES.flatMap((family) => {
    const [address, vtep] = [attributes.publicAddress[family], attributes.vtep[family]];
    return address === undefined ? [] : [vtep === undefined ? address : `${address} (VTEP ${vtep.mac})`];
  }).join(', ');

function conflict(lease: Lease): PublicAddressConflictError {
  return new PublicAddressConflictError(
    `lease ${lease.key}, which was ours, is written by another daemon with our public address: ` +
      `${shown(lease.attributes)}; stop it, or give one of the two another --public-ip`,
    lease.key,
    lease.attributes,
  );
}

/** What the store holds under the key of a held lease. */
export type CurrentLease = Lease | 'malformed' | undefined;

/**
 * What a renewal has to write: nothing, new attributes, or the whole lease again.
 * @throws LeaseLostError
 */
export function planRenewal(
  held: HeldLease,
  attributes: LeaseAttributes,
  current: CurrentLease,
): 'keep' | 'rewrite' | 'recreate' {
  const { key } = held.lease;
  if (current === undefined) {
    if (held.ttlMs > 0) return 'recreate';
    throw new LeaseLostError(`the reservation ${key} was deleted; claiming a subnet again`, 'expired');
  }
  if (current === 'malformed') {
    throw new LeaseLostError(`lease ${key} was overwritten with something that is no lease`, 'taken');
  }
  if (sameAttributes(current.attributes, attributes)) return 'keep';
  if (sameAttributes(current.attributes, held.lease.attributes)) return 'rewrite';
  const message = `lease ${key} belongs to ${shown(current.attributes)} now; claiming a subnet again`;
  throw new LeaseLostError(message, 'taken', current.attributes);
}

/** Whether the lease under our key is still what we wrote: only then may it be deleted. */
export const isStillHeld = (held: HeldLease, current: CurrentLease): boolean =>
  typeof current === 'object' && sameAttributes(current.attributes, held.lease.attributes);

/** Before a lease is made again: nothing else may overlap it. @throws LeaseLostError */
export function requireFree(held: HeldLease, ground: ClaimGround): void {
  for (const subnets of takenSubnets(ground)) {
    for (const family of FAMILIES) {
      const [ours, other] = [held.lease.subnets[family], subnets[family]];
      if (ours === undefined || other === undefined || !subnetsOverlap(ours, other)) continue;
      const message = `lease ${held.lease.key} expired, and ${formatSubnet(other)} is another's now`;
      throw new LeaseLostError(message, 'taken', ground.leases.get(encodeLeaseKey(subnets))?.attributes);
    }
  }
}
