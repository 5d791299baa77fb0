/** Every edge of the keeper's state machine, against a store that does what the test says. */
import { expect } from 'chai';
import { LeaseKeeper } from '../../../overlay/leases/lease-keeper.ts';
import { silentLog } from '../../../overlay/ops/log.ts';
import type { LeaseOperation } from '../../../overlay/ops/recorder.ts';
import { parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import { LeaseLostError, NoFreeSubnetError, StoreUnavailableError } from '../../../store/errors.ts';
import type { LeaseAttributes, NetworkConfig } from '../../../store/lease.ts';
import type { ClaimRequest, HeldLease, LeaseStore } from '../../../store/lease-store.ts';

const HOUR_MS = 3_600_000;

const network: NetworkConfig = {
  networks: {
    ipv4: {
      network: parseSubnet('10.244.0.0/16'),
      subnetLength: 24,
      subnetMin: parseAddress('10.244.1.0'),
      subnetMax: parseAddress('10.244.255.0'),
    },
  },
  backend: { type: 'vxlan', vni: 1, port: 8472, directRouting: false },
};

const attributesAt = (address: string): LeaseAttributes => ({
  publicAddress: { ipv4: parseAddress(address) },
  backend: 'vxlan',
  vtep: { ipv4: { vni: 1, mac: parseMac('02:00:00:00:00:01') } },
});

function heldAs(subnet: string, attributes: LeaseAttributes): HeldLease {
  const lease = { key: subnet.replace('/', '-'), subnets: { ipv4: parseSubnet(subnet) }, attributes };
  return { lease, revision: '1', ttlMs: 24 * HOUR_MS };
}

type Claim = (request: ClaimRequest) => HeldLease;
type Renew = (held: HeldLease, attributes: LeaseAttributes) => HeldLease;

/** A keeper over scripted answers; the last of each is given again and again. */
function keeperOver(claims: readonly Claim[], renewals: readonly Renew[]) {
  const requests: ClaimRequest[] = [];
  const held: string[] = [];
  const failures: LeaseOperation[] = [];
  const sleeps: { ms: number; resolve: () => void }[] = [];
  const waiters: (() => void)[] = [];
  let claimed = 0;
  let renewed = 0;
  const noAnswer = (): never => {
    throw new Error('the test gave the store no answer');
  };
  const store = {
    kind: 'embedded',
    async claim(request: ClaimRequest) {
      requests.push(request);
      await Promise.resolve();
      return (claims[Math.min(claimed++, claims.length - 1)] ?? noAnswer)(request);
    },
    async renew(current: HeldLease, attributes: LeaseAttributes) {
      return (renewals[Math.min(renewed++, renewals.length - 1)] ?? noAnswer)(current, attributes);
    },
    async release(current: HeldLease) {
      held.push(`released ${current.lease.key}`);
    },
  } as Partial<LeaseStore> as LeaseStore;
  const keeper = new LeaseKeeper({
    store,
    ttlMs: 24 * HOUR_MS,
    renewMarginMs: HOUR_MS,
    random: () => 1,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        if (signal.aborted) reject(signal.reason);
        sleeps.push({ ms, resolve });
        for (const waiter of waiters.splice(0)) waiter();
      }),
    log: silentLog,
    onHeld: ({ lease }) => held.push(`${lease.key} at ${lease.attributes.publicAddress.ipv4}`),
    onFailure: (operation) => failures.push(operation),
  });
  const stop = new AbortController();
  const running = keeper.run(network, attributesAt('192.0.2.1'), undefined, stop.signal);
  return {
    keeper,
    requests,
    held,
    failures,
    sleeps,
    /** Resolves when the keeper sleeps for the nth time, counted from 1. */
    async asleep(n: number): Promise<void> {
      while (sleeps.length < n) await new Promise<void>((resolve) => waiters.push(resolve));
    },
    async stop(): Promise<void> {
      stop.abort();
      await running;
    },
  };
}

const granted: Claim = ({ attributes }) => heldAs('10.244.7.0/24', attributes);
const kept: Renew = (current, attributes) => ({ ...current, lease: { ...current.lease, attributes } });

describe('LeaseKeeper', () => {
  it('looks at a reservation as often as at a lease that ends', async () => {
    const run = keeperOver([(request) => ({ ...granted(request), ttlMs: 0 })], [kept]);
    await run.asleep(1);
    expect(run.sleeps[0]?.ms).to.equal(8 * HOUR_MS);
    await run.stop();
  });

  it('is content with an address that the store was told to hold in place of ours', async () => {
    const run = keeperOver(
      [() => granted({ attributes: attributesAt('203.0.113.9') } as ClaimRequest)],
      [kept],
    );
    await run.asleep(1);
    expect(run.held).to.deep.equal(['10.244.7.0-24 at 203.0.113.9']);
    expect(run.sleeps[0]?.ms).to.equal(8 * HOUR_MS);
    run.keeper.setAttributes(attributesAt('192.0.2.2'));
    await run.asleep(2);
    expect(run.held.at(-1)).to.equal('10.244.7.0-24 at 192.0.2.2');
    await run.stop();
  });

  it('claims, and renews long before the end', async () => {
    const run = keeperOver([granted], [kept]);
    await run.asleep(1);
    expect(run.held).to.deep.equal(['10.244.7.0-24 at 192.0.2.1']);
    expect(run.sleeps[0]?.ms).to.equal(8 * HOUR_MS);
    run.sleeps[0]?.resolve();
    await run.asleep(2);
    expect(run.held).to.have.length(1);
    await run.stop();
  });

  it('tries a claim again with growing delays while the store is away or full', async () => {
    const away: Claim = () => {
      throw new StoreUnavailableError('away');
    };
    const full: Claim = () => {
      throw new NoFreeSubnetError('full');
    };
    const run = keeperOver([away, full, away, granted], [kept]);
    for (const n of [1, 2, 3]) {
      await run.asleep(n);
      expect(run.keeper.failure?.message).to.equal(n === 2 ? 'full' : 'away');
      run.sleeps[n - 1]?.resolve();
    }
    await run.asleep(4);
    expect(run.sleeps.slice(0, 3).map(({ ms }) => ms)).to.deep.equal([200, 400, 800]);
    expect(run.keeper.failure).to.equal(undefined);
    expect(run.failures).to.deep.equal(['claim', 'claim', 'claim']);
    await run.stop();
  });

  it('looks at once when a lease goes, if it waits for a free subnet, and not if it waits for the store', async () => {
    const full: Claim = () => {
      throw new NoFreeSubnetError('full');
    };
    const away: Claim = () => {
      throw new StoreUnavailableError('away');
    };
    const run = keeperOver([away, full, granted], [kept]);
    await run.asleep(1);
    run.keeper.subnetFreed();
    await new Promise((resolve) => setImmediate(resolve));
    expect(run.requests).to.have.length(1);
    run.sleeps[0]?.resolve();
    await run.asleep(2);
    run.keeper.subnetFreed();
    await run.asleep(3);
    expect(run.held).to.deep.equal(['10.244.7.0-24 at 192.0.2.1']);
    run.keeper.subnetFreed();
    await new Promise((resolve) => setImmediate(resolve));
    expect(run.requests, 'holding one, it claims no other').to.have.length(3);
    await run.stop();
  });

  it('claims again what it held when the lease expired or was taken', async () => {
    const lost: Renew = () => {
      throw new LeaseLostError('gone', 'expired');
    };
    const another: Claim = ({ attributes }) => heldAs('10.244.8.0/24', attributes);
    const run = keeperOver([granted, another], [lost, kept]);
    await run.asleep(1);
    run.keeper.checkNow();
    await run.asleep(2);
    expect(run.requests[1]?.remembered?.subnets.ipv4?.address).to.equal('10.244.7.0');
    expect(run.held).to.deep.equal(['10.244.7.0-24 at 192.0.2.1', '10.244.8.0-24 at 192.0.2.1']);
    await run.stop();
  });

  it('rewrites the lease at once when the public address changes, and only then', async () => {
    const run = keeperOver([granted], [kept]);
    await run.asleep(1);
    run.keeper.setAttributes(attributesAt('192.0.2.1'));
    run.keeper.setAttributes(attributesAt('192.0.2.2'));
    await run.asleep(2);
    expect(run.held).to.deep.equal(['10.244.7.0-24 at 192.0.2.1', '10.244.7.0-24 at 192.0.2.2']);
    await run.stop();
  });

  it('keeps the lease while renewals fail, and is woken out of a long delay', async () => {
    const away: Renew = () => {
      throw new StoreUnavailableError('away');
    };
    const run = keeperOver([granted], [away, away, kept]);
    await run.asleep(1);
    run.keeper.checkNow();
    await run.asleep(2);
    expect(run.keeper.held?.lease.key).to.equal('10.244.7.0-24');
    run.keeper.checkNow();
    await run.asleep(3);
    run.keeper.checkNow();
    await run.asleep(4);
    expect(run.keeper.failure).to.equal(undefined);
    expect(run.requests).to.have.length(1);
    await run.stop();
  });

  it('takes up a change that came while the claim was under way', async () => {
    const run = keeperOver(
      [
        (request) => {
          run.keeper.setAttributes(attributesAt('192.0.2.9'));
          return granted(request);
        },
      ],
      [kept],
    );
    await run.asleep(1);
    expect(run.held.at(-1)).to.equal('10.244.7.0-24 at 192.0.2.9');
    await run.stop();
  });

  it('claims anew when the network has no place for the lease, and leaves the old one as it is', async () => {
    const elsewhere: Claim = ({ attributes }) => heldAs('10.200.3.0/24', attributes);
    const run = keeperOver([granted, elsewhere], [kept]);
    await run.asleep(1);
    const cut = { network: parseSubnet('10.200.0.0/16'), subnetLength: 24 };
    const bounds = { subnetMin: parseAddress('10.200.1.0'), subnetMax: parseAddress('10.200.255.0') };
    const other: NetworkConfig = { ...network, networks: { ipv4: { ...cut, ...bounds } } };
    run.keeper.setNetwork(other);
    await run.asleep(2);
    expect(run.requests[1]?.network).to.equal(other);
    expect(run.held).to.deep.equal(['10.244.7.0-24 at 192.0.2.1', '10.200.3.0-24 at 192.0.2.1']);
    run.keeper.setNetwork({ ...other, backend: { ...other.backend, port: 4789 } });
    await run.asleep(3);
    expect(run.requests).to.have.length(2);
    await run.stop();
  });

  it('renews by other times as soon as it is told', async () => {
    const ttls: number[] = [];
    const noted: Renew = (current, attributes) => {
      ttls.push(current.ttlMs);
      return kept(current, attributes);
    };
    const run = keeperOver([granted], [noted]);
    await run.asleep(1);
    run.keeper.setTimes({ ttlMs: 48 * HOUR_MS, renewMarginMs: HOUR_MS });
    await run.asleep(2);
    expect(ttls).to.deep.equal([48 * HOUR_MS]);
    expect(run.sleeps[1]?.ms).to.equal(12 * HOUR_MS);
    await run.stop();
  });

  it('gives back what it holds, once', async () => {
    const run = keeperOver([granted], [kept]);
    await run.asleep(1);
    await run.stop();
    await run.keeper.release(new AbortController().signal);
    await run.keeper.release(new AbortController().signal);
    expect(run.held.filter((line) => line.startsWith('released'))).to.deep.equal(['released 10.244.7.0-24']);
  });
});
