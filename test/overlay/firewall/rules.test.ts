/** The rules as text: what no name may do to them, and which tables the facts lead to. */
import { expect } from 'chai';
import fc from 'fast-check';
import { ENCAPSULATED_MARK, firewallElements, firewallTables } from '../../../overlay/desired/firewall.ts';
import { InterfaceNameError } from '../../../overlay/desired/firewall-table.ts';
import { tableText } from '../../../overlay/kernel/firewall-text.ts';
import { parseAddress, parseSubnet } from '../../../store/address.ts';
import { FACTS, PODS } from './rig.ts';

describe('firewall: rules', () => {
  it('refuse a name that would not stay within its quotes, or would stand for others', () => {
    for (const bridge of ['a"b', 'vtp*', 'a\\b', 'a b', 'a\nb', '', 'a/b', 'sixteen-letters-']) {
      expect(() => firewallTables({ ...FACTS, bridge }), JSON.stringify(bridge)).to.throw(InterfaceNameError);
    }
  });

  it('hold any other name in quotes', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 20 }), (bridge) => {
        let tables: ReturnType<typeof firewallTables>;
        try {
          tables = firewallTables({ ...FACTS, bridge });
        } catch (error) {
          expect(error).to.be.instanceOf(InterfaceNameError);
          return;
        }
        const plain = firewallTables({ ...FACTS, bridge: 'PLAIN' }).map((table) => tableText(table));
        expect(tables.map((table) => tableText(table))).to.deep.equal(
          plain.map((text) => text.replaceAll('"PLAIN"', () => `"${bridge}"`)),
        );
      }),
    );
  });

  it('are there for what is switched on, and no more', () => {
    const kinds = (facts: object) => firewallTables({ ...FACTS, ...facts }).map(({ family }) => family);
    expect(kinds({})).to.deep.equal(['inet', 'bridge']);
    expect(kinds({ podFilter: false })).to.deep.equal(['inet']);
    expect(kinds({ peerFilter: false, masquerade: false })).to.deep.equal(['bridge']);
    expect(kinds({ peerFilter: false, masquerade: false, podFilter: false })).to.deep.equal([]);
  });

  it('translate nothing between the network and those that the cluster had before', () => {
    const formerNetworks = { ipv4: [parseSubnet('10.96.0.0/16')] };
    const text = (facts: object) => firewallTables({ ...FACTS, ...facts }).map((table) => tableText(table));
    const [before = '', after = ''] = [text({})[0], text({ formerNetworks })[0]];
    for (const [from, to] of [
      ['10.244.0.0/16', '10.96.0.0/16'],
      ['10.96.0.0/16', '10.244.0.0/16'],
      ['10.96.0.0/16', '10.96.0.0/16'],
    ]) {
      const rule = `ip saddr ${from} ip daddr ${to} return`;
      expect(after).to.contain(rule);
      expect(before).not.to.contain(rule);
      // Before the rule that would.
      expect(after.indexOf(rule)).to.be.lessThan(after.indexOf(`ip saddr ${from} masquerade`));
    }
    expect(after).to.contain('ip daddr 10.96.0.0/16 return');
  });

  it('ask for the bit of the mark that they are told', () => {
    const text = (markBit: number) => firewallTables({ ...FACTS, markBit }).map((table) => tableText(table));
    expect(text(0x80000000).join('')).to.include('0x80000000').and.include('0x7fffffff');
    expect(text(ENCAPSULATED_MARK).join('')).to.include('0x1000').and.include('0xffffefff');
  });

  it('drop what comes over the link with an own pod’s address, and translate what leaves for a direct route', () => {
    const direct = {
      device: 'eth0',
      ownSubnets: [parseSubnet('10.244.1.0/24'), parseSubnet('fc00:0:0:1::/64')],
    };
    const [table] = firewallTables({ ...FACTS, direct });
    const rules = table?.chains.flatMap((chain) => chain.rules) ?? [];
    expect(rules).to.include.members([
      'iifname "eth0" ip saddr 10.244.1.0/24 counter name plain_forged drop',
      'iifname "eth0" ip6 saddr fc00:0:0:1::/64 counter name plain_forged drop',
    ]);
    expect(rules.filter((rule) => rule.includes('oifname "eth0" snat'))).to.have.length(2);
    expect(table?.counters).to.include('plain_forged').and.include('vxlan_stranger');
  });

  it('guard no VXLAN port where there is no device', () => {
    const [table] = firewallTables({ ...FACTS, devices: {}, direct: { device: 'eth0', ownSubnets: [] } });
    expect(table?.chains.map(({ name }) => name)).to.deep.equal(['source_nat']);
    expect([table?.sets, table?.counters]).to.deep.equal([[], []]);
  });

  it('get elements by family, and an IPv6 pod its link-local address', () => {
    const [podA] = PODS;
    const peers = [parseAddress('192.0.2.1'), parseAddress('2001:db8::1'), parseAddress('192.0.2.1')];
    const elements = firewallElements(peers, podA === undefined ? [] : [podA]);
    expect([...elements.peers4]).to.deep.equal(['192.0.2.1']);
    expect([...elements.peers6]).to.deep.equal(['2001:db8::1']);
    expect([...elements.pods4]).to.deep.equal(['vtpA . 02:00:00:00:0a:0a . 10.244.1.2']);
    expect([...elements.pods6]).to.deep.equal([
      'vtpA . 02:00:00:00:0a:0a . fc00:0:0:1::2',
      'vtpA . 02:00:00:00:0a:0a . fe80::ff:fe00:a0a',
    ]);
    expect(elements.targets6).to.deep.equal(elements.pods6);
  });
});
