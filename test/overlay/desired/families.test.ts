/** IPv6 and dual stack in the pure half: one code path, so IPv6 does what IPv4 does, translated. */
import { expect } from 'chai';
import fc from 'fast-check';
import { type OverlayIdentity, wantOverlay } from '../../../overlay/desired/overlay.ts';
import { type EntryObserver, type PeerContext, PeerTable } from '../../../overlay/desired/peer-table.ts';
import type { Underlay } from '../../../overlay/desired/underlay.ts';
import { type Family, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import type { Lease } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const OWN_MAC = parseMac('02:00:00:00:00:01');
const ignore: EntryObserver = { neighbour() {}, fdb() {}, gateway() {}, route() {}, remote() {} };

/** An IPv4 address in IPv6: its 32 bits after 16 of our own, so what overlaps in one overlaps in the other. */
function address(family: Family, text: string): string {
  if (family === 'ipv4') return text;
  const [a = 0, b = 0, c = 0, d = 0] = text.split('.').map(Number);
  return parseAddress(`fc00:${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}::`);
}

function subnet(family: Family, text: string): string {
  const [base = '', length] = text.split('/');
  return `${address(family, base)}/${Number(length) + (family === 'ipv4' ? 0 : 16)}`;
}

interface Sketch {
  readonly subnet: string;
  readonly address: string;
  readonly mac: string;
}

function lease(family: Family, sketch: Sketch): Lease {
  const cut = parseSubnet(subnet(family, sketch.subnet));
  return {
    key: sketch.subnet,
    subnets: { [family]: cut },
    attributes: {
      publicAddress: { [family]: parseAddress(address(family, sketch.address)) },
      backend: 'vxlan',
      vtep: { [family]: { vni: 1, mac: parseMac(sketch.mac) } },
    },
  };
}

const context = (family: Family): PeerContext => ({
  network: parseNetworkConfig(
    family === 'ipv4'
      ? '{"Network":"10.244.0.0/16"}'
      : `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"${subnet('ipv6', '10.244.0.0/16')}","IPv6SubnetLen":40}`,
  ),
  families: [family],
  ownKey: '10.244.1.0/24',
  ownSubnets: { [family]: parseSubnet(subnet(family, '10.244.1.0/24')) },
  ownPublicAddress: { [family]: parseAddress(address(family, '192.0.2.1')) },
  ownMac: { [family]: OWN_MAC },
});

/** Everything that a table says, in the words of IPv4. */
function said(table: PeerTable, family: Family) {
  const { neighbours, fdb, routes, remotes } = table.wanted(family);
  const sorted = (texts: Iterable<string>) => [...texts].toSorted();
  return {
    peers: sorted(table.peers.keys()),
    skipped: sorted(table.skipped.keys()),
    neighbours: sorted(Array.from(neighbours, ([gateway, mac]) => `${gateway} ${mac}`)),
    fdb: sorted(Array.from(fdb, ([mac, remote]) => `${mac} ${remote}`)),
    routes: sorted(Array.from(routes, ([text, path]) => `${text} ${path.gateway}`)),
    remotes: sorted(Array.from(remotes, ([remote, paths]) => `${remote} ${paths}`)),
  };
}

describe('families', () => {
  it('an IPv6 cluster’s peers are those of the same IPv4 cluster, after any changes', () => {
    const subnets = ['10.244.5.0/24', '10.244.6.0/24', '10.244.6.0/25', '10.244.4.0/22', '10.9.0.0/24'];
    const sketches = fc.record({
      subnet: fc.constantFrom(...subnets),
      address: fc.constantFrom('192.0.2.8', '192.0.2.9', '192.0.2.1', '10.244.7.7'),
      mac: fc.constantFrom('02:00:00:00:00:08', '02:00:00:00:00:09', '01:00:5e:00:00:01', OWN_MAC),
    });
    const steps = fc.array(fc.tuple(fc.constantFrom('put', 'delete'), sketches), { maxLength: 20 });
    fc.assert(
      fc.property(steps, (changes) => {
        const tables = { ipv4: new PeerTable(ignore), ipv6: new PeerTable(ignore) };
        for (const family of ['ipv4', 'ipv6'] as const) {
          tables[family].judgeAll(context(family), []);
          for (const [step, sketch] of changes) {
            if (step === 'put') tables[family].put(lease(family, sketch));
            else tables[family].delete(sketch.subnet);
          }
        }
        const translated = JSON.stringify(said(tables.ipv4, 'ipv4')).replace(
          /(\d+\.\d+\.\d+\.\d+)(\/\d+)?(?=[" ])/g,
          (text, base: string, length?: string) =>
            length === undefined ? address('ipv6', base) : subnet('ipv6', text),
        );
        const keys = ({ peers, skipped }: ReturnType<typeof said>) => [peers, skipped];
        expect(keys(said(tables.ipv6, 'ipv6'))).to.deep.equal(keys(said(tables.ipv4, 'ipv4')));
        const sets = (table: ReturnType<typeof said>) =>
          [table.neighbours, table.fdb, table.routes, table.remotes].map((texts) => new Set(texts));
        expect(sets(said(tables.ipv6, 'ipv6'))).to.deep.equal(sets(JSON.parse(translated)));
      }),
      { numRuns: 200 },
    );
  });

  const network = parseNetworkConfig(
    '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:244::/48","Backend":{"Type":"vxlan"}}',
  );
  const local = { ipv4: parseAddress('192.0.2.1'), ipv6: parseAddress('2001:db8::1') };
  const own: Lease = {
    key: '10.244.5.0-24&fc00:244:0:5::-64',
    subnets: { ipv4: parseSubnet('10.244.5.0/24'), ipv6: parseSubnet('fc00:244:0:5::/64') },
    attributes: {
      publicAddress: local,
      backend: 'vxlan',
      vtep: { ipv4: { vni: 1, mac: OWN_MAC }, ipv6: { vni: 1, mac: parseMac('02:00:00:00:00:02') } },
    },
  };
  const identity: OverlayIdentity = {
    deviceName: (family, vni) => `${{ ipv4: 'vtep', ipv6: 'vtep6' }[family]}.${vni}`,
    bridgeName: 'vtep0',
    bridgeMac: parseMac('02:00:00:00:00:03'),
  };
  const wanted = (localAddress: Underlay['localAddress']) =>
    wantOverlay(
      network,
      own,
      {
        link: { index: 2, name: 'eth0', mtuBytes: 1500, up: true },
        localAddress,
        publicAddress: localAddress,
        why: 'is the only one',
      },
      identity,
    );

  it('dual stack: a device a family, one MTU, which is what the larger encapsulation leaves', () => {
    const { vxlan, bridge, families } = wanted(local);
    expect(families).to.deep.equal(['ipv4', 'ipv6']);
    expect([vxlan.ipv4?.name, vxlan.ipv6?.name]).to.deep.equal(['vtep.1', 'vtep6.1']);
    expect([vxlan.ipv4?.local, vxlan.ipv6?.local]).to.deep.equal([local.ipv4, local.ipv6]);
    expect([vxlan.ipv4?.mtuBytes, vxlan.ipv6?.mtuBytes, bridge.mtuBytes]).to.deep.equal([1430, 1430, 1430]);
    const gateways = bridge.addresses.map((each) => `${each.address}/${each.prefixLength}`);
    expect(gateways).to.deep.equal(['10.244.5.1/24', 'fc00:244:0:5::1/64']);
  });

  for (const [family, mtuBytes] of [
    ['ipv4', 1450],
    ['ipv6', 1430],
  ] as const) {
    it(`an underlay with ${family} alone: that family alone, and its MTU`, () => {
      const { vxlan, bridge, families } = wanted({ [family]: local[family] });
      expect(families).to.deep.equal([family]);
      expect(Object.keys(vxlan)).to.deep.equal([family]);
      expect([vxlan[family]?.mtuBytes, bridge.mtuBytes]).to.deep.equal([mtuBytes, mtuBytes]);
      const [gateway] = bridge.addresses;
      expect(bridge.addresses).to.have.length(1);
      expect(gateway?.address).to.equal({ ipv4: '10.244.5.1', ipv6: 'fc00:244:0:5::1' }[family]);
    });
  }
});
