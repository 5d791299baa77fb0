import { expect } from 'chai';
import fc from 'fast-check';
import { macKey, PeerTable, PeerTableWriter } from '../../../encap/wire/peer-table.ts';

const address = (value: number): Uint32Array => Uint32Array.of(value, value + 1, 0, 0, 0, 0, 7);

/** Few keys, so that they meet often; both halves of the key differ. */
const key = fc.nat({ max: 40 }).map((n) => Uint32Array.of(n % 7, n, n > 30 ? n : 0, 0));
const change = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('set' as const), key, value: fc.nat({ max: 2 ** 32 - 2 }) }),
  },
  fc.record({ kind: fc.constant('delete' as const), key }),
);

/** What a reader finds: the socket address's words. */
function read(table: PeerTable, [a = 0, b = 0, c = 0, d = 0]: Uint32Array): number[] | undefined {
  const entry = table.find(a, b, c, d);
  if (entry < 0) return undefined;
  const words = new Uint32Array(8);
  expect(table.copyAddress(entry, table.generation, words, 0)).to.equal(true);
  return Array.from(words.subarray(0, 7));
}

describe('encap/wire peer table', () => {
  it('holds what a map holds, through any changes, also for who was handed its memory before', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 300 }), fc.integer(), (changes, seed) => {
        const writer: PeerTableWriter = new PeerTableWriter(seed, () => {
          reader = new PeerTable(writer.memory);
        });
        let reader = new PeerTable(writer.memory);
        const model = new Map<string, number[]>();
        for (const each of changes) {
          const name = each.key.join();
          if (each.kind === 'set') {
            writer.set(each.key, address(each.value));
            model.set(name, Array.from(address(each.value)));
          } else {
            expect(writer.delete(each.key)).to.equal(model.delete(name));
          }
          expect(read(reader, each.key)).to.deep.equal(model.get(name));
        }
        expect(
          [...writer.entries()].map((entry) => Array.from(writer.key(entry)).join()).sort(),
        ).to.deep.equal([...model.keys()].sort());
      }),
      { numRuns: 200 },
    );
  });

  it('grows with its entries, and not with those that come and go', () => {
    let grown = 0;
    const writer = new PeerTableWriter(1, () => grown++);
    for (let i = 0; i < 10_000; i++) writer.set(Uint32Array.of(i, 1, 0, 0), address(i));
    for (let i = 0; i < 10_000; i++) {
      expect(read(writer.table, Uint32Array.of(i, 1, 0, 0))?.[0]).to.equal(i);
    }
    expect(grown).to.be.below(12);
    const { capacity } = writer.table;
    for (let i = 0; i < 100_000; i++) {
      writer.set(Uint32Array.of(i, 2, 0, 0), address(i));
      writer.delete(Uint32Array.of(i, 2, 0, 0));
    }
    expect(writer.table.capacity).to.be.at.most(2 * capacity);
    expect(read(writer.table, Uint32Array.of(7, 1, 0, 0))?.[0]).to.equal(7);
  });

  it('an underlay address that several peers have stays until the last of them goes', () => {
    const writer = new PeerTableWriter(1, () => {});
    const shared = Uint32Array.of(5, 0, 0, 0);
    writer.set(shared, new Uint32Array(0), true);
    writer.set(shared, new Uint32Array(0), true);
    expect(writer.delete(shared)).to.equal(true);
    expect(writer.table.find(5, 0, 0, 0)).to.be.at.least(0);
    expect(writer.delete(shared)).to.equal(true);
    expect(writer.table.find(5, 0, 0, 0)).to.equal(-1);
    expect(writer.delete(shared)).to.equal(false);
  });

  it('an entry that is being written is not there; one that changed in between is not copied', () => {
    const writer = new PeerTableWriter(1, () => {});
    const mine = macKey(Uint8Array.of(2, 0, 0, 0, 0, 1));
    writer.set(mine, address(1));
    const [low = 0, high = 0] = mine;
    const entry = writer.table.find(low, high, 0, 0);
    const { generation } = writer.table;
    writer.set(mine, address(2));
    expect(writer.table.copyAddress(entry, generation, new Uint32Array(8), 0)).to.equal(false);
    // As the writer has it while it writes.
    Atomics.add(writer.table.words, entry, 1);
    expect(writer.table.find(low, high, 0, 0)).to.equal(-1);
    Atomics.add(writer.table.words, entry, 1);
    expect(writer.table.find(low, high, 0, 0)).to.equal(entry);
  });

  it('an entry that has become another peer’s is not taken for the one that was found', () => {
    const writer = new PeerTableWriter(1, () => {});
    const reader = new PeerTable(writer.memory);
    const mine = Uint32Array.of(1, 0, 0, 0);
    writer.set(mine, address(1));
    const entry = reader.find(1, 0, 0, 0);
    // The first key that takes the same place.
    let other = 1;
    do {
      writer.delete(Uint32Array.of(other, 0, 0, 0));
      other++;
      writer.set(Uint32Array.of(other, 0, 0, 0), address(other));
    } while (writer.table.find(other, 0, 0, 0) !== entry);
    expect(reader.copyAddress(entry, reader.generation, new Uint32Array(8), 0)).to.equal(false);
    expect(reader.find(1, 0, 0, 0)).to.equal(-1);
    expect(reader.find(other, 0, 0, 0)).to.equal(entry);
    expect(reader.copyAddress(entry, reader.generation, new Uint32Array(8), 0)).to.equal(true);
  });

  it('a path’s MTU is forgotten with the address it was learned of', () => {
    const writer = new PeerTableWriter(1, () => {});
    const mine = macKey(Uint8Array.of(2, 0, 0, 0, 0, 1));
    writer.set(mine, address(1));
    const [low = 0, high = 0] = mine;
    const entry = writer.table.find(low, high, 0, 0);
    writer.table.learn(entry, 1300, 5);
    expect([writer.table.pathMtu(entry), writer.table.learnedAt(entry)]).to.deep.equal([1300, 5]);
    writer.set(mine, address(2));
    expect(writer.table.pathMtu(entry)).to.equal(0);
  });
});
