import { printable } from '../ops/redact.ts';

/** One thing that is wrong with the configuration. */
export interface SettingsProblem {
  /** `--etcd-prefix`, `VTEPD_ETCD_PREFIX`, `/etc/vtepd.yaml:12: etcd-prefix`: where the operator finds it. */
  readonly where: string;
  /** What is wrong, with the value where it may be shown, and the remedy. */
  readonly problem: string;
}

/** The configuration cannot be used; nothing has been touched. Exit code 2. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
  readonly code = 'VTEPD_SETTINGS';
  readonly problems: readonly SettingsProblem[];

  constructor(problems: readonly SettingsProblem[]) {
    super(problems.map(({ where, problem }) => printable(`${where}: ${problem}`)).join('\n'));
    this.problems = problems;
  }
}

/** How far apart two names may be for one to be taken for a slip of the other. */
const MAX_SLIPS = 3;

/** The candidate that was probably meant, if any comes near. */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let fewest = Math.min(MAX_SLIPS, Math.floor(name.length / 2)) + 1;
  for (const candidate of candidates) {
    const slips = editDistance(name.slice(0, 64), candidate);
    if (slips < fewest) [best, fewest] = [candidate, slips];
  }
  return best;
}

export function didYouMean(name: string, candidates: Iterable<string>, prefix = ''): string {
  const meant = nearest(name, candidates);
  return meant === undefined ? '' : `; did you mean ${prefix}${meant}?`;
}

/** Levenshtein's distance: insertions, deletions and replacements. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
