import { expect } from 'chai';
import * as fc from 'fast-check';
import { addressValue, parseSubnet, subnetContains } from '../../store/address.ts';
import { NetworkConfigError } from '../../store/errors.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';

const vxlan = { Type: 'vxlan' };

function fieldRefused(document: unknown): string {
  try {
    parseNetworkConfig(typeof document === 'string' ? document : JSON.stringify(document));
  } catch (error) {
    if (error instanceof NetworkConfigError) return error.field;
    throw error;
  }
  return 'nothing';
}

describe('store/network-config', () => {
  it("fills in flannel's defaults", () => {
    expect(parseNetworkConfig('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}')).to.deep.equal({
      networks: {
        ipv4: {
          network: parseSubnet('10.244.0.0/16'),
          subnetLength: 24,
          subnetMin: '10.244.1.0',
          subnetMax: '10.244.255.0',
        },
      },
      backend: { type: 'vxlan', vni: 1, port: 8472, directRouting: false, mtuBytes: undefined },
    });
  });

  it('reads everything that can be said, in either case of its names', () => {
    const document = {
      Network: '10.0.0.0/8',
      subnetLen: 20,
      SubnetMin: '10.10.0.0',
      SubnetMax: '10.99.0.0',
      EnableIPv6: true,
      IPv6Network: 'fc00:244::/48',
      IPv6SubnetLen: 64,
      IPv6SubnetMin: 'fc00:244:0:10::',
      IPv6SubnetMax: 'fc00:244:0:ff::',
      Backend: { Type: 'vxlan', VNI: 4096, Port: 4789, DirectRouting: true, MTU: 1400, GBP: true },
      Comment: 'unknown fields are nobody’s business',
    };
    expect(parseNetworkConfig(Buffer.from(JSON.stringify(document)))).to.deep.equal({
      networks: {
        ipv4: {
          network: parseSubnet('10.0.0.0/8'),
          subnetLength: 20,
          subnetMin: '10.10.0.0',
          subnetMax: '10.99.0.0',
        },
        ipv6: {
          network: parseSubnet('fc00:244::/48'),
          subnetLength: 64,
          subnetMin: 'fc00:244:0:10::',
          subnetMax: 'fc00:244:0:ff::',
        },
      },
      backend: { type: 'vxlan', vni: 4096, port: 4789, directRouting: true, mtuBytes: 1400 },
    });
  });

  it('cuts a small network into quarters, drops host bits, and takes zeros for defaults', () => {
    const quarter = parseNetworkConfig(
      JSON.stringify({ Network: '192.168.7.9/24', SubnetMin: '0.0.0.0', Backend: vxlan }),
    );
    expect(quarter.networks.ipv4).to.deep.equal({
      network: parseSubnet('192.168.7.0/24'),
      subnetLength: 26,
      subnetMin: '192.168.7.64',
      subnetMax: '192.168.7.192',
    });
    const only6 = parseNetworkConfig(
      JSON.stringify({
        EnableIPv4: false,
        EnableIPv6: true,
        IPv6Network: 'fc00::/64',
        Backend: { ...vxlan, Port: 0 },
      }),
    );
    expect(only6.networks).to.deep.equal({
      ipv6: {
        network: parseSubnet('fc00::/64'),
        subnetLength: 66,
        subnetMin: 'fc00::4000:0:0:0',
        subnetMax: 'fc00::c000:0:0:0',
      },
    });
    expect(only6.backend.port).to.equal(8472);
  });

  it("keeps flannel's oldest default for a document without a backend, to be refused by its name", () => {
    expect(parseNetworkConfig('{"Network":"10.244.0.0/16"}').backend.type).to.equal('udp');
  });

  it('names the field that is wrong', () => {
    const good = { Network: '10.244.0.0/16', Backend: vxlan };
    const six = { ...good, EnableIPv6: true, IPv6Network: 'fc00::/48' };
    const cases: [unknown, string][] = [
      ['', '(document)'],
      ['[]', '(document)'],
      [`{"Network":"10.244.0.0/16","x":"${'x'.repeat(70000)}"}`, '(document)'],
      [`{"x":${'['.repeat(99)}${']'.repeat(99)}}`, '(document)'],
      [{ Backend: vxlan }, 'Network'],
      [{ ...good, Network: 10 }, 'Network'],
      [{ ...good, Network: '10.244.0.0' }, 'Network'],
      [{ ...good, Network: '10.244.0.0/33' }, 'Network'],
      [{ ...good, Network: 'fc00::/48' }, 'Network'],
      [{ ...good, Network: '10.0.0.0/29' }, 'Network'],
      [{ ...good, Network: '0.0.0.0/0' }, 'Network'],
      [{ ...good, SubnetLen: 31 }, 'SubnetLen'],
      [{ ...good, SubnetLen: 17 }, 'SubnetLen'],
      [{ ...good, SubnetLen: 23.5 }, 'SubnetLen'],
      [{ ...good, SubnetLen: '24' }, 'SubnetLen'],
      [{ ...good, SubnetMin: '10.245.0.0' }, 'SubnetMin'],
      [{ ...good, SubnetMin: '10.244.1.1' }, 'SubnetMin'],
      [{ ...good, SubnetMin: 'x' }, 'SubnetMin'],
      [{ ...good, SubnetMax: '10.244.1.128' }, 'SubnetMax'],
      [{ ...good, SubnetMin: '10.244.9.0', SubnetMax: '10.244.8.0' }, 'SubnetMax'],
      [{ ...good, EnableIPv4: 'yes' }, 'EnableIPv4'],
      [{ ...good, EnableIPv4: false }, 'EnableIPv4'],
      [{ ...good, EnableIPv6: true }, 'IPv6Network'],
      [{ ...six, IPv6SubnetLen: 127 }, 'IPv6SubnetLen'],
      [{ ...six, IPv6SubnetMin: 'fc01::' }, 'IPv6SubnetMin'],
      [{ ...six, IPv6SubnetMax: '10.244.1.0' }, 'IPv6SubnetMax'],
      [{ ...good, Backend: 'vxlan' }, 'Backend'],
      [{ ...good, Backend: {} }, 'Backend.Type'],
      [{ ...good, Backend: { Type: 'a b' } }, 'Backend.Type'],
      [{ ...good, Backend: { ...vxlan, VNI: 0 } }, 'Backend.VNI'],
      [{ ...good, Backend: { ...vxlan, VNI: 2 ** 24 } }, 'Backend.VNI'],
      [{ ...good, Backend: { ...vxlan, VNI: '1' } }, 'Backend.VNI'],
      [{ ...good, Backend: { ...vxlan, Port: 65536 } }, 'Backend.Port'],
      [{ ...good, Backend: { ...vxlan, MTU: 100 } }, 'Backend.MTU'],
      [{ ...six, Backend: { ...vxlan, MTU: 1000 } }, 'Backend.MTU'],
      [{ ...good, Backend: { ...vxlan, DirectRouting: 1 } }, 'Backend.DirectRouting'],
    ];
    for (const [document, field] of cases)
      expect(fieldRefused(document), JSON.stringify(document)).to.equal(field);
  });

  it('never throws anything but its own error, and what it accepts is consistent', () => {
    const part = fc.constantFrom<unknown>(
      '10.0.0.0/8',
      '10.1.0.0/16',
      'fc00::/16',
      '10.0.4.0',
      'fc00::',
      '',
      null,
      true,
      0,
      24,
      30,
      {},
    );
    const documents = fc.oneof(
      fc.json(),
      fc.string(),
      fc
        .dictionary(
          fc.constantFrom(
            'Network',
            'SubnetLen',
            'SubnetMin',
            'SubnetMax',
            'EnableIPv6',
            'IPv6Network',
            'Backend',
          ),
          part,
        )
        .map((value) => JSON.stringify({ Network: '10.0.0.0/8', ...value })),
    );
    fc.assert(
      fc.property(documents, (document) => {
        if (fieldRefused(document) !== 'nothing') return;
        for (const cut of Object.values(parseNetworkConfig(document).networks)) {
          if (cut === undefined) continue;
          for (const bound of [cut.subnetMin, cut.subnetMax]) {
            expect(
              subnetContains(cut.network, { ...cut.network, address: bound, prefixLength: cut.subnetLength }),
            ).to.equal(true);
          }
          expect(addressValue(cut.subnetMin) <= addressValue(cut.subnetMax)).to.equal(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});
