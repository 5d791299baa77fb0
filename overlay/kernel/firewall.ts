/**
 * This node's packet filter in the kernel: the tables of desired/firewall.ts, made so and kept so.
 *
 * What a pass costs: one request (10 µs) while nobody changed anything of nftables, by the generation that
 * the kernel counts. Else the tables' structure is read (0.3 ms) and the elements (1 µs each), and compared.
 * Rules come from the kernel as byte code; what ours look like there is found by loading them once into a
 * dormant table, which filters nothing, and reading that.
 *
 * No packet of a running flow is lost in any change, nor when somebody flushes everything (40,000 packets a
 * second through 100 changes of each kind, in test/overlay/firewall/running-flow.test.ts and beyond it):
 * - rules are replaced in place: in one transaction all chains' old rules give way to the new ones;
 * - before rules that drop stands what they ask for: sets with their elements, and the mark on packets. So a
 *   table is made in three steps: prelude (sets, early chains), elements, rules;
 * - what marks packets ends after what asks for the mark: chains end in the order in which they were made.
 *
 * Our own changes are announced like anybody's. They cause no endless passes: a pass after them finds the
 * generation that they led to.
 */
import {
  DROP_REASONS,
  type DropReason,
  FIREWALL_SETS,
  FIREWALL_TABLE,
  type FirewallDesired,
  type FirewallElement,
  type FirewallElements,
  type SetName,
} from '../desired/firewall-table.ts';
import { deleteText, preludeText, rebuildText, replaceText, setNames } from './firewall-text.ts';
import type { NetlinkMessage } from './netlink-message.ts';
import { DumpInterruptedError, NetlinkError, type NetlinkSocket } from './netlink-socket.ts';
import {
  changedTable,
  GenerationMovedError,
  nextGeneration,
  readGeneration,
  type TableFamily,
  tableFamilyNumber,
} from './nft-message.ts';
import { changeElements, type ElementChanges, listElements } from './nft-set.ts';
import {
  type DroppingChain,
  listDroppingChains,
  readCounters,
  readTable,
  sameStructure,
  type TableStructure,
} from './nft-table.ts';
import { Nftables, NftablesError, type NftablesOptions, openNetfilter } from './nftables.ts';
import { PROBE_TABLE, TableProbe, type WantedTable } from './table-probe.ts';

const FAMILIES: readonly TableFamily[] = ['inet', 'bridge'];
/** Creating takes one round and one that finds nothing to do; more are for others who change at the same time. */
const ROUNDS = 6;
/** As often is the state read again when it changes while it is read. */
const LOOKS = 10;

/** Others change the tables as fast as we do; nothing is wrong with ours. */
export class FirewallUnsettledError extends Error {
  override readonly name = 'FirewallUnsettledError';
  readonly code = 'VTEPD_FIREWALL_UNSETTLED';
  readonly retryable = true;
}

/** What a pass did. Both empty: everything was as wanted. */
export interface FirewallReport {
  /** Ours, changed by somebody else since we made it, and now right again. */
  readonly repaired: readonly string[];
  /** Made, changed or removed because that is wanted now. */
  readonly changed: readonly string[];
}

/** Adding what is there and removing what is not is no error. */
export interface FirewallAdjustment {
  readonly add?: readonly FirewallElement[];
  readonly remove?: readonly FirewallElement[];
}

/** What the kernel holds. */
export interface FirewallObserved {
  /** The families that have our table. */
  readonly tables: readonly TableFamily[];
  /** Empty for a set that is not there. */
  readonly elements: FirewallElements;
}

interface Seen {
  /** Undefined once we know that it is another by now. */
  generation: number | undefined;
  readonly tables: ReadonlyMap<TableFamily, TableStructure>;
  /** A set that is not there is not here. */
  readonly elements: ReadonlyMap<SetName, Set<string>>;
}

export class Firewall implements Disposable {
  readonly #netlink: NetlinkSocket;
  readonly #nftables: Nftables;
  readonly #probe: TableProbe;
  /** The text of each table as we last left it in the kernel. */
  readonly #applied = new Map<TableFamily, string>();
  #seen: Seen | undefined;

  private constructor(netlink: NetlinkSocket, nftables: Nftables) {
    this.#netlink = netlink;
    this.#nftables = nftables;
    this.#probe = new TableProbe(netlink, nftables);
  }

  /** Changes nothing yet. Works in the caller's network namespace, or the one named. @throws NftablesUnavailableError */
  static open(options: NftablesOptions = {}): Firewall {
    const netlink = openNetfilter(options.namespace);
    try {
      return new Firewall(netlink, Nftables.open(options));
    } catch (error) {
      netlink.close();
      throw error;
    }
  }

  /**
   * Makes the kernel hold what is wanted, and nothing else in our tables. Tables of an earlier run that are
   * as wanted stay untouched.
   * @throws NftablesUnavailableError, NftablesError, NetlinkError; FirewallUnsettledError, DumpInterruptedError (both: try again)
   */
  apply(desired: FirewallDesired): FirewallReport {
    const report = { repaired: [] as string[], changed: [] as string[] };
    const wanted = new Map(desired.tables.map((table) => [table.family, this.#probe.structureOf(table)]));
    const known = this.#seen?.elements;
    for (let round = 0; round < ROUNDS; round++) {
      const seen = this.#look();
      try {
        const done = FAMILIES.map((family) =>
          this.#settleTable(family, wanted.get(family), desired.elements, seen, report),
        );
        if (done.includes(true)) continue;
        this.#settleElements(desired, seen, known, report);
        // Guarded by the generation: it needs no second look.
        return report;
      } catch (error) {
        if (!(error instanceof GenerationMovedError)) throw error;
      }
    }
    throw new FirewallUnsettledError('nftables: somebody else keeps changing the tables named vtepd');
  }

  /**
   * A few elements at once, without a look at the rest (one lease or pod: 0.1 ms). Sets that are not there
   * are left out: apply() brings them with their elements. @throws NetlinkError
   */
  adjust({ add = [], remove = [] }: FirewallAdjustment): void {
    const seen = this.#seen ?? this.#look();
    const all: ElementChanges[] = [];
    const needed: ElementChanges[] = [];
    for (const [name, held] of seen.elements) {
      const of = (list: readonly FirewallElement[]) =>
        list.filter(({ set }) => set === name).map(({ element }) => element);
      const change = { set: FIREWALL_SETS[name], add: of(add), remove: of(remove) };
      if (change.add.length + change.remove.length === 0) continue;
      all.push(change);
      needed.push({
        set: change.set,
        add: change.add.filter((element) => !held.has(element)),
        remove: change.remove.filter((element) => held.has(element)),
      });
    }
    try {
      const nothing = needed.every((change) => change.add.length + change.remove.length === 0);
      if (!nothing || seen.generation === undefined) this.#changeElements(seen, needed);
    } catch (error) {
      if (!(error instanceof GenerationMovedError)) throw error;
      // Somebody changed something, perhaps of ours: the next pass looks. The elements go in all the same.
      changeElements(this.#netlink, all);
    }
    remember(seen, all);
  }

  /** @throws NetlinkError, DumpInterruptedError */
  observe(): FirewallObserved {
    const { tables, elements } = this.#look();
    const of = (name: SetName): ReadonlySet<string> => new Set(elements.get(name));
    return {
      tables: [...tables.keys()],
      elements: {
        peers4: of('peers4'),
        peers6: of('peers6'),
        pods4: of('pods4'),
        pods6: of('pods6'),
        targets6: of('targets6'),
      },
    };
  }

  /** Dropped packets by reason, since the tables were made. @throws NetlinkError */
  drops(): Readonly<Record<DropReason, number>> {
    const counters = FAMILIES.flatMap((family) => [...readCounters(this.#netlink, family, FIREWALL_TABLE)]);
    const packets = new Map(counters);
    const reasons = Object.keys(DROP_REASONS) as DropReason[];
    return Object.fromEntries(reasons.map((reason) => [reason, packets.get(reason) ?? 0])) as Record<
      DropReason,
      number
    >;
  }

  /**
   * Chains of others that drop what they do not accept. An accept of ours does not help against them (see
   * desired/firewall.ts): the operator must allow the bridge there.
   */
  foreignDrops(): DroppingChain[] {
    return listDroppingChains(this.#netlink).filter(({ table }) => table !== FIREWALL_TABLE);
  }

  /** Whether an announced change was made in our tables by somebody else (or by libnftables for us). */
  concerns(message: NetlinkMessage): boolean {
    const changed = changedTable(message);
    return (
      changed?.table === FIREWALL_TABLE &&
      message.portId !== this.#netlink.portId &&
      FAMILIES.some((family) => tableFamilyNumber(family) === changed.family)
    );
  }

  /** Deletes both tables. @returns what was there. @throws NftablesError */
  remove(): string[] {
    const removed: string[] = [];
    for (const name of [FIREWALL_TABLE, PROBE_TABLE]) {
      for (const family of FAMILIES) {
        if (readTable(this.#netlink, family, name) === undefined) continue;
        this.#nftables.run(deleteText(family, name));
        removed.push(`table ${family} ${name}`);
      }
    }
    this.#seen = undefined;
    this.#applied.clear();
    return removed;
  }

  close(): void {
    this.#netlink.close();
    this.#nftables.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @returns whether something was done, so that another look is due */
  #settleTable(
    family: TableFamily,
    wanted: WantedTable | undefined,
    elements: FirewallElements,
    seen: Seen,
    report: Report,
  ): boolean {
    const held = seen.tables.get(family);
    const name = `table ${family} ${FIREWALL_TABLE}`;
    if (wanted === undefined) {
      this.#applied.delete(family);
      if (held === undefined) return false;
      seen.generation = undefined;
      this.#nftables.run(deleteText(family, FIREWALL_TABLE));
      report.changed.push(`${name} removed`);
      return true;
    }
    const ours = this.#applied.get(family) === wanted.text;
    if (held !== undefined && !held.dormant && sameStructure(held, wanted.structure)) {
      this.#applied.set(family, wanted.text);
      return false;
    }
    seen.generation = undefined;
    this.#putTable(wanted, elements, held, seen);
    (ours ? report.repaired : report.changed).push(`${name} ${held === undefined ? 'made' : 'replaced'}`);
    this.#applied.set(family, wanted.text);
    return true;
  }

  #putTable(
    { table, structure }: WantedTable,
    elements: FirewallElements,
    held: TableStructure | undefined,
    seen: Seen,
  ): void {
    const unlike = table.sets.some(
      ({ name }) =>
        held?.dormant === false && held.sets.has(name) && held.sets.get(name) !== structure.sets.get(name),
    );
    if (unlike) {
      this.#nftables.run(rebuildText(table, elements));
      return;
    }
    // A dormant one is in nobody's way, and filters nothing that its end would let pass.
    if (held?.dormant === true) this.#nftables.run(deleteText(table.family, table.name));
    const base = held === undefined || held.dormant ? NOTHING : held;
    try {
      this.#nftables.run(preludeText(table, base));
      changeElements(
        this.#netlink,
        setNames(table).map((name) =>
          difference(name, elements[name], base === NOTHING ? undefined : seen.elements.get(name)),
        ),
      );
      this.#nftables.run(replaceText(table, base, structure));
    } catch (error) {
      // Something of a stranger's in our table is in the way: anew, with everything in one transaction.
      if (!(error instanceof NftablesError) || base === NOTHING) throw error;
      this.#nftables.run(rebuildText(table, elements));
    }
  }

  #settleElements(
    desired: FirewallDesired,
    seen: Seen,
    known: Seen['elements'] | undefined,
    report: Report,
  ): void {
    const changes: ElementChanges[] = [];
    for (const name of desired.tables.flatMap(setNames)) {
      const held = seen.elements.get(name);
      const change = difference(name, desired.elements[name], held);
      if (change.add.length + change.remove.length === 0) continue;
      changes.push(change);
    }
    if (changes.length === 0) return;
    this.#changeElements(seen, changes);
    for (const change of changes) {
      const name = change.set.name as SetName;
      const before = known?.get(name);
      // What we knew to be there and was not, or the other way round, somebody else has done.
      const lost = change.add.filter((element) => before?.has(element) === true).length;
      const strange = change.remove.filter((element) => before?.has(element) === false).length;
      tell(report.repaired, name, lost, strange);
      tell(report.changed, name, change.add.length - lost, change.remove.length - strange);
    }
    remember(seen, changes);
  }

  /** @throws GenerationMovedError when what was seen is not what is there */
  #changeElements(seen: Seen, changes: readonly ElementChanges[]): void {
    const { generation } = seen;
    if (generation === undefined) throw new GenerationMovedError('nftables changed meanwhile');
    // Several transactions may succeed in part; only all of them leave a known generation behind.
    seen.generation = undefined;
    let after = generation;
    const transactions = changeElements(this.#netlink, changes, generation);
    for (let i = 0; i < transactions; i++) after = nextGeneration(after);
    seen.generation = after;
  }

  /** What the kernel holds now: as remembered while the generation is the same. */
  #look(): Seen {
    for (let attempt = 0; attempt < LOOKS; attempt++) {
      const generation = readGeneration(this.#netlink);
      if (this.#seen?.generation === generation) return this.#seen;
      const found = this.#read(generation);
      if (found === undefined || readGeneration(this.#netlink) !== generation) continue;
      this.#seen = found;
      return found;
    }
    throw new DumpInterruptedError('nftables: the ruleset kept changing while it was read');
  }

  #read(generation: number): Seen | undefined {
    const tables = new Map<TableFamily, TableStructure>();
    const elements = new Map<SetName, Set<string>>();
    try {
      for (const family of FAMILIES) {
        const structure = readTable(this.#netlink, family, FIREWALL_TABLE);
        if (structure !== undefined) tables.set(family, structure);
      }
      for (const set of Object.values(FIREWALL_SETS)) {
        if (tables.get(set.family)?.sets.has(set.name) === true)
          elements.set(set.name, listElements(this.#netlink, set));
      }
    } catch (error) {
      // Gone between one request and the next.
      if (error instanceof NetlinkError && error.code === 'ENOENT') return undefined;
      throw error;
    }
    return { generation, tables, elements };
  }
}

interface Report {
  readonly repaired: string[];
  readonly changed: string[];
}

const NOTHING: TableStructure = {
  dormant: false,
  chains: new Map(),
  sets: new Map(),
  counters: new Map(),
  rules: [],
};

function difference(
  name: SetName,
  wanted: ReadonlySet<string>,
  held: ReadonlySet<string> = new Set(),
): ElementChanges {
  return {
    set: FIREWALL_SETS[name],
    add: [...wanted].filter((element) => !held.has(element)),
    remove: [...held].filter((element) => !wanted.has(element)),
  };
}

function remember(seen: Seen, changes: readonly ElementChanges[]): void {
  for (const { set, add, remove } of changes) {
    const held = seen.elements.get(set.name as SetName);
    for (const element of add) held?.add(element);
    for (const element of remove) held?.delete(element);
  }
}

function tell(lines: string[], set: SetName, added: number, removed: number): void {
  if (added > 0) lines.push(`set ${set}: ${added} added`);
  if (removed > 0) lines.push(`set ${set}: ${removed} removed`);
}
