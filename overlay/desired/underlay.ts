/**
 * Which interface is the underlay, and which of its addresses the peers are told: pure, from what the
 * operator said and what the node has.
 */
import {
  type Address,
  FAMILIES,
  type Family,
  isLinkLocal,
  isLoopback,
  type PerFamily,
  type Subnet,
  subnetContains,
} from '../../store/address.ts';
import { type LinkReach, linkReach, type NearRoute } from './on-link.ts';

export interface UnderlayLink {
  readonly index: number;
  readonly name: string;
  readonly mtuBytes: number;
  readonly up: boolean;
}

export interface UnderlayAddress {
  readonly linkIndex: number;
  readonly family: Family;
  readonly address: Address;
  readonly prefixLength: number;
  /** As in `ip address`: 0 global, 253 link, 254 host. */
  readonly scope: number;
  readonly tentative: boolean;
  /** It is there for now, not for long: one that stays is better. */
  readonly transient?: boolean | undefined;
}

export interface UnderlayFacts {
  readonly links: readonly UnderlayLink[];
  /** In the kernel's order: of IPv4 an interface's primary address comes first, of IPv6 the newest. */
  readonly addresses: readonly UnderlayAddress[];
  /** The interface that packets to `--iface-can-reach` leave by, where one was asked for. */
  readonly reaching?: { readonly linkIndex: number; readonly source?: Address | undefined } | undefined;
  /** Default routes, the best first. */
  readonly defaultRoutes: readonly { readonly family: Family; readonly linkIndex: number }[];
  /** All routes but our own. */
  readonly routes: readonly NearRoute[];
}

export interface UnderlayWishes {
  readonly names: readonly string[];
  readonly patterns: readonly RegExp[];
  readonly canReach?: Address | undefined;
  readonly publicAddress: PerFamily<Address>;
}

export interface Underlay {
  readonly link: UnderlayLink;
  /** The source of our encapsulated packets: an address that the link has. */
  readonly localAddress: PerFamily<Address>;
  /** Where peers send theirs: what `--public-ip` says, else the local address. */
  readonly publicAddress: PerFamily<Address>;
  /** What is on the link; only where it matters. */
  readonly reach?: PerFamily<LinkReach> | undefined;
  /** Why this interface, for people. */
  readonly why: string;
}

/** There is no underlay yet; it is looked for again whenever links, addresses or routes change. */
export class NoUnderlayError extends Error {
  override readonly name = 'NoUnderlayError';
  readonly code = 'VTEPD_NO_UNDERLAY';
  readonly retryable = true;
}

interface Choice {
  readonly link: UnderlayLink;
  readonly why: string;
  /** The address that the choice was made by. */
  readonly address?: Address | undefined;
}

/**
 * @param families those the overlay needs a public address of
 * @param overlayNetworks addresses inside them are pods' and never the underlay's
 * @param kept addresses in use, which stay while the interface has them: another one that was added is no reason
 *   to move all peers
 * @throws NoUnderlayError saying what was looked for and what there is
 */
export function chooseUnderlay(
  wishes: UnderlayWishes,
  facts: UnderlayFacts,
  families: readonly Family[],
  overlayNetworks: readonly Subnet[],
  kept: PerFamily<Address> = {},
): Underlay {
  const choice = chooseLink(wishes, facts, families);
  const localAddress: { [F in Family]?: Address } = {};
  const publicAddress: { [F in Family]?: Address } = {};
  for (const family of families) {
    const named = [wishes.publicAddress[family], choice.address];
    const local = localAddressOf(choice, named, kept[family], family, facts, overlayNetworks);
    if (local !== undefined) localAddress[family] = local;
    const reachable = wishes.publicAddress[family] ?? local;
    if (reachable !== undefined) publicAddress[family] = reachable;
  }
  const lacking = families.filter((family) => localAddress[family] === undefined);
  if (lacking.length === families.length) {
    throw new NoUnderlayError(
      `interface ${choice.link.name} (${choice.why}) has no global ${lacking.join(' or ')} address yet`,
    );
  }
  return { link: choice.link, localAddress, publicAddress, why: choice.why };
}

/** The same, with what is on its link. */
export function withReach(underlay: Underlay, routes: readonly NearRoute[]): Underlay {
  const reachOf = (family: Family): LinkReach =>
    linkReach(
      routes.filter(({ destination }) => destination.family === family),
      underlay.link.index,
    );
  return { ...underlay, reach: Object.fromEntries(FAMILIES.map((family) => [family, reachOf(family)])) };
}

function chooseLink(wishes: UnderlayWishes, facts: UnderlayFacts, families: readonly Family[]): Choice {
  for (const name of wishes.names) {
    const found = linkByNameOrAddress(name, facts);
    if (found !== undefined) return { ...found, why: `named by --iface ${name}` };
  }
  for (const pattern of wishes.patterns) {
    const found = linkByPattern(pattern, facts);
    if (found !== undefined) return { ...found, why: `matches --iface-regex ${pattern.source}` };
  }
  if (wishes.canReach !== undefined) {
    const link = linkAt(facts, facts.reaching?.linkIndex);
    if (link !== undefined) {
      return {
        link,
        address: facts.reaching?.source,
        why: `leads to ${wishes.canReach}, as --iface-can-reach asks`,
      };
    }
    throw new NoUnderlayError(`no route leads to ${wishes.canReach} (--iface-can-reach)`);
  }
  if (wishes.names.length + wishes.patterns.length > 0) {
    const asked = [...wishes.names, ...wishes.patterns.map((pattern) => `/${pattern.source}/`)].join(', ');
    throw new NoUnderlayError(`no interface is or has ${asked}; there are ${namesOf(facts)}`);
  }
  // An operator who names the public address has said which interface, if one has it.
  for (const family of families) {
    const holder = facts.addresses.find(({ address }) => address === wishes.publicAddress[family]);
    const link = linkAt(facts, holder?.linkIndex);
    if (link !== undefined) return { link, why: `has the public address ${holder?.address}` };
  }
  for (const route of facts.defaultRoutes) {
    const link = linkAt(facts, route.linkIndex);
    if (link !== undefined && families.includes(route.family)) {
      return { link, why: `has the ${route.family} default route` };
    }
  }
  throw new NoUnderlayError(
    `there is no default route to choose the underlay interface by: name it with --iface; there are ${namesOf(facts)}`,
  );
}

function linkByNameOrAddress(name: string, facts: UnderlayFacts): Omit<Choice, 'why'> | undefined {
  const named = facts.links.find((link) => link.name === name);
  if (named !== undefined) return { link: named };
  const holder = facts.addresses.find(({ address }) => address === name);
  const link = linkAt(facts, holder?.linkIndex);
  return link === undefined ? undefined : { link, address: holder?.address };
}

function linkByPattern(pattern: RegExp, facts: UnderlayFacts): Omit<Choice, 'why'> | undefined {
  const named = facts.links.find((link) => pattern.test(link.name));
  if (named !== undefined) return { link: named };
  const holder = facts.addresses.find(({ address }) => pattern.test(address));
  const link = linkAt(facts, holder?.linkIndex);
  return link === undefined ? undefined : { link, address: holder?.address };
}

function localAddressOf(
  choice: Choice,
  named: readonly (Address | undefined)[],
  kept: Address | undefined,
  family: Family,
  facts: UnderlayFacts,
  overlayNetworks: readonly Subnet[],
): Address | undefined {
  const candidates = facts.addresses.filter(
    (address) =>
      address.linkIndex === choice.link.index &&
      address.family === family &&
      address.scope === 0 &&
      !address.tentative &&
      !isLinkLocal(address.address) &&
      !isLoopback(address.address) &&
      !overlayNetworks.some((network) => subnetContains(network, address.address)),
  );
  const lasting = candidates.filter(({ transient }) => transient !== true);
  const usual = lasting.length > 0 ? lasting : candidates;
  const has = (among: readonly UnderlayAddress[], wanted: Address | undefined): Address | undefined =>
    among.find(({ address }) => address === wanted)?.address;
  return has(candidates, named[0]) ?? has(candidates, named[1]) ?? has(usual, kept) ?? usual[0]?.address;
}

const linkAt = (facts: UnderlayFacts, index: number | undefined): UnderlayLink | undefined =>
  facts.links.find((link) => link.index === index);

const namesOf = (facts: UnderlayFacts): string => facts.links.map((link) => link.name).join(', ') || 'none';
