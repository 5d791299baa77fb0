/** Set elements as the kernel holds them, against what nft says of the same sets. */

import { expect } from 'chai';
import fc from 'fast-check';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { NETLINK_NETFILTER, NetlinkError, NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { GenerationMovedError, nextGeneration, readGeneration } from '../../../overlay/kernel/nft-message.ts';
import {
  changeElements,
  decodeElement,
  encodeElement,
  type FieldType,
  listElements,
  type NftSet,
} from '../../../overlay/kernel/nft-set.ts';
import { Nftables } from '../../../overlay/kernel/nftables.ts';
import { addNamespace, deleteNamespace, namespacePath } from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { addressFromBytes, macFromBytes } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

/** What nft prints without quotes: it refuses odd characters in names. */
const values: Readonly<Record<FieldType, fc.Arbitrary<string>>> = {
  ifname: fc.stringMatching(/^[a-z][a-z0-9._-]{0,14}$/),
  ether_addr: bytes(6).map(macFromBytes),
  ipv4_addr: bytes(4).map(addressFromBytes),
  ipv6_addr: bytes(16).map(addressFromBytes),
};

const SHAPES: readonly (readonly FieldType[])[] = [
  ['ipv4_addr'],
  ['ipv6_addr'],
  ['ifname', 'ether_addr', 'ipv4_addr'],
  ['ifname', 'ether_addr', 'ipv6_addr'],
];

const elementOf = (fields: readonly FieldType[]) =>
  fc.tuple(...fields.map((field) => values[field])).map((parts) => parts.join(' . '));

describe('firewall: set elements', () => {
  const namespace = `vtepd-fws${process.pid}`;
  let netlink: NetlinkSocket;
  let nftables: Nftables;

  before(async function () {
    need(this, 'root', 'ip', 'nft');
    await addNamespace(namespace);
    netlink = inNamespace(namespacePath(namespace), () =>
      NetlinkSocket.open({ protocol: NETLINK_NETFILTER }),
    );
    nftables = Nftables.open({ namespace: namespacePath(namespace) });
  });
  after(async () => {
    netlink?.close();
    nftables?.close();
    await deleteNamespace(namespace);
  });

  /** A fresh, empty set of this shape. */
  function fresh(fields: readonly FieldType[]): NftSet {
    nftables.run(
      `add table inet t\ndelete table inet t\ntable inet t {\n set s { type ${fields.join(' . ')}; }\n }\n`,
    );
    return { family: 'inet', table: 't', name: 's', fields };
  }

  for (const fields of SHAPES) {
    const shape = fields.join(' . ');

    it(`${shape}: nft reads what we write, and we read it back`, () => {
      fc.assert(
        fc.property(
          fc.uniqueArray(elementOf(fields), { maxLength: 30 }),
          fc.uniqueArray(elementOf(fields), { maxLength: 5 }),
          fc.integer({ min: 0, max: 30 }),
          (elements, strangers, cut) => {
            const set = fresh(fields);
            const change = (add: readonly string[], remove: readonly string[]) =>
              changeElements(netlink, [{ set, add, remove }]);
            change(elements, []);
            change(elements.slice(0, 3), []);
            expect(nftSays(nftables, fields)).to.have.members(elements);
            expect([...listElements(netlink, set)]).to.have.members(elements);
            // Some of them, and some that are not there.
            const gone = [...elements.slice(0, cut), ...strangers];
            change([], gone);
            const left = elements.filter((element) => !gone.includes(element));
            expect(nftSays(nftables, fields)).to.have.members(left);
            expect([...listElements(netlink, set)]).to.have.members(left);
          },
        ),
        { numRuns: 15 },
      );
    });

    it(`${shape}: an element's key and text are one another's`, () => {
      fc.assert(
        fc.property(elementOf(fields), (element) => {
          const key = encodeElement(fields, element);
          expect(key.length % 4).to.equal(0);
          expect(decodeElement(fields, Buffer.from(key))).to.equal(element);
        }),
      );
    });
  }

  it('we read what nft writes', () => {
    const set = fresh(['ifname', 'ether_addr', 'ipv4_addr']);
    nftables.run(
      'add element inet t s { "vtp0" . 02:00:00:00:00:01 . 10.244.1.2, "a" . 0:0:0:0:0:0 . 0.0.0.0 }',
    );
    expect([...listElements(netlink, set)]).to.have.members([
      'vtp0 . 02:00:00:00:00:01 . 10.244.1.2',
      'a . 00:00:00:00:00:00 . 0.0.0.0',
    ]);
  });

  it('sees and removes an element that stands for everything', () => {
    const set = fresh(['ipv4_addr']);
    nftables.run('add element inet t s { 192.0.2.1, * }');
    expect([...listElements(netlink, set)]).to.have.members(['192.0.2.1', '*']);
    changeElements(netlink, [{ set, add: [], remove: ['*'] }]);
    expect([...listElements(netlink, set)]).to.deep.equal(['192.0.2.1']);
  });

  it('carries 10,000 elements, and 20,000 of the longest', async () => {
    for (const [fields, count] of [
      [['ipv4_addr'], 10_000],
      [['ifname', 'ether_addr', 'ipv6_addr'], 20_000],
    ] as const) {
      const set = fresh(fields);
      const elements = Array.from({ length: count }, (_, i) => {
        const [a, b] = [i >>> 8, i & 0xff];
        if (fields.length === 1) return `10.9.${a}.${b}`;
        return `vtp${i} . 02:00:00:00:${hex(a)}:${hex(b)} . fc00::${(i + 1).toString(16)}`;
      });
      changeElements(netlink, [{ set, add: elements, remove: [] }]);
      // The kernel moves them into a larger table in the background; a walk meanwhile may pass some over.
      const complete = async () => listElements(netlink, set).size === count;
      await until(complete, { what: 'all elements to be listed', deadlineMs: 10_000 });
      expect(listElements(netlink, set)).to.deep.equal(new Set(elements));
      changeElements(netlink, [{ set, add: [], remove: elements.slice(1) }]);
      expect([...listElements(netlink, set)]).to.deep.equal(elements.slice(0, 1));
    }
  });

  it('changes nothing once somebody else changed something', () => {
    const set = fresh(['ipv4_addr']);
    const generation = readGeneration(netlink);
    changeElements(netlink, [{ set, add: ['192.0.2.1'], remove: [] }], generation);
    expect(readGeneration(netlink)).to.equal(nextGeneration(generation));
    nftables.run('add table inet somebodys');
    expect(() =>
      changeElements(netlink, [{ set, add: ['192.0.2.2'], remove: [] }], nextGeneration(generation)),
    ).to.throw(GenerationMovedError);
    expect([...listElements(netlink, set)]).to.deep.equal(['192.0.2.1']);
  });

  it('says which set is not there', () => {
    const set: NftSet = { ...fresh(['ipv4_addr']), name: 'other' };
    const change = () => changeElements(netlink, [{ set, add: ['192.0.2.1'], remove: [] }]);
    expect(change).to.throw(NetlinkError, /other.*ENOENT/);
  });
});

const hex = (byte: number): string => byte.toString(16).padStart(2, '0');

/** The elements of the set as `nft -j list` has them. */
function nftSays(nftables: Nftables, fields: readonly FieldType[]): string[] {
  const listing = JSON.parse(nftables.list({ family: 'inet', name: 't' }, { json: true })) as {
    nftables: { set?: { elem?: (string | { concat: string[] })[] } }[];
  };
  const elements = listing.nftables.flatMap(({ set }) => set?.elem ?? []);
  return elements.map((element) => {
    const parts = typeof element === 'string' ? [element] : element.concat;
    return parts.map((part, i) => (fields[i] === 'ipv6_addr' ? addressFromNft(part) : part)).join(' . ');
  });
}

/** nft prints through inet_ntop, which has `::192.0.2.1` and `::ffff:192.0.2.1` for some: compare the value. */
function addressFromNft(text: string): string {
  const url = new URL(`http://[${text}]/`);
  return url.hostname.slice(1, -1);
}
