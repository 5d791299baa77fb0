/** A report whose every text tries to be something else. Names of hosts, programs and devices are input. */

import { sampleReport } from '../../bench/report/sample.ts';
import { type BenchReport, reportSchema } from '../../bench/report/schema.ts';

/** Ends whatever it stands in, and then asks for a page and runs a program. */
export const HOSTILE =
  `</title></style></script></svg>]]>"'\`--><img src=x onerror="document.title='taken'"><script>document.title='taken'</script>` +
  `<svg onload=alert(1)> \u0000\u0007\u202e\n&lt;b&gt; \${x} javascript:alert(1) {{x}} $& $1 $\` ${'long'.repeat(60)}`;

/** Words that the schema gives a meaning stay. */
const KEPT = new Set(['schema', 'group', 'unit', 'better', 'compareBy', 'direction', 'verdict', 'role']);
/** These are looked up by one another: they change alike. */
const NAMES = new Set(['id', 'contestant', 'quantity', 'baseline']);

export function hostileReport(text: string = HOSTILE): BenchReport {
  const change = (value: unknown, key: string): unknown => {
    if (typeof value === 'string') {
      if (KEPT.has(key)) return value;
      return NAMES.has(key) ? value + text : text;
    }
    if (Array.isArray(value)) return value.map((each) => change(each, key));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, change(each, name)]));
  };
  const sample = sampleReport({ partial: true });
  return reportSchema.parse({
    ...(change(sample, '') as object),
    machine: { ...(change(sample.machine, '') as object), programs: { [text]: text } },
  });
}
