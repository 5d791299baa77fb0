/**
 * What a table's rules look like in the kernel, where nft has made byte code of them: found by loading the text
 * once into a dormant table, which filters nothing, and reading that.
 */
import { FIREWALL_TABLE, type FirewallTable } from '../desired/firewall-table.ts';
import { deleteText, tableText } from './firewall-text.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import { readTable, type TableStructure } from './nft-table.ts';
import { type Nftables, NftablesError, NftablesUnavailableError } from './nftables.ts';

/** There for a moment, and after a killed run until the next. */
export const PROBE_TABLE = `${FIREWALL_TABLE}_probe`;

export interface WantedTable {
  readonly table: FirewallTable;
  readonly text: string;
  /** How the kernel holds the text. */
  readonly structure: TableStructure;
}

export class TableProbe {
  readonly #netlink: NetlinkSocket;
  readonly #nftables: Nftables;
  readonly #known = new Map<string, WantedTable>();

  /** Both stay the caller's. */
  constructor(netlink: NetlinkSocket, nftables: Nftables) {
    this.#netlink = netlink;
    this.#nftables = nftables;
  }

  /** @throws NftablesUnavailableError when the rules cannot be loaded here; NftablesError, NetlinkError */
  structureOf(table: FirewallTable): WantedTable {
    const text = tableText(table);
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const wanted = { table, text, structure: this.#load(table) };
    this.#known.set(text, wanted);
    return wanted;
  }

  #load(table: FirewallTable): TableStructure {
    const stale = readTable(this.#netlink, table.family, PROBE_TABLE) !== undefined;
    const remove = deleteText(table.family, PROBE_TABLE);
    try {
      this.#nftables.run((stale ? remove : '') + tableText(table, PROBE_TABLE, 'dormant'));
    } catch (error) {
      if (!(error instanceof NftablesError)) throw error;
      throw new NftablesUnavailableError(
        `the rules of table ${table.family} ${FIREWALL_TABLE} cannot be loaded here: the kernel needs nf_tables ` +
          `with family ${table.family}, sets, counters and NAT, and libnftables 1.0 or newer: ${error.message}`,
        { cause: error },
      );
    }
    try {
      const structure = readTable(this.#netlink, table.family, PROBE_TABLE);
      if (structure === undefined)
        throw new NftablesError(`nftables: somebody else deleted table ${table.family} ${PROBE_TABLE}`);
      return structure;
    } finally {
      this.#nftables.run(remove);
    }
  }
}
