/**
 * What a namespace's kernel holds, as text: `kernelState` for comparing (everything that is meant, nothing
 * that happens to be: no indexes, ids, counters, timers or link-local addresses), `kernelDump` for people.
 */
import { run } from '../../overlay/lab/command.ts';
import { runInside } from '../../overlay/lab/namespace.ts';
import { until } from '../../overlay/lab/wait.ts';

/** Far less than the daemons' periodic pass: what is back by then was seen when it happened. */
const STATE_DEADLINE_MS = 10_000;

type Item = Readonly<Record<string, unknown>>;

/** Sorted lines, one an object: two states are the same when their texts are. */
export async function kernelState(namespace: string): Promise<string> {
  const [links, addresses, routes, neighbours, entries, nexthops, rules] = await Promise.all([
    items('ip', ['-n', namespace, '-j', '-d', 'link', 'show']),
    items('ip', ['-n', namespace, '-j', 'addr', 'show']),
    items('ip', ['-n', namespace, '-j', 'route', 'show', 'table', 'all']),
    items('ip', ['-n', namespace, '-j', 'neigh', 'show', 'nud', 'permanent']),
    items('bridge', ['-n', namespace, '-j', 'fdb', 'show']),
    items('ip', ['-n', namespace, '-j', 'nexthop', 'show']),
    runInside(namespace, ['nft', '-s', 'list', 'ruleset']),
  ]);
  const lines = [
    ...links.map(linkLine),
    ...addresses.flatMap(addressLines),
    ...routes.filter(isMeant).map((route) => line('route', route, ROUTE_FIELDS)),
    ...neighbours.map((neighbour) => line('neigh', neighbour, ['dst', 'dev', 'lladdr'])),
    ...entries.filter(({ dst }) => dst !== undefined).map((entry) => line('fdb', entry, FDB_FIELDS)),
    ...nexthops.map((nexthop) => line('nexthop', nexthop, ['gateway', 'dev', 'protocol', 'flags'])),
  ];
  return `${lines.sort().join('\n')}\n${rulesText(rules.stdout)}`;
}

const ROUTE_FIELDS = ['type', 'dst', 'gateway', 'dev', 'table', 'protocol', 'scope', 'prefsrc', 'flags'];
const FDB_FIELDS = ['mac', 'ifname', 'dst', 'state'];
const VXLAN_FIELDS = ['id', 'local', 'port', 'learning', 'ageing', 'group', 'df', 'udp_csum'];

/** Raw and complete, as an operator would look at it. */
export async function kernelDump(namespace: string): Promise<string> {
  const commands = [
    ['ip', '-d', '-s', 'link'],
    ['ip', 'addr'],
    ['ip', 'route', 'show', 'table', 'all'],
    ['ip', 'nexthop'],
    ['ip', 'neigh'],
    ['bridge', 'fdb'],
    ['bridge', '-d', 'link'],
    ['nft', 'list', 'ruleset'],
    ['ss', '-tuanp'],
  ];
  const texts = await Promise.all(
    commands.map(async (command) => {
      const { stdout, stderr } = await runInside(namespace, command, { tolerant: true });
      return `$ ${command.join(' ')}\n${stdout}${stderr}`;
    }),
  );
  return texts.join('\n');
}

/** The lines that only one of two states has: `- before`, `+ after`. */
export function stateDifference(before: string, after: string): string {
  const [a, b] = [new Set(before.split('\n')), new Set(after.split('\n'))];
  return [
    ...[...a].filter((text) => !b.has(text)).map((text) => `- ${text}`),
    ...[...b].filter((text) => !a.has(text)).map((text) => `+ ${text}`),
  ].join('\n');
}

/**
 * Waits until the namespace's state is this text; an error says what differs.
 * @param of what is compared of the state: all of it unless told
 */
export async function untilState(
  namespace: string,
  wanted: string,
  of: (state: string) => string = (state) => state,
): Promise<void> {
  let difference = '';
  const same = async () => {
    difference = stateDifference(wanted, of(await kernelState(namespace)));
    return difference === '';
  };
  await until(same, { what: 'the state that was', deadlineMs: STATE_DEADLINE_MS }).catch((error) => {
    error.message += `:\n${difference}`;
    throw error;
  });
}

async function items(program: string, args: readonly string[]): Promise<Item[]> {
  const { stdout } = await run(program, args);
  // iproute2 prints nothing at all for an empty list of some kinds, and empty objects for what it leaves out.
  const parsed: unknown = stdout.trim() === '' ? [] : JSON.parse(stdout);
  if (!Array.isArray(parsed)) throw new Error(`${program} printed no list: ${stdout.slice(0, 200)}`);
  return parsed.filter((item) => Object.keys(item).length > 0);
}

function linkLine(link: Item): string {
  const info = record(record(link.linkinfo).info_data);
  const kind = record(link.linkinfo).info_kind;
  const up = Array.isArray(link.flags) && link.flags.includes('UP') ? 'up' : 'down';
  const base = line('link', link, ['ifname', 'address', 'mtu', 'master']);
  return `${base} ${up}${kind === 'vxlan' ? ` ${line('vxlan', info, VXLAN_FIELDS)}` : ''}`;
}

function addressLines(link: Item): string[] {
  const addresses: unknown[] = Array.isArray(link.addr_info) ? link.addr_info : [];
  return addresses
    .map(record)
    .filter(({ scope }) => scope !== 'link')
    .map((address) => `${line('addr', link, ['ifname'])} ${address.local}/${address.prefixlen}`);
}

/** Multicast and link-local routes come and go with IPv6's own business. */
const isMeant = ({ dst, type }: Item): boolean => type !== 'multicast' && !/^f(e80|f00):/.test(String(dst));

/** `nft` prints a set's elements in an order of its own, several on a line. */
function rulesText(text: string): string {
  return text.replace(/elements = \{([^}]*)\}/g, (_, elements: string) => {
    const sorted = elements.split(',').map((element) => element.trim().replace(/\s+/g, ' '));
    return `elements = { ${sorted.sort().join(', ')} }`;
  });
}

const record = (value: unknown): Item =>
  typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {};

const line = (kind: string, item: Item, fields: readonly string[]): string =>
  [kind, ...fields.filter((field) => field in item).map((field) => `${field}=${item[field]}`)].join(' ');
