/**
 * What goes wrong with an API server, and with what is in it: each fault as a server has it, and what becomes of it.
 * Long, for all of them handle the same server's double in the same few ways, which stand at the top.
 */
import { expect } from 'chai';
import { delay } from '../../store/backoff.ts';
import {
  HistoryLostError,
  NetworkConfigError,
  NoFreeSubnetError,
  PublicAddressConflictError,
  StoreAccessError,
  StoreUnavailableError,
} from '../../store/errors.ts';
import { followLeases } from '../../store/follow.ts';
import type { KubernetesStoreOptions } from '../../store/kubernetes/kubernetes-store.ts';
import { encodeLease } from '../../store/lease-codec.ts';
import type { HeldLease, LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import type { KubernetesApiOptions } from '../lab/kubernetes-api.ts';
import { objectOf } from '../lab/kubernetes-objects.ts';
import { KubernetesLab } from './kubernetes-lab.ts';
import { failure, NETWORK, never, node, remembered, TTL_MS, told, until, watchUntil } from './store-lab.ts';

const FLANNEL = 'flannel.alpha.coreos.com/';
const DUAL =
  '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:244::/48","Backend":{"Type":"vxlan"}}';

describe('store/kubernetes: faults', () => {
  let lab: KubernetesLab;

  const useLab = async (options?: KubernetesApiOptions): Promise<void> => {
    await lab?.close();
    lab = await KubernetesLab.create(options);
    await lab.put('config', NETWORK);
  };
  /** The store of a node whose kubelet has registered it. */
  const openNode = (name: string, options?: Partial<KubernetesStoreOptions>): LeaseStore => {
    lab.cluster.register(name);
    return lab.openNode(name, options);
  };
  const request = (n: number, held?: HeldLease) => ({
    network: parseNetworkConfig(lab.document.text ?? ''),
    attributes: node(n),
    remembered: held && remembered(held),
    ttlMs: TTL_MS,
  });
  const writes = () => lab.api.requests.filter((each) => each.startsWith('PATCH')).length;
  const annotate = (name: string, more: Record<string, string | undefined>): void => {
    const { objects } = lab.api;
    const before = objects.get(name);
    const metadata = objectOf(before.metadata);
    const annotations = Object.entries({ ...objectOf(metadata.annotations), ...more });
    const kept = Object.fromEntries(annotations.filter(([, value]) => value !== undefined)) as Record<
      string,
      string
    >;
    objects.replace(name, { ...before, metadata: { ...metadata, annotations: kept } });
  };

  beforeEach(() => useLab());

  afterEach(() => lab.close());

  describe('permissions', () => {
    const NODES = ['get', 'list', 'watch', 'patch'];

    it('that are missing are named with the rule that grants each', async () => {
      const store = openNode('a');
      const held = await store.claim(request(1), never);
      const { revision } = await store.snapshot(never);
      const attempts: readonly (readonly [string, string, () => Promise<unknown>])[] = [
        ['nodes', 'get', () => store.renew(held, node(1), never)],
        ['nodes', 'list', () => store.snapshot(never)],
        ['nodes', 'watch', () => watchUntil(store, revision, () => false)],
        ['nodes', 'patch', () => store.renew(held, node(2, 1), never)],
        ['nodes/status', 'patch', () => store.announceReady?.(never) ?? Promise.resolve()],
      ];
      for (const [resource, verb, attempt] of attempts) {
        lab.api.rules = [
          { resources: ['nodes'], verbs: NODES.filter((each) => resource !== 'nodes' || each !== verb) },
        ];
        const error = await failure(attempt());
        expect(error, `${verb} ${resource}`).to.be.instanceOf(StoreAccessError);
        expect(error)
          .to.have.property('message')
          .that.includes(`{apiGroups: [""], resources: ["${resource}"], verbs: ["${verb}"]}`)
          .and.includes(`cannot ${verb} resource "${resource}"`);
      }
    });

    it('need no more than what the manifest grants, nor than flannel’s own role', async () => {
      const reading = { resources: ['nodes'], verbs: ['get', 'list', 'watch'] };
      const status = { resources: ['nodes/status'], verbs: ['patch'] };
      for (const [name, rules] of [
        ['ours', [reading, { resources: ['nodes'], verbs: ['patch'] }, status]],
        ['flannels', [reading, status]],
      ] as const) {
        const store = openNode(name);
        lab.api.rules = rules;
        const held = await store.claim(request(1), never);
        await store.renew(held, node(2, 1), never);
        await store.announceReady?.(never);
        const { revision, leases } = await store.snapshot(never);
        expect(leases.get(held.lease.key)?.attributes).to.deep.equal(node(2, 1));
        await watchUntil(store, revision, (all) => all.length > 0);
        await store.release(await store.renew(held, node(2, 1), never).catch(() => held), never);
        lab.api.rules = undefined;
      }
    });
  });

  describe('a busy or failing server', () => {
    it('is left alone for as long as it asks, when that is short', async () => {
      const waits: number[] = [];
      const store = openNode('a', { sleep: async (ms) => void waits.push(ms) });
      lab.api.throttle(1, 2);
      const held = await store.claim(request(1), never);
      expect(waits).to.deep.equal([2000]);
      lab.api.throttle(1, 60);
      expect(await failure(store.renew(held, node(1), never))).to.be.instanceOf(StoreUnavailableError);
      lab.api.throttle(1);
      expect(await failure(store.snapshot(never)))
        .to.have.property('message')
        .that.includes('too many requests');
      lab.api.throttle(9, 1);
      expect(await failure(store.snapshot(never))).to.have.property('retryable', true);
      expect(waits.slice(1), 'not for ever').to.deep.equal([1000, 1000]);
    });

    it('fails the call, which can be tried again', async () => {
      const store = openNode('a');
      lab.api.fail(1, 500);
      expect(await failure(store.snapshot(never)))
        .to.be.instanceOf(StoreUnavailableError)
        .with.property('message')
        .that.includes('etcdserver: request timed out');
      lab.api.refuseConnections(1);
      expect(await failure(store.claim(request(1), never))).to.be.instanceOf(StoreUnavailableError);
      await store.claim(request(1), never);
    });

    it('that never answers ends the call after its time', async () => {
      const store = openNode('a', { callTimeoutMs: 50 });
      lab.api.hang(true);
      const error = await failure(store.snapshot(never));
      expect(error).to.be.instanceOf(StoreUnavailableError);
      expect(error).to.have.property('message').that.includes('no answer in time');
      lab.api.hang(false);
      lab.api.stall(true);
      for (const call of [() => store.snapshot(never), () => store.claim(request(1), never)]) {
        expect(await failure(call()))
          .to.have.property('message')
          .that.includes('no answer in time');
      }
      const abort = new AbortController();
      const claim = failure(lab.openNode('a').claim(request(1), abort.signal));
      abort.abort(new Error('enough'));
      expect(await claim).to.have.property('message', 'enough');
    });

    it('loses the answer to a write: it is read back, and not written twice', async () => {
      const store = openNode('a');
      lab.api.loseAnswers(1);
      const before = lab.api.objects.revision;
      const held = await store.claim(request(1), never);
      expect(held.lease.attributes).to.deep.equal(node(1));
      expect(lab.api.objects.revision - before).to.equal(1);
      expect(writes()).to.equal(1);
    });

    it('says that the Node changed between reading and writing: it is read again, and nothing of it is lost', async () => {
      const store = openNode('a');
      let beats = 3;
      lab.api.onRequest = (text) => {
        if (text.startsWith('PATCH') && beats-- > 0) lab.cluster.heartbeat('a');
      };
      const held = await store.claim(request(1), never);
      expect(writes()).to.equal(4);
      expect(objectOf(lab.api.objects.get('a').status)).to.have.property('heartbeat');
      beats = 100;
      const error = await failure(store.renew(held, node(2, 1), never));
      expect(error).to.be.instanceOf(StoreUnavailableError);
      expect(error).to.have.property('message').that.includes('again and again');
    });
  });

  describe('lists', () => {
    it('are read in chunks, and begun anew when history is compacted between two', async () => {
      for (let i = 10; i < 35; i++) await lab.put(`subnets/10.244.${i}.0-24`, encodeLease(node(i)));
      const store = openNode('a', { pageSize: 10 });
      lab.api.requests.length = 0;
      const { leases, revision } = await store.snapshot(never);
      expect(leases.size).to.equal(25);
      expect(Number(revision)).to.equal(lab.api.objects.revision);
      expect(lab.api.requests).to.have.lengthOf(3);

      let pages = 0;
      lab.api.onRequest = (text) => {
        if (!text.includes('continue=') || ++pages > 1) return;
        void lab.put('subnets/10.244.99.0-24', encodeLease(node(99)));
        lab.api.compact();
      };
      const again = await store.snapshot(never);
      expect(Number(again.revision)).to.equal(lab.api.objects.revision);
      expect(again.leases.size, 'of one revision').to.equal(26);
    });
  });

  describe('watches', () => {
    const follow = (store: LeaseStore) => {
      const abort = new AbortController();
      const errors: string[] = [];
      const following = followLeases(store, {
        signal: abort.signal,
        clock: () => performance.now(),
        sleep: delay,
        random: Math.random,
        deliver: () => undefined,
        onHealth: (health) => {
          if (!health.healthy) errors.push(health.error.message);
        },
        backoff: { minMs: 5, maxMs: 50 },
      });
      const end = async (): Promise<void> => {
        abort.abort();
        await following.done;
      };
      return { view: following.view, errors, end };
    };
    const lists = () => lab.api.requests.filter((each) => /limit=500/.test(each)).length;

    it('that the server ends go on where they were, without a list and without a fault', async () => {
      const { view, errors, end } = follow(openNode('a', { clock: aging() }));
      await until(
        () => lab.api.watchers,
        (watchers) => watchers === 1,
      );
      for (let i = 1; i <= 5; i++) {
        lab.api.endWatches();
        await lab.put(`subnets/10.244.${i}.0-24`, encodeLease(node(i)));
        await until(
          () => view.leases.size,
          (size) => size === i,
        );
      }
      expect(lists()).to.equal(1);
      expect(errors).to.deep.equal([]);
      await end();
    });

    it('that break, or end as soon as they begin, are tried again with a pause, and miss nothing', async () => {
      const { view, errors, end } = follow(openNode('a'));
      for (let i = 1; i <= 5; i++) {
        await until(
          () => lab.api.watchers,
          (watchers) => watchers > 0,
        );
        if (i % 2 === 0) lab.api.breakConnections();
        else lab.api.endWatches();
        await lab.put(`subnets/10.244.${i}.0-24`, encodeLease(node(i)));
        await until(
          () => view.leases.size,
          (size) => size === i,
        );
      }
      expect(lists()).to.equal(1);
      expect(errors.length).to.be.at.least(1);
      await end();
    });

    it('that fall silent, while their connection stands, are made anew', async () => {
      await useLab({ bookmarkIntervalMs: 10 });
      const { view, end } = follow(openNode('a', { silenceMs: 100 }));
      await until(
        () => lab.api.watchers,
        (watchers) => watchers === 1,
      );
      lab.api.silence(true);
      await lab.put('subnets/10.244.7.0-24', encodeLease(node(7)));
      lab.api.silence(false);
      await until(
        () => view.leases.size,
        (size) => size === 1,
      );
      expect(lists()).to.equal(1);
      await end();
    });

    it('are moved on by bookmarks, so that compaction takes nothing from a quiet one', async () => {
      const store = openNode('a');
      const { revision } = await store.snapshot(never);
      for (let i = 0; i < 10; i++) lab.api.objects.writeElsewhere();
      const batches = await watchUntil(
        store,
        revision,
        (all) => all.length === 2,
        async () => lab.api.sendBookmarks(),
      );
      expect(batches[1]).to.deep.equal({ revision: String(Number(revision) + 10), changes: [] });
      lab.api.compact();
      await watchUntil(store, batches[1]?.revision ?? '', (all) => all.length > 0);
      expect(await failure(watchUntil(store, revision, () => false)))
        .to.be.instanceOf(HistoryLostError)
        .with.property('how', 'compacted');
    });

    it('from a forgotten revision are refused by an answer as by an event, and then listed', async () => {
      await useLab({ refuseOldWatches: 'status' });
      const store = openNode('a');
      const { revision } = await store.snapshot(never);
      await lab.put('subnets/10.244.7.0-24', encodeLease(node(7)));
      lab.api.compact();
      expect(await failure(watchUntil(store, revision, () => false)))
        .to.be.instanceOf(HistoryLostError)
        .with.property('how', 'compacted');
    });

    it('of a cluster that was restored from a backup withdraw nobody at once', async () => {
      const backup = lab.api.objects.backUp();
      await lab.put('subnets/10.244.7.0-24', encodeLease(node(7)));
      const { view, end } = follow(openNode('a'));
      await until(
        () => view.leases.size,
        (size) => size === 1,
      );
      backup.restore();
      lab.api.breakConnections();
      await until(
        () => view.withheld.size,
        (size) => size === 1,
      );
      expect([...view.leases.keys()]).to.deep.equal(['10.244.7.0-24']);
      await end();
    });

    it('tell of a changed network between two events, and begin anew when its families are others', async () => {
      const { view, errors, end } = follow(openNode('a'));
      const networks = () => {
        const { network } = view;
        return network !== undefined && 'config' in network ? Object.keys(network.config.networks) : [];
      };
      await until(networks, (found) => found.length === 1);
      await lab.put('config', DUAL);
      await until(networks, (found) => found.length === 2);
      expect(lists()).to.equal(2);
      await lab.remove('config');
      await until(
        () => view.network,
        (network) => network === undefined,
      );
      expect(errors).to.deep.equal([]);
      await end();
    });
  });

  describe('Nodes', () => {
    it('of other names, without podCIDR, or cut otherwise than the document says', async () => {
      const nobody = await failure(lab.openNode('nobody').claim(request(1), never));
      expect(nobody).to.be.instanceOf(StoreUnavailableError);
      expect(nobody)
        .to.have.property('message')
        .that.includes('has no Node "nobody"')
        .and.includes('--node-name');

      lab.cluster.allocateFrom(undefined);
      const waiting = openNode('waiting');
      const error = await failure(waiting.claim(request(1), never));
      expect(error).to.be.instanceOf(NoFreeSubnetError);
      expect(error).to.have.property('message').that.includes('--allocate-node-cidrs=true');
      const claim = waiting.claim(request(1), never);
      await until(
        () => lab.api.watchers,
        (watchers) => watchers === 1,
      );
      lab.cluster.allocateFrom(parseNetworkConfig(NETWORK));
      expect((await claim).lease.subnets.ipv4?.prefixLength).to.equal(24);

      // The first subnet, and a /26: both are the controller's to give.
      lab.cluster.put('first', ['10.244.0.0/26'], {});
      const first = lab.openNode('first');
      const { network } = await first.snapshot(never);
      if (network === undefined || 'fault' in network) throw new Error('there is a network');
      const held = await first.claim({ ...request(2), network: network.config }, never);
      expect(held.lease.key).to.equal('10.244.0.0-26');
      expect((await first.claim({ ...request(2), network: network.config }, never)).lease).to.deep.equal(
        held.lease,
      );

      lab.cluster.put('elsewhere', ['10.99.1.0/24'], {});
      const misfit = await failure(lab.openNode('elsewhere').claim(request(3), never));
      expect(misfit).to.be.instanceOf(NetworkConfigError).with.property('field', 'Network');
      expect(misfit).to.have.property('message').that.includes('--cluster-cidr').and.includes('10.99.1.0/24');
      const lacking = await failure(first.claim({ ...request(2), network: parseNetworkConfig(DUAL) }, never));
      expect(lacking).to.be.instanceOf(NetworkConfigError).with.property('field', 'EnableIPv6');
    });

    it('that learn their podCIDR late have the network follow it, in the same watch', async () => {
      lab.cluster.put('late', [], {});
      const store = lab.openNode('late');
      const { revision, network } = await store.snapshot(never);
      expect(network).to.deep.equal({ config: parseNetworkConfig(NETWORK) });
      const batches = await watchUntil(
        store,
        revision,
        (all) => told(all).includes('network'),
        async () => {
          const before = lab.api.objects.get('late');
          lab.api.objects.replace('late', { ...before, spec: { podCIDR: '10.244.0.0/25' } });
        },
      );
      const [news] = batches.flatMap((batch) => batch.network ?? []);
      expect(news).to.have.nested.property('config.networks.ipv4.subnetLength', 25);
      expect(news).to.have.nested.property('config.networks.ipv4.subnetMin', '10.244.0.0');
    });

    it('that two daemons write are fought over by neither', async () => {
      const [mine, other] = [openNode('a'), lab.openNode('a')];
      const held = await mine.claim(request(1), never);
      await other.claim(request(2), never);
      expect(await failure(mine.renew(held, node(1), never))).to.have.property('how', 'taken');
      const error = await failure(mine.claim(request(1, held), never));
      expect(error).to.be.instanceOf(PublicAddressConflictError);
      expect(error).to.have.property('message').that.includes('Node a').and.includes('--node-name');
      annotate('a', { [`${FLANNEL}kube-subnet-manager`]: undefined });
      expect((await mine.claim(request(1, held), never)).lease).to.deep.equal(held.lease);
    });

    it('that share a podCIDR are told apart: the first has it, ours before all, and both are named', async () => {
      const store = openNode('b');
      const held = await store.claim(request(1), never);
      const cidr = held.lease.key.replace('-', '/');
      const text = { [`${FLANNEL}kube-subnet-manager`]: 'true', [`${FLANNEL}public-ip`]: '192.0.2.66' };
      lab.cluster.put('a', [cidr], text);
      const { leases, malformed, revision } = await store.snapshot(never);
      expect(leases.get(held.lease.key)?.attributes).to.deep.equal(node(1));
      expect(malformed).to.deep.equal([{ key: 'a', reason: 'its podCIDR is that of Node b too' }]);
      const batches = await watchUntil(
        store,
        revision,
        (all) => told(all).length > 0,
        async () => lab.cluster.heartbeat('a'),
      );
      expect(told(batches)).to.deep.equal(['!a']);
      const gap = await failure(
        watchUntil(
          store,
          batches.at(-1)?.revision ?? '',
          () => false,
          async () => lab.api.objects.delete('b'),
        ),
      );
      expect(gap).to.be.instanceOf(HistoryLostError).with.property('how', 'gap');
    });

    it('have the address that an operator writes, as soon as it is written and as long as it is there', async () => {
      const store = openNode('a');
      const held = await store.claim(request(1), never);
      const { key } = held.lease;
      let { revision } = await store.snapshot(never);
      const tells = async (expected: string, change: () => void): Promise<void> => {
        const batches = await watchUntil(
          store,
          revision,
          (all) => told(all).includes(expected),
          async () => change(),
        );
        revision = batches.at(-1)?.revision ?? '';
      };
      const overwrite = (address?: string) => annotate('a', { [`${FLANNEL}public-ip-overwrite`]: address });
      await tells(`+${key} 203.0.113.7`, () => overwrite('203.0.113.7'));
      const renewed = await store.renew(held, node(1), never);
      expect(renewed.lease.attributes.publicAddress.ipv4).to.equal('203.0.113.7');
      expect(lab.annotations('a')[`${FLANNEL}public-ip`]).to.equal('203.0.113.7');
      expect((await store.renew(renewed, node(1), never)).revision).to.equal(renewed.revision);
      expect((await store.claim(request(1, renewed), never)).ttlMs, 'a reservation').to.equal(0);
      await store.release(renewed, never);
      expect(lab.annotations('a')[`${FLANNEL}public-ip`], 'which stays').to.equal('203.0.113.7');

      overwrite('not an address');
      const error = await failure(store.renew(renewed, node(1), never));
      expect(error).to.have.property('message').that.includes('public-ip-overwrite of Node a');
      await tells(`+${key} 192.0.2.1`, () => overwrite());
      await store.renew(renewed, node(1), never);
      expect(lab.annotations('a')[`${FLANNEL}public-ip`]).to.equal('192.0.2.1');
    });

    it('are available once pods work: the other conditions stay, and a Node that is made anew is told again', async () => {
      const store = openNode('a');
      const held = await store.claim(request(1), never);
      const conditions = () => {
        const { conditions: all } = objectOf(lab.api.objects.get('a').status);
        return Array.isArray(all) ? all.map((each) => objectOf(each)) : [];
      };
      expect(conditions().map(({ type }) => type)).to.deep.equal(['MemoryPressure', 'Ready']);
      await store.announceReady?.(never);
      expect(conditions()).to.have.lengthOf(3);
      expect(conditions()[2]).to.include({
        type: 'NetworkUnavailable',
        status: 'False',
        reason: 'VtepdIsUp',
      });
      const before = writes();
      await store.announceReady?.(never);
      expect(writes()).to.equal(before);
      lab.api.objects.delete('a');
      lab.cluster.register('a');
      expect((await store.renew(held, node(1), never)).lease).to.deep.equal(held.lease);
      expect(conditions()[2]).to.include({ type: 'NetworkUnavailable', status: 'False' });
    });

    it('5,000 of them are read in ten requests, and a change of one by none', async () => {
      for (let i = 0; i < 5000; i++) {
        const cidr = `10.${64 + (i >> 8)}.${i & 255}.0/24`;
        const text = { [`${FLANNEL}kube-subnet-manager`]: 'true', [`${FLANNEL}public-ip`]: '192.0.2.66' };
        lab.cluster.put(`node-${i}`, [cidr], text);
      }
      const store = lab.openNode('node-7');
      lab.api.requests.length = 0;
      const { leases, revision } = await store.snapshot(never);
      expect(leases.size).to.equal(5000);
      expect(lab.api.requests).to.have.lengthOf(10);
      const batches = await watchUntil(
        store,
        revision,
        (all) => told(all).length > 0,
        async () => annotate('node-99', { [`${FLANNEL}public-ip`]: '192.0.2.99' }),
      );
      expect(told(batches)).to.deep.equal(['+10.64.99.0-24 192.0.2.99']);
      // One to see how far the server is, one to watch.
      expect(lab.api.requests).to.have.lengthOf(12);
    });
  });
});

/** A clock by which whatever was begun has lasted long enough. */
function aging(): () => number {
  let now = 0;
  return () => {
    now += 10_000;
    return now;
  };
}
