/** The doctor's report for people: a line a check, cause and remedy below where there is something. Pure. */
import { printable } from '../ops/redact.ts';
import type { CheckReport, DoctorReport, Finding } from './report.ts';

const WORDS: Readonly<Record<CheckReport['state'], string>> = {
  ok: 'ok',
  warning: 'WARNING',
  failed: 'FAILED',
  unknown: '?',
};

/** As wide as the longest word of state, and the longest title. */
const STATE_WIDTH = 9;
const TITLE_WIDTH = 12;

export function renderDoctor(report: DoctorReport): string {
  const lines = report.checks.flatMap((check) => [headline(check), ...check.findings.flatMap(finding)]);
  return `${[...lines, '', summary(report)].join('\n')}\n`;
}

function headline({ state, title, seen, findings }: CheckReport): string {
  const text = findings.length === 0 || seen === '' ? seen : '';
  return `${WORDS[state].padEnd(STATE_WIDTH)}${title.padEnd(TITLE_WIDTH)}${printable(text)}`.trimEnd();
}

const INDENT = ' '.repeat(STATE_WIDTH);

const finding = ({ cause, remedy, severity }: Finding): string[] => [
  `${INDENT}${severity === 'failed' ? '!' : '-'} ${printable(cause)}`,
  `${INDENT}  remedy: ${printable(remedy)}`,
];

function summary({ checks, node }: DoctorReport): string {
  const count = (severity: Finding['severity']): number =>
    checks.flatMap(({ findings }) => findings).filter((each) => each.severity === severity).length;
  const [broken, doubtful] = [count('failed'), count('warning')];
  const unknown = checks.filter(({ state }) => state === 'unknown').length;
  const parts = [
    broken === 0 ? 'nothing is broken' : `${broken} broken`,
    ...(doubtful === 0 ? [] : [`${doubtful} ${doubtful === 1 ? 'warning' : 'warnings'}`]),
    ...(unknown === 0 ? [] : [`${unknown} could not be examined`]),
  ];
  return `${printable(node)}: ${parts.join(', ')}.`;
}
