/**
 * The packet filter rules that flannel leaves: `iptables -t nat -S FLANNEL-POSTRTG`, `iptables -S FLANNEL-FWD`
 * and, where it speaks nftables itself, its tables flannel-ipv4 and flannel-ipv6. Found and removed.
 *
 * What iptables-nft made is nftables', and is removed there, rule by rule, by its handle. The older iptables'
 * tables are the kernel's own; only its program can change them.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { Nftables, NftablesError, openNetfilter } from './nftables.ts';

const NAT_CHAIN = 'FLANNEL-POSTRTG';
const FORWARD_CHAIN = 'FLANNEL-FWD';
const CHAINS = [
  { table: 'nat', base: 'POSTROUTING', chain: NAT_CHAIN },
  { table: 'filter', base: 'FORWARD', chain: FORWARD_CHAIN },
] as const;
const PROGRAM_TIMEOUT_MS = 5000;

/** A chain of flannel's, or a table: how it is removed, and how it is called. */
export interface FlannelRules {
  /** `iptables nat FLANNEL-POSTRTG`, `nftables ip flannel-ipv4` */
  readonly name: string;
  /**
   * Of the chain that accepts forwarded packets: the chain before it drops what nobody accepts (Docker's doing),
   * so without it no packet of a pod would pass.
   */
  readonly needed: boolean;
  readonly remove: () => Promise<void>;
}

/** Those in the caller's network namespace. @throws NftablesUnavailableError, NftablesError */
export async function listFlannelRules(): Promise<FlannelRules[]> {
  openNetfilter(undefined).close();
  using nftables = Nftables.open();
  return [...nftablesRules(nftables), ...(await legacyRules())];
}

/** What is asked for by name alone: a node's rules may be tens of thousands, kube-proxy's. */
function nftablesRules(nftables: Nftables): FlannelRules[] {
  const found: FlannelRules[] = [];
  for (const [family, program, own] of [
    ['ip', 'iptables', 'flannel-ipv4'],
    ['ip6', 'ip6tables', 'flannel-ipv6'],
  ] as const) {
    if (listIfThere(nftables, { family, name: own }) !== undefined) {
      const name = `${family} ${own}`;
      found.push({
        name: `nftables ${name}`,
        needed: false,
        remove: async () => run(`delete table ${name}`),
      });
    }
    for (const { table, base, chain } of CHAINS) {
      if (listIfThere(nftables, { family, name: table, chain }) === undefined) continue;
      const objects = listIfThere(nftables, { family, name: table, chain: base }) ?? [];
      const jumps = objects.flatMap(({ rule }) =>
        rule?.expr.some((part) => jumpsTo(part, chain)) === true ? [rule.handle] : [],
      );
      const place = `${family} ${table}`;
      const lines = [
        ...jumps.map((handle) => `delete rule ${place} ${base} handle ${handle}`),
        `flush chain ${place} ${chain}`,
        `delete chain ${place} ${chain}`,
      ];
      found.push({
        name: `${program} ${table} ${chain}`,
        needed: chain === FORWARD_CHAIN && objects.some((each) => each.chain?.policy === 'drop'),
        remove: async () => run(lines.join('\n')),
      });
    }
  }
  return found;
}

interface NftObject {
  readonly chain?: { readonly policy?: string };
  readonly rule?: { readonly handle: number; readonly expr: readonly unknown[] };
}

function listIfThere(
  nftables: Nftables,
  what: { readonly family: string; readonly name: string; readonly chain?: string },
): readonly NftObject[] | undefined {
  try {
    return (JSON.parse(nftables.list(what, { json: true, terse: true })) as { nftables: NftObject[] })
      .nftables;
  } catch (error) {
    if (error instanceof NftablesError && isAbsence(error)) return undefined;
    throw error;
  }
}

const isAbsence = ({ message }: NftablesError): boolean => /No such file or directory/.test(message);

/** One that somebody has removed meanwhile is gone, as wanted. @throws NftablesError */
function run(text: string): void {
  using nftables = Nftables.open();
  try {
    nftables.run(text);
  } catch (error) {
    if (!(error instanceof NftablesError) || !isAbsence(error)) throw error;
  }
}

const jumpsTo = (part: unknown, chain: string): boolean =>
  isRecord(part) && isRecord(part.jump) && part.jump.target === chain;

/** `iptables-legacy`'s, which the kernel names in /proc where there are any. */
async function legacyRules(): Promise<FlannelRules[]> {
  const found: FlannelRules[] = [];
  for (const [program, names] of [
    ['iptables-legacy', '/proc/net/ip_tables_names'],
    ['ip6tables-legacy', '/proc/net/ip6_tables_names'],
  ] as const) {
    const tables = textIfThere(names).split('\n');
    for (const { table, base, chain } of CHAINS) {
      if (!tables.includes(table)) continue;
      const text = await legacy(program, ['-t', table, '-S']);
      const lines = text.split('\n');
      if (!lines.includes(`-N ${chain}`)) continue;
      const jumps = lines.filter((line) => line.startsWith(`-A ${base} `) && line.endsWith(` -j ${chain}`));
      found.push({
        name: `${program} ${table} ${chain}`,
        needed: chain === FORWARD_CHAIN && lines.includes(`-P ${base} DROP`),
        async remove() {
          // Each as flannel writes it; with another comment it is somebody else's, and the chain stays.
          const comment = chain === NAT_CHAIN ? 'flanneld masq' : 'flanneld forward';
          for (const line of jumps) {
            const match = line.includes('--comment') ? ['-m', 'comment', '--comment', comment] : [];
            await legacy(program, ['-t', table, '-D', base, ...match, '-j', chain]);
          }
          await legacy(program, ['-t', table, '-F', chain]);
          await legacy(program, ['-t', table, '-X', chain]);
        },
      });
    }
  }
  return found;
}

/** The rules that only this program can change are there, and it is not. */
export class LegacyTablesError extends Error {
  override readonly name = 'LegacyTablesError';
  readonly code = 'VTEPD_LEGACY_TABLES';
}

async function legacy(program: string, args: readonly string[]): Promise<string> {
  const env = { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` };
  try {
    const { stdout } = await promisify(execFile)(program, ['-w', '5', ...args], {
      env,
      timeout: PROGRAM_TIMEOUT_MS,
    });
    return stdout;
  } catch (cause) {
    throw new LegacyTablesError(
      `${program} ${args.join(' ')} failed: flannel's rules in the older iptables' tables stay until somebody removes them`,
      { cause },
    );
  }
}

function textIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // The kernel has no such tables.
    return '';
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
