/** What `make install` puts in place, below a folder of its own. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { run } from '../../overlay/lab/command.ts';
import { packageRoot } from '../../overlay/ops/package.ts';

/** The folder that this very build is in: `dist`, unless a developer has another. */
const DIST = basename(join(import.meta.dirname, '../..'));

export interface Installation {
  /** DESTDIR */
  readonly root: string;
  /** PREFIX below it. */
  readonly prefix: string;
  remove(): Promise<void>;
}

/** `make install` of what is built already. */
export async function install(variables: Readonly<Record<string, string>> = {}): Promise<Installation> {
  const root = await mkdtemp(join(tmpdir(), 'vtepd-install-'));
  try {
    await make(root, variables);
  } catch (error) {
    await rm(root, { recursive: true, force: true });
    throw error;
  }
  return {
    root,
    prefix: join(root, variables.PREFIX ?? '/usr/local'),
    remove: () => rm(root, { recursive: true, force: true }),
  };
}

/** Once more into the same folder. */
export async function make(
  root: string,
  variables: Readonly<Record<string, string>> = {},
  target = 'install-built',
): Promise<string> {
  const all = { DESTDIR: root, DIST, ...variables };
  const words = Object.entries(all).map(([name, value]) => `${name}=${value}`);
  // What an outer make has told its own shells is not for this one.
  const env = { ...process.env, MAKEFLAGS: '', MAKELEVEL: '', PREFIX: undefined, DESTDIR: undefined };
  const result = await run('make', ['-C', packageRoot, '--no-print-directory', target, ...words], {
    timeoutMs: 60_000,
    env,
  });
  return result.stdout;
}
