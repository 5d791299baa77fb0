/** The benchmarks' numbered peers are such as the daemon takes: distinct, legal, none of them its own. */
import { expect } from 'chai';
import { leaseText, MAX_PEERS, networkConfig, numberedPeer } from '../../bench/harness/peers.ts';
import { addressValue, formatSubnet, subnetContains } from '../../store/address.ts';
import { decodeLease } from '../../store/lease-codec.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';

const EVERY = ['ipv4', 'ipv6', 'dual'] as const;

describe('bench: numbered peers', () => {
  it('are stored as flannel stores leases, and are read back the same', () => {
    for (const families of EVERY) {
      for (const number of [0, 255, 256, MAX_PEERS - 1]) {
        const peer = numberedPeer(number, families);
        expect(decodeLease(peer.lease.key, leaseText(peer))).to.deep.equal(peer.lease);
      }
    }
    expect(numberedPeer(0).lease.key).to.equal('10.0.1.0-24');
    expect(numberedPeer(0, 'ipv6').lease.key).to.equal('0.0.0.0-0&fc00:76:0:1::-64');
    expect(numberedPeer(0, 'dual').lease.key).to.equal('10.0.1.0-24&fc00:76:0:1::-64');
    expect(() => numberedPeer(MAX_PEERS)).to.throw(RangeError);
  });

  it('differ in subnet, public address and MAC', () => {
    const seen = new Set<unknown>();
    for (let number = 0; number < 20_000; number++) {
      for (const { subnet, publicAddress, vtep } of numberedPeer(number, 'dual').sides) {
        seen.add(formatSubnet(subnet)).add(publicAddress).add(vtep.mac);
      }
    }
    expect(seen.size).to.equal(2 * 3 * 20_000);
  });

  it("lie in the cluster's network, outside of where the measured node gets its subnet", () => {
    const { networks } = parseNetworkConfig(networkConfig('dual'));
    const last = numberedPeer(MAX_PEERS - 1, 'dual').sides;
    expect(last.map(({ subnet }) => formatSubnet(subnet))).to.deep.equal([
      '10.239.255.0/24',
      'fc00:76:0:efff::/64',
    ]);
    for (const { family, subnet } of last) {
      const own = networks[family];
      expect(own && subnetContains(own.network, subnet)).to.equal(true);
      expect(own && addressValue(own.subnetMin) > addressValue(subnet.address)).to.equal(true);
    }
  });
});
