import { expect } from 'chai';
import * as fc from 'fast-check';
import {
  formatSubnet,
  type PerFamily,
  parseSubnet,
  type Subnet,
  subnetsOverlap,
} from '../../store/address.ts';
import { NoFreeSubnetError } from '../../store/errors.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { fitsNetwork, SubnetPool } from '../../store/subnet-choice.ts';

const network = (fields: object) =>
  parseNetworkConfig(JSON.stringify({ Backend: { Type: 'vxlan' }, ...fields }));
const small = network({ Network: '10.0.0.0/24', SubnetLen: 28 });
const dual = network({
  Network: '10.0.0.0/16',
  EnableIPv6: true,
  IPv6Network: 'fc00::/16',
  IPv6SubnetLen: 64,
});

/** A small fixed sequence of its own for every seed. */
function seeded(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return (state >>> 0) / 2 ** 32;
  };
}

describe('store/subnet-choice', () => {
  it('hands out every subnet exactly once, then says that there is none', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const random = seeded(seed);
        const pool = new SubnetPool(small);
        const chosen = new Set<string>();
        for (let i = 0; i < 15; i++) {
          const subnets = pool.choose(random);
          expect(fitsNetwork(small, subnets)).to.equal(true);
          expect(pool.isFree(subnets)).to.equal(true);
          pool.take(subnets);
          expect(pool.isFree(subnets)).to.equal(false);
          chosen.add(formatSubnet(subnets.ipv4 as Subnet));
        }
        expect(chosen.size).to.equal(15);
        expect(chosen.has('10.0.0.0/28')).to.equal(false);
        expect(() => pool.choose(random)).to.throw(
          NoFreeSubnetError,
          /^all 15 subnets from 10\.0\.0\.16\/28 to 10/,
        );
      }),
      { numRuns: 30 },
    );
  });

  it('never chooses what overlaps a lease of whatever length, and fails only when nothing is left', () => {
    const taken = fc.array(
      fc.tuple(fc.integer({ min: 0, max: 511 }), fc.integer({ min: 23, max: 32 })).map(
        ([host, length]): PerFamily<Subnet> => ({
          ipv4: parseSubnet(
            `10.0.${(host >> 8) & (length < 24 ? 0xfe : 0xff)}.${length < 25 ? 0 : host & 0xff & (0xff << (32 - length))}/${length}`,
          ),
        }),
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(taken, fc.integer(), (leases, seed) => {
        const all = Array.from({ length: 15 }, (_, i) => parseSubnet(`10.0.0.${16 * (i + 1)}/28`));
        const free = all.filter((one) => !leases.some(({ ipv4 }) => ipv4 && subnetsOverlap(one, ipv4)));
        const pool = new SubnetPool(small, leases);
        if (free.length === 0) {
          expect(() => pool.choose(seeded(seed))).to.throw(NoFreeSubnetError);
        } else {
          expect(free.map(formatSubnet)).to.include(formatSubnet(pool.choose(seeded(seed)).ipv4 as Subnet));
        }
      }),
      { numRuns: 300 },
    );
  });

  it('spreads its choices evenly, by chance and when nearly full', () => {
    for (const takenCount of [0, 11]) {
      const taken = Array.from({ length: takenCount }, (_, i) => ({
        ipv4: parseSubnet(`10.0.0.${16 * (i + 1)}/28`),
      }));
      const pool = new SubnetPool(small, taken);
      const counts = new Map<string, number>();
      const random = seeded(4711);
      for (let i = 0; i < 3000; i++) {
        const name = formatSubnet(pool.choose(random).ipv4 as Subnet);
        counts.set(name, (counts.get(name) ?? 0) + 1);
      }
      const even = 3000 / (15 - takenCount);
      expect(counts.size).to.equal(15 - takenCount);
      for (const count of counts.values()) expect(count).to.be.within(even * 0.6, even * 1.4);
    }
  });

  it('chooses one a family, from 2^48 IPv6 subnets as easily', () => {
    const pool = new SubnetPool(dual, [{ ipv6: parseSubnet('fc00::/17') }]);
    const random = seeded(7);
    for (let i = 0; i < 100; i++) {
      const subnets = pool.choose(random);
      expect(Object.keys(subnets)).to.deep.equal(['ipv4', 'ipv6']);
      expect(fitsNetwork(dual, subnets)).to.equal(true);
      expect(subnetsOverlap(subnets.ipv6 as Subnet, parseSubnet('fc00:8000::/17'))).to.equal(true);
    }
    const full = new SubnetPool(dual, [{ ipv6: parseSubnet('fc00::/16') }]);
    expect(() => full.choose(random)).to.throw(NoFreeSubnetError);
    const last = new SubnetPool(dual, [
      { ipv6: parseSubnet('fc00::/17') },
      { ipv6: parseSubnet('fc00:8000::/18') },
      { ipv6: parseSubnet('fc00:c000::/18') },
    ]);
    expect(() => last.choose(random)).to.throw(
      NoFreeSubnetError,
      /^all 281474976710655 subnets from fc00:0:0:1::\/64/,
    );
  });

  it('knows which subnets fit a configuration', () => {
    const ipv4 = parseSubnet('10.0.0.16/28');
    expect(fitsNetwork(small, { ipv4 })).to.equal(true);
    expect(fitsNetwork(small, { ipv4: parseSubnet('10.0.0.0/28') })).to.equal(false);
    expect(fitsNetwork(small, { ipv4: parseSubnet('10.0.0.32/27') })).to.equal(false);
    expect(fitsNetwork(small, { ipv4: parseSubnet('10.0.1.0/28') })).to.equal(false);
    expect(fitsNetwork(small, { ipv4, ipv6: parseSubnet('fc00:0:0:1::/64') })).to.equal(false);
    expect(fitsNetwork(dual, { ipv4: parseSubnet('10.0.1.0/24') })).to.equal(false);
  });
});
