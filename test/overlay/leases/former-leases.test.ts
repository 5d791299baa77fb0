/** Leases that a change of the network left behind, in a real (embedded) store. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '../../../overlay/lab/wait.ts';
import { FormerLeases } from '../../../overlay/leases/former-leases.ts';
import { silentLog } from '../../../overlay/ops/log.ts';
import { type Address, parseAddress, parseMac } from '../../../store/address.ts';
import { delay } from '../../../store/backoff.ts';
import { type EmbeddedStore, openEmbeddedStore } from '../../../store/embedded/embedded-store.ts';
import type { Lease, LeaseAttributes } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const network = parseNetworkConfig(
  '{"Network":"10.244.0.0/16","SubnetMin":"10.244.5.0","SubnetMax":"10.244.5.0","Backend":{"Type":"vxlan"}}',
);
const attributesAt = (address: string, mac = '02:00:00:00:00:01'): LeaseAttributes => ({
  publicAddress: { ipv4: parseAddress(address) },
  backend: 'vxlan',
  vtep: { ipv4: { vni: 1, mac: parseMac(mac) } },
});

describe('FormerLeases', () => {
  let path: string;
  let store: EmbeddedStore;
  let stop: AbortController;
  let pods: Address[];
  let ours: LeaseAttributes;
  let former: FormerLeases;

  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'vtepd-former-'));
    store = openEmbeddedStore({ path, now: Date.now, random: Math.random });
    stop = new AbortController();
    pods = [parseAddress('10.244.5.7'), parseAddress('10.200.1.2')];
    ours = attributesAt('192.0.2.1');
    former = new FormerLeases({
      store,
      ttlMs: 60_000,
      renewMarginMs: 10_000,
      random: Math.random,
      sleep: delay,
      log: silentLog,
      onFailure: () => {},
      signal: stop.signal,
      isReplaced: () => true,
      podAddresses: () => pods,
      attributesFor: () => ours,
      onChange: () => {},
    });
  });
  afterEach(async () => {
    stop.abort();
    await former.ended();
    await store.close();
    rmSync(path, { recursive: true });
  });

  const claimed = async (): Promise<Lease> =>
    (await store.claim({ network, attributes: ours, ttlMs: 60_000 }, stop.signal)).lease;
  const inStore = async (): Promise<Lease | undefined> =>
    (await store.snapshot(stop.signal)).leases.get('10.244.5.0-24');
  const waitFor = (what: string, isSo: () => boolean | Promise<boolean>): Promise<unknown> =>
    until(async () => isSo(), { what, deadlineMs: 5000 });

  it('are kept while a pod has an address of them, follow our attributes, and are given back then', async () => {
    former.add(await claimed(), network.backend);
    expect(former.all.map(({ lease, pods: count }) => [lease.key, count])).to.deep.equal([
      ['10.244.5.0-24', 1],
    ]);
    ours = attributesAt('192.0.2.9');
    former.refreshAttributes();
    const follows = async () => (await inStore())?.attributes.publicAddress.ipv4 === '192.0.2.9';
    await waitFor('the lease to follow', follows);
    former.podsChanged();
    expect(former.leases).to.have.length(1);
    pods.shift();
    former.podsChanged();
    expect(former.leases).to.deep.equal([]);
    await waitFor('the lease to go', async () => (await inStore()) === undefined);
    await waitFor('it to be forgotten', () => former.stored.length === 0);
  });

  it('are claimed again where they expired, and nothing else is', async () => {
    const lease = await claimed();
    await store.release({ lease, revision: '0', ttlMs: 60_000 }, stop.signal);
    former.add(lease, network.backend);
    await waitFor('the lease to be back', async () => (await inStore()) !== undefined);
    expect((await store.snapshot(stop.signal)).leases.size).to.equal(1);
  });

  it('that another node has taken stay its own; status can tell, and with the last pod they are forgotten', async () => {
    const lease = await claimed();
    await store.release({ lease, revision: '0', ttlMs: 60_000 }, stop.signal);
    const theirs = attributesAt('192.0.2.2', '02:00:00:00:00:02');
    await store.claim({ network, attributes: theirs, ttlMs: 60_000 }, stop.signal);
    former.add(lease, network.backend);
    await waitFor('the failure', () => former.all[0]?.failure !== undefined);
    pods = [];
    former.podsChanged();
    await waitFor('it to be forgotten', () => former.stored.length === 0);
    expect((await inStore())?.attributes).to.deep.equal(theirs);
  });

  it('one that is the current lease again stays in the store', async () => {
    former.add(await claimed(), network.backend);
    former.forget('10.244.5.0-24');
    pods = [];
    former.podsChanged();
    expect(former.stored).to.deep.equal([]);
    expect(await inStore()).not.to.equal(undefined);
  });
});
