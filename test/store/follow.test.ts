/** Every edge of the state machine at the head of store/follow.ts. */
import { expect } from 'chai';
import { parseAddress, parseMac } from '../../store/address.ts';
import { HistoryLostError, StoreAccessError, StoreUnavailableError } from '../../store/errors.ts';
import {
  type Following,
  type FollowOptions,
  followLeases,
  type StoreHealth,
  type ViewDelta,
} from '../../store/follow.ts';
import type { Lease, MalformedLease } from '../../store/lease.ts';
import { decodeLeaseKey } from '../../store/lease-codec.ts';
import type { LeaseChange, LeaseSnapshot, NetworkRecord, WatchBatch } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { ManualTime, ScriptedStore, settle } from './scripted-store.ts';

const RESYNC_MS = 300_000;
const GRACE_MS = 60_000;

function lease(n: number, publicIP = `192.0.2.${n}`): Lease {
  const key = `10.244.${n}.0-24`;
  return {
    key,
    subnets: decodeLeaseKey(key) ?? {},
    attributes: {
      publicAddress: { ipv4: parseAddress(publicIP) },
      backend: 'vxlan',
      vtep: { ipv4: { vni: 1, mac: parseMac(`02:00:00:00:00:${n.toString(16).padStart(2, '0')}`) } },
    },
  };
}
const network: NetworkRecord = {
  config: parseNetworkConfig('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'),
};
const snapshot = (
  revision: number,
  leases: readonly Lease[],
  malformed: readonly MalformedLease[] = [],
  record: NetworkRecord | null = network,
): LeaseSnapshot => ({
  revision: String(revision),
  leases: new Map(leases.map((one) => [one.key, one])),
  malformed,
  network: record ?? undefined,
});
const batch = (revision: number, ...changes: LeaseChange[]): WatchBatch => ({
  revision: String(revision),
  changes,
});
const put = (one: Lease): LeaseChange => ({ type: 'put', lease: one });
const remove = (one: Lease): LeaseChange => ({ type: 'delete', key: one.key });
const text = (change: LeaseChange): string =>
  change.type === 'put'
    ? `+${change.lease.key}`
    : change.type === 'delete'
      ? `-${change.key}`
      : `!${change.malformed.key}`;

describe('store/follow', () => {
  let store: ScriptedStore;
  let time: ManualTime;
  let abort: AbortController;
  let told: string[];
  let health: StoreHealth[];
  let following: Following;
  let deliver: (delta: ViewDelta) => void | Promise<void>;

  function start(options: Partial<FollowOptions> = {}): void {
    following = followLeases(store, {
      signal: abort.signal,
      clock: time.clock,
      sleep: time.sleep,
      random: () => 0.5,
      deliver: (delta, view) => {
        const network = delta.networkChanged ? [view.network === undefined ? 'no network' : 'network'] : [];
        told.push(
          [delta.cause, ...delta.changes.map(text), ...network, ...(delta.rewound ? ['rewound'] : [])].join(
            ' ',
          ),
        );
        return deliver(delta);
      },
      onHealth: (now) => health.push(now),
      resyncIntervalMs: RESYNC_MS,
      rewindGraceMs: GRACE_MS,
      backoff: { minMs: 100, maxMs: 1000 },
      ...options,
    });
    following.done.catch(() => undefined); // a test that expects a failure looks at it later
  }

  async function give(
    answer: LeaseSnapshot | WatchBatch | Error | 'end',
    to: 'list' | 'watch',
  ): Promise<void> {
    if (to === 'list') store.giveSnapshot(answer as LeaseSnapshot | Error);
    else store.giveBatch(answer as WatchBatch | Error | 'end');
    await settle();
  }

  beforeEach(() => {
    store = new ScriptedStore();
    time = new ManualTime();
    abort = new AbortController();
    told = [];
    health = [];
    deliver = () => undefined;
  });

  afterEach(async () => {
    abort.abort(new Error('test over'));
    await following.done.catch(() => undefined);
    expect(time.sleepingMs, 'sleepers left behind').to.deep.equal([]);
    expect(store.asked.filter((what) => what.startsWith('watch after')).length).to.equal(
      store.asked.filter((what) => what === 'watch ended').length,
    );
  });

  it('lists once, then delivers each batch, live in the view before it is told', async () => {
    const [one, two] = [lease(1), lease(2)];
    const seen: unknown[] = [];
    deliver = () => {
      seen.push([...following.view.leases.keys()]);
    };
    start();
    await settle();
    await give(snapshot(10, [one]), 'list');
    await give(batch(11, put(two)), 'watch');
    await give(batch(12, remove(one)), 'watch');
    expect(store.asked).to.deep.equal(['list', 'watch after 10']);
    expect(told).to.deep.equal([`snapshot +${one.key} network`, `watch +${two.key}`, `watch -${one.key}`]);
    expect(seen).to.deep.equal([[one.key], [one.key, two.key], [two.key]]);
    expect(following.view.revision).to.equal('12');
    expect(following.view.source).to.equal('store');
  });

  it('tells of a first snapshot even if it is empty, and of no batch that changes nothing', async () => {
    start();
    await give(snapshot(3, [], [], null), 'list');
    await give(batch(9), 'watch');
    await give(batch(10, remove(lease(1))), 'watch');
    expect(told).to.deep.equal(['snapshot']);
    expect(following.view.revision).to.equal('10');
  });

  it('moves the resume point only after delivery', async () => {
    let release: () => void = () => undefined;
    start();
    await give(snapshot(10, []), 'list');
    deliver = () => new Promise<void>((resolve) => (release = resolve));
    await give(batch(11, put(lease(1))), 'watch');
    await give(batch(12, put(lease(2))), 'watch');
    expect(told, 'the second waits for the first').to.deep.equal([
      'snapshot network',
      `watch +${lease(1).key}`,
    ]);
    deliver = () => undefined;
    release();
    await settle();
    await give(new StoreUnavailableError('gone'), 'watch');
    time.advance(100);
    await settle();
    expect(store.asked.at(-1)).to.equal('watch after 12');
  });

  it('ends with the error of a consumer that throws, without asking the store again', async () => {
    start();
    await give(snapshot(10, []), 'list');
    deliver = () => {
      throw new Error('consumer');
    };
    await give(batch(11, put(lease(1))), 'watch');
    let message = '';
    await following.done.catch((error: Error) => {
      message = error.message;
    });
    expect(message).to.equal('consumer');
    expect(store.asked).to.deep.equal(['list', 'watch after 10', 'watch ended']);
  });

  it('resumes a failed stream where it was, after a backoff that grows, and forgets the backoff on success', async () => {
    start();
    await give(snapshot(10, [lease(1)]), 'list');
    await give(batch(11, put(lease(2))), 'watch');
    for (const waitMs of [75, 150, 300]) {
      await give(new StoreUnavailableError('connection refused'), 'watch');
      expect(time.sleepingMs).to.deep.equal([waitMs]);
      time.advance(waitMs);
      await settle();
      expect(store.asked.at(-1)).to.equal('watch after 11');
    }
    expect(health.map((one) => one.healthy)).to.deep.equal([true, false]);
    expect([...following.view.leases.keys()], 'the outage withdraws nobody').to.have.lengthOf(2);
    await give(batch(12), 'watch');
    expect(following.health()).to.deep.equal({ healthy: true });
    await give('end', 'watch');
    expect(time.sleepingMs, 'an end without an abort is a failure').to.deep.equal([75]);
    expect(told).to.have.lengthOf(2);
  });

  it('says since when and why the store fails, once a reason', async () => {
    start();
    time.advance(500);
    await give(new StoreUnavailableError('refused'), 'list');
    time.advance(75);
    await give(new StoreUnavailableError('refused'), 'list');
    time.advance(150);
    await give(new StoreAccessError('wrong password'), 'list');
    expect(health.map((one) => (one.healthy ? '' : `${one.error.message} ${one.sinceMs}`))).to.deep.equal([
      'refused 1000',
      'wrong password 1000',
    ]);
    time.advance(300);
    await give(snapshot(5, []), 'list');
    expect(health.at(-1)).to.deep.equal({ healthy: true });
  });

  it('lists again at once when history is lost, and delivers only the difference', async () => {
    const [one, two, three] = [lease(1), lease(2), lease(3)];
    for (const how of ['compacted', 'gap'] as const) {
      told = [];
      store = new ScriptedStore();
      abort = new AbortController();
      start();
      await give(snapshot(10, [one, two]), 'list');
      await give(batch(11), 'watch');
      await give(new HistoryLostError('lost', how), 'watch');
      expect(store.asked.at(-1)).to.equal('list');
      await give(snapshot(20, [lease(2, '198.51.100.2'), three]), 'list');
      expect(told.at(-1)).to.equal(`snapshot -${one.key} +${two.key} +${three.key}`);
      expect(store.asked.at(-1)).to.equal('watch after 20');
      abort.abort();
      await following.done;
    }
  });

  it('waits when history is lost again before anything was heard: no loop runs hot', async () => {
    start();
    await give(snapshot(10, []), 'list');
    await give(new HistoryLostError('lost', 'compacted'), 'watch');
    expect(store.asked).to.deep.equal(['list', 'watch after 10', 'watch ended']);
    expect(time.sleepingMs).to.deep.equal([75]);
    time.advance(75);
    await settle();
    expect(store.asked.at(-1)).to.equal('list');
  });

  it('takes a batch older than the resume point for a gap', async () => {
    start();
    await give(snapshot(10, []), 'list');
    await give(batch(12, put(lease(1))), 'watch');
    await give(batch(11, put(lease(2))), 'watch');
    expect(store.asked.at(-1)).to.equal('list');
    expect([...following.view.leases.keys()]).to.deep.equal([lease(1).key]);
  });

  it('does not trust a silent watch for ever: lists after the resync time, reconnections or not', async () => {
    start();
    await give(snapshot(10, [lease(1), lease(2)]), 'list');
    time.advance(RESYNC_MS - 1000);
    await give(new StoreUnavailableError('blip'), 'watch');
    time.advance(100);
    await settle();
    expect(store.asked.at(-1)).to.equal('watch after 10');
    time.advance(900);
    await settle();
    expect(store.asked.slice(-2)).to.deep.equal(['watch ended', 'list']);
    await give(snapshot(10, [lease(2)]), 'list');
    expect(told.at(-1)).to.equal(`snapshot -${lease(1).key}`);
  });

  it('serves from the cache at once, and from the store by the difference', async () => {
    start({ cached: snapshot(8, [lease(1), lease(2)]) });
    await settle();
    expect(told).to.deep.equal([`cache +${lease(1).key} +${lease(2).key} network`]);
    expect(following.view.source).to.equal('cache');
    expect(following.health().healthy).to.equal(false);
    await give(snapshot(9, [lease(2)]), 'list');
    expect(told.at(-1)).to.equal(`snapshot -${lease(1).key}`);
    expect(following.view.source).to.equal('store');
  });

  it('withdraws nobody from a rewound store until the grace time is over', async () => {
    const [one, two, three] = [lease(1), lease(2), lease(3)];
    start();
    await give(snapshot(100, [one, two, three]), 'list');
    await give(batch(101), 'watch');
    await give(new HistoryLostError('the revision went backwards', 'rewound'), 'watch');
    await give(snapshot(40, [one], [], null), 'list');
    expect(told.at(-1)).to.equal('snapshot rewound');
    expect([...following.view.leases.keys()]).to.have.lengthOf(3);
    expect([...following.view.withheld]).to.deep.equal([two.key, three.key]);
    expect(following.view.network, 'the configuration is withheld as well').to.equal(network);
    expect(store.asked.at(-1)).to.equal('watch after 40');
    // Its leases run out in the restored store, and one node comes back: neither is a withdrawal.
    await give(batch(41, remove(one), put(two)), 'watch');
    expect([...following.view.withheld]).to.deep.equal([three.key, one.key]);
    expect(told).to.have.lengthOf(2);
    await give({ ...batch(42, put(lease(4))), network }, 'watch');
    expect(told.at(-1)).to.equal(`watch +${lease(4).key} rewound`);
    time.advance(GRACE_MS);
    await settle();
    expect(store.asked.at(-1)).to.equal('list');
    await give(snapshot(45, [one, two, lease(4)]), 'list');
    expect(told.at(-1)).to.equal(`snapshot -${three.key}`);
    expect([...following.view.withheld]).to.deep.equal([]);
    await give(batch(46, remove(two)), 'watch');
    expect(told.at(-1)).to.equal(`watch -${two.key}`);
  });

  it('sees by the snapshot alone that a store was rewound, be the view from the cache', async () => {
    start({ cached: snapshot(100, [lease(1)]) });
    await give(snapshot(3, [lease(2)]), 'list');
    expect(told.at(-1)).to.equal(`snapshot +${lease(2).key} rewound`);
    expect([...following.view.leases.keys()].sort()).to.deep.equal([lease(1).key, lease(2).key]);
    // The grace does not end by the clock alone: the store must answer first.
    time.advance(GRACE_MS);
    await settle();
    await give(new StoreUnavailableError('away'), 'list');
    expect(following.view.leases.size).to.equal(2);
    time.advance(1000);
    await give(snapshot(5, [lease(2)]), 'list');
    expect(told.at(-1)).to.equal(`snapshot -${lease(1).key}`);
  });

  it('carries malformed entries by key and reason', async () => {
    const bad: MalformedLease = { key: lease(2).key, reason: 'not JSON' };
    start();
    await give(snapshot(10, [lease(1)], [bad]), 'list');
    expect(told.at(-1)).to.equal(`snapshot !${bad.key} +${lease(1).key} network`);
    await give(
      batch(11, { type: 'malformed', malformed: { key: lease(1).key, reason: 'no public address' } }),
      'watch',
    );
    expect(following.view.leases.size, 'what cannot be read is no peer').to.equal(0);
    expect([...following.view.malformed]).to.deep.equal([
      [bad.key, 'not JSON'],
      [lease(1).key, 'no public address'],
    ]);
    await give(batch(12, put(lease(1)), { type: 'delete', key: bad.key }), 'watch');
    expect(following.view.malformed.size).to.equal(0);
    expect(told.at(-1)).to.equal(`watch +${lease(1).key} -${bad.key}`);
    await give(new HistoryLostError('lost', 'gap'), 'watch');
    await give(snapshot(20, [], [bad]), 'list');
    await give(batch(21), 'watch');
    await give(new HistoryLostError('lost', 'gap'), 'watch');
    await give(snapshot(30, []), 'list');
    expect(told.slice(-2)).to.deep.equal([`snapshot -${lease(1).key} !${bad.key}`, `snapshot -${bad.key}`]);
  });

  it('delivers changes of the network configuration, its faults and its removal, once each', async () => {
    const fault: NetworkRecord = { fault: new Error('network configuration: Network: is missing') };
    start();
    await give(snapshot(10, [], [], null), 'list');
    for (const [revision, record] of [
      [11, network],
      [12, { ...network }],
      [13, fault],
      [14, null],
      [15, null],
    ] as const) {
      await give({ ...batch(revision), network: record }, 'watch');
    }
    expect(told).to.deep.equal(['snapshot', 'watch network', 'watch network', 'watch no network']);
  });

  it('ends on abort from every state', async () => {
    for (const state of ['list', 'follow', 'wait', 'deliver']) {
      store = new ScriptedStore();
      abort = new AbortController();
      start();
      if (state === 'wait') await give(new StoreUnavailableError('away'), 'list');
      if (state === 'follow') await give(snapshot(1, []), 'list');
      if (state === 'deliver') {
        deliver = () => abort.abort();
        await give(snapshot(1, []), 'list');
        deliver = () => undefined;
      }
      await settle();
      abort.abort(new Error('stop'));
      await following.done;
    }
  });

  it('costs a change of one lease the same in a view of many: the live map is never copied', async () => {
    const many = Array.from({ length: 250 }, (_, n) => lease(n));
    start();
    await give(snapshot(10, many), 'list');
    const { leases } = following.view;
    await give(batch(11, remove(lease(7))), 'watch');
    expect(following.view.leases).to.equal(leases);
    expect(leases.size).to.equal(249);
  });
});
