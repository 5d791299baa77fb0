/** What the project's own benchmarks record is a report that `vtepd bench compare` reads. */
import { expect } from 'chai';
import { type Findings, type OwnQuantity, Recorder } from '../../bench/run/recorder.ts';
import { SeriesStore } from '../../bench/run/series-store.ts';

const READY: OwnQuantity = { id: 'ready', title: 'from its start to ready', unit: 's' };
const LOST: OwnQuantity = { id: 'lost', title: 'lost', unit: 'count', compareBy: 'difference' };

describe('bench: what a benchmark records', () => {
  it('is kept by contestant, quantity and place, with differences from the baseline', () => {
    const recorder = new Recorder();
    expect(recorder.isEmpty).to.equal(true);
    for (let round = 0; round < 5; round++) {
      recorder.record('old', READY, { round }, 1 + round / 100);
      recorder.record('new', READY, { round }, 0.5 + round / 200);
      recorder.record('old', LOST, { round }, 0);
      recorder.record('new', LOST, { round }, 0);
    }
    recorder.describe('new', 'the other way');
    const found: Findings = recorder.findings('old');
    expect(found.contestants.map(({ id, about }) => `${id}: ${about}`)).to.deep.equal([
      'old: ',
      'new: the other way',
    ]);
    expect(found.quantities.map(({ id, better, group }) => `${id} ${better} ${group}`)).to.deep.equal([
      'ready less own',
      'lost less own',
    ]);
    const [ready, lost] = found.differences;
    expect(ready).to.include({ contestant: 'new', baseline: 'old', verdict: 'better' });
    expect(ready?.median).to.be.closeTo(0.5, 1e-9);
    expect(lost).to.include({ verdict: 'unseen', median: 0 });
    expect(recorder.findings(null).differences).to.deep.equal([]);
    expect(recorder.findings('nobody').differences).to.deep.equal([]);
  });

  it('many samples of a round are its median and its 99th of 100, and a distribution of all rounds', () => {
    const recorder = new Recorder();
    const samples = Array.from({ length: 100 }, (_, i) => (i + 1) / 1000);
    for (let round = 0; round < 2; round++) recorder.recordSamples('one', READY, { round, at: 10 }, samples);
    const { results, quantities } = recorder.findings(null);
    expect(quantities.map(({ id }) => id)).to.deep.equal(['ready.p50', 'ready.p99']);
    expect(results.map(({ median, at }) => [median, at])).to.deep.equal([
      [0.05, 10],
      [0.099, 10],
    ]);
    expect(results[0]?.distribution?.samples).to.equal(200);
    expect(results[1]?.distribution).to.equal(undefined);
  });

  it('a round that gave nothing is there as nothing, and a series without any value is left out', () => {
    const store = new SeriesStore();
    const quantity = { ...READY, group: 'own', better: 'less', compareBy: 'ratio' } as const;
    store.add({ contestant: 'a', quantity: 'ready' }, 2, 7);
    store.add({ contestant: 'b', quantity: 'ready' }, 0, null);
    const results = store.results([quantity], ['a', 'b']);
    expect(results.map(({ contestant, rounds }) => [contestant, rounds])).to.deep.equal([
      ['a', [null, null, 7]],
    ]);
  });
});
