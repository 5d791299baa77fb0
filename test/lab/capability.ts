/** What a test needs of the machine. Without it the test is skipped, naming what is missing. */
import { existsSync } from 'node:fs';
import type { Context } from 'mocha';
import { loadRawSocket } from '../../overlay/kernel/echo-socket.ts';
import { isInstalled } from '../../overlay/lab/command.ts';

/**
 * Skips the running test or hook's suite unless we are root and these programs are installed; `raw-socket` is
 * the npm package, which is there only where it was compiled for the Node that runs; `/dev/net/tun` makes TAPs.
 */
export function need(context: Context, ...programs: readonly string[]): void {
  const missing = programs.filter(
    (program) => program !== 'root' && !(NOT_PROGRAMS[program]?.() ?? isInstalled(program)),
  );
  if (programs.includes('root') && process.getuid?.() !== 0) missing.unshift('root');
  if (missing.length === 0) return;
  const reason = `this machine lacks ${missing.join(', ')}`;
  console.log(`      skipped: ${reason}`);
  if (context.test !== undefined) context.test.title += ` (skipped: ${reason})`;
  context.skip();
}

const NOT_PROGRAMS: Readonly<Record<string, () => boolean>> = {
  'raw-socket': canProbe,
  '/dev/net/tun': () => existsSync('/dev/net/tun'),
  'the reference CNI plugins': () =>
    ['bridge', 'host-local'].every((name) => existsSync(`/usr/lib/cni/${name}`)),
};

function canProbe(): boolean {
  try {
    loadRawSocket();
    return true;
  } catch {
    return false;
  }
}
