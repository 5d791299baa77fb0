/** Many leases, many changes, many claims: what must hold when a message, a page or a second is full. */
import { expect } from 'chai';
import type { EtcdClient } from '../../store/etcd/etcd-client.ts';
import { readLeases } from '../../store/etcd/read-leases.ts';
import { encodeLease, isMalformed } from '../../store/lease-codec.ts';
import type { WatchBatch } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { need } from '../lab/capability.ts';
import { EtcdServer } from '../lab/etcd-server.ts';
import { EtcdLab } from './etcd-lab.ts';
import { NETWORK, never, node, TTL_MS, watchUntil } from './store-lab.ts';

const CLAIMS = 1000;

describe('store/etcd scale', () => {
  let server: EtcdServer;
  let lab: EtcdLab;

  const keyOf = (n: number) => `10.${n >> 8}.${n & 255}.0-24`;
  /** Writes leases 0.. in as few transactions as etcd allows. */
  async function fill(
    count: number,
    text: (n: number) => string = (n) => encodeLease(node(n)),
  ): Promise<void> {
    const puts = Array.from({ length: count }, (_, n) => ({
      request_put: { key: Buffer.from(`${lab.prefix}/subnets/${keyOf(n)}`), value: Buffer.from(text(n)) },
    }));
    const size = text(0).length > 10_000 ? 1 : 128;
    for (let i = 0; i < count; i += size) {
      await lab.client.write('KV.txn', { success: puts.slice(i, i + size) }, never);
    }
  }
  const distinctPuts = (batches: readonly WatchBatch[]) =>
    new Set(batches.flatMap(({ changes }) => changes.map((change) => JSON.stringify(change)))).size;

  before('a real etcd (Debian: etcd-server, etcd-client)', async function () {
    need(this, 'etcd', 'etcdctl');
    server = await EtcdServer.start();
  });

  after(() => server?.close());

  beforeEach(async () => {
    // One process is a thousand nodes here: it may keep itself waiting, which is not etcd's failure.
    lab = new EtcdLab(server, { callTimeoutMs: 30_000 });
    await lab.put('config', NETWORK);
  });

  afterEach(() => lab.close());

  it('1,000 nodes that start in the same second get 1,000 subnets', async () => {
    const text = '{"Network":"10.0.0.0/12","Backend":{"Type":"vxlan"}}';
    const network = parseNetworkConfig(text);
    await lab.put('config', text);
    const before = await lab.etcdLeases();
    const stores = Array.from({ length: 20 }, () => lab.openNow());
    const startedAt = performance.now();
    const held = await Promise.all(
      Array.from({ length: CLAIMS }, (_, i) =>
        stores[i % stores.length]?.claim({ network, attributes: node(i + 1), ttlMs: TTL_MS }, never),
      ),
    );
    console.log(`      ${CLAIMS} claims in ${Math.round(performance.now() - startedAt)} ms`);
    const keys = held.map((one) => one?.lease.key ?? '');
    expect(new Set(keys).size).to.equal(CLAIMS);
    const { leases } = await lab.openNow().snapshot(never);
    expect([...leases.keys()].sort()).to.deep.equal(keys.sort());
    for (const one of held) {
      expect(leases.get(one?.lease.key ?? '')?.attributes).to.deep.equal(one?.lease.attributes);
    }
    expect((await lab.etcdLeases()).length, 'one etcd lease each').to.equal(before.length + CLAIMS);
  });

  it('300 nodes share 300 subnets, to the last one', async () => {
    const text =
      '{"Network":"10.0.0.0/15","SubnetMin":"10.0.1.0","SubnetMax":"10.1.44.0","Backend":{"Type":"vxlan"}}';
    const network = parseNetworkConfig(text);
    await lab.put('config', text);
    const stores = Array.from({ length: 10 }, () => lab.openNow());
    const held = await Promise.all(
      Array.from({ length: 300 }, (_, i) =>
        stores[i % stores.length]?.claim({ network, attributes: node(i + 1), ttlMs: TTL_MS }, never),
      ),
    );
    expect(new Set(held.map((one) => one?.lease.key)).size).to.equal(300);
  });

  it('reads page by page at one revision, whatever is written and compacted meanwhile', async () => {
    await fill(100);
    let compactions = 0;
    const disturbed: Pick<EtcdClient, 'read'> = {
      read: async (name, request, signal) => {
        if (name === 'KV.range') {
          await lab.put(`subnets/${keyOf(200 + compactions)}`, encodeLease(node(7)));
          await lab.remove(`subnets/${keyOf(99)}`);
          if (compactions++ < 2) await lab.forgetHistory();
        }
        return lab.client.read(name, request, signal);
      },
    };
    const content = await readLeases(disturbed, lab.keys(), 30, never);
    expect(compactions).to.be.at.least(4);
    expect(content.network).to.have.property('config');
    const keys = content.leases.map(({ decoded }) => decoded.key);
    // Twice from the start again, each time with one more and without the one removed; then all of one moment.
    expect(new Set(keys).size).to.equal(keys.length);
    expect(keys).to.have.lengthOf(99 + 2);
  });

  it('reads leases that no message can hold together', async () => {
    await fill(20, () => JSON.stringify({ PublicIP: '192.0.2.1', junk: 'x'.repeat(1_000_000) }));
    const { leases, malformed } = await lab.openNow().snapshot(never);
    expect(leases.size).to.equal(0);
    expect(malformed).to.have.lengthOf(20);
    expect(malformed[0]?.reason).to.match(/^10000\d\d bytes long/);
    await Promise.all(Array.from({ length: 20 }, (_, n) => lab.remove(`subnets/${keyOf(n)}`)));
    await lab.forgetHistory();
  });

  it('resumes a watch that was cut while it caught up with 2,500 revisions, missing none', async () => {
    const store = lab.openNow();
    const { revision } = await store.snapshot(never);
    const writes = Array.from({ length: 2500 }, (_, n) =>
      lab.put(`subnets/${keyOf(n)}`, encodeLease(node(n))),
    );
    await Promise.all(writes);
    const first = await watchUntil(store, revision, (all) => all.some(({ changes }) => changes.length > 0));
    expect(distinctPuts(first), 'etcd sends no more than 1,000 revisions at once').to.be.lessThan(2500);
    const rest = await watchUntil(
      store,
      first.at(-1)?.revision ?? '',
      (all) => distinctPuts(first) + distinctPuts(all) >= 2500,
    );
    expect(distinctPuts([...first, ...rest])).to.equal(2500);
  });

  it('puts the fragments of a large response together', async () => {
    const store = lab.openNow();
    const { revision } = await store.snapshot(never);
    const junk = 'x'.repeat(50_000);
    await fill(200, (n) => JSON.stringify({ PublicIP: `192.0.2.${n}`, junk }));
    const batches = await watchUntil(store, revision, (all) => distinctPuts(all) === 200);
    expect(batches.filter(({ changes }) => changes.length > 0)).to.have.lengthOf(1);
    expect(batches.at(-1)?.changes.every((change) => change.type === 'malformed')).to.equal(true);
  });

  it('decodes what it reads: entries on all pages, good and bad', async () => {
    await fill(2500, (n) => (n % 100 === 50 ? 'rubbish' : encodeLease(node(n))));
    const { leases } = await readLeases(lab.client, lab.keys(), 1000, never);
    expect(leases.filter(({ decoded }) => isMalformed(decoded))).to.have.lengthOf(25);
    expect(leases).to.have.lengthOf(2500);
  });
});
