/** The underlay in use: which of an interface's addresses is stayed with, and when not. */
import { expect } from 'chai';
import type { UnderlayFacts, UnderlayWishes } from '../../overlay/desired/underlay.ts';
import { until } from '../../overlay/lab/wait.ts';
import { silentLog } from '../../overlay/ops/log.ts';
import { UnderlayWatch } from '../../overlay/underlay-watch.ts';
import { type Address, familyOf, parseAddress, parseSubnet } from '../../store/address.ts';

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

/** eth0 as above, with both families. */
const dualFacts = (...addresses: readonly string[]): UnderlayFacts => ({
  ...facts(),
  addresses: addresses.flatMap((text) =>
    facts(text).addresses.map((each) => ({ ...each, family: familyOf(each.address) })),
  ),
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

  it('waits for a family that the interface has lost; not for long, and not when another interface has come', async () => {
    let now = dualFacts('192.0.2.12', '2001:db8::c');
    const changes: string[] = [];
    const watch = new UnderlayWatch({
      wishes: { ...NO_WISHES, patterns: [/^eth/] },
      read: () => now,
      log: silentLog,
      remembered: () => ({}),
      onChange: ({ link, localAddress, publicAddress }) => {
        expect(publicAddress).to.deep.equal(localAddress);
        changes.push([link.name, ...Object.values(localAddress)].join(' '));
      },
      patienceMs: 50,
    });
    try {
      watch.setNeeds({ families: ['ipv4', 'ipv6'], overlayNetworks: [], reach: false });
      expect(changes.splice(0)).to.deep.equal(['eth0 192.0.2.12 2001:db8::c']);
      // Down and up: it is there again in time, as it was.
      for (const lost of ['192.0.2.12', '2001:db8::c']) {
        now = dualFacts(lost);
        watch.look();
        now = dualFacts('192.0.2.12', '2001:db8::c');
        watch.look();
      }
      expect(changes).to.deep.equal([]);
      // It does not come, and then it does.
      now = dualFacts('192.0.2.12');
      watch.look();
      expect(changes).to.deep.equal([]);
      await until(() => changes.length > 0, { what: 'the family to be given up', deadlineMs: 10_000 });
      now = dualFacts('192.0.2.12', '2001:db8::c');
      watch.look();
      expect(changes.splice(0)).to.deep.equal(['eth0 192.0.2.12', 'eth0 192.0.2.12 2001:db8::c']);
      const other = dualFacts('192.0.2.12');
      now = { ...other, links: other.links.map((link) => ({ ...link, name: 'eth1' })) };
      watch.look();
      expect(changes).to.deep.equal(['eth1 192.0.2.12']);
    } finally {
      watch.close();
    }
  });
});
