/**
 * What a table of nftables is made of, read from the kernel as it stands there: small enough to compare, and
 * without anything that changes by itself (handles, counts, elements of sets). Rules stay in byte code.
 */
import type { Attributes, NetlinkMessage } from './netlink-message.ts';
import { attributes, readText } from './netlink-message.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import {
  nftAttributes,
  nftFamily,
  nftRequest,
  readU32be,
  type TableFamily,
  tableFamilyName,
  tableFamilyNumber,
} from './nft-message.ts';

const NFT_MSG_GETTABLE = 1;
const NFT_MSG_GETCHAIN = 4;
const NFT_MSG_GETRULE = 7;
const NFT_MSG_GETSET = 10;
const NFT_MSG_GETOBJ = 19;

/** In every object's message: the table it is in. */
const NFTA_TABLE = 1;
const NFTA_TABLE_NAME = 1;
const NFTA_TABLE_FLAGS = 2;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_CHAIN_FLAGS = 10;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_SET_NAME = 2;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_TYPE = 4;
const NFTA_SET_KEY_LEN = 5;
const NFTA_SET_DATA_TYPE = 6;
const NFTA_SET_TIMEOUT = 11;
const NFTA_OBJ_NAME = 2;
const NFTA_OBJ_TYPE = 3;
const NFTA_OBJ_DATA = 4;
const NFTA_COUNTER_PACKETS = 2;

const NFT_OBJECT_COUNTER = 1;
const NFT_TABLE_F_DORMANT = 1;
const NF_DROP = 0;
const NF_INET_LOCAL_IN = 1;
const NF_INET_FORWARD = 2;
/** In others (arp, netdev) the hooks' numbers mean something else. */
const FORWARDING_FAMILIES: ReadonlySet<string> = new Set(['inet', 'ip', 'ip6', 'bridge']);

/** Objects by name, each as text that is equal exactly when the objects are. */
export interface TableStructure {
  /** A dormant table stands there and does nothing. */
  readonly dormant: boolean;
  readonly chains: ReadonlyMap<string, string>;
  readonly sets: ReadonlyMap<string, string>;
  readonly counters: ReadonlyMap<string, string>;
  /** In order within their chain. */
  readonly rules: readonly string[];
}

/** `nft -t list table FAMILY NAME`; undefined when there is none. @throws NetlinkError, DumpInterruptedError */
export function readTable(
  netlink: NetlinkSocket,
  family: TableFamily,
  name: string,
): TableStructure | undefined {
  const number = tableFamilyNumber(family);
  const flags = netlink.get(
    nftRequest(NFT_MSG_GETTABLE, number, 0, (w) => w.attributeText(NFTA_TABLE_NAME, name)),
    (message) => readU32be(nftAttributes(message)[NFTA_TABLE_FLAGS]) ?? 0,
    `read table ${family} ${name}`,
  );
  if (flags === undefined) return undefined;
  const all = (nftMessage: number, what: string) =>
    netlink.dump(
      nftRequest(nftMessage, number, 0, (w) => w.attributeText(NFTA_TABLE, name)),
      (message) => inTable(message, number, name),
      `list ${what} of table ${family} ${name}`,
    );
  return {
    dormant: (flags & NFT_TABLE_F_DORMANT) !== 0,
    chains: byName(all(NFT_MSG_GETCHAIN, 'chains'), NFTA_CHAIN_NAME, [
      NFTA_CHAIN_TYPE,
      NFTA_CHAIN_HOOK,
      NFTA_CHAIN_POLICY,
      NFTA_CHAIN_FLAGS,
    ]),
    sets: byName(all(NFT_MSG_GETSET, 'sets'), NFTA_SET_NAME, [
      NFTA_SET_FLAGS,
      NFTA_SET_KEY_TYPE,
      NFTA_SET_KEY_LEN,
      NFTA_SET_DATA_TYPE,
      NFTA_SET_TIMEOUT,
    ]),
    counters: byName(all(NFT_MSG_GETOBJ, 'counters'), NFTA_OBJ_NAME, [NFTA_OBJ_TYPE]),
    rules: all(NFT_MSG_GETRULE, 'rules').map(
      (rule) => `${readText(rule[NFTA_RULE_CHAIN])}: ${bytesText(rule[NFTA_RULE_EXPRESSIONS])}`,
    ),
  };
}

/** Whether both have the same objects and rules; the order of chains does not matter. */
export function sameStructure(a: TableStructure, b: TableStructure): boolean {
  return (
    sameObjects(a.chains, b.chains) &&
    sameObjects(a.sets, b.sets) &&
    sameObjects(a.counters, b.counters) &&
    byChain(a.rules) === byChain(b.rules)
  );
}

export const sameObjects = (a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean =>
  a.size === b.size && [...a].every(([name, text]) => b.get(name) === text);

/** Packets by counter (`nft list counters table FAMILY NAME`). */
export function readCounters(
  netlink: NetlinkSocket,
  family: TableFamily,
  table: string,
): Map<string, number> {
  const number = tableFamilyNumber(family);
  const counters = netlink.dump(
    nftRequest(NFT_MSG_GETOBJ, number, 0, (w) => w.attributeText(NFTA_TABLE, table)),
    (message) => {
      const object = inTable(message, number, table);
      const data = object?.[NFTA_OBJ_DATA];
      if (data === undefined || readU32be(object?.[NFTA_OBJ_TYPE]) !== NFT_OBJECT_COUNTER) return undefined;
      const packets = attributes(data)[NFTA_COUNTER_PACKETS];
      const value = packets?.length === 8 ? Number(packets.readBigUInt64BE(0)) : 0;
      return [readText(object?.[NFTA_OBJ_NAME]) ?? '', value] as const;
    },
    `list counters of table ${family} ${table}`,
  );
  return new Map(counters);
}

/** A chain that drops what none of its rules accepts. */
export interface DroppingChain {
  /** `inet`, `ip`, `ip6`, `bridge` */
  readonly family: string;
  readonly table: string;
  readonly chain: string;
  readonly hook: 'input' | 'forward';
}

/** The chains on input and forward with the policy drop, of all tables; those of iptables-legacy are not seen. */
export function listDroppingChains(netlink: NetlinkSocket): DroppingChain[] {
  return netlink.dump(
    nftRequest(NFT_MSG_GETCHAIN, 0, 0),
    (message) => {
      const chain = nftAttributes(message);
      const hook = chain[NFTA_CHAIN_HOOK];
      if (hook === undefined || readU32be(chain[NFTA_CHAIN_POLICY]) !== NF_DROP) return undefined;
      const family = tableFamilyName(nftFamily(message));
      const at = readU32be(attributes(hook)[NFTA_HOOK_HOOKNUM]);
      if (!FORWARDING_FAMILIES.has(family)) return undefined;
      if (at !== NF_INET_LOCAL_IN && at !== NF_INET_FORWARD) return undefined;
      return {
        family,
        table: readText(chain[NFTA_TABLE]) ?? '',
        chain: readText(chain[NFTA_CHAIN_NAME]) ?? '',
        hook: at === NF_INET_FORWARD ? ('forward' as const) : ('input' as const),
      };
    },
    'list chains',
  );
}

/** Older kernels answer with the objects of every table of the family. Copied: the next receive overwrites. */
function inTable(message: NetlinkMessage, family: number, table: string): Attributes | undefined {
  if (nftFamily(message) !== family) return undefined;
  const found = nftAttributes(message);
  if (readText(found[NFTA_TABLE]) !== table) return undefined;
  return found.map((value) => (value === undefined ? undefined : Buffer.from(value)));
}

function byName(objects: readonly Attributes[], name: number, kept: readonly number[]): Map<string, string> {
  return new Map(
    objects.map((object) => [
      readText(object[name]) ?? '',
      kept.map((attribute) => bytesText(object[attribute])).join(' '),
    ]),
  );
}

const bytesText = (bytes: Buffer | undefined): string => bytes?.toString('hex') ?? '-';

/** Stable sort: rules keep their order within the chain. */
function byChain(rules: readonly string[]): string {
  const chainOf = (rule: string) => rule.slice(0, rule.indexOf(':'));
  return [...rules]
    .map((rule, i) => ({ rule, chain: chainOf(rule), i }))
    .sort((a, b) => (a.chain < b.chain ? -1 : a.chain > b.chain ? 1 : a.i - b.i))
    .map(({ rule }) => rule)
    .join('\n');
}
