/**
 * Which interface and addresses of this node are the underlay, looked at anew whenever links, addresses or
 * routes change, when the operator wishes for another one, and when the network asks for other families.
 *
 * With one in use, an underlay that goes away is waited for: nothing better is known. One that loses a family of
 * several is waited for as well, but not for long: an interface that was down comes back without its IPv6 addresses,
 * and duplicate address detection takes a second or two; peers would be told to forget this node's pods, and pods
 * that are attached meanwhile would be without the family for all their life.
 */
import { type Address, FAMILIES, type Family, type PerFamily, type Subnet } from '../store/address.ts';
import {
  chooseUnderlay,
  NoUnderlayError,
  type Underlay,
  type UnderlayFacts,
  type UnderlayWishes,
  withReach,
} from './desired/underlay.ts';
import type { Log } from './ops/log.ts';

/** What the network asks of the underlay. */
export interface UnderlayNeeds {
  readonly families: readonly Family[];
  /** Pods' networks: addresses in them are never the underlay's. */
  readonly overlayNetworks: readonly Subnet[];
  /** What is on the link is asked too: some peers are routed directly. */
  readonly reach: boolean;
}

export interface UnderlayWatchOptions {
  readonly wishes: UnderlayWishes;
  readonly read: (wishes: UnderlayWishes) => UnderlayFacts;
  readonly log: Log;
  /** What peers were told before this start: kept while it can be. */
  readonly remembered: () => PerFamily<Address>;
  readonly onChange: (now: Underlay, before: Underlay | undefined) => void;
  /** How long a family that the underlay has lost is waited for; 10,000 unless told. */
  readonly patienceMs?: number | undefined;
}

/** Changes come in bursts (an address goes, another comes): looked at once they rest. */
const SETTLE_MS = 10;
/** Longer than a network manager takes to put addresses back, DAD included. */
const PATIENCE_MS = 10_000;

export class UnderlayWatch {
  readonly #options: UnderlayWatchOptions;
  #wishes: UnderlayWishes;
  #needs: UnderlayNeeds | undefined;
  #underlay: Underlay | undefined;
  #problem: string | undefined;
  /** Families whose address is chosen as if none had been in use: the operator has taken a wish back. */
  readonly #anew = new Set<Family>();
  /** As last said. */
  #lacking = '';
  #timer: NodeJS.Timeout | undefined;
  /** Families that were lost and are waited for, while the timer runs. */
  #awaited: readonly Family[] = [];
  #patience: NodeJS.Timeout | undefined;
  /** Those that did not come back in time. */
  readonly #givenUp = new Set<Family>();

  constructor(options: UnderlayWatchOptions) {
    this.#options = options;
    this.#wishes = options.wishes;
  }

  get underlay(): Underlay | undefined {
    return this.#underlay;
  }

  /** Why there is none, or why the one in use is away. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Before the first call nothing is looked for. */
  setNeeds(needs: UnderlayNeeds): void {
    this.#needs = needs;
    this.look();
  }

  setWishes(wishes: UnderlayWishes): void {
    const before = this.#wishes;
    this.#wishes = wishes;
    for (const family of FAMILIES) if (!sameWishes(before, wishes, family)) this.#anew.add(family);
    this.look();
  }

  /** Links, addresses or routes of the node changed. */
  announced(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.look();
    }, SETTLE_MS);
  }

  look(): void {
    if (this.#needs === undefined) return;
    const { read, log, onChange, remembered } = this.#options;
    const { families, overlayNetworks, reach } = this.#needs;
    let found: Underlay;
    try {
      const facts = read(this.#wishes);
      const kept: { [F in Family]?: Address | undefined } = {
        ...remembered(),
        ...this.#underlay?.localAddress,
      };
      for (const family of this.#anew) delete kept[family];
      found = chooseUnderlay(this.#wishes, facts, families, overlayNetworks, kept);
      found = this.#awaitFamilies(found, families);
      if (reach) found = this.#keepReach(found) ?? withReach(found, facts.routes);
    } catch (error) {
      if (!(error instanceof NoUnderlayError)) throw error;
      if (this.#problem !== error.message) {
        log.warn(this.#underlay === undefined ? 'waiting for the underlay' : 'the underlay is away', {
          reason: error.message,
        });
      }
      this.#problem = error.message;
      return;
    }
    this.#problem = undefined;
    this.#anew.clear();
    this.#tellOfLacking(found, families);
    const before = this.#underlay;
    if (JSON.stringify(found) === JSON.stringify(before)) return;
    this.#underlay = found;
    if (before === undefined || !sameUnderlay(before, found)) {
      log.info('underlay', {
        device: found.link.name,
        address: Object.values(found.publicAddress).join(' '),
        mtuBytes: found.link.mtuBytes,
        reason: found.why,
      });
    } else log.debug('another part of the underlay is on the link now', { device: found.link.name });
    onChange(found, before);
  }

  /** A link that is down has no routes: what was on it is there again when it is up. */
  #keepReach(found: Underlay): Underlay | undefined {
    const before = this.#underlay;
    if (found.link.up || before?.link.index !== found.link.index) return undefined;
    return before.reach === undefined ? undefined : { ...found, reach: before.reach };
  }

  /** What the same interface has lost just now counts as there. */
  #awaitFamilies(found: Underlay, families: readonly Family[]): Underlay {
    const before = this.#underlay;
    const has = (family: Family): boolean => found.localAddress[family] !== undefined;
    for (const family of families.filter(has)) this.#givenUp.delete(family);
    const awaited = families.filter(
      (family) =>
        !has(family) &&
        before?.link.name === found.link.name &&
        before.localAddress[family] !== undefined &&
        !this.#anew.has(family) &&
        !this.#givenUp.has(family),
    );
    this.#awaited = awaited;
    // What is down carries nothing, and will have its addresses back when it is up.
    if (awaited.length === 0 || !found.link.up) {
      clearTimeout(this.#patience);
      this.#patience = undefined;
    } else this.#patience ??= this.#waitFor(awaited, found);
    if (awaited.length === 0 || before === undefined) return found;
    // In the order of families, for what is the same must look the same.
    const both = (of: 'localAddress' | 'publicAddress'): PerFamily<Address> =>
      Object.fromEntries(
        families.flatMap((family) => {
          const address = (awaited.includes(family) ? before : found)[of][family];
          return address === undefined ? [] : [[family, address]];
        }),
      );
    return { ...found, localAddress: both('localAddress'), publicAddress: both('publicAddress') };
  }

  #waitFor(families: readonly Family[], { link }: Underlay): NodeJS.Timeout {
    const { log, patienceMs = PATIENCE_MS } = this.#options;
    log.warn(`the underlay has no ${families.join()} address any more; it is waited for`, {
      device: link.name,
      durationMs: patienceMs,
    });
    return setTimeout(() => {
      this.#patience = undefined;
      for (const family of this.#awaited) this.#givenUp.add(family);
      this.look();
    }, patienceMs);
  }

  #tellOfLacking({ link, localAddress }: Underlay, families: readonly Family[]): void {
    const lacking = families.filter((family) => localAddress[family] === undefined).join();
    if (lacking === this.#lacking) return;
    this.#lacking = lacking;
    const served = families.filter((family) => localAddress[family] !== undefined).join(' and ');
    const { log } = this.#options;
    if (lacking === '') log.info(`the underlay has every family of the network now: ${served}`);
    else
      log.warn(`the underlay has no ${lacking} address: pods are served in ${served} only`, {
        device: link.name,
      });
  }

  close(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#patience);
  }
}

/** Whether all that is told of them in words is the same. */
const sameUnderlay = (a: Underlay, b: Underlay): boolean =>
  JSON.stringify({ ...a, reach: undefined }) === JSON.stringify({ ...b, reach: undefined });

/** Whether the operator wishes for the same interface, and the same address of a family. */
const sameWishes = (a: UnderlayWishes, b: UnderlayWishes, family: Family): boolean =>
  a.publicAddress[family] === b.publicAddress[family] &&
  a.canReach === b.canReach &&
  `${a.names}` === `${b.names}` &&
  `${a.patterns}` === `${b.patterns}`;
