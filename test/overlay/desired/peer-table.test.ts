/** Which leases become peers: each reason to skip one, and the table against a slow oracle. */
import { expect } from 'chai';
import fc from 'fast-check';
import { type EntryObserver, type PeerContext, PeerTable } from '../../../overlay/desired/peer-table.ts';
import { formatSubnet, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import type { Lease, NetworkConfig } from '../../../store/lease.ts';

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

/** With DirectRouting, and these prefixes on the link. */
const directContext = (onLink: readonly string[]): PeerContext => ({
  ...context,
  network: { ...network, backend: { ...network.backend, directRouting: true } },
  reach: { ipv4: { onLink: onLink.map(parseSubnet), elsewhere: [] } },
});

const context: PeerContext = {
  network,
  families: ['ipv4'],
  ownKey: '10.244.1.0-24',
  ownSubnets: { ipv4: parseSubnet('10.244.1.0/24') },
  ownPublicAddress: { ipv4: parseAddress('192.0.2.1') },
  ownMac: { ipv4: parseMac('02:00:00:00:00:01') },
};

interface Sketch {
  readonly subnet: string;
  readonly address?: string;
  readonly mac?: string;
  readonly vni?: number;
  readonly backend?: string;
}

function lease({
  subnet,
  address = '192.0.2.9',
  mac = '02:00:00:00:00:09',
  vni = 1,
  backend = 'vxlan',
}: Sketch): Lease {
  return {
    key: subnet.replace('/', '-'),
    subnets: { ipv4: parseSubnet(subnet) },
    attributes: {
      publicAddress: { ipv4: parseAddress(address) },
      backend,
      vtep: { ipv4: { vni, mac: parseMac(mac) } },
    },
  };
}

const ignore: EntryObserver = { neighbour() {}, fdb() {}, gateway() {}, route() {}, remote() {} };

const tableOf = (...leases: readonly Lease[]): PeerTable => tableIn(context, leases);

function tableIn(where: PeerContext, leases: readonly Lease[]): PeerTable {
  const table = new PeerTable(ignore);
  table.judgeAll(where, leases);
  return table;
}

describe('PeerTable', () => {
  it('turns a lease into a neighbour, an FDB entry, a route and an admitted address', () => {
    const { neighbours, fdb, routes, remotes } = tableOf(lease({ subnet: '10.244.5.0/24' })).wanted('ipv4');
    expect([...neighbours]).to.deep.equal([['10.244.5.0', '02:00:00:00:00:09']]);
    expect([...fdb]).to.deep.equal([['02:00:00:00:00:09', '192.0.2.9']]);
    expect([...routes.keys()]).to.deep.equal(['10.244.5.0/24']);
    expect([...remotes.keys()]).to.deep.equal(['192.0.2.9']);
  });

  const refused: readonly (readonly [string, Sketch, RegExp])[] = [
    ['outside the network', { subnet: '10.9.0.0/24' }, /outside the cluster's network/],
    ['overlapping our own', { subnet: '10.244.0.0/20' }, /overlaps this node's/],
    [
      'with a multicast MAC',
      { subnet: '10.244.5.0/24', mac: '01:00:5e:00:00:01' },
      /not one that an interface/,
    ],
    ['with a zero MAC', { subnet: '10.244.5.0/24', mac: '00:00:00:00:00:00' }, /not one that an interface/],
    ['with our own MAC', { subnet: '10.244.5.0/24', mac: '02:00:00:00:00:01' }, /this node's own/],
    ['at a loopback address', { subnet: '10.244.5.0/24', address: '127.0.0.1' }, /not a node's address/],
    ['at a multicast address', { subnet: '10.244.5.0/24', address: '224.0.0.1' }, /not a node's address/],
    ['at our own address', { subnet: '10.244.5.0/24', address: '192.0.2.1' }, /this node's own/],
    [
      'at an address inside the overlay',
      { subnet: '10.244.5.0/24', address: '10.244.7.7' },
      /inside the overlay/,
    ],
    ['of another VNI', { subnet: '10.244.5.0/24', vni: 2 }, /VNI is 2/],
    ['of another backend', { subnet: '10.244.5.0/24', backend: 'host-gw' }, /backend is "host-gw"/],
  ];
  for (const [what, sketch, reason] of refused) {
    it(`skips a lease ${what}, by name, and takes the others`, () => {
      const table = tableOf(
        lease({ subnet: '10.244.77.0/24', address: '192.0.2.77', mac: '02:00:00:00:00:77' }),
        lease(sketch),
      );
      expect(table.skipped.get(lease(sketch).key)?.reason).to.match(reason);
      expect([...table.peers.keys()]).to.deep.equal(['10.244.77.0-24']);
    });
  }

  it('takes its own lease neither for a peer nor for a mistake', () => {
    const table = tableOf(lease({ subnet: '10.244.1.0/24', address: '192.0.2.1' }));
    expect(table.peers.size + table.skipped.size).to.equal(0);
  });

  it('keeps the peer that was there when another claims its MAC, and takes the other when it goes', () => {
    const table = tableOf(lease({ subnet: '10.244.5.0/24' }));
    table.put(lease({ subnet: '10.244.6.0/24', address: '192.0.2.66' }));
    expect(table.wanted('ipv4').fdb.get(parseMac('02:00:00:00:00:09'))).to.equal('192.0.2.9');
    expect(table.skipped.get('10.244.6.0-24')?.reason).to.match(/10\.244\.5\.0-24 has its VTEP MAC/);
    table.delete('10.244.5.0-24');
    expect(table.wanted('ipv4').fdb.get(parseMac('02:00:00:00:00:09'))).to.equal('192.0.2.66');
    expect(table.skipped.size).to.equal(0);
  });

  it('keeps a shared MAC while one of its two leases at one address is left', () => {
    const table = tableOf(lease({ subnet: '10.244.5.0/24' }), lease({ subnet: '10.244.6.0/24' }));
    expect(table.peers.size).to.equal(2);
    table.delete('10.244.5.0-24');
    expect(table.wanted('ipv4').fdb.size).to.equal(1);
    expect(table.wanted('ipv4').remotes.get(parseAddress('192.0.2.9'))).to.equal(1);
    table.delete('10.244.6.0-24');
    expect(table.wanted('ipv4').fdb.size).to.equal(0);
    expect(table.wanted('ipv4').remotes.size).to.equal(0);
  });

  it('skips a subnet inside another peer’s, whichever comes first in length', () => {
    const wide = lease({ subnet: '10.244.32.0/20' });
    const narrow = lease({ subnet: '10.244.33.0/24', address: '192.0.2.10', mac: '02:00:00:00:00:10' });
    expect(tableOf(wide, narrow).skipped.get(narrow.key)?.reason).to.match(/overlaps that of lease/);
    expect(tableOf(narrow, wide).skipped.get(wide.key)?.reason).to.match(/overlaps that of lease/);
  });

  it('announces every entry that changes, and none when a lease says nothing new', () => {
    const touched: string[] = [];
    const table = new PeerTable({
      neighbour: (_family, key) => touched.push(`neighbour ${key}`),
      fdb: (_family, key) => touched.push(`fdb ${key}`),
      gateway: (_family, key) => touched.push(`gateway ${key}`),
      route: (_family, key) => touched.push(`route ${key}`),
      remote: (_family, key) => touched.push(`remote ${key}`),
    });
    table.judgeAll(context, [lease({ subnet: '10.244.5.0/24' })]);
    touched.length = 0;
    table.put(lease({ subnet: '10.244.5.0/24' }));
    expect(touched).to.deep.equal([]);
    table.put(lease({ subnet: '10.244.5.0/24', address: '192.0.2.10' }));
    expect(touched).to.include.members(['fdb 02:00:00:00:00:09', 'remote 192.0.2.9', 'remote 192.0.2.10']);
  });

  it('routes a peer on the link directly: neither neighbour nor FDB entry, and still admits its VXLAN', () => {
    const table = tableIn(directContext(['192.0.2.0/24']), [lease({ subnet: '10.244.5.0/24' })]);
    const { neighbours, fdb, gateways, routes, remotes } = table.wanted('ipv4');
    expect(neighbours.size + fdb.size).to.equal(0);
    expect([...gateways]).to.deep.equal([['192.0.2.9', 'direct']]);
    expect(routes.get('10.244.5.0/24')).to.include({ travel: 'direct', gateway: '192.0.2.9' });
    expect([...remotes.keys()]).to.deep.equal(['192.0.2.9']);
  });

  it('does so only where the network says so', () => {
    const reach = directContext(['192.0.2.0/24']).reach;
    const table = tableIn({ ...context, reach }, [lease({ subnet: '10.244.5.0/24' })]);
    expect(table.wanted('ipv4').routes.get('10.244.5.0/24')).to.include({ travel: 'tunnel' });
  });

  it('moves one of two leases of one VTEP, then the other, without taking away what is still in use', () => {
    const leases = [lease({ subnet: '10.244.5.0/24' }), lease({ subnet: '10.244.6.0/24' })];
    const table = tableIn(directContext([]), leases);
    const { fdb, gateways } = table.wanted('ipv4');
    expect(fdb.size).to.equal(1);
    const direct = directContext(['192.0.2.0/24']);
    table.judgeAll(direct, leases);
    expect([fdb.size, [...gateways]]).to.deep.equal([0, [['192.0.2.9', 'direct']]]);
    table.delete('10.244.5.0-24');
    expect([...gateways.keys()]).to.deep.equal(['192.0.2.9']);
    table.judgeAll(directContext([]), leases);
    expect([...fdb.values(), ...gateways.keys()]).to.deep.equal(['192.0.2.9', '10.244.5.0', '10.244.6.0']);
  });

  it('a VTEP MAC at two addresses is refused also where no tunnel leads to it', () => {
    const table = tableIn(directContext(['192.0.2.0/24']), [
      lease({ subnet: '10.244.5.0/24' }),
      lease({ subnet: '10.244.6.0/24', address: '192.0.2.66' }),
    ]);
    expect(table.skipped.get('10.244.6.0-24')?.reason).to.match(/10\.244\.5\.0-24 has its VTEP MAC/);
  });

  describe('with host-gw', () => {
    const hostGw = (onLink: readonly string[]): PeerContext => ({
      ...directContext(onLink),
      network: { ...network, backend: { ...network.backend, type: 'host-gw' } },
    });
    const bare = (subnet: string, address: string): Lease => ({
      key: subnet.replace('/', '-'),
      subnets: { ipv4: parseSubnet(subnet) },
      attributes: { publicAddress: { ipv4: parseAddress(address) }, backend: 'host-gw', vtep: {} },
    });

    it('needs no VTEP, and names a peer that is not on the link; the others work', () => {
      const table = tableIn(hostGw(['192.0.2.0/24']), [
        bare('10.244.5.0/24', '192.0.2.5'),
        bare('10.244.6.0/24', '198.51.100.6'),
      ]);
      expect([...table.wanted('ipv4').routes.keys()]).to.deep.equal(['10.244.5.0/24']);
      expect(table.skipped.get('10.244.6.0-24')?.reason).to.match(
        /198\.51\.100\.6 is not on the underlay link, and the host-gw backend has no tunnel: /,
      );
    });

    it('serves the family that is on the link, and says of the other that it is not', () => {
      const where = hostGw(['192.0.2.0/24']);
      const families: PeerContext = {
        ...where,
        families: ['ipv4', 'ipv6'],
        network: {
          ...where.network,
          networks: {
            ...network.networks,
            ipv6: {
              network: parseSubnet('fd00:244::/48'),
              subnetLength: 64,
              subnetMin: parseAddress('fd00:244:0:1::'),
              subnetMax: parseAddress('fd00:244:0:ffff::'),
            },
          },
        },
      };
      const both = bare('10.244.5.0/24', '192.0.2.5');
      const table = tableIn(families, [
        {
          ...both,
          subnets: { ...both.subnets, ipv6: parseSubnet('fd00:244:0:5::/64') },
          attributes: {
            ...both.attributes,
            publicAddress: { ...both.attributes.publicAddress, ipv6: parseAddress('2001:db8::5') },
          },
        },
      ]);
      const peer = table.peers.get(both.key);
      expect(peer?.paths.map(({ family, travel }) => [family, travel])).to.deep.equal([['ipv4', 'direct']]);
      expect(peer?.unreachable).to.have.length(1);
      expect(peer?.unreachable[0]).to.match(/2001:db8::5 is not on the underlay link/);
    });
  });

  it('holds, after any changes, just the entries of its peers', () => {
    const sketches = fc.record({
      subnet: fc.constantFrom(
        '10.244.5.0/24',
        '10.244.6.0/24',
        '10.244.6.0/25',
        '10.244.4.0/22',
        '10.244.0.0/16',
      ),
      address: fc.constantFrom('192.0.2.8', '192.0.2.9', '192.0.2.1'),
      mac: fc.constantFrom('02:00:00:00:00:08', '02:00:00:00:00:09'),
    });
    const kinds = fc.constantFrom('put', 'delete', 'judge', 'judge directly', 'judge partly directly');
    const steps = fc.array(fc.tuple(kinds, sketches), { maxLength: 30 });
    fc.assert(
      fc.property(steps, (changes) => {
        const table = tableOf();
        const stored = new Map<string, Lease>();
        for (const [step, sketch] of changes) {
          const changed = lease(sketch);
          if (step === 'put') {
            stored.set(changed.key, changed);
            table.put(changed);
          } else if (step === 'delete') {
            stored.delete(changed.key);
            table.delete(changed.key);
          } else {
            const onLink = step === 'judge directly' ? '192.0.2.0/24' : '192.0.2.8/32';
            table.judgeAll(step === 'judge' ? context : directContext([onLink]), stored.values());
          }
        }
        const paths = [...table.peers.values()].flatMap((peer) => peer.paths);
        const { neighbours, fdb, gateways, routes, remotes } = table.wanted('ipv4');
        const tunnels = paths.filter(({ travel }) => travel === 'tunnel');
        expect(new Map(neighbours)).to.deep.equal(new Map(tunnels.map((path) => [path.gateway, path.mac])));
        expect(new Map(fdb)).to.deep.equal(new Map(tunnels.map((path) => [path.mac, path.remote])));
        expect(new Map(gateways)).to.deep.equal(new Map(paths.map((path) => [path.gateway, path.travel])));
        expect(new Map(routes)).to.deep.equal(
          new Map(paths.map((path) => [formatSubnet(path.subnet), path])),
        );
        expect(new Set(remotes.keys())).to.deep.equal(new Set(paths.map((path) => path.remote)));
        // Every lease is a peer or skipped, never both, never lost.
        const known = [...table.peers.keys(), ...table.skipped.keys()].toSorted();
        expect(known).to.deep.equal([...stored.keys()].toSorted());
      }),
      { numRuns: 300 },
    );
  });
});
