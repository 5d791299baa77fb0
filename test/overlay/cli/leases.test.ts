import { expect } from 'chai';
import { leasesReport, renderLeases } from '../../../overlay/cli/leases.ts';
import { parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import { NetworkConfigError } from '../../../store/errors.ts';
import type { Lease } from '../../../store/lease.ts';
import type { LeaseSnapshot } from '../../../store/lease-store.ts';

function lease(number: number): [string, Lease] {
  const subnet = parseSubnet(`10.244.${number}.0/24`);
  const key = `10.244.${number}.0-24`;
  const attributes = {
    publicAddress: { ipv4: parseAddress(`192.0.2.${number}`) },
    backend: 'vxlan',
    vtep: { ipv4: { vni: 1, mac: parseMac('02:00:00:00:00:01') } },
  };
  return [key, { key, subnets: { ipv4: subnet }, attributes }];
}

const network = {
  config: {
    networks: {
      ipv4: {
        network: parseSubnet('10.244.0.0/16'),
        subnetLength: 24,
        subnetMin: parseAddress('10.244.1.0'),
        subnetMax: parseAddress('10.244.255.0'),
      },
    },
    backend: { type: 'vxlan', vni: 1, port: 8472, directRouting: false },
  },
};

describe('cli: leases', () => {
  const snapshot: LeaseSnapshot = {
    revision: '7',
    leases: new Map([lease(10), lease(9)]),
    malformed: [{ key: '10.244.11.0-24', reason: 'PublicIP is missing\u001b[2J' }],
    network,
  };

  it('lists the network, each lease in order, and what is none with the reason', () => {
    expect(renderLeases(leasesReport('etcd', snapshot))).to.equal(
      [
        'etcd at revision 7; network 10.244.0.0/16, backend vxlan, VNI 1, port 8472',
        '',
        'Leases (2)',
        'SUBNET          PUBLIC IP   BACKEND  VNI  VTEP MAC',
        '10.244.9.0/24   192.0.2.9   vxlan    1    02:00:00:00:00:01',
        '10.244.10.0/24  192.0.2.10  vxlan    1    02:00:00:00:00:01',
        '',
        'Not readable as leases (1)',
        'KEY             REASON',
        '10.244.11.0-24  PublicIP is missing\ufffd[2J',
        '',
      ].join('\n'),
    );
  });

  it('says when there is no network configuration, or one that cannot be used', () => {
    const { network: _, ...none } = snapshot;
    expect(renderLeases(leasesReport('etcd', { ...none, leases: new Map() }))).to.match(
      /there is no network configuration yet\n\nLeases: none/,
    );
    const fault = new NetworkConfigError('SubnetLen', 'must be a number');
    expect(renderLeases(leasesReport('etcd', { ...snapshot, network: { fault } }))).to.match(
      /cannot be used: network configuration: SubnetLen: must be a number/,
    );
  });

  it('has JSON with flannel’s words for addresses', () => {
    const { leases, malformed } = leasesReport('etcd', snapshot);
    expect(leases[0]).to.include({
      key: '10.244.9.0-24',
      subnet: '10.244.9.0/24',
      publicIP: '192.0.2.9',
      vtepMAC: '02:00:00:00:00:01',
      vni: 1,
    });
    expect(malformed).to.have.length(1);
  });
});
