/** A store that is exchanged for another of the same contents, under its users. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '../../overlay/lab/wait.ts';
import { parseAddress, parseMac } from '../../store/address.ts';
import { delay } from '../../store/backoff.ts';
import { type EmbeddedStore, openEmbeddedStore } from '../../store/embedded/embedded-store.ts';
import { HistoryLostError } from '../../store/errors.ts';
import { followLeases } from '../../store/follow.ts';
import type { ClaimRequest, LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { SwitchableStore } from '../../store/switchable-store.ts';

const DOCUMENT = '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}';

const requestOf = (node: number): ClaimRequest => ({
  network: parseNetworkConfig(DOCUMENT),
  attributes: {
    publicAddress: { ipv4: parseAddress(`192.0.2.${node}`) },
    backend: 'vxlan',
    vtep: { ipv4: { vni: 1, mac: parseMac(`02:00:00:00:00:0${node}`) } },
  },
  ttlMs: 60_000,
});

describe('SwitchableStore', () => {
  let path: string;
  let stop: AbortController;
  const open = (): EmbeddedStore => openEmbeddedStore({ path, now: Date.now, random: Math.random });

  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'vtepd-switch-'));
    stop = new AbortController();
  });
  afterEach(() => rmSync(path, { recursive: true }));

  it('a follower lists by the new store, withdraws nothing, and is never unhealthy again', async () => {
    const first = open();
    await first.setNetworkConfig(DOCUMENT);
    const store = new SwitchableStore(first);
    const held = await store.claim(requestOf(1), stop.signal);
    const [causes, health]: [string[], boolean[]] = [[], []];
    const following = followLeases(store, {
      signal: stop.signal,
      clock: () => performance.now(),
      sleep: delay,
      random: Math.random,
      deliver: ({ cause, changes }) =>
        void causes.push(`${cause} ${changes.map(({ type }) => type).join(' ')}`),
      onHealth: ({ healthy }) => void health.push(healthy),
    });
    await until(async () => causes.length === 1, { what: 'the first list', deadlineMs: 5000 });
    await store.switchTo(open());
    const renewed = await store.renew(held, held.lease.attributes, stop.signal);
    expect(renewed.lease).to.deep.equal(held.lease);
    await store.claim(requestOf(2), stop.signal);
    await until(async () => following.view.leases.size === 2, { what: 'the second lease', deadlineMs: 5000 });
    expect(causes.join()).not.to.contain('delete');
    expect(health).to.deep.equal([true]);
    stop.abort();
    await following.done;
    await store.close();
  });

  it('a watch that stands ends as one whose history is lost; one that is aborted ends in peace', async () => {
    const store = new SwitchableStore(open());
    const { revision } = await store.snapshot(stop.signal);
    const watched = (async () => {
      for await (const _ of store.watch(revision, stop.signal));
    })();
    await store.switchTo(open());
    const error: unknown = await watched.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).to.be.instanceOf(HistoryLostError).and.to.include({ how: 'gap' });
    const later = (async () => {
      for await (const _ of store.watch(revision, stop.signal)) stop.abort();
    })();
    await later;
    await store.close();
  });

  it('calls under way end on the old store, which is closed after them', async () => {
    const events: string[] = [];
    let answer: () => void = () => {};
    const slow = {
      kind: 'embedded',
      networkConfig: () =>
        new Promise<undefined>((resolve) => {
          answer = () => {
            events.push('answered');
            resolve(undefined);
          };
        }),
      close: async () => void events.push('closed'),
    } as Partial<LeaseStore> as LeaseStore;
    const store = new SwitchableStore(slow);
    const call = store.networkConfig(stop.signal);
    const switched = store.switchTo(open());
    expect((await store.snapshot(stop.signal)).leases.size).to.equal(0);
    expect(events).to.deep.equal([]);
    answer();
    await Promise.all([call, switched]);
    expect(events).to.deep.equal(['answered', 'closed']);
    await store.close();
  });
});
