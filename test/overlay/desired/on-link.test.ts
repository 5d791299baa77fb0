/** What is on the link: by example, against a slow oracle, and against the kernel's own answer. */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { isOnLink, linkReach, type NearRoute } from '../../../overlay/desired/on-link.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { listOthersRoutes } from '../../../overlay/kernel/route.ts';
import {
  type Address,
  addressFromValue,
  addressValue,
  parseAddress,
  parseSubnet,
  subnetContains,
  subnetOf,
} from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';

const UNDERLAY = 2;

const route = (destination: string, more: Partial<NearRoute> = {}): NearRoute => ({
  destination: parseSubnet(destination),
  linkIndex: UNDERLAY,
  connected: true,
  metric: undefined,
  ...more,
});
const viaRouter = { connected: false };

const onLink = (address: string, ...routes: readonly NearRoute[]): boolean =>
  isOnLink(parseAddress(address), linkReach(routes, UNDERLAY));

describe('linkReach', () => {
  it('holds the prefixes that are connected to the link, and nothing behind a gateway or on another', () => {
    const routes = [
      route('192.0.2.0/24'),
      route('198.51.100.0/24', viaRouter),
      route('203.0.113.0/24', { linkIndex: 3 }),
    ];
    expect(onLink('192.0.2.9', ...routes)).to.equal(true);
    expect(onLink('198.51.100.9', ...routes)).to.equal(false);
    expect(onLink('203.0.113.9', ...routes)).to.equal(false);
    expect(onLink('192.0.3.9', ...routes)).to.equal(false);
  });

  it('the longer prefix decides, whichever it is', () => {
    const routes = [route('10.0.0.0/8', viaRouter), route('10.1.0.0/16'), route('10.1.2.0/24', viaRouter)];
    expect(onLink('10.1.3.3', ...routes)).to.equal(true);
    expect(onLink('10.1.2.3', ...routes)).to.equal(false);
    expect(onLink('10.2.2.3', ...routes)).to.equal(false);
  });

  it('of two routes to one prefix, the one of the smaller metric counts', () => {
    const [wire, radio] = [
      route('192.0.2.0/24', { metric: 100 }),
      route('192.0.2.0/24', { linkIndex: 3, metric: 50 }),
    ];
    expect(onLink('192.0.2.9', wire, radio)).to.equal(false);
    expect(onLink('192.0.2.9', radio, { ...wire, metric: undefined })).to.equal(true);
  });

  it('a default route without a gateway puts nobody on the link, nor does a link-local prefix', () => {
    expect(onLink('192.0.2.9', route('0.0.0.0/0'))).to.equal(false);
    expect(linkReach([route('fe80::/64'), route('ff00::/8')], UNDERLAY)).to.deep.equal({
      onLink: [],
      elsewhere: [],
    });
  });

  it('is the same for the same routes in any order', () => {
    const routes = [route('192.0.2.0/24'), route('192.0.2.128/25', viaRouter), route('198.51.100.0/24')];
    expect(linkReach(routes.toReversed(), UNDERLAY)).to.deep.equal(linkReach(routes, UNDERLAY));
  });

  const small = fc.nat({ max: 63 });
  const routes = fc.uniqueArray(
    fc.record({
      destination: fc
        .tuple(small, fc.integer({ min: 26, max: 32 }))
        .map(([last, length]) => subnetOf(parseAddress(`192.0.2.${last}`), length)),
      linkIndex: fc.constantFrom(UNDERLAY, 3),
      connected: fc.boolean(),
      metric: fc.constant(undefined),
    }),
    { selector: ({ destination }) => `${destination.address}/${destination.prefixLength}`, maxLength: 12 },
  );

  it('says what a look at every route says', () => {
    fc.assert(
      fc.property(routes, small, (table, last) => {
        const address = parseAddress(`192.0.2.${last}`);
        const [first] = table
          .filter(({ destination }) => subnetContains(destination, address))
          .toSorted((a, b) => b.destination.prefixLength - a.destination.prefixLength);
        const expected = first?.connected === true && first.linkIndex === UNDERLAY;
        expect(isOnLink(address, linkReach(table, UNDERLAY))).to.equal(expected);
      }),
      { numRuns: 500 },
    );
  });
});

describe('linkReach of a real node', () => {
  const namespace = `vtonl${randomBytes(3).toString('hex')}`;
  const ip = (...args: string[]): string =>
    execFileSync('ip', ['-n', namespace, ...args], { encoding: 'utf8' });

  before(function () {
    need(this, 'root', 'ip');
    execFileSync('ip', ['netns', 'add', namespace]);
    for (const [name, ...addresses] of [
      ['under', '192.0.2.1/24', '192.0.2.77/24', '2001:db8::1/64'],
      ['other', '203.0.113.1/24', '2001:db8:1::1/64'],
    ] as const) {
      ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-far`);
      for (const end of [name, `${name}-far`]) ip('link', 'set', end, 'up');
      for (const address of addresses) {
        ip('addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
      }
    }
    ip('route', 'add', '192.0.2.128/26', 'via', '192.0.2.2');
    ip('route', 'add', '192.0.2.64/30', 'dev', 'other');
    ip('route', 'add', 'blackhole', '192.0.2.4/30');
    ip('route', 'add', '198.51.100.0/25', 'dev', 'under');
    ip('route', 'add', '192.0.2.192/28', 'nexthop', 'via', '192.0.2.2', 'nexthop', 'via', '192.0.2.3');
    ip('route', 'add', '192.0.2.208/28', 'via', 'inet6', '2001:db8::2', 'dev', 'under');
    ip('route', 'add', '2001:db8::8000/113', 'via', '2001:db8::2');
    ip('route', 'add', 'default', 'via', '192.0.2.2');
  });
  after(() => execFileSync('ip', ['netns', 'del', namespace]));

  it('says of every address what the kernel says', () => {
    using netlink = inNamespace(`/run/netns/${namespace}`, () => NetlinkSocket.open());
    const index = Number(ip('-o', 'link', 'show', 'under').split(':')[0]);
    for (const [family, first, step] of [
      ['ipv4', '192.0.2.0', 1n],
      ['ipv4', '198.51.100.0', 17n],
      ['ipv4', '203.0.113.0', 37n],
      ['ipv6', '2001:db8::', 0x101n],
    ] as const) {
      const reach = linkReach(listOthersRoutes(netlink, family), index);
      const addresses = Array.from({ length: 256 }, (_, i) =>
        addressFromValue(family, addressValue(parseAddress(first)) + BigInt(i) * step),
      );
      const input = addresses.map((address) => `route get ${address}\n`).join('');
      // Of some there is no route: the others are asked all the same.
      const { stdout } = spawnSync('ip', ['-n', namespace, '-force', '-o', '-batch', '-'], {
        input,
        encoding: 'utf8',
      });
      const direct = new Set<Address>();
      for (const line of stdout.split('\n')) {
        const found = /^(\S+) (?:from :: )?dev under .*src/.exec(line);
        if (found?.[1] !== undefined) direct.add(found[1] as Address);
      }
      expect(addresses.filter((address) => isOnLink(address, reach))).to.deep.equal(
        addresses.filter((address) => direct.has(address)),
      );
    }
  });
});
