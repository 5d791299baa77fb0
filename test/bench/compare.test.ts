/** Two reports compared: what became worse is found, noise is not, and files that are no reports are refused. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { compareReports, printComparison } from '../../bench/report/compare.ts';
import { sampleReport } from '../../bench/report/sample.ts';
import { type BenchReport, parseReport, ReportError } from '../../bench/report/schema.ts';
import { printReport } from '../../bench/report/table.ts';
import { summarize } from '../../bench/statistics/summarize.ts';
import { UsageError } from '../../overlay/cli/arguments.ts';
import { compareFiles } from '../../overlay/cli/bench-compare.ts';
import type { CommandIo } from '../../overlay/cli/command.ts';
import { NO_PAINT } from '../../overlay/cli/demo-progress.ts';
import { type CommandResult, run } from '../../overlay/lab/command.ts';
import { VTEPD } from '../../overlay/lab/lab-daemon.ts';

describe('bench: comparing two reports', () => {
  const before = sampleReport({ seed: 1 });

  it('finds what became worse by more than the threshold, and says by how much', () => {
    const { changes, regressions } = compareReports(before, sampleReport({ seed: 2, slower: 1.3 }), 5);
    const tcp = changes.find(
      ({ contestant, quantity }) => contestant === 'vxlan' && quantity === 'tcp-1.throughput',
    );
    expect(tcp).to.include({ verdict: 'worse', regression: true });
    expect(tcp?.change).to.be.closeTo(1 / 1.3, 0.03);
    expect(tcp?.statement).to.match(/^TCP, 1 stream, pod to pod, kernel vxlan: .* -> .*: -2\d\.\d %/);
    // The underlay is as fast as it was.
    expect(changes.some(({ contestant, regression }) => contestant === 'underlay' && regression)).to.equal(
      false,
    );
    expect(regressions).to.be.greaterThan(20);
  });

  it('takes what is smaller than the threshold, and what noise explains, for no regression', () => {
    expect(compareReports(before, sampleReport({ seed: 2, slower: 1.3 }), 80).regressions).to.equal(0);
    const noisy = compareReports(
      sampleReport({ seed: 3, noise: 0.4 }),
      sampleReport({ seed: 4, noise: 0.4 }),
      0,
    );
    const seen = noisy.changes.filter(({ verdict }) => verdict !== 'unseen').length;
    // So many are to be expected; twice that would be a fault of ours.
    expect(seen).to.be.below(2 * noisy.expectedByChance + 4);
    expect(noisy.expectedByChance).to.be.below(0.06 * noisy.changes.length);
  });

  it('what became better is no regression', () => {
    const { regressions, changes } = compareReports(sampleReport({ seed: 2, slower: 1.3 }), before, 0);
    expect(changes.filter(({ verdict }) => verdict === 'better').length).to.be.greaterThan(20);
    expect(regressions).to.be.below(5);
  });

  it('warns of other machines and interrupted runs, and names what only one of them has', () => {
    const partial = sampleReport({ seed: 2, partial: true });
    const other = { ...partial, machine: { ...partial.machine, kernel: '5.10.0', cores: 64 } };
    const { warnings, unmatched } = compareReports(before, other, 5);
    expect(warnings.join('; ')).to.match(
      /cores differs: 2 and 64.*kernel differs.*the second was interrupted/,
    );
    expect(unmatched.some((text) => text.endsWith('only before'))).to.equal(true);
    const printed = printComparison(compareReports(before, other, 5), 5);
    expect(printed)
      .to.match(/^Beware:/)
      .and.to.match(
        /By chance alone, on a machine that did the same in both runs, about \d+\.\d would look changed\.\n$/,
      );
  });

  it('a machine that became slower as a whole is no regression of a path; a path that became slower yet is', () => {
    const slowed = (shares: Readonly<Record<string, number>>): BenchReport => ({
      ...before,
      results: before.results.map((result) => {
        const share = shares[result.contestant] ?? 0.8;
        return summarize(
          result,
          result.rounds.map((value) => value && value * share),
        );
      }),
    });
    const tcpOf = (shares: Readonly<Record<string, number>>, contestant: string) =>
      compareReports(before, slowed(shares), 5).changes.find(
        (each) => each.contestant === contestant && each.quantity === 'tcp-1.throughput',
      );
    expect(tcpOf({}, 'underlay')).to.include({ verdict: 'worse', withBaseline: false, regression: true });
    const vxlan = tcpOf({}, 'vxlan');
    expect(vxlan).to.include({ verdict: 'worse', withBaseline: true, regression: false });
    expect(vxlan?.statement).to.match(
      /-20\.\d %.*; bare underlay became worse too, and against it no change/,
    );
    expect(tcpOf({ vxlan: 0.5 }, 'vxlan')).to.include({ withBaseline: false, regression: true });
    expect(tcpOf({ underlay: 1 }, 'vxlan')).to.include({ withBaseline: false, regression: true });
    const printed = printComparison(compareReports(before, slowed({}), 5), 5);
    expect(printed).to.match(
      /Worse, but no more than the baseline:\n {2}TCP, 1 stream, pod to pod, kernel vxlan/,
    );
  });

  it('two rounds each can tell nothing, and that is said', () => {
    const few = compareReports(sampleReport({ rounds: 2 }), sampleReport({ rounds: 2, slower: 3 }), 5);
    expect(few).to.include({ regressions: 0, expectedByChance: 0 });
    expect(printComparison(few, 5)).to.match(
      /: too few rounds to tell a change from chance \(.*five in each report do\.\n$/s,
    );
  });

  it('says when others kept the machine busy in one of the runs', () => {
    const busy = { ...before, machine: { ...before.machine, backgroundPercent: 83 } };
    expect(compareReports(before, busy, 5).warnings).to.have.length(1);
    expect(compareReports(before, busy, 5).warnings[0]).to.match(
      /^during the second, other programs kept 83 %/,
    );
  });

  it('parts of a quantity are not compared: they add up to it', () => {
    const { changes } = compareReports(before, before, 5);
    expect(changes.some(({ quantity }) => quantity.endsWith('.softirq'))).to.equal(false);
    expect(changes.every(({ verdict }) => verdict === 'unseen')).to.equal(true);
  });
});

describe('bench: reports', () => {
  it('are read back as they were written', () => {
    for (const report of [sampleReport(), sampleReport({ partial: true })]) {
      expect(parseReport(JSON.stringify(report), 'x.json')).to.deep.equal(report);
    }
  });

  it('are refused when they are something else: the message names the file', () => {
    expect(() => parseReport('{', 'x.json')).to.throw(ReportError, /^x\.json is not JSON/);
    expect(() => parseReport('{}', 'x.json')).to.throw(
      ReportError,
      /x\.json is not a report of vtepd-bench\/1/,
    );
    expect(() => parseReport('{"schema":"vtepd-bench/2"}', 'x.json')).to.throw(
      ReportError,
      /"vtepd-bench\/2"/,
    );
    const broken = { ...sampleReport(), durationS: 'long' };
    expect(() => parseReport(JSON.stringify(broken), 'x.json')).to.throw(ReportError, /x\.json: durationS/);
  });

  it('are printed with every contestant, what was skipped, and what noise hides', () => {
    const text = printReport(sampleReport({ noise: 0.3 }), NO_PAINT);
    expect(text).to.include('What does encapsulation cost, here?');
    expect(text).to.match(/TCP, 1 stream, there \(Gbit\/s, more is better\)\n {2}bare underlay/);
    expect(text).to.include('no difference can be seen here');
    expect(text).to.include('fastd is not installed: apt-get install fastd');
    for (const way of ['there', 'back']) {
      expect(text).to.match(new RegExp(`UDP that arrived, ${way} .*\\n.*100 Mbit/s +500 Mbit/s`));
    }
    expect(text).to.match(/UDP packets that arrived, by size .*\n.*64 +256 +512/);
    expect(text).to.match(/pod to pod, kernel vxlan +50 {2}captured 50/);
    expect(text).to.match(/user \d.*system \d.*softirq \d/);
    expect(printReport(sampleReport({ partial: true }), NO_PAINT)).to.include('It was interrupted');
  });
});

describe('vtepd bench compare', () => {
  let dir = '';
  const compare = (...args: readonly string[]): Promise<CommandResult> =>
    run(process.execPath, [VTEPD, 'bench', 'compare', ...args], { tolerant: true });
  const file = (name: string): string => join(dir, name);

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'vtepd-compare-'));
    await writeFile(file('a.json'), JSON.stringify(sampleReport({ seed: 1 })));
    await writeFile(file('slow.json'), JSON.stringify(sampleReport({ seed: 2, slower: 1.3 })));
    await writeFile(file('no.json'), '{}');
    await writeFile(file('other.json'), JSON.stringify({ ...sampleReport(), results: [] }));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  it('exits with 1 on a regression past the threshold, and with 0 below it', async () => {
    const worse = await compare(file('a.json'), file('slow.json'));
    expect(worse.status).to.equal(1);
    expect(worse.stdout).to.match(/Worse by more than 5 %:\n {2}TCP, 1 stream/);
    expect((await compare(file('a.json'), file('slow.json'), '--threshold', '80')).status).to.equal(0);
    const same = await compare(file('a.json'), file('a.json'), '--threshold', '0', '--json');
    expect(same.status).to.equal(0);
    expect(JSON.parse(same.stdout)).to.include({ regressions: 0 });
  });

  it('says what is wrong with its arguments and with files', async () => {
    const failure = async (...args: readonly string[]): Promise<unknown> =>
      compareFiles(args, io).catch((error: unknown) => error);
    for (const args of [
      [],
      [file('a.json')],
      ['a', 'b', 'c'],
      ['a', 'b', '--threshold', 'x'],
      ['a', 'b', '--no'],
    ]) {
      expect(await failure(...args), args.join(' ')).to.be.instanceOf(UsageError);
    }
    for (const [name, message] of [
      ['gone.json', /gone\.json cannot be read/],
      ['no.json', /no\.json is not a report/],
      ['other.json', /nothing in common/],
    ] as const) {
      const error = await failure(file('a.json'), file(name));
      expect(error).to.be.instanceOf(ReportError);
      expect(String(error)).to.match(message);
    }
  });
});

const io: CommandIo = {
  out: () => {},
  err: () => {},
  environment: {},
  isTerminal: false,
  signal: new AbortController().signal,
  hide: () => {},
};
