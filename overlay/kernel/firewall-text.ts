/** The firewall's tables in nft's words: what libnftables carries out, each function's text in one transaction. */
import { type Address, addressBytes } from '../../store/address.ts';
import type { FirewallElements, FirewallSet, FirewallTable, SetName } from '../desired/firewall-table.ts';
import { type FieldType, SEPARATOR } from './nft-set.ts';
import type { TableStructure } from './nft-table.ts';

/** Names that nft can be told as they stand. Others, and its own of anonymous sets, are left alone. */
const PLAIN_NAME = /^[a-z][a-z0-9_]*$/i;

/** The whole table, without elements. */
export function tableText(table: FirewallTable, name = table.name, flags = ''): string {
  return block(table, name, flags, table.chains, () => '');
}

/** What must stand before the rules do, and harms nobody without them: sets, counters, first chains. */
export function preludeText(table: FirewallTable, held: TableStructure | undefined): string {
  const chains = table.chains.filter(
    (chain) => chain.first === true && held?.chains.has(chain.name) !== true,
  );
  return block(table, table.name, '', chains, () => '');
}

/**
 * Other rules in the place of those that are there. Chains that stay keep their place in the hooks, so their
 * old rules give way to the new ones at once, and sets keep their elements.
 */
export function replaceText(table: FirewallTable, held: TableStructure, wanted: TableStructure): string {
  const { family, name } = table;
  const gone = (kind: string, names: readonly string[]) =>
    names
      .filter((object) => PLAIN_NAME.test(object))
      .map((object) => `delete ${kind} ${family} ${name} ${object}`);
  const without = (have: ReadonlyMap<string, string>, want: ReadonlyMap<string, string>) =>
    [...have.keys()].filter((object) => !want.has(object));
  return [
    `flush table ${family} ${name}`,
    ...gone(
      'chain',
      [...held.chains].filter(([chain, text]) => wanted.chains.get(chain) !== text).map(([chain]) => chain),
    ),
    ...gone('set', without(held.sets, wanted.sets)),
    ...gone('counter', without(held.counters, wanted.counters)),
    tableText(table),
  ].join('\n');
}

/** The table anew, with its elements: for one that cannot be changed into what is wanted. */
export function rebuildText(table: FirewallTable, elements: FirewallElements): string {
  const list = (set: FirewallSet) => {
    const texts = [...elements[set.name]].map((element) => elementText(set, element));
    return texts.length === 0 ? '' : ` elements = { ${texts.join(', ')} };`;
  };
  return [
    `add table ${table.family} ${table.name}`,
    `delete table ${table.family} ${table.name}`,
    block(table, table.name, '', table.chains, list),
  ].join('\n');
}

export const setNames = (table: FirewallTable): SetName[] => table.sets.map((set) => set.name);

function block(
  table: FirewallTable,
  name: string,
  flags: string,
  chains: FirewallTable['chains'],
  elements: (set: FirewallSet) => string,
): string {
  const lines = [
    flags === '' ? '' : `flags ${flags};`,
    ...table.counters.map((counter) => `counter ${counter} { }`),
    ...table.sets.map((set) => `set ${set.name} { ${set.declaration};${elements(set)} }`),
    ...chains.map(({ name: chain, hook, rules }) => {
      const head = hook === undefined ? [] : [`${hook}; policy accept;`];
      return `chain ${chain} {\n    ${[...head, ...rules].join('\n    ')}\n  }`;
    }),
  ];
  return `table ${table.family} ${name} {\n  ${lines.filter(Boolean).join('\n  ')}\n}\n`;
}

/** An element as nft reads it: interface names in quotes. */
function elementText(set: FirewallSet, element: string): string {
  const values = element.split(SEPARATOR);
  const text = (field: FieldType, value: string): string => {
    if (field === 'ifname') return `"${value}"`;
    if (field === 'ipv6_addr' && set.untyped)
      return `0x${Buffer.from(addressBytes(value as Address)).toString('hex')}`;
    return value;
  };
  return set.fields.map((field, i) => text(field, values[i] ?? '')).join(SEPARATOR);
}
