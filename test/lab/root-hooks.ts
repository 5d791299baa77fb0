/**
 * Around the whole run: nothing of ours may be left at its end. Compared with what was there at the start:
 * network namespaces, links, folders in the temporary directory, and processes (ours carry the run's mark in
 * their environment). On a machine of its own (CI=true) a leak fails the run; elsewhere, where somebody
 * else's run may go on beside it, it is printed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Context, RootHookObject } from 'mocha';
import { DeadlineError, until } from '../../overlay/lab/wait.ts';

const MARK = `VTEPD_TEST_RUN=${process.pid}-${Date.now()}`;

/** The kernel takes namespaces and links away some time after they were given up. */
const SETTLE_DEADLINE_MS = 10_000;

/** How long open handles may keep the process after the last test: nothing of ours needs any. */
const LINGER_MS = 10_000;

let before: ReadonlySet<string>;

export const mochaHooks: RootHookObject = {
  beforeAll() {
    const [name = '', value] = MARK.split('=');
    process.env[name] = value;
    before = present();
  },
  async afterAll(this: Context) {
    this.timeout(2 * SETTLE_DEADLINE_MS);
    endLingering();
    const leaks = () => [...present()].filter((thing) => !before.has(thing));
    try {
      await until(() => leaks().length === 0, { what: 'leaks', deadlineMs: SETTLE_DEADLINE_MS, everyMs: 50 });
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      const message = `the tests left behind:\n  ${leaks().join('\n  ')}`;
      if (process.env.CI === 'true') throw new Error(message);
      console.log(message);
    }
  },
};

function present(): Set<string> {
  return new Set([
    ...list('/run/netns').map((name) => `namespace ${name}`),
    ...list('/sys/class/net').map((name) => `link ${name}`),
    ...list(tmpdir())
      .filter((name) => /^(vtepd|org\.chromium)/.test(name))
      .map((name) => `folder ${name}`),
    ...list('/proc')
      .filter(isOurs)
      .map((pid) => `process ${pid} ${commandLine(pid)}`),
  ]);
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Whether it is a process that a test started; one that is ending has no environment any more. */
function isOurs(pid: string): boolean {
  if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
  return text(`/proc/${pid}/environ`).split('\0').includes(MARK);
}

const commandLine = (pid: string): string => text(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/**
 * Mocha ends the process when nothing keeps it, so that an open handle shows: as a run that does not end.
 * This ends such a run, says what held it, and makes it a failure.
 */
function endLingering(): void {
  setTimeout(() => {
    console.log(`the tests left handles open: ${process.getActiveResourcesInfo().join(', ')}`);
    // Mocha sets the exit code in a listener of its own: the last listener has the last word.
    process.on('exit', () => {
      process.exitCode = 1;
    });
    process.exit();
  }, LINGER_MS + SETTLE_DEADLINE_MS).unref();
}
