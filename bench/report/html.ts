/**
 * `vtepd bench --html FILE`: a report as one page that needs nothing else: no script, no font, no request.
 * Every plot stands in it as SVG, every number as text, the report itself as a file to take out.
 */
import { printable } from '../../overlay/ops/redact.ts';
import { digits } from './format.ts';
import { contestantLegend, figureHtml, figuresOf } from './html-figures.ts';
import { packets } from './html-packet.ts';
import { STYLE } from './html-style.ts';
import { comparison, scoreboard } from './html-summary.ts';
import { facts, numbers, unseen } from './html-tables.ts';
import { type Content, Html, html } from './html-text.ts';
import { type BenchReport, GROUPS, type Group } from './schema.ts';
import { ReportView } from './view.ts';

interface Section {
  readonly id: string;
  readonly title: string;
  readonly intro?: string | undefined;
  readonly body: Content;
}

const GROUP_TITLES: Readonly<Record<Group, { readonly title: string; readonly intro: string }>> = {
  throughput: { title: 'Throughput', intro: 'How much payload arrives in a second.' },
  udp: { title: 'UDP at a given rate', intro: 'What arrives, and what is lost, of what is sent.' },
  latency: { title: 'Latency', intro: 'How long a request and its answer take, one after the other.' },
  connections: { title: 'Connections', intro: 'How many TCP connections can be opened in a second.' },
  size: { title: 'Packet size', intro: 'Small packets cost as much as large ones: what counts is how many.' },
  mtu: { title: 'MTU', intro: 'The same transfer over an underlay with smaller and larger packets.' },
  cpu: {
    title: 'Processor time',
    intro: 'Of the whole machine, both nodes and the measuring programs included.',
  },
  memory: { title: 'Memory', intro: 'What the programs of a path hold, resident.' },
  own: { title: 'Measured', intro: '' },
};

/** @returns a whole HTML document. Text of the report is escaped wherever it stands. */
export function renderReport(report: BenchReport): Promise<string> {
  return Promise.resolve(page(new ReportView(report)).markup);
}

function page(view: ReportView): Html {
  const { report } = view;
  const sections = [
    ...summary(view),
    ...packetSection(view),
    ...measured(view),
    ...about(view),
    ...everyNumber(view),
  ];
  const policy =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="vtepd ${report.vtepd}">
<title>${report.title} - vtepd bench</title>
<link rel="icon" href="data:,">
<style>${new Html(STYLE)}</style>
</head>
<body>
<header>
<h1>${report.title}</h1>
<p class="lead">${leadOf(report)}</p>
${banner(report)}
<nav aria-label="Sections"><ul>${sections.map(({ id, title }) => html`<li><a href="#${id}">${title}</a></li>`)}</ul></nav>
</header>
<main>
${sections.map(
  ({ id, title, intro, body }) => html`<section aria-labelledby="${id}">
<h2 id="${id}">${title}</h2>
${intro !== undefined && intro !== '' ? html`<p class="intro">${intro}</p>` : undefined}
${body}
</section>
`,
)}
</main>
<footer><p>Made by vtepd ${report.vtepd}. The file <a class="download" download="${fileName(report)}" href="${dataUrl(report)}">${fileName(report)}</a> holds everything above, for <code>vtepd bench compare</code> and for programs.</p></footer>
</body>
</html>
`;
}

function leadOf({ machine, startedAt, plannedRounds, durationS, quick }: BenchReport): string {
  const when = Number.isNaN(Date.parse(startedAt))
    ? startedAt
    : new Date(startedAt).toISOString().slice(0, 16).replace('T', ' ');
  const rounds = `${plannedRounds} ${plannedRounds === 1 ? 'round' : 'rounds'}${quick ? ', quick' : ''}`;
  return `${machine.cpu}, ${machine.cores} ${machine.cores === 1 ? 'core' : 'cores'}, Linux ${machine.kernel} · ${when} UTC · ${rounds}, ${Math.round(durationS)} s`;
}

/** More than these stand folded before the first number. */
const MOST_LINES = 4;

/** What a reader must know before any number. */
function banner({ complete, problems, results }: BenchReport): Html | undefined {
  const lines = [
    ...(complete
      ? []
      : [
          'This run was interrupted: everything here was measured before, in fewer rounds than were planned.',
        ]),
    ...(results.length === 0 ? ['Nothing was measured.'] : []),
    ...problems,
  ];
  if (lines.length === 0) return undefined;
  const [only] = lines;
  if (lines.length === 1) return html`<div class="flag" role="note"><p>${only}</p></div>`;
  const list = (of: readonly string[]): Html => html`<ul>${of.map((line) => html`<li>${line}</li>`)}</ul>`;
  const rest = lines.slice(MOST_LINES);
  const folded =
    rest.length > 0
      ? html`<details><summary>${rest.length} more</summary>${list(rest)}</details>`
      : undefined;
  return html`<div class="flag" role="note">${list(lines.slice(0, MOST_LINES))}${folded}</div>`;
}

function summary(view: ReportView): Section[] {
  const parts = [scoreboard(view), comparison(view), aims(view)].filter((part) => part !== undefined);
  return parts.length === 0 ? [] : [{ id: 'short', title: 'In short', body: parts }];
}

function aims({ report }: ReportView): Html | undefined {
  if (report.aims.length === 0) return undefined;
  const rows = report.aims.map(
    ({ what, atMost, measured: value, met }) =>
      html`<tr><th scope="row">${what}</th><td class="n">${atMost}</td><td class="n">${value}</td><td class="${met ? 'good' : 'bad'}">${met ? 'met' : 'missed'}</td></tr>`,
  );
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Aims"><table><caption>What the design asks for.</caption><thead><tr><th scope="col">aim</th><th scope="col" class="n">at most</th><th scope="col" class="n">measured</th><th scope="col">so it is</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

function packetSection(view: ReportView): Section[] {
  const body = packets(view);
  if (body === undefined) return [];
  const intro =
    'Each pod’s packet as it crosses the underlay, outermost header first, with the bytes of each.';
  return [{ id: 'packet', title: 'The packet', intro, body }];
}

function measured(view: ReportView): Section[] {
  return GROUPS.flatMap((group) => {
    const quantities = view.quantities(group);
    if (quantities.length === 0) return [];
    const figures = figuresOf(view, quantities);
    const pairs = figures.some(({ compact }) => compact) ? ' pairs' : '';
    const body = html`${contestantLegend(view, figures)}
<div class="figures${pairs}">
${figures.map((figure, place) => figureHtml(figure, `${group}-${place}`))}</div>
${unseen(view, quantities)}`;
    return [{ id: group, ...GROUP_TITLES[group], body }];
  });
}

function everyNumber(view: ReportView): Section[] {
  const quantities = view.quantities();
  if (quantities.length === 0) return [];
  const intro =
    'A value a round, outliers in a frame. The interval holds the median with the probability beside it; what stands in brackets behind a comparison is the interval of that.';
  return [{ id: 'numbers', title: 'Every number', intro, body: numbers(view, quantities) }];
}

function about({ report }: ReportView): Section[] {
  const { machine, contestants, commands } = report;
  const programs = Object.entries(machine.programs).map(([name, version]) => `${name} ${version}`);
  const sections: Section[] = [
    {
      id: 'machine',
      title: 'The machine',
      body: facts([
        ['processor', `${machine.cpu}, ${machine.cores} ${machine.cores === 1 ? 'core' : 'cores'}`],
        ['memory', `${(machine.memoryMiB / 1024).toFixed(1)} GiB`],
        ['system', machine.system],
        ['kernel', machine.kernel],
        ['frequency governor', machine.governor ?? 'none shown (a virtual machine)'],
        ['stolen by a hypervisor', `${digits(machine.stealPercent)} %`],
        [
          'used by others meanwhile',
          machine.backgroundPercent === null ? 'not known' : `${digits(machine.backgroundPercent)} %`,
        ],
        ['load when it began', digits(machine.load)],
        ['TCP', machine.tcpCongestionControl ?? undefined],
        ['Node', machine.node],
        ['programs', programs.length === 0 ? undefined : programs.join(', ')],
      ]),
    },
    {
      id: 'method',
      title: 'How it was measured',
      body: html`${report.method.map((sentence) => html`<p>${sentence}</p>`)}
<table class="paths"><caption>What was compared.</caption><thead><tr><th scope="col">path</th><th scope="col">what it is</th><th scope="col" class="n">MTU</th></tr></thead><tbody>${contestants.map(
        (each) =>
          html`<tr><th scope="row">${each.title}</th><td>${each.about}${each.skipped === undefined ? undefined : html` <b>Not measured: ${each.skipped}.</b>`}${offloads(each.offloads)}</td><td class="n">${each.mtuBytes ?? '-'}</td></tr>`,
      )}</tbody></table>`,
    },
  ];
  if (commands.length > 0) {
    sections.push({
      id: 'commands',
      title: 'The exact commands',
      body: html`<details><summary>${commands.length} commands</summary><pre><code>${commands.map(
        ({ what, argv, times }) => html`# ${what}${times === 1 ? '' : `, ${times} times`}
${argv.map(shellWord).join(' ')}
`,
      )}</code></pre></details>`,
    });
  }
  return sections;
}

function offloads(found: Readonly<Record<string, readonly string[]>> | undefined): Html | undefined {
  const lines = Object.entries(found ?? {});
  if (lines.length === 0) return undefined;
  return html`<details><summary>offloads that are on</summary><ul>${lines.map(([device, names]) => html`<li>${device}: ${names.length === 0 ? 'none' : names.join(', ')}</li>`)}</ul></details>`;
}

/** As one would type it; what a shell would take apart stands in quotes. */
const shellWord = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${printable(word).replaceAll("'", `'\\''`)}'`;

const fileName = ({ bench, startedAt }: BenchReport): string =>
  `vtepd-bench-${bench}-${startedAt.slice(0, 10)}.json`.replace(/[^\w.-]/g, '_');

const dataUrl = (report: BenchReport): string =>
  `data:application/json;base64,${Buffer.from(JSON.stringify(report)).toString('base64')}`;
