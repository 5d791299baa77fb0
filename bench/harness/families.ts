/**
 * The same measurement in several families of one run, in turns: `--families`. What counts is how many times
 * as much IPv6 takes as IPv4, which have had the same machine in every round.
 */
import { type Arguments, type Flag, UsageError } from '../../overlay/cli/arguments.ts';
import type { LabFamilies } from '../../overlay/lab/lab-network.ts';
import type { Aim } from './bench.ts';
import { pairedRatio, type Spread } from './statistics.ts';

/** The IPv6 figures stand within so many times the IPv4 ones. */
export const MOST_TIMES_IPV4 = 1.3;

const ALL: readonly LabFamilies[] = ['ipv4', 'ipv6', 'dual'];

export const FAMILIES_FLAG: Flag = {
  name: 'families',
  placeholder: 'LIST',
  help: 'Of pods and, with ipv6 alone, of the underlay: some of ipv4, ipv6 and dual, with commas between.',
  defaultText: ALL.join(),
};

/** @throws UsageError */
export function oneOfFamilies(text: string): LabFamilies {
  const found = ALL.find((known) => known === text);
  if (found === undefined) throw new UsageError(`--families: "${text}" is none of ${ALL.join(', ')}`);
  return found;
}

/** Each once, in the order given. @throws UsageError */
export function familiesGiven(given: Arguments): readonly LabFamilies[] {
  const texts = given.flags.get('families')?.flatMap((text) => text.split(','));
  return texts === undefined ? ALL : [...new Set(texts.map((text) => oneOfFamilies(text.trim())))];
}

/** One measurement a round and family. */
export type ByFamilies<T> = ReadonlyMap<LabFamilies, T>;

/**
 * How many times IPv4's the others' are, round by round; empty without IPv4.
 * @param values of each family, as many in one as in the other
 */
export function againstIpv4(values: ByFamilies<readonly number[]>): Partial<Record<LabFamilies, Spread>> {
  const base = values.get('ipv4');
  if (base === undefined) return {};
  const others = [...values].filter(([families]) => families !== 'ipv4');
  return Object.fromEntries(others.map(([families, each]) => [families, pairedRatio(each, base)]));
}

/** Nothing where IPv6 was not measured beside IPv4. */
export function aimsAgainstIpv4(what: string, values: ByFamilies<readonly number[]>): Aim[] {
  const { ipv6 } = againstIpv4(values);
  if (ipv6 === undefined) return [];
  return [{ what: `${what}, IPv6 against IPv4, times`, atMost: MOST_TIMES_IPV4, measured: ipv6.median }];
}
