/** The benchmarks' numbered peers are such as the daemon takes: distinct, legal, none of them its own. */
import { expect } from 'chai';
import { leaseText, MAX_PEERS, NETWORK_CONFIG, numberedPeer } from '../../bench/harness/peers.ts';
import { formatSubnet, subnetContains } from '../../store/address.ts';
import { decodeLease } from '../../store/lease-codec.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';

describe('bench: numbered peers', () => {
  it('are stored as flannel stores leases, and are read back the same', () => {
    for (const number of [0, 255, 256, MAX_PEERS - 1]) {
      const peer = numberedPeer(number);
      expect(decodeLease(peer.lease.key, leaseText(peer))).to.deep.equal(peer.lease);
    }
    expect(numberedPeer(0).lease.key).to.equal('10.0.1.0-24');
    expect(() => numberedPeer(MAX_PEERS)).to.throw(RangeError);
  });

  it('differ in subnet, public address and MAC', () => {
    const seen = new Set<unknown>();
    for (let number = 0; number < 50_000; number++) {
      const { subnet, publicAddress, lease } = numberedPeer(number);
      seen.add(formatSubnet(subnet)).add(publicAddress).add(lease.attributes.vtep.ipv4?.mac);
    }
    expect(seen.size).to.equal(3 * 50_000);
  });

  it("lie in the cluster's network, outside of where the measured node gets its subnet", () => {
    const network = parseNetworkConfig(NETWORK_CONFIG).networks.ipv4;
    const last = numberedPeer(MAX_PEERS - 1).subnet;
    expect(formatSubnet(last)).to.equal('10.239.255.0/24');
    expect(network?.subnetMin).to.equal('10.240.0.0');
    expect(network && subnetContains(network.network, last)).to.equal(true);
  });
});
