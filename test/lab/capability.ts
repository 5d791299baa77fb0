/** What a test needs of the machine. Without it the test is skipped, naming what is missing. */
import type { Context } from 'mocha';
import { isInstalled } from '../../overlay/lab/command.ts';

/** Skips the running test or hook's suite unless we are root and these programs are installed. */
export function need(context: Context, ...programs: readonly string[]): void {
  const missing = programs.filter((program) => program !== 'root' && !isInstalled(program));
  if (programs.includes('root') && process.getuid?.() !== 0) missing.unshift('root');
  if (missing.length === 0) return;
  const reason = `this machine lacks ${missing.join(', ')}`;
  console.log(`      skipped: ${reason}`);
  if (context.test !== undefined) context.test.title += ` (skipped: ${reason})`;
  context.skip();
}
