/** The page in a real browser: it fits, it asks for nothing, it complains about nothing. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { renderReport } from '../../bench/report/html.ts';
import { sampleReport } from '../../bench/report/sample.ts';
import { need } from '../lab/capability.ts';
import { Browser } from './browser.ts';
import { hostileReport } from './hostile-report.ts';

const PHONE_PX = 375;
const DESK_PX = 1280;

/** Elements of the page that reach beyond its right edge, but for those in a box that scrolls by itself. */
const OVERFLOWING = `[...document.querySelectorAll('body *')]
  .filter((each) => each.closest('.scroll, pre, details:not([open])') === null)
  .filter((each) => each.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((each) => each.outerHTML.slice(0, 120))`;

const SHOWN_PLOTS = `[...document.querySelectorAll('.plot svg')].filter((each) => each.checkVisibility()).length`;

describe('the page of a benchmark in a browser', function () {
  this.timeout(120_000);
  let browser: Browser;
  let folder: string;
  /** Drawing it takes a second. */
  let whole: string;

  before(async function () {
    need(this, 'chromium');
    folder = await mkdtemp(join(tmpdir(), 'vtepd-page-'));
    browser = await Browser.open();
    whole = await renderReport(sampleReport());
  });

  after(async () => {
    await browser?.close();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  });

  async function show(page: string): Promise<string> {
    const file = join(folder, 'page.html');
    await writeFile(file, page);
    const url = pathToFileURL(file).href;
    await browser.show(url);
    return url;
  }

  for (const [name, report] of [
    ['a whole report', undefined],
    ['an interrupted one', sampleReport({ partial: true })],
    ['one whose text wants to be markup', hostileReport()],
  ] as const) {
    it(`${name}: fits a phone and a desk, asks for nothing, complains about nothing`, async () => {
      const url = await show(report === undefined ? whole : await renderReport(report));
      for (const widthPx of [PHONE_PX, DESK_PX]) {
        await browser.resize(widthPx, 900);
        const scrollWidth = await browser.evaluate<number>('document.documentElement.scrollWidth');
        expect(scrollWidth, `${widthPx} px: ${await browser.evaluate(OVERFLOWING)}`).to.be.at.most(widthPx);
        expect(await browser.evaluate(OVERFLOWING), `at ${widthPx} px`).to.deep.equal([]);
        expect(await browser.evaluate(SHOWN_PLOTS)).to.be.above(0);
      }
      expect(browser.requests.filter((each) => !each.startsWith('data:'))).to.deep.equal([url]);
      expect(browser.complaints).to.deep.equal([]);
      expect(await browser.evaluate('document.scripts.length')).to.equal(0);
      const identifiers = await browser.evaluate<string[]>(
        `[...document.querySelectorAll('[id]')].map(({ id }) => id)`,
      );
      expect(identifiers, 'identifiers are unique').to.have.length(new Set(identifiers).size);
    });
  }

  it('shows one size of every plot, and names each for who does not see it', async () => {
    await show(whole);
    const figures = await browser.evaluate<number>(`document.querySelectorAll('figure:has(.plot)').length`);
    for (const widthPx of [PHONE_PX, DESK_PX]) {
      await browser.resize(widthPx, 900);
      expect(await browser.evaluate(SHOWN_PLOTS)).to.equal(figures);
    }
    const unnamed = `[...document.querySelectorAll('.plot svg')].filter((svg) => {
      const text = (name) => document.getElementById(svg.getAttribute(name))?.textContent.trim() ?? '';
      return svg.getAttribute('role') !== 'img' || text('aria-labelledby') === '' || text('aria-describedby') === '';
    }).length`;
    expect(await browser.evaluate(unnamed)).to.equal(0);
    expect(await browser.evaluate(`document.querySelectorAll('td').length`)).to.be.above(100);
    expect(await browser.evaluate(`document.querySelectorAll('table:not(:has(th))').length`)).to.equal(0);
  });

  it('keeps every text of a plot inside it, on a phone too', async () => {
    await show(whole);
    for (const widthPx of [PHONE_PX, DESK_PX]) {
      await browser.resize(widthPx, 900);
      const outside = `[...document.querySelectorAll('.plot text')].filter((text) => text.checkVisibility()).filter((text) => {
        const [inner, outer] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
        return inner.left < outer.left - 3 || inner.right > outer.right + 3;
      }).map(({ textContent }) => textContent)`;
      expect(await browser.evaluate(outside), `at ${widthPx} px`).to.deep.equal([]);
    }
  });

  it('is dark where the system is, light otherwise, and light on paper', async () => {
    await show(whole);
    const ground = 'getComputedStyle(document.body).backgroundColor';
    const colour = `getComputedStyle(document.querySelector('.plot [fill="var(--c1)"]')).fill`;
    await browser.prefer('light');
    const light = [await browser.evaluate(ground), await browser.evaluate(colour)];
    await browser.prefer('dark');
    const dark = [await browser.evaluate(ground), await browser.evaluate(colour)];
    await browser.prefer('dark', 'print');
    const paper = [await browser.evaluate(ground), await browser.evaluate(colour)];
    expect(light[0]).to.equal('rgb(255, 255, 255)');
    expect(dark[0]).to.equal('rgb(20, 23, 29)');
    expect(dark[1]).to.not.equal(light[1]);
    expect(paper).to.deep.equal(light);
    const folded = `[...document.querySelectorAll('.numbers td')].every((each) => each.checkVisibility())`;
    expect(await browser.evaluate(folded), 'paper cannot be unfolded').to.equal(true);
    await browser.prefer('light');
    expect((await browser.pdf()).subarray(0, 5).toString()).to.equal('%PDF-');
  });
});
