import { expect } from 'chai';
import fc from 'fast-check';
import { digits, scaleFor } from '../../bench/report/format.ts';
import { renderReport } from '../../bench/report/html.ts';
import { DARK, LIGHT } from '../../bench/report/html-style.ts';
import { html } from '../../bench/report/html-text.ts';
import { sampleReport } from '../../bench/report/sample.ts';
import { type BenchReport, GROUPS, parseReport } from '../../bench/report/schema.ts';
import { HOSTILE, hostileReport } from './hostile-report.ts';

describe('the page of a benchmark', function () {
  this.timeout(60_000);
  const report = sampleReport({ seed: 5 });
  let page: string;

  before(async () => {
    page = await renderReport(report);
  });

  it('has every section, figure and statement of a whole report', () => {
    for (const group of GROUPS) {
      const measured = report.quantities.some((each) => each.group === group);
      expect(page.includes(`id="${group}"`), group).to.equal(measured);
    }
    for (const { title, partOf } of report.quantities)
      if (partOf === undefined) expect(page).to.contain(title);
    for (const { title, about, skipped } of report.contestants) {
      for (const text of [title, about, skipped ?? '']) expect(page).to.contain(html`${text}`.markup);
    }
    const whole = new Set(report.quantities.flatMap(({ id, partOf }) => (partOf === undefined ? [id] : [])));
    const unseen = report.differences.filter(
      ({ verdict, quantity }) => verdict === 'unseen' && whole.has(quantity),
    );
    expect(unseen).to.not.have.length(0);
    for (const { statement } of unseen) expect(page).to.contain(html`${statement}`.markup);
    expect(page).to.contain('no difference can be seen here');
    for (const { argv } of report.commands) expect(page).to.contain(argv.join(' '));
    expect(page).to.contain(report.machine.kernel).and.to.contain(report.machine.cpu);
  });

  it('has every round of every result, and marks the outliers', () => {
    const outlier = report.results.find(({ outliers }) => outliers.length > 0);
    expect(outlier, 'the sample has outliers').to.not.equal(undefined);
    for (const quantity of report.quantities) {
      const results = report.results.filter((each) => each.quantity === quantity.id);
      const { factor } = scaleFor(
        results.map(({ max }) => max),
        quantity.unit,
      );
      for (const { rounds, outliers } of results) {
        const shown = rounds.map((value, round) => {
          const text = digits((value ?? 0) * factor);
          return outliers.includes(round)
            ? `<mark title="round ${round + 1}: an outlier">${text}</mark> `
            : `<span>${text}</span> `;
        });
        expect(page).to.contain(shown.join(''), quantity.id);
      }
    }
  });

  it('holds the report itself, to be taken out', () => {
    const found = /download="([^"]+)" href="data:application\/json;base64,([^"]+)"/.exec(page);
    expect(found?.[1]).to.equal('vtepd-bench-encapsulation-2026-11-21.json');
    expect(parseReport(Buffer.from(found?.[2] ?? '', 'base64').toString(), 'page')).to.deep.equal(
      JSON.parse(JSON.stringify(report)),
    );
  });

  it('needs nothing but itself', () => {
    expect(page).to.not.match(/<script|<iframe|<object|@import|url\(|\ssrc=/);
    const links = [...page.matchAll(/\s(?:href|xlink:href)="([^"]*)"/g)].map(([, link]) => link ?? '');
    expect(links.filter((link) => !/^(#|data:)/.test(link))).to.deep.equal([]);
    expect(page).to.contain('content="default-src &#39;none&#39;;');
  });

  it('says that a run was interrupted, and shows what there is', async () => {
    const partial = await renderReport(sampleReport({ partial: true }));
    expect(partial).to.contain('This run was interrupted');
    expect(partial).to.contain('id="throughput"').and.not.to.contain('id="latency"');
    expect(partial).to.contain('2 rounds are too few');
  });

  it('is a page even when nothing was measured', async () => {
    const empty: BenchReport = {
      ...sampleReport({ partial: true }),
      results: [],
      differences: [],
      overheads: [],
      commands: [],
    };
    const nothing = await renderReport(empty);
    expect(nothing).to.contain('Nothing was measured.');
    expect(nothing).to.contain('id="machine"').and.not.to.contain('id="short"');
  });

  it('shows the project’s own benchmarks: aims, no directions, an axis of counts, values of 0', async () => {
    const sample = sampleReport({ partial: true });
    const interval = { low: 0, high: 2, level: 0.9375 };
    const shown = { direction: undefined, median: 1, min: 0, max: 2, interval, outliers: [] };
    const own: BenchReport = {
      ...sample,
      bench: 'convergence',
      title: 'How fast does it converge?',
      baseline: null,
      contestants: [{ id: 'vtepd', title: 'vtepd', about: 'The daemon.' }],
      quantities: [
        {
          id: 'full',
          title: 'Time of a full pass',
          group: 'own',
          unit: 's',
          better: 'less',
          compareBy: 'ratio',
          axis: { title: 'peers', unit: 'count' },
        },
        {
          id: 'lost',
          title: 'Packets lost',
          group: 'own',
          unit: 'count',
          better: 'less',
          compareBy: 'difference',
        },
      ],
      results: [
        ...[1000, 10_000, 50_000].map((at) => ({
          contestant: 'vtepd',
          quantity: 'full',
          at,
          rounds: [at / 1e5, at / 2e5, null],
          ...shown,
          median: at / 1e5,
        })),
        { contestant: 'vtepd', quantity: 'lost', rounds: [0, 0, 0], ...shown, median: 0, max: 0 },
      ].map(({ direction: _, ...result }) => result),
      differences: [],
      overheads: [],
      aims: [{ what: 'a full pass at 10,000 peers, s', atMost: 1, measured: 0.1, met: true }],
    };
    const shownPage = await renderReport(own);
    expect(shownPage)
      .to.contain('How fast does it converge?')
      .and.to.contain('a full pass at 10,000 peers, s');
    expect(shownPage).to.contain('50,000').and.to.contain('>met<');
    expect(shownPage).to.contain('round 3 gave no value');
    expect(shownPage).to.not.match(/NaN|Infinity|undefined/);
  });

  it('escapes every text, wherever it stands', async () => {
    const hostile = await renderReport(hostileReport());
    expect(hostile).to.not.match(/<img|<script|onload=alert\(1\)>|onerror="/);
    expect(hostile).to.not.contain('\u0000').and.not.to.contain('\u202e');
    expect(hostile.match(/<\/title>/g), 'one of the page, and one of each plot').to.have.length(
      1 + (hostile.match(/<title id=/g) ?? []).length,
    );
    expect(hostile).to.contain(html`${HOSTILE.slice(0, 40)}`.markup);
  });

  it('a text gives neither tags nor entities nor ends of attributes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const { markup } = html`${text}`;
        expect(markup).to.not.match(/[<>"']/);
        expect(markup.replace(/&(amp|lt|gt|quot|#39);/g, '')).to.not.contain('&');
      }),
    );
  });

  it('its texts can be read and its marks be seen: contrast as WCAG 2 computes it', () => {
    for (const [name, colours] of Object.entries({ LIGHT, DARK })) {
      const against = (ink: string, paper: string): number =>
        contrast(colours[ink] ?? '', colours[paper] ?? '');
      for (const ink of ['ink', 'muted', 'good', 'bad', 'link'])
        for (const paper of ['paper', 'raised'])
          expect(against(ink, paper), `${name} ${ink} on ${paper}`).to.be.at.least(4.5);
      for (const paper of ['outer', 'added', 'inner', 'flag'])
        expect(against('ink', paper), `${name} ink on ${paper}`).to.be.at.least(4.5);
      for (const mark of Object.keys(colours).filter((each) => /^[cp]\d$/.test(each)))
        expect(against(mark, 'paper'), `${name} ${mark}`).to.be.at.least(3);
    }
  });
});

function contrast(one: string, other: string): number {
  const [lighter = 0, darker = 0] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (lighter + 0.05) / (darker + 0.05);
}

function luminance(hex: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const share = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
