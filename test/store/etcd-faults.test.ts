/** What the network and etcd's own life do to the etcd store: lost answers, hung endpoints, restarts, backups. */
import { expect } from 'chai';
import { parseSubnet } from '../../store/address.ts';
import { delay } from '../../store/backoff.ts';
import { HistoryLostError, StoreUnavailableError } from '../../store/errors.ts';
import { LostAnswerError } from '../../store/etcd/call-errors.ts';
import { EndpointError, parseEndpoint } from '../../store/etcd/endpoint.ts';
import type { EtcdClient } from '../../store/etcd/etcd-client.ts';
import { openEtcdStore } from '../../store/etcd/etcd-store.ts';
import { LeaseWriter } from '../../store/etcd/lease-writer.ts';
import { followLeases } from '../../store/follow.ts';
import { encodeLease } from '../../store/lease-codec.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { need } from '../lab/capability.ts';
import { EtcdServer, freePort } from '../lab/etcd-server.ts';
import { EtcdLab } from './etcd-lab.ts';
import { failure, NETWORK, never, node, remembered, TTL_MS, until, watchUntil } from './store-lab.ts';
import { TcpProxy } from './tcp-proxy.ts';

const network = parseNetworkConfig(NETWORK);

describe('store/etcd faults', () => {
  let server: EtcdServer;
  let lab: EtcdLab;
  let proxy: TcpProxy;
  /** Through the proxy. */
  let store: LeaseStore;

  const claim = (n: number, memory?: Parameters<typeof remembered>[0]) =>
    store.claim(
      { network, attributes: node(n), ttlMs: TTL_MS, remembered: memory && remembered(memory) },
      never,
    );
  const leaseKeys = async () => [...(await lab.openNow().snapshot(never)).leases.keys()];

  before('a real etcd (Debian: etcd-server, etcd-client)', async function () {
    need(this, 'etcd', 'etcdctl');
    server = await EtcdServer.start();
  });

  after(() => server?.close());

  beforeEach(async () => {
    proxy = await TcpProxy.open(server.port);
    lab = new EtcdLab(server, { callTimeoutMs: 1000 });
    store = lab.openNow({ endpoints: [proxy.url] });
    await lab.put('config', NETWORK);
  });

  afterEach(async () => {
    server.resume();
    await lab.close();
    await proxy.close();
  });

  describe('a lost answer', () => {
    it('to a claim that was made is looked up: one lease, and one etcd lease', async () => {
      const before = await lab.etcdLeases();
      await store.snapshot(never);
      proxy.loseAnswerTo(/BackendType/);
      const held = await claim(1);
      expect(proxy.lost).to.equal(1);
      expect(await leaseKeys()).to.deep.equal([held.lease.key]);
      expect(await lab.etcdLeaseOf(`subnets/${held.lease.key}`)).to.equal(held.handle);
      await store.release(held, never);
      expect(await lab.etcdLeases()).to.deep.equal(before);
    });

    it('to a claim that arrives late does not leave two leases', async () => {
      // The first transaction is lost; it arrives when nobody waits for it any more, just before the second.
      let late: (() => Promise<unknown>) | undefined;
      const slow: Pick<EtcdClient, 'read' | 'write' | 'stream'> = {
        read: (...call) => lab.client.read(...call),
        stream: (...call) => lab.client.stream(...call),
        write: async (name, request, signal) => {
          if (name !== 'KV.txn') return lab.client.write(name, request, signal);
          if (late === undefined) {
            late = () => lab.client.write(name, request, signal);
            throw new LostAnswerError('no answer');
          }
          await late();
          return lab.client.write(name, request, signal);
        },
      };
      const writer = new LeaseWriter({ client: slow, keys: lab.keys(), random: Math.random, now: Date.now });
      const etcdLease = await writer.grant(writer.newEtcdLeaseId(), TTL_MS, never);
      const wanted = { attributes: node(1), ttlMs: TTL_MS };
      const looked = { since: await lab.revision(), learn: true };
      const outcome = await writer.create(
        { ipv4: parseSubnet('10.244.9.0/24') },
        wanted,
        etcdLease,
        looked,
        never,
      );
      expect(outcome).to.have.nested.property('held.handle', etcdLease.id);
      expect(await leaseKeys()).to.deep.equal(['10.244.9.0-24']);
    });

    it('to a rewrite is looked up: the lease is not taken for another node’s', async () => {
      const held = await claim(1);
      proxy.loseAnswerTo(/192\.0\.2\.200/);
      const renewed = await store.renew(held, node(200, 1), never);
      expect(proxy.lost).to.equal(1);
      expect(await lab.get(`subnets/${held.lease.key}`)).to.equal(encodeLease(node(200, 1)));
      expect(await lab.etcdLeaseOf(`subnets/${held.lease.key}`)).to.equal(renewed.handle);
      expect((await store.renew(renewed, node(200, 1), never)).revision).to.equal(renewed.revision);
    });

    it('to a dual-stack claim is looked up as well, and leaves one lease', async () => {
      const dual =
        '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48","Backend":{"Type":"vxlan"}}';
      proxy.loseAnswerTo(/BackendType/);
      const held = await store.claim(
        { network: parseNetworkConfig(dual), attributes: node(1), ttlMs: TTL_MS },
        never,
      );
      expect(proxy.lost).to.equal(1);
      expect(await leaseKeys()).to.deep.equal([held.lease.key]);
    });
  });

  describe('etcd leases', () => {
    it('are kept by a restarted node, replaced when too short, made again when gone', async () => {
      const held = await claim(1);
      const key = `subnets/${held.lease.key}`;
      expect((await claim(1, held)).handle).to.equal(held.handle);
      const request = { network, attributes: node(1), remembered: remembered(held), ttlMs: 10 * TTL_MS };
      const longer = await store.claim(request, never);
      expect(longer.handle).not.to.equal(held.handle);
      expect(await lab.etcdLeaseOf(key)).to.equal(longer.handle);
      // flannel renews by putting the key on a new lease, unguarded.
      const { id } = await grant(60);
      await lab.putOn(key, encodeLease(node(1)), id);
      const renewed = await store.renew({ ...longer, ttlMs: TTL_MS }, node(1), never);
      expect(renewed.handle).to.equal(id);
      expect(renewed.expiresAt ?? 0).to.be.at.least(Date.now() + 50_000);
    });

    it('of claims that came to nothing are revoked', async () => {
      const before = await lab.etcdLeases();
      const tiny = parseNetworkConfig(
        '{"Network":"10.244.0.0/28","SubnetLen":30,"Backend":{"Type":"vxlan"}}',
      );
      const clients = Array.from({ length: 12 }, () => lab.openNow());
      const claims = await Promise.allSettled(
        clients.map((client, i) =>
          client.claim({ network: tiny, attributes: node(i + 1), ttlMs: TTL_MS }, never),
        ),
      );
      expect(claims.filter(({ status }) => status === 'fulfilled')).to.have.lengthOf(3);
      for (const client of clients) await client.close();
      expect((await lab.etcdLeases()).length).to.equal(before.length + 3);
    });

    it('an IPv4 subnet is taken whichever key it is in, though it was free when we looked', async () => {
      const writer = new LeaseWriter({
        client: lab.client,
        keys: lab.keys(),
        random: Math.random,
        now: Date.now,
      });
      const { revision } = await store.snapshot(never);
      await lab.put('subnets/10.244.9.0-24&fc00:0:0:9::-64', encodeLease(node(9)));
      const etcdLease = await writer.grant(writer.newEtcdLeaseId(), TTL_MS, never);
      const wanted = { attributes: node(1), ttlMs: TTL_MS };
      const looked = { since: revision, learn: true };
      const ipv4 = parseSubnet('10.244.9.0/24');
      for (const subnets of [{ ipv4 }, { ipv4, ipv6: parseSubnet('fc00:0:0:a::/64') }]) {
        const outcome = await writer.create(subnets, wanted, etcdLease, looked, never);
        expect(outcome).to.have.property('taken').that.includes('10.244.9.0-24&fc00:0:0:9::-64');
      }
      // The IPv6 subnet alone is found after the fact, and given back.
      const other = { ipv4: parseSubnet('10.244.10.0/24'), ipv6: parseSubnet('fc00:0:0:9::/64') };
      expect(await writer.create(other, wanted, etcdLease, looked, never)).to.have.property('taken');
      expect(await leaseKeys()).to.deep.equal(['10.244.9.0-24&fc00:0:0:9::-64']);
      await writer.revoke(etcdLease.id, never);
    });

    async function grant(ttlSeconds: number): Promise<{ id: string }> {
      const { ID } = await lab.client.write('Lease.leaseGrant', { TTL: ttlSeconds }, never);
      return { id: ID };
    }
  });

  describe('endpoints', () => {
    it('that are down or hang cost an attempt and no more; the one that answers is kept', async () => {
      const dead = `http://127.0.0.1:${await freePort()}`;
      const hung = await TcpProxy.open(server.port);
      try {
        hung.stall();
        const many = lab.openNow({ endpoints: [dead, hung.url, proxy.url] });
        const held = await many.claim({ network, attributes: node(1), ttlMs: TTL_MS }, never);
        await many.renew(held, node(1), never);
        const { revision } = await many.snapshot(never);
        await watchUntil(
          many,
          revision,
          (all) => all.some((batch) => batch.changes.length > 0),
          () => lab.put('subnets/10.244.7.0-24', encodeLease(node(7))),
        );
        proxy.cut();
        const error = await failure(many.snapshot(never));
        expect(error).to.be.instanceOf(StoreUnavailableError);
      } finally {
        await hung.close();
      }
    });

    it('that all fail are an error that names one and the remedy, and no password', async () => {
      const port = await freePort();
      const away = openEtcdStore({
        endpoints: [`http://root:secret@127.0.0.1:${port}`],
        prefix: '/x',
        random: Math.random,
        now: Date.now,
      });
      const error = await failure(away.snapshot(never));
      expect(error).to.be.instanceOf(StoreUnavailableError);
      expect(String(error)).to.match(new RegExp(`etcd http://127\\.0\\.0\\.1:${port}: .*--etcd-endpoints`));
      expect(String(error)).not.to.contain('secret');
      await away.close();
    });

    it('are read as people write them', () => {
      const url = (text: string) => parseEndpoint(text).url;
      expect(url('https://etcd-1:2379')).to.equal('https://etcd-1:2379');
      expect(url('etcd-1')).to.equal('http://etcd-1:2379');
      expect(url('https://[::1]:443/')).to.equal('https://[::1]:443');
      expect(url('10.0.0.1:80')).to.equal('http://10.0.0.1:80');
      for (const text of ['', 'ftp://x:1', 'https://x/path', 'http://a:b@', 'https://x:99999']) {
        expect(() => parseEndpoint(text), text).to.throw(EndpointError);
      }
      expect(() => parseEndpoint('ftp://user:secret@host')).to.throw(EndpointError, /^"host" is not/);
    });

    it('are connected to anew when this node moved: what hangs fails, and the next call works', async () => {
      const patient = lab.openNow({ endpoints: [proxy.url], callTimeoutMs: 60_000, keepaliveMs: 60_000 });
      const { revision } = await patient.snapshot(never);
      proxy.stallOpen();
      const hanging = [
        failure(patient.snapshot(never)),
        failure(patient.claim({ network, attributes: node(1), ttlMs: TTL_MS }, never)),
        failure(watchUntil(patient, revision, () => false)),
      ];
      await new Promise(setImmediate);
      patient.reconnect();
      for (const call of hanging) expect(await call).to.be.instanceOf(StoreUnavailableError);
      await patient.claim({ network, attributes: node(2), ttlMs: TTL_MS }, never);
      expect(await leaseKeys()).to.have.length(1);
    });

    it('an abort ends a call that hangs, at once and with its reason', async () => {
      proxy.stall();
      const patient = lab.openNow({ endpoints: [proxy.url], callTimeoutMs: 60_000 });
      const abort = new AbortController();
      const { revision } = await lab.openNow().snapshot(never);
      const calls = [
        patient.snapshot(abort.signal),
        patient.claim({ network, attributes: node(1), ttlMs: TTL_MS }, abort.signal),
      ].map(failure);
      const watching = (async () => {
        for await (const _ of patient.watch(revision, abort.signal)) throw new Error('nothing to tell');
      })();
      await new Promise(setImmediate);
      abort.abort(new Error('enough'));
      for (const call of calls) expect(await call).to.have.property('message', 'enough');
      await watching;
    });
  });

  describe('a watch', () => {
    it('notices that its server hangs', async () => {
      const watcher = lab.openNow({ endpoints: [proxy.url], keepaliveMs: 1000 });
      const { revision } = await watcher.snapshot(never);
      const error = await failure(
        watchUntil(
          watcher,
          revision,
          () => false,
          async () => proxy.stall(),
        ),
      );
      expect(error).to.be.instanceOf(StoreUnavailableError);
    });

    it('fails when its server is killed, and resumes after a restart without losing a change', async () => {
      const abort = new AbortController();
      const following = followLeases(store, {
        signal: abort.signal,
        clock: () => performance.now(),
        sleep: delay,
        random: Math.random,
        deliver: () => undefined,
        backoff: { minMs: 20, maxMs: 100 },
      });
      await until(() => following.health().healthy, Boolean);
      await lab.put('subnets/10.244.1.0-24', encodeLease(node(1)));
      await until(
        () => following.view.leases.size,
        (size) => size === 1,
      );
      await server.stop();
      await until(
        () => following.health().healthy,
        (healthy) => !healthy,
      );
      expect(following.view.leases.size, 'an outage withdraws nobody').to.equal(1);
      await server.start();
      const other = lab.openNow();
      await until(() => other.networkConfig(never).then(Boolean, () => false), Boolean);
      await until(
        () =>
          lab.put('subnets/10.244.2.0-24', encodeLease(node(2))).then(
            () => true,
            () => false,
          ),
        Boolean,
      );
      await lab.remove('subnets/10.244.1.0-24');
      await until(
        () => [...following.view.leases.keys()].join(),
        (keys) => keys === '10.244.2.0-24',
      );
      expect(following.health().healthy).to.equal(true);
      abort.abort();
      await following.done;
    });

    it('converges through cuts, stalls, drops and compactions', async () => {
      const abort = new AbortController();
      const watcher = lab.openNow({ endpoints: [proxy.url], callTimeoutMs: 300, keepaliveMs: 1000 });
      const following = followLeases(watcher, {
        signal: abort.signal,
        clock: () => performance.now(),
        sleep: delay,
        random: Math.random,
        deliver: () => undefined,
        backoff: { minMs: 5, maxMs: 50 },
      });
      const faults = [
        () => proxy.cut(),
        () => proxy.stall(),
        () => proxy.drop(),
        () => lab.forgetHistory(),
        () => proxy.restore(),
        () => proxy.restore(),
      ];
      for (let i = 0; i < 60; i++) {
        const key = `subnets/10.244.${i % 7}.0-24`;
        if (i % 3 === 2) await lab.remove(key);
        else await lab.put(key, encodeLease(node(i)));
        if (i % 4 === 3) await faults[(i >> 2) % faults.length]?.();
      }
      proxy.restore();
      proxy.drop();
      const truth = await lab.openNow().snapshot(never);
      const text = (leases: ReadonlyMap<string, unknown>) => JSON.stringify([...leases].sort());
      await until(
        () => text(following.view.leases),
        (seen) => seen === text(truth.leases),
      );
      abort.abort();
      await following.done;
    });
  });

  it('a restored backup is rewound: a watch says so, and following withdraws nobody at once', async () => {
    const held = await claim(1);
    const backup = await server.backUp();
    await lab.put('subnets/10.244.20.0-24', encodeLease(node(20)));
    const { revision } = await store.snapshot(never);
    const abort = new AbortController();
    const told: string[] = [];
    const following = followLeases(store, {
      signal: abort.signal,
      clock: () => performance.now(),
      sleep: delay,
      random: Math.random,
      deliver: (delta) => {
        told.push(...delta.changes.filter(({ type }) => type === 'delete').map(() => 'withdrawn'));
      },
      backoff: { minMs: 20, maxMs: 100 },
      rewindGraceMs: 1000,
    });
    await until(
      () => following.view.leases.size,
      (size) => size === 2,
    );
    await server.replaceData(await backup.restore());
    await server.start();
    await until(
      () => following.view.withheld.size,
      (size) => size === 1,
    );
    expect(told).to.deep.equal([]);
    const error = await failure(watchUntil(lab.openNow(), revision, () => false));
    expect(error).to.be.instanceOf(HistoryLostError).with.property('how', 'rewound');
    await until(
      () => [...following.view.leases.keys()].join(),
      (keys) => keys === held.lease.key,
    );
    expect(told).to.deep.equal(['withdrawn']);
    abort.abort();
    await following.done;
  });
});
