import { expect } from 'chai';
import * as fc from 'fast-check';
import { parseAddress, parseMac, parseSubnet } from '../../store/address.ts';
import {
  decodeAttributes,
  decodeLease,
  decodeLeaseKey,
  encodeLease,
  encodeLeaseKey,
  isMalformed,
  leaseName,
  MAX_LEASE_BYTES,
} from '../../store/lease-codec.ts';
import * as arbitrary from './arbitraries.ts';

const KEY = '10.244.5.0-24';
/** As a flannel 0.2x node writes it. */
const FLANNEL =
  '{"PublicIP":"192.0.2.5","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"}}';
const FLANNEL_DUAL =
  '{"PublicIP":"192.0.2.5","PublicIPv6":"2001:db8::5","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"},"BackendV6Data":{"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:60"}}';

function reasonFor(value: string | Uint8Array, key = KEY): string {
  const decoded = decodeLease(key, value);
  if (!isMalformed(decoded)) throw new Error('not malformed');
  return decoded.reason;
}

describe('store/lease-codec', () => {
  it("reads flannel's own text and writes it back byte for byte", () => {
    const lease = decodeLease(KEY, Buffer.from(FLANNEL));
    expect(lease).to.deep.equal({
      key: KEY,
      subnets: { ipv4: parseSubnet('10.244.5.0/24') },
      attributes: {
        publicAddress: { ipv4: parseAddress('192.0.2.5') },
        backend: 'vxlan',
        vtep: { ipv4: { vni: 1, mac: parseMac('0a:1b:2c:3d:4e:5f') } },
      },
    });
    for (const text of [FLANNEL, FLANNEL_DUAL]) {
      const attributes = decodeAttributes(text);
      if (typeof attributes === 'string') throw new Error(attributes);
      expect(encodeLease(attributes)).to.equal(text);
      expect(encodeLease(attributes, text)).to.equal(text);
    }
  });

  it("names keys as flannel does, and reads no others' spelling", () => {
    const [ipv4, ipv6] = [parseSubnet('10.244.5.0/24'), parseSubnet('fc00:0:0:5::/64')];
    expect(encodeLeaseKey({ ipv4 })).to.equal(KEY);
    expect(encodeLeaseKey({ ipv4, ipv6 })).to.equal('10.244.5.0-24&fc00:0:0:5::-64');
    expect(encodeLeaseKey({ ipv6 })).to.equal('0.0.0.0-0&fc00:0:0:5::-64');
    for (const key of [KEY, '10.244.5.0-24&fc00:0:0:5::-64', '0.0.0.0-0&fc00:0:0:5::-64']) {
      const subnets = decodeLeaseKey(key);
      expect(subnets && encodeLeaseKey(subnets)).to.equal(key);
    }
    for (const key of [
      '',
      'config',
      '10.244.5.1-24', // host bits
      '10.244.5.0-024',
      '10.244.5.0',
      '010.244.5.0-24',
      '0.0.0.0-0',
      'fc00:0:0:5::-64',
      '10.244.5.0-24&FC00:0:0:5::-64',
      '10.244.5.0-24&10.244.6.0-24',
      '10.244.5.0-24&fc00:0:0:5::-64&',
      '10.244.5.0-24/extra',
      '10.244.5.0-24\n',
    ]) {
      expect(decodeLeaseKey(key), JSON.stringify(key)).to.equal(undefined);
    }
  });

  it('carries any lease through its stored form', () => {
    fc.assert(
      fc.property(arbitrary.lease, (lease) => {
        expect(decodeLease(lease.key, Buffer.from(encodeLease(lease.attributes)))).to.deep.equal(lease);
      }),
    );
  });

  it('keeps unknown fields over a rewrite, at the top and beside the VTEP', () => {
    const unknown = fc.dictionary(
      fc.string().filter((name) => !/^(public|backend|vni|vtep)/i.test(name)),
      fc.jsonValue({ maxDepth: 2 }),
      { maxKeys: 4 },
    );
    fc.assert(
      fc.property(
        arbitrary.attributes,
        arbitrary.attributes,
        unknown,
        unknown,
        (before, after, top, beside) => {
          const earlier = JSON.stringify({
            ...JSON.parse(encodeLease(before)),
            ...top,
            BackendData: { VNI: 7, VtepMAC: '02:00:00:00:00:07', ...beside },
          });
          fc.pre(earlier.length < 2000);
          const written: unknown = JSON.parse(encodeLease(after, earlier));
          expect(written).to.deep.include(JSON.parse(JSON.stringify(top)));
          if (after.vtep.ipv4 !== undefined) {
            expect(written)
              .to.have.property('BackendData')
              .that.deep.includes(JSON.parse(JSON.stringify(beside)));
          }
          expect(decodeAttributes(JSON.stringify(written))).to.deep.equal(after);
        },
      ),
    );
  });

  it('drops unknown fields rather than writing a lease that is too long to be read', () => {
    const attributes = decodeAttributes(FLANNEL_DUAL);
    if (typeof attributes === 'string') throw new Error(attributes);
    const earlier = JSON.stringify({ PublicIP: '192.0.2.5', note: 'x'.repeat(MAX_LEASE_BYTES - 40) });
    expect(encodeLease(attributes, earlier)).to.equal(FLANNEL_DUAL);
    expect(encodeLease(attributes, 'not json')).to.equal(FLANNEL_DUAL);
  });

  it('answers any bytes under any key with a lease or a short printable reason', () => {
    const scalars = fc.constantFrom<unknown>(
      null,
      1,
      -1,
      2 ** 24,
      1.5,
      '',
      'x',
      '0.0.0.0',
      [],
      {},
      true,
      '\u0000',
    );
    const shaped = fc
      .record(
        {
          PublicIP: fc.oneof(arbitrary.ipv4, scalars),
          PublicIPv6: fc.oneof(arbitrary.ipv6, scalars),
          BackendType: fc.oneof(fc.constant('vxlan'), scalars),
          BackendData: fc.oneof(fc.record({ VNI: scalars, VtepMAC: scalars }), scalars),
          BackendV6Data: scalars,
          __proto__: scalars,
        },
        { requiredKeys: [] },
      )
      .map((value) => Buffer.from(JSON.stringify(value)));
    const values = fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.json().map(Buffer.from), shaped);
    fc.assert(
      fc.property(fc.oneof(fc.constant(KEY), fc.string()), values, (key, value) => {
        const decoded = decodeLease(key, value);
        if (!isMalformed(decoded)) return;
        expect(decoded.reason).to.match(/^[\x20-\x7e]{1,80}$/);
        expect(decoded.key).to.equal(leaseName(key));
      }),
      { numRuns: 1000 },
    );
  });

  it('names the field and the fault', () => {
    expect(reasonFor('[]')).to.equal('not a JSON object');
    expect(reasonFor('{')).to.equal('not JSON');
    expect(reasonFor(Buffer.from([0x7b, 0xff, 0x7d]))).to.equal('not JSON');
    expect(reasonFor('{}')).to.equal('no public address');
    expect(reasonFor('{"PublicIP":7}')).to.equal('PublicIP: not an IPv4 address');
    expect(reasonFor('{"PublicIP":"::1"}')).to.equal('PublicIP: not an IPv4 address');
    expect(reasonFor('{"PublicIP":"192.0.2.1","BackendType":"a\\u001b[31m"}')).to.equal(
      'BackendType: not a backend name',
    );
    const vxlan = (data: string) => `{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":${data}}`;
    expect(reasonFor(vxlan('{"VNI":1}'))).to.equal('BackendData.VtepMAC: missing or not text');
    expect(reasonFor(vxlan('{"VNI":16777216,"VtepMAC":"02:00:00:00:00:01"}'))).to.equal(
      'BackendData.VNI: more than 16777215',
    );
    expect(reasonFor(vxlan('"text"'))).to.equal('BackendData: not an object');
    expect(reasonFor(`{"PublicIP":"192.0.2.1","note":"${'x'.repeat(5000)}"}`)).to.match(/^50\d\d bytes long/);
    expect(reasonFor(`{"PublicIP":"192.0.2.1","note":${'['.repeat(100)}${']'.repeat(100)}}`)).to.equal(
      'nested deeper than 16',
    );
    expect(reasonFor(FLANNEL, 'rubbish\u0007')).to.equal('the key does not name a subnet');
    expect(leaseName(`rubbish\u0007${'x'.repeat(999)}`))
      .to.have.lengthOf(128)
      .and.match(/^rubbish\ufffdx/);
  });

  it('takes a foreign backend, and a reservation with nothing but an address, for leases without a VTEP', () => {
    const vtepOf = (text: string) => {
      const decoded = decodeLease(KEY, text);
      return isMalformed(decoded) ? decoded.reason : [decoded.attributes.backend, decoded.attributes.vtep];
    };
    expect(
      vtepOf('{"PublicIP":"192.0.2.1","BackendType":"wireguard","BackendData":{"PublicKey":"abc="}}'),
    ).to.deep.equal(['wireguard', {}]);
    expect(vtepOf('{"PublicIP":"192.0.2.1"}')).to.deep.equal(['', {}]);
    expect(vtepOf('{"PublicIP":"192.0.2.1","BackendType":"vxlan"}')).to.deep.equal(['vxlan', {}]);
  });

  it("reads field names as Go does, whatever their case, and an old flannel's lease without a VNI", () => {
    expect(
      decodeAttributes(
        '{"publicip":"192.0.2.1","BACKENDTYPE":"vxlan","backendData":{"vtepmac":"02:00:00:00:00:01"}}',
      ),
    ).to.deep.equal({
      publicAddress: { ipv4: '192.0.2.1' },
      backend: 'vxlan',
      vtep: { ipv4: { vni: 1, mac: '02:00:00:00:00:01' } },
    });
  });
});
