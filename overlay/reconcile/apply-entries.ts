/** Carries the differences of one device's peer entries out, in the order that peer-entries.ts describes. */
import type { NetlinkRequest } from '../kernel/netlink-message.ts';
import type { NetlinkError, NetlinkSocket } from '../kernel/netlink-socket.ts';
import type { EntryChange, EntryRequest } from './entry-table.ts';
import type { PeerEntries } from './peer-entries.ts';
import type { RepairedObject } from './repair-log.ts';

/** Entries are sent in pieces of this many, some 10 ms each, and the event loop gets its turn between. */
const CHANGES_A_TURN = 1000;
/** Error codes that say that what was to be removed is not there. */
const REFUSED = 'EINVAL';
const GONE: ReadonlySet<string> = new Set(['ENOENT', 'ESRCH', 'ENODEV', 'EADDRNOTAVAIL']);

export interface EntriesOutcome {
  readonly repaired: RepairedObject[];
  /** What the kernel refused; these entries stay marked. */
  readonly failures: NetlinkError[];
}

export async function applyEntries(netlink: NetlinkSocket, { tables }: PeerEntries): Promise<EntriesOutcome> {
  const outcome: EntriesOutcome = { repaired: [], failures: [] };
  const changes = tables.map((table) => table.changes());
  const adding = changes.flatMap((list) => list.filter(({ value }) => value !== undefined));
  const removing = changes.toReversed().flatMap((list) => list.filter(({ value }) => value === undefined));
  await send(
    netlink,
    adding,
    ({ table, key, value = '', before }) => table.kind.set(key, value, before),
    outcome,
  );
  // Of what could not be replaced, the old one goes on serving.
  removeReplaced(
    netlink,
    adding.filter(({ table, key, value }) => table.observed.get(key) === value),
  );
  await send(netlink, removing, ({ table, key, before = '' }) => table.kind.remove(key, before), outcome);
  return outcome;
}

async function send(
  netlink: NetlinkSocket,
  changes: readonly EntryChange[],
  request: (change: EntryChange) => EntryRequest,
  { repaired, failures }: EntriesOutcome,
): Promise<void> {
  for (let start = 0; start < changes.length; start += CHANGES_A_TURN) {
    if (start > 0) await new Promise(setImmediate);
    const piece = changes.slice(start, start + CHANGES_A_TURN);
    let failed = carryOut(netlink, piece, request);
    const ways = [...failed].flatMap(([{ table, key, value }, { code }]) =>
      code === REFUSED && value !== undefined ? (table.kind.wayFor?.(key, value) ?? []) : [],
    );
    if (ways.length > 0) {
      netlink.execute(
        ways.map(({ open }) => open),
        () => 'open a way',
      );
      // With those that failed only because others did.
      failed = carryOut(netlink, [...failed.keys()], request);
      netlink.execute(
        ways.map(({ close }) => close),
        () => 'close a way',
      );
    }
    for (const change of piece) {
      const error = failed.get(change);
      if (error !== undefined) {
        failures.push(error);
        continue;
      }
      change.table.done(change);
      if (change.repair) repaired.push({ kind: change.table.kind.name, what: describe(change) });
    }
  }
}

/** @returns what could not be done, in order */
function carryOut(
  netlink: NetlinkSocket,
  changes: readonly EntryChange[],
  request: (change: EntryChange) => EntryRequest,
): Map<EntryChange, NetlinkError> {
  const failed = new Map<EntryChange, NetlinkError>();
  let batch: { readonly change: EntryChange; readonly request: NetlinkRequest }[] = [];
  const flush = (): void => {
    const sent = batch;
    batch = [];
    const doing = (index: number): string => describe(sent[index]?.change as EntryChange);
    for (const { index, error } of netlink.execute(
      sent.map((each) => each.request),
      doing,
    )) {
      const change = sent[index]?.change as EntryChange;
      // Gone already is what was wanted, and standing already too.
      if (change.value === undefined ? !GONE.has(error.code) : error.code !== 'EEXIST')
        failed.set(change, error);
    }
  };
  for (const change of changes) {
    const asked = request(change);
    if (typeof asked !== 'function') {
      batch.push({ change, request: asked });
      continue;
    }
    // What comes before it is in place first.
    if (batch.length > 0) flush();
    asked();
  }
  if (batch.length > 0) flush();
  return failed;
}

/** Takes away what was replaced, where a new value does not displace it; it may have gone by itself. */
function removeReplaced(netlink: NetlinkSocket, changes: readonly EntryChange[]): void {
  const requests = changes.flatMap(({ table, key, before, value = '' }) =>
    before === undefined ? [] : (table.kind.removeReplaced?.(key, before, value) ?? []),
  );
  netlink.execute(requests, () => 'remove a replaced entry');
}

function describe({ table, key, value, before }: EntryChange): string {
  const text = value ?? before;
  return `${value === undefined ? 'remove ' : ''}${table.kind.name} ${key}${text === undefined ? '' : ` ${text}`}`;
}
