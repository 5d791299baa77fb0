/** Networks that the cluster had before: which of them count, and what that means for leases. */
import { expect } from 'chai';
import { formerNetworks, networksInUse } from '../../../overlay/desired/former-networks.ts';
import { wantOverlay } from '../../../overlay/desired/overlay.ts';
import { PeerTable } from '../../../overlay/desired/peer-table.ts';
import { formatSubnet, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import type { Lease, NetworkConfig } from '../../../store/lease.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const networkOf = (cidr: string, more = ''): NetworkConfig =>
  parseNetworkConfig(`{"Network":"${cidr}"${more},"Backend":{"Type":"vxlan"}}`);

function leaseOf(subnet: string, node: number): Lease {
  const mac = parseMac(`02:00:00:00:00:0${node}`);
  return {
    key: subnet.replace('/', '-'),
    subnets: { ipv4: parseSubnet(subnet) },
    attributes: {
      publicAddress: { ipv4: parseAddress(`192.0.2.${node}`) },
      backend: 'vxlan',
      vtep: { ipv4: { vni: 1, mac } },
    },
  };
}

const IPV6 = ',"EnableIPv6":true,"IPv6Network":"fd00::/48"';
const current = networkOf('10.200.0.0/16');

describe('former networks', () => {
  it('are those that the current one and each other do not cover, in each family', () => {
    const earlier = [
      networkOf('10.244.0.0/20'),
      networkOf('10.244.0.0/16', IPV6),
      networkOf('10.200.128.0/17'),
    ];
    const { ipv4 = [], ipv6 = [] } = formerNetworks(earlier, current);
    expect(ipv4.map(formatSubnet)).to.deep.equal(['10.244.0.0/16']);
    expect(ipv6.map(formatSubnet)).to.deep.equal(['fd00::/48']);
    expect(formerNetworks([networkOf('10.244.0.0/20')], networkOf('10.240.0.0/12')).ipv4).to.deep.equal([]);
  });

  it('are in use while a lease lies in them and not in the current one', () => {
    const [one, other] = [networkOf('10.244.0.0/16'), networkOf('10.96.0.0/12')];
    const leases = [leaseOf('10.244.3.0/24', 3), leaseOf('10.200.4.0/24', 4)];
    expect(networksInUse([one, other], current, leases)).to.deep.equal([one]);
    expect(networksInUse([one, networkOf('10.200.0.0/20')], current, leases.slice(1))).to.deep.equal([]);
  });

  it('hold peers, and our former leases are no peers and overlap none', () => {
    const ignore = (): void => {};
    const table = new PeerTable({
      neighbour: ignore,
      fdb: ignore,
      gateway: ignore,
      route: ignore,
      remote: ignore,
    });
    const former = leaseOf('10.244.1.0/24', 1);
    const context = {
      network: current,
      families: ['ipv4'] as const,
      ownKey: '10.200.1.0-24',
      ownSubnets: { ipv4: parseSubnet('10.200.1.0/24') },
      ownPublicAddress: { ipv4: parseAddress('192.0.2.1') },
      ownMac: { ipv4: parseMac('02:00:00:00:00:01') },
    };
    const leases = [
      former,
      leaseOf('10.244.2.0/24', 2),
      leaseOf('10.200.2.0/24', 2),
      leaseOf('10.244.1.128/25', 5),
      leaseOf('10.1.0.0/24', 6),
    ];
    const formerNetworks = { ipv4: [parseSubnet('10.244.0.0/16')] };
    table.judgeAll({ ...context, formerLeases: [former], formerNetworks }, leases);
    expect([...table.peers.keys()]).to.have.members(['10.244.2.0-24', '10.200.2.0-24']);
    expect([...table.skipped.values()].map(({ reason }) => reason)).to.have.members([
      "its subnet 10.244.1.128/25 overlaps this node's 10.244.1.0/24",
      "its subnet 10.1.0.0/24 is outside the cluster's network",
    ]);
    // Forgotten: one node is left, and it has its one lease.
    table.judgeAll(context, leases);
    expect([...table.peers.keys()]).to.deep.equal(['10.200.2.0-24']);
  });

  it('leave gateways on the bridge, after the current one, and carry a family that is no more', () => {
    const lease = leaseOf('10.200.1.0/24', 1);
    const both: Lease = {
      ...leaseOf('10.244.1.0/24', 1),
      subnets: { ipv4: parseSubnet('10.244.1.0/24'), ipv6: parseSubnet('fd00:0:0:1::/64') },
      attributes: {
        ...lease.attributes,
        vtep: { ...lease.attributes.vtep, ipv6: { vni: 1, mac: parseMac('02:00:00:00:00:61') } },
      },
    };
    const underlay = {
      link: { index: 2, name: 'eth0', mtuBytes: 1500, up: true },
      localAddress: { ipv4: parseAddress('192.0.2.1'), ipv6: parseAddress('2001:db8::1') },
      publicAddress: {},
      why: 'is the only one',
    };
    const identity = {
      deviceName: (family: string) => family,
      bridgeName: 'b',
      bridgeMac: parseMac('02:00:00:00:00:99'),
    };
    const alone = wantOverlay(current, lease, underlay, identity);
    expect(alone.families).to.deep.equal(['ipv4']);
    expect(alone.bridge.mtuBytes).to.equal(1450);
    const wanted = wantOverlay(current, lease, underlay, identity, { leases: [lease, both], networks: {} });
    expect(wanted.families).to.deep.equal(['ipv4', 'ipv6']);
    expect(wanted.bridge.addresses.map(({ address }) => address)).to.deep.equal([
      '10.200.1.1',
      '10.244.1.1',
      'fd00:0:0:1::1',
    ]);
    expect(wanted.vxlan.ipv4).to.deep.include({ address: '10.200.1.0', formerAddresses: ['10.244.1.0'] });
    expect(wanted.vxlan.ipv6?.address).to.equal('fd00:0:0:1::');
  });
});
