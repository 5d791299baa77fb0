/** The choice of the underlay interface and of the address that peers are told. */
import { expect } from 'chai';
import {
  chooseUnderlay,
  NoUnderlayError,
  type UnderlayAddress,
  type UnderlayFacts,
  type UnderlayWishes,
} from '../../../overlay/desired/underlay.ts';
import { type Address, familyOf, type PerFamily, parseAddress, parseSubnet } from '../../../store/address.ts';

const link = (index: number, name: string) => ({ index, name, mtuBytes: 1500, up: true });

const address = (linkIndex: number, text: string, more: Partial<UnderlayAddress> = {}): UnderlayAddress => {
  const parsed = parseAddress(text);
  return {
    linkIndex,
    address: parsed,
    family: familyOf(parsed),
    prefixLength: 24,
    scope: 0,
    tentative: false,
    ...more,
  };
};

const facts: UnderlayFacts = {
  links: [link(2, 'eth0'), link(3, 'eth1'), link(4, 'docker0')],
  addresses: [
    address(2, '192.0.2.10'),
    address(2, '192.0.2.11'),
    address(3, '169.254.7.7'),
    address(3, '198.51.100.10'),
    address(3, 'fe80::1', { scope: 253 }),
    address(3, '2001:db8::10'),
    address(4, '10.244.9.1'),
  ],
  defaultRoutes: [{ family: 'ipv4', linkIndex: 2 }],
  routes: [],
};

const wishes: UnderlayWishes = { names: [], patterns: [], publicAddress: {} };
const overlayNetworks = [parseSubnet('10.244.0.0/16')];

const choose = (asked: Partial<UnderlayWishes>, known: Partial<UnderlayFacts> = {}) =>
  chooseUnderlay({ ...wishes, ...asked }, { ...facts, ...known }, ['ipv4'], overlayNetworks);

describe('chooseUnderlay', () => {
  it("takes the default route's interface and its first address, and says why", () => {
    const { link: chosen, publicAddress, localAddress, why } = choose({});
    expect(chosen.name).to.equal('eth0');
    expect([publicAddress.ipv4, localAddress.ipv4]).to.deep.equal(['192.0.2.10', '192.0.2.10']);
    expect(why).to.match(/default route/);
  });

  it('takes the first named interface that exists, or the one that has the named address', () => {
    expect(choose({ names: ['bond0', 'eth1'] }).link.name).to.equal('eth1');
    const byAddress = choose({ names: ['192.0.2.11'] });
    expect([byAddress.link.name, byAddress.publicAddress.ipv4]).to.deep.equal(['eth0', '192.0.2.11']);
  });

  it('takes an interface by a pattern of its name, then of its address', () => {
    expect(choose({ patterns: [/^eth1$/] }).link.name).to.equal('eth1');
    expect(choose({ patterns: [/^198\.51\./] }).publicAddress.ipv4).to.equal('198.51.100.10');
  });

  it('takes the interface that leads to an address, with the source that the kernel would use', () => {
    const reaching = { linkIndex: 2, source: parseAddress('192.0.2.11') };
    const chosen = choose({ canReach: parseAddress('203.0.113.1') }, { reaching });
    expect([chosen.link.name, chosen.localAddress.ipv4]).to.deep.equal(['eth0', '192.0.2.11']);
  });

  it('tells peers the public address it was given, and sends from one it has', () => {
    const behindNat = choose({ publicAddress: { ipv4: parseAddress('203.0.113.9') } });
    expect([behindNat.publicAddress.ipv4, behindNat.localAddress.ipv4]).to.deep.equal([
      '203.0.113.9',
      '192.0.2.10',
    ]);
    const own = choose({ publicAddress: { ipv4: parseAddress('198.51.100.10') } });
    expect([own.link.name, own.localAddress.ipv4]).to.deep.equal(['eth1', '198.51.100.10']);
  });

  it('keeps the address in use while the interface has it, wherever the kernel lists another', () => {
    const [old, young] = ['2001:db8::10', '2001:db8::77'].map(parseAddress);
    const both = { ...facts, addresses: [address(3, '2001:db8::77'), address(3, '2001:db8::10')] };
    const chosen = (asked: Partial<UnderlayWishes>, kept: PerFamily<Address>, known: UnderlayFacts = both) =>
      chooseUnderlay({ ...wishes, names: ['eth1'], ...asked }, known, ['ipv6'], [], kept).localAddress.ipv6;
    expect(chosen({}, {})).to.equal(young);
    expect(chosen({}, { ipv6: old })).to.equal(old);
    // Gone, or another one is asked for by name.
    expect(chosen({}, { ipv6: old }, { ...facts, addresses: [address(3, '2001:db8::77')] })).to.equal(young);
    expect(chosen({ names: ['2001:db8::77'] }, { ipv6: old })).to.equal(young);
    expect(chosen({ publicAddress: { ipv6: young } }, { ipv6: old })).to.equal(young);
    // What peers were told behind a NAT is no address of the interface.
    expect(chosen({}, { ipv6: parseAddress('2001:db8:1::1') })).to.equal(young);
  });

  it('passes over temporary and deprecated addresses while there is another', () => {
    const passing = address(3, '2001:db8::77', { transient: true });
    const chosen = (addresses: UnderlayAddress[], kept: PerFamily<Address> = {}) =>
      chooseUnderlay({ ...wishes, names: ['eth1'] }, { ...facts, addresses }, ['ipv6'], [], kept)
        .localAddress;
    expect(chosen([passing, address(3, '2001:db8::10')])).to.deep.equal({ ipv6: '2001:db8::10' });
    expect(chosen([passing, address(3, '2001:db8::10')], { ipv6: passing.address })).to.deep.equal({
      ipv6: '2001:db8::10',
    });
    expect(chosen([passing])).to.deep.equal({ ipv6: '2001:db8::77' });
  });

  it('passes over link-local, tentative and overlay addresses', () => {
    expect(choose({ names: ['eth1'] }).publicAddress.ipv4).to.equal('198.51.100.10');
    expect(() => choose({ names: ['docker0'] })).to.throw(
      NoUnderlayError,
      /docker0 .* no global ipv4 address/,
    );
    const tentative = [address(2, '192.0.2.10', { tentative: true })];
    expect(() => choose({}, { addresses: tentative })).to.throw(NoUnderlayError);
  });

  it('names what it looked for and what there is', () => {
    expect(() => choose({ names: ['bond0'] })).to.throw(
      NoUnderlayError,
      /bond0; there are eth0, eth1, docker0/,
    );
    expect(() => choose({}, { defaultRoutes: [] })).to.throw(NoUnderlayError, /--iface/);
    expect(() => choose({ canReach: parseAddress('203.0.113.1') })).to.throw(
      NoUnderlayError,
      /no route leads to/,
    );
  });
});
