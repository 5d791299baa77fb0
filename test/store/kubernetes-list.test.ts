/** A list of the API, taken apart as it comes. */
import { expect } from 'chai';
import fc from 'fast-check';
import { ListSplitter } from '../../store/kubernetes/list-splitter.ts';

/** A text in pieces, cut where the numbers say. */
function pieces(text: string, cuts: readonly number[]): string[] {
  const at = [...new Set(cuts.map((cut) => cut % (text.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, i) => text.slice(from, at[i] ?? text.length));
}

function split(texts: readonly string[]): { readonly list: unknown; readonly items: unknown[] } {
  const items: unknown[] = [];
  const splitter = new ListSplitter((item) => items.push(item));
  for (const text of texts) splitter.push(text);
  return { list: splitter.end(), items };
}

describe('store/kubernetes: lists', () => {
  const item = fc.dictionary(
    fc.string({ unit: fc.constantFrom('a', '"', '\\', '{', ']', ',', 'é', '\n') }),
    fc.jsonValue(),
  );

  it('give every item and the rest, wherever the text is cut, however it is written', () => {
    fc.assert(
      fc.property(
        fc.array(item, { maxLength: 5 }),
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.constantFrom(0, 2),
        fc.boolean(),
        (items, metadata, cuts, indent, itemsFirst) => {
          const list = itemsFirst ? { items, metadata } : { kind: 'NodeList', metadata, items };
          const read = split(pieces(JSON.stringify(list, null, indent), cuts));
          expect(read.items).to.deep.equal(JSON.parse(JSON.stringify(items)));
          expect(read.list).to.deep.equal(JSON.parse(JSON.stringify({ ...list, items: items.map(() => 0) })));
        },
      ),
      { numRuns: 300, seed: 6 },
    );
  });

  it('that are cut short or malformed are refused, as a whole or at the item', () => {
    const text = '{"metadata":{"resourceVersion":"7"},"items":[{"a":"x\\"}"},{"b":[1]}]}';
    expect(split([text]).items).to.deep.equal([{ a: 'x"}' }, { b: [1] }]);
    for (let length = 0; length < text.length; length++) {
      expect(() => split([text.slice(0, length)]), text.slice(0, length)).to.throw(SyntaxError);
    }
    expect(() => split(['{"items":[{"a":}]}'])).to.throw(SyntaxError);
    expect(() => split(['<html>busy</html>'])).to.throw(SyntaxError);
  });
});
