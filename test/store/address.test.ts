/** address.ts against two oracles: ip-num for values and ranges, the URL parser for RFC 5952 text. */
import { expect } from 'chai';
import * as fc from 'fast-check';
import { IPv4, IPv4CidrRange, IPv6, IPv6CidrRange } from 'ip-num';
import {
  type Address,
  AddressError,
  addressAt,
  addressBytes,
  addressFromBytes,
  addressFromValue,
  addressValue,
  familyOf,
  formatSubnet,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnicast,
  isUnicastMac,
  localMac,
  macBytes,
  macFromBytes,
  parseAddress,
  parseMac,
  parseSubnet,
  sameSubnet,
  subnetContains,
  subnetOf,
  subnetSize,
  subnetsOverlap,
  tryAddress,
  tryMac,
} from '../../store/address.ts';

const ipv4Values = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n });
/** Mostly addresses with runs of zero words, where the short form is decided. */
const ipv6Words = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.constant(0) },
    { weight: 2, arbitrary: fc.integer({ min: 0, max: 0xffff }) },
  ),
  { minLength: 8, maxLength: 8 },
);
const ipv6Values = ipv6Words.map((words) => words.reduce((value, word) => (value << 16n) | BigInt(word), 0n));
const addresses: fc.Arbitrary<Address> = fc.oneof(
  ipv4Values.map((value) => addressFromValue('ipv4', value)),
  ipv6Values.map((value) => addressFromValue('ipv6', value)),
);
const subnets = fc
  .tuple(addresses, fc.nat())
  .map(([address, length]) => subnetOf(address, length % (familyOf(address) === 'ipv4' ? 33 : 129)));
const oracleRange = (text: string) =>
  text.includes(':') ? IPv6CidrRange.fromCidr(text) : IPv4CidrRange.fromCidr(text);

describe('store/address', () => {
  it('reads and writes IPv4 as ip-num does', () => {
    fc.assert(
      fc.property(ipv4Values, (value) => {
        const text = IPv4.fromNumber(value).toString();
        expect(addressValue(parseAddress(text))).to.equal(value);
        expect(addressFromValue('ipv4', value)).to.equal(text);
      }),
    );
  });

  it('reads IPv6 as ip-num does and writes it as RFC 5952 says', () => {
    fc.assert(
      fc.property(ipv6Values, (value) => {
        const long = IPv6.fromBigInt(value).toString();
        const address = parseAddress(long);
        expect(addressValue(address)).to.equal(value);
        // The URL standard writes its IPv6 hosts as RFC 5952 does.
        expect(`[${address}]`).to.equal(new URL(`http://[${long}]/`).hostname);
        expect(parseAddress(address.toUpperCase())).to.equal(address);
      }),
    );
  });

  it('never takes for an address what the URL parser does not', () => {
    const nearly = fc
      .array(
        fc.constantFrom(':', '::', '.', '0', '1', 'ff', '10', '255', '256', '00', 'g', ' ', '12345', '%'),
        {
          maxLength: 18,
        },
      )
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(nearly, (text) => {
        const address = tryAddress(text);
        if (text.includes(':')) {
          let canonical: string | undefined;
          try {
            canonical = new URL(`http://[${text}]/`).hostname.slice(1, -1);
          } catch {
            canonical = undefined;
          }
          expect(address).to.equal(text.length > 45 ? undefined : canonical);
        } else if (address !== undefined) {
          expect(text).to.match(/^(\d{1,3}\.){3}\d{1,3}$/);
          expect(
            text.split('.').every((octet) => Number(octet) < 256 && String(Number(octet)) === octet),
          ).to.equal(true);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('carries an address through bytes', () => {
    fc.assert(
      fc.property(addresses, (address) => {
        const bytes = addressBytes(address);
        expect(bytes.length).to.equal(familyOf(address) === 'ipv4' ? 4 : 16);
        expect(addressFromBytes(bytes)).to.equal(address);
      }),
    );
    expect(() => addressFromBytes(new Uint8Array(5))).to.throw(AddressError);
  });

  it('agrees with ip-num on first and last address, size, containment and overlap', () => {
    fc.assert(
      fc.property(subnets, subnets, (a, b) => {
        const range = oracleRange(formatSubnet(a));
        expect(addressValue(a.address)).to.equal(range.getFirst().getValue());
        expect(addressValue(addressAt(a, -1))).to.equal(range.getLast().getValue());
        expect(subnetSize(a)).to.equal(range.getSize());
        expect(sameSubnet(parseSubnet(formatSubnet(a)), a)).to.equal(true);
        // A pair that really is nested is rare by chance: make one.
        const inner = subnetOf(addressAt(a, subnetSize(a) / 2n), Math.min(a.prefixLength + 3, 32));
        for (const other of [b, inner]) {
          if (other.family !== a.family) {
            expect(subnetsOverlap(a, other)).to.equal(false);
            continue;
          }
          const [aFirst, aLast] = [addressValue(a.address), addressValue(addressAt(a, -1))];
          const [first, last] = [addressValue(other.address), addressValue(addressAt(other, -1))];
          expect(subnetsOverlap(a, other)).to.equal(first <= aLast && last >= aFirst);
          expect(subnetContains(a, other)).to.equal(first >= aFirst && last <= aLast);
          expect(subnetContains(a, other.address)).to.equal(first >= aFirst && first <= aLast);
        }
      }),
    );
  });

  it('refuses a subnet with host bits, a wrong length or none, and says so without control characters', () => {
    for (const text of [
      '10.244.5.1/24',
      '10.244.0.0/33',
      '10.244.0.0',
      '10.244.0.0/',
      '10.0.0.0/08',
      '::1/64',
      'x/3',
    ]) {
      expect(() => parseSubnet(text), text).to.throw(AddressError);
    }
    expect(() => parseSubnet('10.244.5.1/24')).to.throw('the subnet is 10.244.5.0/24');
    expect(() => parseAddress(`\u0007${'9'.repeat(500)}`)).to.throw(
      AddressError,
      /^"\ufffd9{60}\.\.\." is not/,
    );
    expect(() => addressAt(parseSubnet('10.0.0.0/30'), 4)).to.throw(RangeError);
    expect(() => addressAt(parseSubnet('10.0.0.0/30'), -5)).to.throw(RangeError);
  });

  it('knows the addresses that no host has or no other host reaches', () => {
    const a = parseAddress;
    expect(['127.0.0.1', '127.9.9.9', '::1'].map((text) => isLoopback(a(text)))).to.deep.equal([
      true,
      true,
      true,
    ]);
    expect(['224.0.0.1', '239.1.1.1', 'ff02::1'].map((text) => isMulticast(a(text)))).to.deep.equal([
      true,
      true,
      true,
    ]);
    expect(['223.1.1.1', '240.0.0.1', 'ff::1', 'fe80::1'].some((text) => isMulticast(a(text)))).to.equal(
      false,
    );
    expect(['169.254.1.1', 'fe80::1', 'febf::1'].every((text) => isLinkLocal(a(text)))).to.equal(true);
    expect(['169.253.1.1', 'fec0::1', 'fe8::1'].some((text) => isLinkLocal(a(text)))).to.equal(false);
    expect(['0.0.0.0', '::', '255.255.255.255', '224.0.0.1'].some((text) => isUnicast(a(text)))).to.equal(
      false,
    );
    expect(isUnicast(a('192.0.2.1'))).to.equal(true);
  });

  it('carries MAC addresses through bytes and makes local unicast ones', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
        const mac = macFromBytes(bytes);
        expect(macBytes(mac)).to.deep.equal(bytes);
        expect(parseMac(mac.toUpperCase())).to.equal(mac);
        const local = localMac(bytes);
        expect(isUnicastMac(local)).to.equal(true);
        expect((macBytes(local)[0] ?? 0) & 3).to.equal(2);
        expect(macBytes(local).subarray(1)).to.deep.equal(bytes.subarray(1));
      }),
    );
    expect(isUnicastMac(parseMac('00:00:00:00:00:00'))).to.equal(false);
    expect(isUnicastMac(parseMac('01:00:5e:00:00:01'))).to.equal(false);
    for (const text of ['', '00:00:00:00:00', '00-00-00-00-00-01', '0:0:0:0:0:1', '00:00:00:00:00:0g']) {
      expect(tryMac(text), text).to.equal(undefined);
    }
    expect(() => parseMac('nonsense')).to.throw(AddressError);
    expect(() => macFromBytes(new Uint8Array(8))).to.throw(AddressError);
  });
});
