import { expect } from 'chai';
import fc from 'fast-check';
import { drawBars } from '../../bench/plots/bars.ts';
import { NARROW_PX, WIDE_PX } from '../../bench/plots/canvas.ts';
import { drawLines } from '../../bench/plots/lines.ts';
import { linearTicks, ratioTicks } from '../../bench/plots/ticks.ts';

const widths = fc.constantFrom(WIDE_PX, NARROW_PX);
const value = fc.oneof(fc.constant(0), fc.double({ min: 1e-9, max: 1e12, noNaN: true }));

describe('plots', () => {
  it('linear ticks ascend evenly, cover the values, and are few', () => {
    fc.assert(
      fc.property(value, value, widths, (one, other, width) => {
        const [least, most] = [Math.min(0, one), Math.max(one, other)];
        const values = linearTicks(least, most, width).map((tick) => tick.value);
        expect(values.length).to.be.within(2, 9);
        expect(values[0]).to.be.at.most(least);
        expect(values.at(-1)).to.be.at.least(most * (1 - 1e-6));
        for (const [place, each] of values.entries())
          if (place > 0) expect(each).to.be.above(values[place - 1] ?? 0);
      }),
    );
  });

  it('linear ticks are what people count in', () => {
    expect(linearTicks(0, 28.5, WIDE_PX).map(({ text }) => text)).to.deep.equal([
      '0',
      '5',
      '10',
      '15',
      '20',
      '25',
      '30',
    ]);
    expect(linearTicks(0, 0.7, NARROW_PX).map(({ text }) => text)).to.deep.equal([
      '0',
      '0.2',
      '0.4',
      '0.6',
      '0.8',
    ]);
    expect(linearTicks(0, 0, WIDE_PX).at(0)?.value).to.equal(0);
  });

  it('ratio ticks are symmetric words around the same, and cover the ratios', () => {
    expect(ratioTicks(0.6, 1.1, WIDE_PX).map(({ text }) => text)).to.deep.equal(['÷ 2', 'same', '× 2']);
    const ratio = fc.double({ min: 1e-4, max: 1e4, noNaN: true });
    fc.assert(
      fc.property(ratio, ratio, widths, (one, other, width) => {
        const ticks = ratioTicks(Math.min(1, one, other), Math.max(1, one, other), width);
        expect(ticks.some(({ value: power, text }) => power === 0 && text === 'same')).to.equal(true);
        expect(2 ** (ticks[0]?.value ?? 0)).to.be.at.most(Math.min(one, other) * (1 + 1e-9));
        expect(2 ** (ticks.at(-1)?.value ?? 0)).to.be.at.least(Math.max(one, other) * (1 - 1e-9));
        expect(ticks.length).to.be.at.most(width === WIDE_PX ? 10 : 8);
      }),
    );
  });

  it('a bar is as long as its value, an outlier is drawn where it lies', () => {
    const row = (label: string, median: number, rounds: { value: number; outlier: boolean }[]) => ({
      label,
      colour: 'red',
      median,
      low: median,
      high: median,
      rounds,
      text: String(median),
    });
    const svg = drawBars([row('one', 10, []), row('two', 5, [{ value: 9, outlier: true }])], 'MiB', WIDE_PX);
    expect(svg).to.match(/>MiB</);
    const lengths = [
      ...svg.matchAll(/<path d="M[\d.]+ [\d.]+l([\d.]+) 0l0 [\d.]+l-[\d.]+ 0Z" fill="red"/g),
    ].map(([, length]) => Number(length));
    expect(lengths).to.have.length(2);
    expect((lengths[1] ?? 0) / (lengths[0] ?? 1)).to.be.closeTo(0.5, 0.01);
    const left = Number(/<path d="M([\d.]+) [\d.]+l[\d.]+ 0l0 [\d.]+l-[\d.]+ 0Z" fill="red"/.exec(svg)?.[1]);
    const diamond = /<polygon points="([\d.]+) [^"]*" fill="var\(--paper\)" stroke="red"/.exec(svg);
    expect((Number(diamond?.[1]) - left) / (lengths[0] ?? 1)).to.be.closeTo(0.9, 0.01);
  });

  it('a line goes through its points, and the drawing is bare: no ids, classes, styles or scripts', () => {
    const line = { slot: 1, points: [0, 1, 2].map((x) => ({ x, y: x, low: x, high: x, outliers: [] })) };
    const xTicks = [0, 1, 2].map((each) => ({ value: each, text: `<place ${each}>` }));
    const svg = drawLines(
      { lines: [line], xTicks, logarithmic: false, xName: 'UDP payload, bytes', yName: 'Gbit/s' },
      WIDE_PX,
    );
    expect(svg)
      .to.match(/>UDP payload, bytes</)
      .and.to.match(/>Gbit\/s</);
    expect(svg).to.match(/^<svg [^>]*viewBox="0 0 760 354"/);
    expect(svg).to.contain('&lt;place 1&gt;');
    expect(svg).to.not.match(/ (id|class)=|<style|<script|clip|ecmeta|width="760"/);
    const [, path = ''] =
      /<path d="(M[^"]+)" fill="none" stroke="var\(--c1\)" stroke-width="2"/.exec(svg) ?? [];
    const points = path
      .slice(1)
      .split('L')
      .map((each) => each.split(' ').map(Number));
    expect(points).to.have.length(3);
    const [[x0 = 0, y0 = 0], [x1 = 0, y1 = 0], [x2 = 0, y2 = 0]] = points as [number[], number[], number[]];
    expect(x1 - x0).to.be.closeTo(x2 - x1, 0.2);
    expect(y0 - y1).to.be.closeTo(y1 - y2, 0.2);
  });
});
