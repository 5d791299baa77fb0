/** Order statistics, held against worked examples and against counting. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { Quantity } from '../../bench/report/schema.ts';
import { choose, mannWhitneyWays, medianInterval, outliers, shift } from '../../bench/statistics/order.ts';
import { seeded, shuffled } from '../../bench/statistics/random.ts';
import {
  compareRounds,
  distributionOf,
  judge,
  sortedQuantile,
  summarize,
} from '../../bench/statistics/summarize.ts';

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

describe('bench: order statistics', () => {
  it('the interval of a median: exact levels, from the tables of the sign test', () => {
    expect(medianInterval(range(5))).to.deep.equal({ low: 1, high: 5, level: 0.9375 });
    expect(medianInterval(range(6))).to.deep.equal({ low: 1, high: 6, level: 0.96875 });
    // From the second on, 8 values reach 0.93 only; 9 do better: 1 - 2 * (1 + 9) / 512.
    expect(medianInterval(range(8))).to.deep.equal({ low: 1, high: 8, level: 1 - 2 / 256 });
    expect(medianInterval(range(9))).to.deep.equal({ low: 2, high: 8, level: 1 - 20 / 512 });
    expect(medianInterval(range(20)).low).to.equal(6);
    expect(medianInterval([7])).to.deep.equal({ low: 7, high: 7, level: 0 });
    expect(() => medianInterval([])).to.throw();
  });

  it('holds the true median as often as it says', () => {
    const random = seeded(1);
    let held = 0;
    const tries = 4000;
    for (let i = 0; i < tries; i++) {
      // Far from normal: the median of the fourth power of a uniform value is 1/16.
      const { low, high } = medianInterval(range(7).map(() => random() ** 4));
      if (low <= 1 / 16 && 1 / 16 <= high) held++;
    }
    expect(held / tries).to.be.closeTo(medianInterval(range(7)).level, 0.01);
  });

  it('ways to choose, and the orders in which U is 0, 1, ...', () => {
    expect([choose(5, 0), choose(5, 2), choose(52, 5), choose(3, 4)]).to.deep.equal([1, 10, 2_598_960, 0]);
    // By hand: of the 6 orders of two and two.
    expect(mannWhitneyWays(2, 2)).to.deep.equal([1, 1, 2, 1, 1]);
    const ways = mannWhitneyWays(5, 5);
    expect(ways.reduce((sum, count) => sum + count, 0)).to.equal(choose(10, 5));
    // The table's critical value for 5 and 5 at 5 % in both tails is 2.
    expect((2 * (1 + 1 + 2)) / choose(10, 5)).to.be.below(0.05);
    expect(ways.slice(0, 4)).to.deep.equal([1, 1, 2, 3]);
  });

  it('the shift between two groups is the median over all pairs; its interval leaves out U of 2 and less', () => {
    const difference = (a: number, b: number): number => b - a;
    const { median, interval } = shift([1, 2, 3, 4, 5], [11, 12, 13, 14, 15], difference);
    expect(median).to.equal(10);
    // Differences 6, 7, 7, 8, ...: the third from each end.
    expect(interval.low).to.equal(7);
    expect(interval.high).to.equal(13);
    expect(interval.level).to.be.closeTo(1 - 8 / 252, 1e-12);
    expect(shift([1, 1], [2, 3], difference).median).to.equal(1.5);
    expect(() => shift([], [1], difference)).to.throw();
  });

  it('two groups of the same distribution look different no oftener than said', () => {
    const random = seeded(3);
    let different = 0;
    const tries = 1500;
    for (let i = 0; i < tries; i++) {
      const group = (): number[] => range(5).map(() => random());
      const { low, high } = shift(group(), group(), (a, b) => b - a).interval;
      if (low > 0 || high < 0) different++;
    }
    expect(different / tries).to.be.below(0.05);
    expect(different).to.be.greaterThan(0);
  });

  it('outliers lie beyond Tukey’s fences, and few values have none', () => {
    expect(outliers([10, 11, 12, 13, 30])).to.deep.equal([4]);
    expect(outliers([30, 10, 11, 12, 13, -20])).to.deep.equal([0, 5]);
    expect(outliers([10, 11, 12, 13, 14])).to.deep.equal([]);
    expect(outliers([1, 2, 1000])).to.deep.equal([]);
  });

  it('any values: the interval holds the median, and no less likely with more values in it', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 40 }),
        (values) => {
          const { low, high, level } = medianInterval(values);
          const sorted = values.toSorted((a, b) => a - b);
          expect(low).to.be.at.most(sorted[values.length >> 1] ?? 0);
          expect(high).to.be.at.least(sorted[(values.length - 1) >> 1] ?? 0);
          expect(level >= 0.95 || (low === sorted[0] && high === sorted.at(-1))).to.equal(true);
        },
      ),
    );
  });
});

describe('bench: results and differences', () => {
  const throughput: Quantity = {
    id: 't',
    title: 'T',
    group: 'throughput',
    unit: 'bit/s',
    better: 'more',
    compareBy: 'ratio',
  };
  const series = { contestant: 'a', quantity: 't' };
  const contestants = [
    { id: 'a', title: 'A', about: '' },
    { id: 'b', title: 'B', about: '' },
  ];

  it('a result keeps every round, also one without a value, and names outliers by round', () => {
    const result = summarize(series, [10, null, 11, 12, 13, 30]);
    expect(result).to.deep.include({ rounds: [10, null, 11, 12, 13, 30], median: 12, min: 10, max: 30 });
    expect(result.outliers).to.deep.equal([5]);
  });

  it('differences are taken round by round', () => {
    // The machine is twice as slow in the last rounds: both suffer, and the ratio does not.
    const a = summarize(series, [90, 91, 92, 45, 46]);
    const b = summarize({ ...series, contestant: 'b' }, [100, 100, 100, 50, 50]);
    const found = compareRounds(a, b, throughput, contestants);
    expect(found?.median).to.equal(0.91);
    expect(found?.verdict).to.equal('worse');
    expect(found?.statement).to.equal('A: -9.00 % against B (-10.0 % to -8.00 % in 5 rounds)');
  });

  it('says when no difference can be seen, and when rounds are too few', () => {
    const of = (a: number[], b: number[]) =>
      compareRounds(
        summarize(series, a),
        summarize({ ...series, contestant: 'b' }, b),
        throughput,
        contestants,
      );
    const noisy = of([90, 110, 95, 105, 100], [100, 100, 100, 100, 100]);
    expect(noisy?.verdict).to.equal('unseen');
    expect(noisy?.statement).to.include('no difference can be seen here');
    const few = of([50, 50, 50], [100, 100, 100]);
    expect(few?.verdict).to.equal('unseen');
    expect(few?.statement).to.include('too few');
    expect(of([1], [0])).to.equal(undefined);
  });

  it('which side is better depends on the quantity', () => {
    const interval = { low: 1.1, high: 1.2, level: 0.95 };
    expect(judge(interval, { better: 'more', compareBy: 'ratio' })).to.equal('better');
    expect(judge(interval, { better: 'less', compareBy: 'ratio' })).to.equal('worse');
    expect(judge({ low: -2, high: -1, level: 0.95 }, { better: 'less', compareBy: 'difference' })).to.equal(
      'better',
    );
    expect(judge({ low: 1, high: 1.2, level: 0.95 }, { better: 'less', compareBy: 'ratio' })).to.equal(
      'unseen',
    );
  });

  it('a distribution has the quantiles that its samples can tell', () => {
    const thousand = Float64Array.from({ length: 1000 }, (_, i) => i + 1);
    const { samples, quantiles } = distributionOf(thousand);
    expect(samples).to.equal(1000);
    expect(quantiles.find(({ share }) => share === 0.5)?.value).to.equal(500);
    expect(quantiles.find(({ share }) => share === 0.99)?.value).to.equal(990);
    expect(quantiles.find(({ share }) => share === 0.999)?.value).to.equal(999);
    expect(quantiles.find(({ share }) => share === 0.9999)).to.equal(undefined);
    expect(quantiles.at(-1)).to.deep.equal({ share: 1, value: 1000 });
    expect(sortedQuantile(Float64Array.from([1, 2]), 0.5)).to.equal(1);
  });

  it('a seed repeats its numbers, which are spread evenly; a shuffle loses nothing', () => {
    const [one, again, other] = [seeded(5), seeded(5), seeded(6)];
    const numbers = range(4000).map(() => one());
    expect(range(4000).map(() => again())).to.deep.equal(numbers);
    expect(other()).not.to.equal(numbers[0]);
    expect(numbers.reduce((sum, value) => sum + value, 0) / 4000).to.be.closeTo(0.5, 0.03);
    const firsts = range(3000).map(() => shuffled(['a', 'b', 'c'], one)[0]);
    for (const letter of ['a', 'b', 'c']) {
      expect(firsts.filter((first) => first === letter).length).to.be.within(850, 1150);
    }
    expect(shuffled(range(10), one).sort((a, b) => a - b)).to.deep.equal(range(10));
  });
});
