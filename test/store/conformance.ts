/**
 * What every LeaseStore must do: the rules of store/lease-store.ts, one test each. A store joins by giving a
 * lab: how to open clients of one fresh, empty store, and how to do behind their back what an operator, a
 * flannel node or time would do.
 */
import { expect } from 'chai';
import {
  FAMILIES,
  formatSubnet,
  parseAddress,
  parseMac,
  parseSubnet,
  type Subnet,
  subnetsOverlap,
} from '../../store/address.ts';
import {
  HistoryLostError,
  LeaseLostError,
  NetworkConfigError,
  NoFreeSubnetError,
  PublicAddressConflictError,
  StoreUnavailableError,
} from '../../store/errors.ts';
import type { LeaseAttributes, NetworkConfig } from '../../store/lease.ts';
import { decodeLeaseKey, encodeLease } from '../../store/lease-codec.ts';
import type { ClaimRequest, LeaseStore, RememberedLease } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';

import {
  failure,
  NETWORK,
  never,
  node,
  remembered,
  type StoreLab,
  TTL_MS,
  told,
  watchUntil,
} from './store-lab.ts';

export function describeLeaseStore(name: string, makeLab: () => Promise<StoreLab>): void {
  describe(`${name}: what every LeaseStore does`, () => {
    let lab: StoreLab;
    let store: LeaseStore;
    let network: NetworkConfig;

    const request = (attributes: LeaseAttributes, memory?: RememberedLease): ClaimRequest => ({
      network,
      attributes,
      remembered: memory,
      ttlMs: TTL_MS,
    });
    const claim = (attributes: LeaseAttributes, memory?: RememberedLease) =>
      store.claim(request(attributes, memory), never);
    const useNetwork = async (text: string) => {
      await lab.put('config', text);
      network = parseNetworkConfig(text);
    };
    const keys = async () => [...(await store.snapshot(never)).leases.keys()].sort();

    beforeEach(async () => {
      lab = await makeLab();
      store = await lab.open();
      await useNetwork(NETWORK);
    });

    afterEach(() => lab.close());

    describe('network configuration', () => {
      it('is undefined while there is none, and read once there is', async () => {
        await lab.remove('config');
        expect(await store.networkConfig(never)).to.equal(undefined);
        expect((await store.snapshot(never)).network).to.equal(undefined);
        await lab.put('config', NETWORK);
        expect(await store.networkConfig(never)).to.deep.equal(network);
        expect((await store.snapshot(never)).network).to.deep.equal({ config: network });
      });

      it('that is malformed is refused by the name of the field, and leaves the leases readable', async () => {
        await lab.put('config', '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":0}}');
        const error = await failure(store.networkConfig(never));
        expect(error).to.be.instanceOf(NetworkConfigError).with.property('field', 'Backend.VNI');
        const { network: record, leases } = await store.snapshot(never);
        expect(record).to.have.nested.property('fault.field', 'Backend.VNI');
        expect(leases.size).to.equal(0);
      });
    });

    describe('claim', () => {
      it('reserves a free subnet that every other client sees, and that expires', async () => {
        const held = await claim(node(1));
        expect(held.lease.attributes).to.deep.equal(node(1));
        expect(held.lease.subnets.ipv4?.prefixLength).to.equal(24);
        expect(held.ttlMs).to.equal(TTL_MS);
        expect(held.expiresAt).to.be.a('number');
        expect(await lab.expires(held.lease.key)).to.equal(true);
        const { leases } = await (await lab.open()).snapshot(never);
        expect([...leases.values()]).to.deep.equal([held.lease]);
        expect(await lab.get(`subnets/${held.lease.key}`), 'as flannel writes it').to.equal(
          encodeLease(node(1)),
        );
      });

      it('gives the remembered lease again, alive or expired, and writes what changed', async () => {
        const first = await claim(node(1));
        const again = await claim(node(1), remembered(first));
        expect(again.lease).to.deep.equal(first.lease);
        await lab.expire(first.lease.key);
        const moved = await claim(node(9, 1), remembered(first));
        expect(moved.lease.key).to.equal(first.lease.key);
        expect((await claim(node(8, 1), remembered(moved))).lease).to.deep.equal({
          ...first.lease,
          attributes: node(8, 1),
        });
        expect(await keys()).to.deep.equal([first.lease.key]);
      });

      it('knows its lease by address and MAC if the memory is older than the last write', async () => {
        const first = await claim(node(1));
        const second = await claim(node(2, 1), remembered(first));
        expect((await claim(node(2, 1), remembered(first))).lease).to.deep.equal(second.lease);
      });

      it('never touches a remembered lease that carries another node’s attributes now', async () => {
        const held = await claim(node(1));
        await lab.put(`subnets/${held.lease.key}`, encodeLease(node(2)));
        const other = await claim(node(1), remembered(held));
        expect(other.lease.key).not.to.equal(held.lease.key);
        expect(await lab.get(`subnets/${held.lease.key}`)).to.equal(encodeLease(node(2)));
      });

      it('adopts the lease of its public address when it remembers none, keeping unknown fields', async () => {
        const held = await claim(node(1));
        const text = JSON.stringify({ ...JSON.parse(encodeLease(node(1))), Site: { rack: 7 } });
        await lab.put(`subnets/${held.lease.key}`, text);
        const adopted = await claim(node(1, 77));
        expect(adopted.lease).to.deep.equal({ ...held.lease, attributes: node(1, 77) });
        expect(JSON.parse((await lab.get(`subnets/${held.lease.key}`)) ?? '')).to.deep.include({
          Site: { rack: 7 },
        });
      });

      it('finds two daemons with one public address, and does not fight', async () => {
        const first = await claim(node(1));
        const second = await claim(node(1, 77));
        expect(second.lease.key, 'the second takes it for its own').to.equal(first.lease.key);
        const lost = await failure(store.renew(first, node(1), never));
        expect(lost).to.be.instanceOf(LeaseLostError).with.property('how', 'taken');
        const error = await failure(claim(node(1), remembered(first)));
        expect(error).to.be.instanceOf(PublicAddressConflictError);
        expect(error).to.have.property('key', first.lease.key);
        expect(error).to.have.property('holder').that.deep.equals(node(1, 77));
        expect(await lab.get(`subnets/${first.lease.key}`)).to.equal(encodeLease(node(1, 77)));
      });

      it('leaves a lease that the network configuration has no room for, and takes one that it has', async () => {
        const held = await claim(node(1));
        await useNetwork('{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}');
        const fresh = await claim(node(1), remembered(held));
        expect(fresh.lease.subnets.ipv4?.address).to.match(/^10\.99\./);
      });

      it('uses the reservation of its public address: it never expires and is never deleted', async () => {
        await lab.put('subnets/10.244.142.0-24', '{"PublicIP":"192.0.2.1","Owner":"ops"}');
        const held = await claim(node(1));
        expect(held.lease.key).to.equal('10.244.142.0-24');
        expect(held.ttlMs).to.equal(0);
        expect(held.expiresAt).to.equal(undefined);
        const renewed = await store.renew(held, node(1, 9), never);
        expect(renewed.ttlMs).to.equal(0);
        expect((await claim(node(1, 9), remembered(renewed))).ttlMs).to.equal(0);
        expect(await lab.expires(held.lease.key)).to.equal(false);
        expect(JSON.parse((await lab.get('subnets/10.244.142.0-24')) ?? '')).to.deep.include({
          Owner: 'ops',
        });
        await store.release(renewed, never);
        expect(await keys()).to.deep.equal([held.lease.key]);
        await lab.remove('subnets/10.244.142.0-24');
        const lost = await failure(store.renew(renewed, node(1, 9), never));
        expect(lost).to.be.instanceOf(LeaseLostError).with.property('how', 'expired');
      });

      it('says that no subnet is free, and finds the one that becomes free', async () => {
        await useNetwork('{"Network":"10.244.0.0/28","SubnetLen":30,"Backend":{"Type":"vxlan"}}');
        const held = [await claim(node(1)), await claim(node(2)), await claim(node(3))];
        expect(new Set(held.map(({ lease }) => lease.key)).size).to.equal(3);
        expect(await failure(claim(node(4)))).to.be.instanceOf(NoFreeSubnetError);
        expect(await keys()).to.have.lengthOf(3);
        await lab.expire(held[1]?.lease.key ?? '');
        expect((await claim(node(4))).lease.key).to.equal(held[1]?.lease.key);
      });

      it('never hands out a subnet that an unreadable or differently sized entry covers', async () => {
        await useNetwork('{"Network":"10.244.0.0/24","SubnetLen":26,"Backend":{"Type":"vxlan"}}');
        await lab.put('subnets/10.244.0.64-26', 'rubbish');
        await lab.put('subnets/10.244.0.128-28', encodeLease(node(200)));
        expect((await claim(node(1))).lease.key).to.equal('10.244.0.192-26');
        expect(await failure(claim(node(2)))).to.be.instanceOf(NoFreeSubnetError);
      });

      it('is atomic: 60 nodes at once get 60 subnets of 63', async () => {
        await useNetwork('{"Network":"10.244.0.0/18","Backend":{"Type":"vxlan"}}');
        const stores = [store, await lab.open(), await lab.open()];
        const held = await Promise.all(
          Array.from({ length: 60 }, (_, i) => stores[i % 3]?.claim(request(node(i + 1)), never)),
        );
        expect(new Set(held.map((one) => one?.lease.key)).size).to.equal(60);
        expect(await keys()).to.deep.equal(held.map((one) => one?.lease.key).sort());
      });

      it('takes a subnet of each family, and none of either twice', async () => {
        await useNetwork(
          '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/60","IPv6SubnetLen":64,"Backend":{"Type":"vxlan"}}',
        );
        const stores = [store, await lab.open(), await lab.open()];
        const held = await Promise.all(
          Array.from({ length: 15 }, (_, i) => stores[i % 3]?.claim(request(node(i + 1)), never)),
        );
        for (const family of FAMILIES) {
          const subnets = held
            .map((one) => one?.lease.subnets[family])
            .filter((one): one is Subnet => one !== undefined);
          expect(new Set(subnets.map(formatSubnet)).size, family).to.equal(15);
        }
        expect(await keys()).to.have.lengthOf(15);
        expect(await failure(claim(node(16)))).to.be.instanceOf(NoFreeSubnetError);
        expect(await keys(), 'nothing is left of a claim that failed').to.have.lengthOf(15);
      });
    });

    describe('claim in an IPv6-only network', () => {
      it('gives every node its own subnet, under flannel’s key', async () => {
        await useNetwork(
          '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/60","IPv6SubnetLen":64,"Backend":{"Type":"vxlan"}}',
        );
        const six = (n: number): LeaseAttributes => ({
          publicAddress: { ipv6: parseAddress(`2001:db8::${n}`) },
          backend: 'vxlan',
          vtep: { ipv6: { vni: 1, mac: parseMac(`02:00:00:00:00:0${n}`) } },
        });
        const held = await Promise.all([1, 2, 3].map((n) => claim(six(n))));
        expect(new Set(held.map(({ lease }) => lease.key)).size).to.equal(3);
        for (const { lease } of held) expect(lease.key).to.match(/^0\.0\.0\.0-0&fc00:0:0:[0-9a-f]+::-64$/);
        const [first] = held;
        if (first !== undefined)
          expect((await claim(six(1), remembered(first))).lease).to.deep.equal(first.lease);
        expect(await keys()).to.deep.equal(held.map(({ lease }) => lease.key).sort());
      });
    });

    describe('renew', () => {
      it('keeps the lease alive without a change that anybody sees', async () => {
        const held = await claim(node(1));
        const { revision } = await store.snapshot(never);
        const renewed = await store.renew(held, node(1), never);
        expect(renewed.lease).to.deep.equal(held.lease);
        expect(renewed.revision).to.equal(held.revision);
        expect(renewed.expiresAt ?? 0).to.be.at.least(held.expiresAt ?? 1);
        expect(store.compareRevisions((await store.snapshot(never)).revision, revision)).to.equal(0);
      });

      it('writes new attributes for all to see', async () => {
        const held = await claim(node(1));
        const { revision } = await store.snapshot(never);
        const batches = await watchUntil(
          await lab.open(),
          revision,
          (all) => told(all).length > 0,
          async () => {
            const renewed = await store.renew(held, node(5, 1), never);
            expect(renewed.lease.attributes).to.deep.equal(node(5, 1));
            expect(await lab.expires(held.lease.key)).to.equal(true);
          },
        );
        expect(told(batches)).to.deep.equal([`+${held.lease.key} 192.0.2.5`]);
      });

      it('survives an expired or deleted lease with the same subnet', async () => {
        let held = await claim(node(1));
        const { key } = held.lease;
        await lab.expire(key);
        held = await store.renew(held, node(1), never);
        expect(held.lease.key).to.equal(key);
        expect(await lab.expires(key)).to.equal(true);
        await lab.remove(`subnets/${key}`);
        held = await store.renew(held, node(3, 1), never);
        expect(held.lease.key).to.equal(key);
        expect(await lab.get(`subnets/${key}`)).to.equal(encodeLease(node(3, 1)));
        expect(await lab.expires(key)).to.equal(true);
        expect((await store.renew(held, node(3, 1), never)).lease).to.deep.equal(held.lease);
      });

      it('never touches a lease that another has now, and names its holder', async () => {
        const held = await claim(node(1));
        await lab.expire(held.lease.key);
        await lab.put(`subnets/${held.lease.key}`, encodeLease(node(2)));
        const error = await failure(store.renew(held, node(1), never));
        expect(error).to.be.instanceOf(LeaseLostError).with.property('how', 'taken');
        expect(error).to.have.property('holder').that.deep.equals(node(2));
        expect(await lab.get(`subnets/${held.lease.key}`)).to.equal(encodeLease(node(2)));
        await lab.put(`subnets/${held.lease.key}`, 'rubbish');
        expect(await failure(store.renew(held, node(1), never))).to.have.property('how', 'taken');
      });

      it('does not make a lease again that overlaps another', async () => {
        const held = await claim(node(1));
        const subnet = held.lease.subnets.ipv4 ?? parseSubnet('0.0.0.0/0');
        await lab.expire(held.lease.key);
        const inside = `${subnet.address}-26`;
        expect(subnetsOverlap(decodeLeaseKey(inside)?.ipv4 ?? subnet, subnet)).to.equal(true);
        await lab.put(`subnets/${inside}`, encodeLease(node(2)));
        expect(await failure(store.renew(held, node(1), never))).to.have.property('how', 'taken');
        expect(await keys()).to.deep.equal([inside]);
      });
    });

    describe('release', () => {
      it('gives the lease back, twice without complaint, and nobody else’s', async () => {
        const held = await claim(node(1));
        await store.release(held, never);
        expect(await keys()).to.deep.equal([]);
        await store.release(held, never);
        await lab.put(`subnets/${held.lease.key}`, encodeLease(node(2)));
        await store.release(held, never);
        expect(await keys()).to.deep.equal([held.lease.key]);
      });
    });

    describe('snapshot', () => {
      it('carries what cannot be read by key and reason, and the rest', async () => {
        const held = await claim(node(1));
        await lab.put('subnets/10.244.7.0-24', '{"PublicIP":"not an address"}');
        await lab.put('subnets/nonsense\u001b[31m', encodeLease(node(2)));
        await lab.put('subnets/10.244.8.0-24', `{"PublicIP":"192.0.2.8","x":"${'x'.repeat(6000)}"}`);
        await lab.put('subnets/10.244.9.0-24', '{"PublicIP":"192.0.2.9","BackendType":"wireguard"}');
        const { leases, malformed } = await store.snapshot(never);
        expect([...leases.keys()].sort()).to.deep.equal(['10.244.9.0-24', held.lease.key].sort());
        expect(leases.get('10.244.9.0-24')?.attributes.backend).to.equal('wireguard');
        const reasons = malformed.map(({ key, reason }) => `${key}: ${reason}`).sort();
        expect(reasons).to.have.lengthOf(3);
        expect(reasons[0]).to.equal('10.244.7.0-24: PublicIP: not an IPv4 address');
        expect(reasons[1]).to.match(/^10\.244\.8\.0-24: 60\d\d bytes long/);
        expect(reasons[2]).to.equal('nonsense\ufffd[31m: the key does not name a subnet');
      });
    });

    describe('watch', () => {
      it('tells of every kind of change after its revision, in order, beginning at once', async () => {
        const before = await store.snapshot(never);
        const done = ['no network', '-10.244.7.0-24'];
        const batches = await watchUntil(
          store,
          before.revision,
          (all) => done.every((what) => told(all).includes(what)),
          async () => {
            await lab.put('subnets/10.244.7.0-24', encodeLease(node(7)));
            await lab.put('subnets/10.244.8.0-24', encodeLease(node(8)));
            await lab.put('subnets/10.244.7.0-24', 'rubbish');
            await lab.put('config', '{"Network":"10.244.0.0/15","Backend":{"Type":"vxlan"}}');
            await lab.put('config', '{}');
            await lab.remove('subnets/10.244.7.0-24');
            await lab.remove('config');
          },
        );
        expect(batches[0]?.changes).to.deep.equal([]);
        expect(store.compareRevisions(batches[0]?.revision ?? '', before.revision)).to.equal(0);
        for (const [i, batch] of batches.entries()) {
          const previous = batches[i - 1]?.revision ?? before.revision;
          expect(store.compareRevisions(batch.revision, previous)).to.be.at.least(0);
        }
        const order = told(batches);
        expect(order).to.include('+10.244.8.0-24 192.0.2.8');
        expect(order.indexOf('-10.244.7.0-24')).to.be.lessThan(order.length);
        // A store may leave out what was overwritten before it looked; the end is always told.
        expect(order.filter((what) => what.includes('10.244.7.0')).at(-1)).to.equal('-10.244.7.0-24');
        expect(order.filter((what) => what.includes('network')).at(-1)).to.equal('no network');
      });

      it('resumes after any revision that it has told, missing nothing and repeating nothing', async () => {
        const { revision } = await store.snapshot(never);
        for (let i = 1; i <= 5; i++) await lab.put(`subnets/10.244.${i}.0-24`, encodeLease(node(i)));
        const last = '+10.244.5.0-24 192.0.2.5';
        const all = await watchUntil(store, revision, (batches) => told(batches).includes(last));
        expect(told(all)).to.have.lengthOf(5);
        for (let i = 0; i < all.length - 1; i++) {
          const rest = await watchUntil(store, all[i]?.revision ?? '', (batches) =>
            told(batches).includes(last),
          );
          expect(told(rest)).to.deep.equal(told(all.slice(i + 1)));
        }
      });

      it('tells of a lease that ran out', async () => {
        const held = await claim(node(1));
        const { revision } = await store.snapshot(never);
        const gone = `-${held.lease.key}`;
        await watchUntil(
          store,
          revision,
          (all) => told(all).includes(gone),
          () => lab.expire(held.lease.key),
        );
      });

      it('refuses a revision whose future it has forgotten, and one that it has never had', async () => {
        const { revision } = await store.snapshot(never);
        await lab.put('subnets/10.244.7.0-24', encodeLease(node(7)));
        await lab.put('subnets/10.244.7.0-24', encodeLease(node(8)));
        await lab.forgetHistory();
        const compacted = await failure(watchUntil(store, revision, () => false));
        expect(compacted).to.be.instanceOf(HistoryLostError).with.property('how', 'compacted');
        const now = await store.snapshot(never);
        await watchUntil(store, now.revision, (all) => all.length > 0);
        const rewound = await failure(watchUntil(store, String(Number(now.revision) + 1000), () => false));
        expect(rewound).to.be.instanceOf(HistoryLostError).with.property('how', 'rewound');
      });
    });

    describe('ending', () => {
      it('an abort rejects with its reason, and ends a watch quietly', async () => {
        const reason = new Error('enough');
        const aborted = AbortSignal.abort(reason);
        const held = await claim(node(1));
        expect(await failure(store.snapshot(aborted))).to.equal(reason);
        expect(await failure(store.networkConfig(aborted))).to.equal(reason);
        expect(await failure(store.claim(request(node(2)), aborted))).to.equal(reason);
        expect(await failure(store.renew(held, node(1), aborted))).to.equal(reason);
        expect(await failure(store.release(held, aborted))).to.equal(reason);
        for await (const _ of store.watch(held.revision, aborted)) throw new Error('nothing to tell');
        expect(await keys()).to.deep.equal([held.lease.key]);
      });

      it('a closed store fails every call, and a watch under way', async () => {
        const other = await lab.open();
        const { revision } = await other.snapshot(never);
        const error = await failure(
          watchUntil(
            other,
            revision,
            () => false,
            () => other.close(),
          ),
        );
        expect(error).to.be.instanceOf(StoreUnavailableError);
        expect(await failure(other.snapshot(never))).to.be.instanceOf(StoreUnavailableError);
        expect(await failure(other.claim(request(node(1)), never))).to.be.instanceOf(StoreUnavailableError);
        await other.close();
        expect(await keys()).to.deep.equal([]);
      });
    });
  });
}
