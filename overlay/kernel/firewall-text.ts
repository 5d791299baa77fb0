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

/** What must stand before the rules do, and harms nobody without them: sets, counters, early chains. */
export function preludeText(table: FirewallTable, held: TableStructure): string {
  const missing = (name: string) => !held.chains.has(name);
  const chains = table.chains.flatMap((chain) => {
    if (chain.early === 'rules') return [chain];
    return chain.early === 'hook' && missing(chain.name) ? [{ ...chain, rules: [] }] : [];
  });
  const emptied = chains.filter(({ name }) => !missing(name));
  return [
    ...emptied.map(({ name }) => `flush chain ${table.family} ${table.name} ${name}`),
    block(table, table.name, '', chains, () => ''),
  ].join('\n');
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

/** One that is there. (`add table` before it would wake a dormant one up.) */
export const deleteText = (family: string, name: string): string => `delete table ${family} ${name}\n`;

/** A table that is there anew, with its elements: for one that cannot be changed into what is wanted. */
export function rebuildText(table: FirewallTable, elements: FirewallElements): string {
  const list = (set: FirewallSet) => {
    const texts = [...elements[set.name]].map((element) => elementText(set, element));
    return texts.length === 0 ? '' : ` elements = { ${texts.join(', ')} };`;
  };
  return deleteText(table.family, table.name) + block(table, table.name, '', table.chains, list);
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
