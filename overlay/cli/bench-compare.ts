/** `vtepd bench compare`: two reports, what changed, and whether it became worse. */
import { readFile } from 'node:fs/promises';
import { compareReports, printComparison } from '../../bench/report/compare.ts';
import { type BenchReport, parseReport, ReportError } from '../../bench/report/schema.ts';
import { isOn, parseArguments, UsageError } from './arguments.ts';
import { COMPARE_FLAGS } from './bench-flags.ts';
import { type CommandIo, EXIT_FAILED, EXIT_OK } from './command.ts';

const DEFAULT_THRESHOLD_PERCENT = 5;

/** @throws UsageError, ReportError */
export async function compareFiles(argv: readonly string[], io: CommandIo): Promise<number> {
  const given = parseArguments(argv, COMPARE_FLAGS);
  const [before, after, ...more] = given.positionals;
  if (before === undefined || after === undefined || more.length > 0) {
    throw new UsageError('compare takes two reports: vtepd bench compare BEFORE.json AFTER.json');
  }
  const text = given.flags.get('threshold')?.at(-1);
  const threshold = text === undefined ? DEFAULT_THRESHOLD_PERCENT : Number(text);
  if (text?.trim() === '' || !(threshold >= 0)) {
    throw new UsageError('--threshold takes a number of percent, 0 or more');
  }
  const comparison = compareReports(await readReport(before), await readReport(after), threshold);
  if (comparison.changes.length === 0)
    throw new ReportError(`${before} and ${after} measured nothing in common`);
  const json = isOn(given, 'json');
  io.out(json ? `${JSON.stringify(comparison, null, 2)}\n` : printComparison(comparison, threshold));
  return comparison.regressions > 0 ? EXIT_FAILED : EXIT_OK;
}

async function readReport(file: string): Promise<BenchReport> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ReportError(`${file} cannot be read: ${why}`, { cause: error });
  }
  return parseReport(text, file);
}
