/** The underlay in use: which of an interface's addresses is stayed with, and when not. */
import { expect } from 'chai';
import type { UnderlayFacts, UnderlayWishes } from '../../overlay/desired/underlay.ts';
import { silentLog } from '../../overlay/ops/log.ts';
import { UnderlayWatch } from '../../overlay/underlay-watch.ts';
import { type Address, parseAddress, parseSubnet } from '../../store/address.ts';

const NO_WISHES: UnderlayWishes = { names: [], patterns: [], publicAddress: {} };

/** eth0 with these addresses, the first one primary. */
const facts = (...addresses: readonly string[]): UnderlayFacts => ({
  links: [{ index: 2, name: 'eth0', mtuBytes: 1500, up: true }],
  addresses: addresses.map((text) => ({
    linkIndex: 2,
    address: parseAddress(text),
    family: 'ipv4',
    prefixLength: 24,
    scope: 0,
    tentative: false,
  })),
  defaultRoutes: [{ family: 'ipv4', linkIndex: 2 }],
  routes: [],
});

function watchOf(read: () => UnderlayFacts, told?: string): UnderlayWatch {
  const remembered = told === undefined ? {} : { ipv4: parseAddress(told) };
  const watch = new UnderlayWatch({
    wishes: NO_WISHES,
    read,
    log: silentLog,
    remembered: () => remembered,
    onChange: () => {},
  });
  watch.setNeeds({ families: ['ipv4'], overlayNetworks: [parseSubnet('10.244.0.0/16')], reach: false });
  return watch;
}

const publicOf = (watch: UnderlayWatch): Address | undefined => watch.underlay?.publicAddress.ipv4;

describe('UnderlayWatch', () => {
  it('stays with an address that peers know while the interface has it', () => {
    let now = facts('192.0.2.12');
    const watch = watchOf(() => now);
    now = facts('192.0.2.1', '192.0.2.12');
    watch.look();
    expect(publicOf(watch)).to.equal('192.0.2.12');
    now = facts('192.0.2.1');
    watch.look();
    expect(publicOf(watch)).to.equal('192.0.2.1');
    expect(publicOf(watchOf(() => facts('192.0.2.1', '192.0.2.12'), '192.0.2.12'))).to.equal('192.0.2.12');
  });

  it('goes back to the usual one when a wish for another is taken back, and not before', () => {
    const watch = watchOf(() => facts('192.0.2.12', '192.0.2.99'));
    const wish = { ...NO_WISHES, publicAddress: { ipv4: parseAddress('192.0.2.99') } };
    watch.setWishes(wish);
    expect(publicOf(watch)).to.equal('192.0.2.99');
    watch.setWishes({ ...wish });
    expect(publicOf(watch)).to.equal('192.0.2.99');
    watch.setWishes(NO_WISHES);
    expect(publicOf(watch)).to.equal('192.0.2.12');
    watch.setWishes({ ...NO_WISHES, names: ['192.0.2.99'] });
    expect(publicOf(watch)).to.equal('192.0.2.99');
    watch.setWishes(NO_WISHES);
    expect(publicOf(watch)).to.equal('192.0.2.12');
  });
});
