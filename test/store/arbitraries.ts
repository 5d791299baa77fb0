/** Random leases and their parts, for property tests. */
import * as fc from 'fast-check';
import { type Address, addressFromValue, macFromBytes, type Subnet, subnetOf } from '../../store/address.ts';
import type { Lease, LeaseAttributes, Vtep } from '../../store/lease.ts';
import { encodeLeaseKey } from '../../store/lease-codec.ts';

export const ipv4: fc.Arbitrary<Address> = fc
  .bigInt({ min: 1n, max: 2n ** 32n - 1n })
  .map((value) => addressFromValue('ipv4', value));

export const ipv6: fc.Arbitrary<Address> = fc
  .bigInt({ min: 1n, max: 2n ** 128n - 1n })
  .map((value) => addressFromValue('ipv6', value));

const vtep: fc.Arbitrary<Vtep> = fc.record({
  vni: fc.integer({ min: 1, max: 2 ** 24 - 1 }),
  mac: fc.uint8Array({ minLength: 6, maxLength: 6 }).map(macFromBytes),
});

const families = fc.constantFrom<('ipv4' | 'ipv6')[]>(['ipv4'], ['ipv6'], ['ipv4', 'ipv6']);

export const attributes: fc.Arbitrary<LeaseAttributes> = fc
  .tuple(families, ipv4, ipv6, fc.constantFrom('vxlan', 'vxlan', 'host-gw', 'wireguard', ''), vtep, vtep)
  .map(([present, address4, address6, backend, vtep4, vtep6]) => {
    const vxlan = backend === 'vxlan';
    return {
      publicAddress: {
        ...(present.includes('ipv4') && { ipv4: address4 }),
        ...(present.includes('ipv6') && { ipv6: address6 }),
      },
      backend,
      vtep: {
        ...(vxlan && present.includes('ipv4') && { ipv4: vtep4 }),
        ...(vxlan && present.includes('ipv6') && { ipv6: vtep6 }),
      },
    };
  });

const subnet4: fc.Arbitrary<Subnet> = fc
  .tuple(ipv4, fc.integer({ min: 1, max: 31 }))
  .map(([address, length]) => subnetOf(address, length));
const subnet6: fc.Arbitrary<Subnet> = fc
  .tuple(ipv6, fc.integer({ min: 1, max: 127 }))
  .map(([address, length]) => subnetOf(address, length));

export const lease: fc.Arbitrary<Lease> = fc
  .tuple(families, subnet4, subnet6, attributes)
  .map(([present, four, six, leaseAttributes]) => {
    const subnets = {
      ...(present.includes('ipv4') && { ipv4: four }),
      ...(present.includes('ipv6') && { ipv6: six }),
    };
    return { key: encodeLeaseKey(subnets), subnets, attributes: leaseAttributes };
  });
