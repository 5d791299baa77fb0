/** The benchmarks' arithmetic, held against worked examples. */
import { expect } from 'chai';
import fc from 'fast-check';
import {
  bucketQuantile,
  bucketsSince,
  distribution,
  inTurns,
  median,
  NoValuesError,
  pairedRatio,
  quantile,
  readBuckets,
  rounded,
  spread,
} from '../../bench/harness/statistics.ts';

const values = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1 });

describe('bench: statistics', () => {
  it('the median is the middle value, or the mean of the two in the middle', () => {
    expect(median([3])).to.equal(3);
    expect(median([9, 1, 5])).to.equal(5);
    expect(median([10, 1, 2, 7])).to.equal(4.5);
    // As numbers, not as text.
    expect(median([10, 9, 100])).to.equal(10);
  });

  it('a quantile is the nearest rank: always a value that was measured', () => {
    // The worked example of the nearest-rank method: 15, 20, 35, 40, 50.
    const five = [35, 20, 15, 50, 40];
    expect(quantile(five, 0.05)).to.equal(15);
    expect(quantile(five, 0.3)).to.equal(20);
    expect(quantile(five, 0.4)).to.equal(20);
    expect(quantile(five, 0.5)).to.equal(35);
    expect(quantile(five, 1)).to.equal(50);
    const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect(quantile(hundred, 0.99)).to.equal(99);
    expect(quantile(hundred, 0.01)).to.equal(1);
    expect(quantile(hundred, 0)).to.equal(1);
    // In floating point, 7 % of a hundred is more than 7.
    expect(quantile(hundred, 0.07)).to.equal(7);
  });

  it('nothing measured is an error, not a zero', () => {
    for (const none of [
      () => median([]),
      () => quantile([], 0.5),
      () => spread([]),
      () => distribution([]),
    ]) {
      expect(none).to.throw(NoValuesError);
    }
  });

  it('a spread keeps every value in the order of the rounds', () => {
    expect(spread([4, 1, 2])).to.deep.equal({ median: 2, min: 1, max: 4, values: [4, 1, 2] });
  });

  it('a distribution of 1 to 200', () => {
    const all = Array.from({ length: 200 }, (_, i) => i + 1);
    expect(distribution(all)).to.deep.equal({ count: 200, min: 1, p50: 100.5, p90: 180, p99: 198, max: 200 });
  });

  it('ratios are taken round by round', () => {
    // Both sides are slow in the second round: the machine's doing, which a ratio of medians would mix up.
    expect(pairedRatio([1, 10, 3], [2, 20, 4])).to.deep.equal({
      median: 0.5,
      min: 0.5,
      max: 0.75,
      values: [0.5, 0.5, 0.75],
    });
    expect(() => pairedRatio([1], [1, 2])).to.throw(RangeError);
  });

  it('each round another begins, and all have their turn', () => {
    expect([0, 1, 2, 3].map((round) => inTurns(['a', 'b', 'c'], round).join(''))).to.deep.equal([
      'abc',
      'bca',
      'cab',
      'abc',
    ]);
    expect(inTurns([], 3)).to.deep.equal([]);
  });

  it('four significant digits', () => {
    expect([1234.567, 0.000123456, 0, 999_999].map(rounded)).to.deep.equal([1235, 0.0001235, 0, 1_000_000]);
  });

  it('any values: the least, the quantiles and the greatest are in order, and were measured', () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0.001, max: 1, noNaN: true }), (all, share) => {
        const found = quantile(all, share);
        expect(all).to.include(found);
        const notAbove = all.filter((value) => value <= found).length;
        expect(notAbove).to.be.at.least(share * all.length - 1e-6);
        expect(all.filter((value) => value < found).length).to.be.below(share * all.length);
      }),
    );
  });
});

const TEXT = `# HELP lease_seconds From here to there.
# TYPE lease_seconds histogram
lease_seconds_bucket{le="0.001"} 10
lease_seconds_bucket{le="0.005"} 30
lease_seconds_bucket{le="+Inf"} 31
lease_seconds_sum 0.1
lease_seconds_count 31
other_seconds_bucket{le="0.001"} 7
`;

describe('bench: histograms of the daemon', () => {
  it('reads one histogram out of a page of metrics', () => {
    expect([...readBuckets(TEXT, 'lease_seconds')]).to.deep.equal([
      [0.001, 10],
      [0.005, 30],
      [Number.POSITIVE_INFINITY, 31],
    ]);
    expect(readBuckets(TEXT, 'seconds').size).to.equal(0);
  });

  it('counts what came between two readings, and says the bound that a share of it is below', () => {
    const before = new Map([
      [0.001, 10],
      [0.005, 30],
      [Number.POSITIVE_INFINITY, 31],
    ]);
    const after = new Map([
      [0.001, 109],
      [0.005, 130],
      [Number.POSITIVE_INFINITY, 131],
    ]);
    const since = bucketsSince(before, after);
    expect([...since.values()]).to.deep.equal([99, 100, 100]);
    expect(bucketQuantile(since, 0.5)).to.equal(0.001);
    expect(bucketQuantile(since, 0.99)).to.equal(0.001);
    expect(bucketQuantile(since, 1)).to.equal(0.005);
    expect(() => bucketQuantile(bucketsSince(after, after), 0.5)).to.throw(NoValuesError);
  });

  it('an observation beyond the last bound is beyond every number', () => {
    expect(
      bucketQuantile(
        new Map([
          [1, 1],
          [Number.POSITIVE_INFINITY, 2],
        ]),
        1,
      ),
    ).to.equal(Number.POSITIVE_INFINITY);
  });
});
