/**
 * Starts programs as a container runtime written in C would, and waits for them: posix_spawn(3), no pipes,
 * no event loop. Node's own spawn takes longer than some of what is measured.
 *
 * While programs run, this thread waits: nothing else of this process does anything.
 */
import koffi from 'koffi';
import { checked } from '../../overlay/kernel/libc.ts';
import { inNamespace } from '../../overlay/kernel/namespace.ts';

const libc = koffi.load('libc.so.6');
const posixSpawn = libc.func(
  'int posix_spawn(_Out_ int *, const char *, void *, void *, const char **, const char **)',
);
const initActions = libc.func('int posix_spawn_file_actions_init(void *)');
const addOpen = libc.func(
  'int posix_spawn_file_actions_addopen(void *, int, const char *, int, unsigned int)',
);
const destroyActions = libc.func('int posix_spawn_file_actions_destroy(void *)');
const waitpid = libc.func('int waitpid(int, _Out_ int *, int)');

/** posix_spawn_file_actions_t takes 80 bytes. */
const ACTIONS_BYTES = 256;
const O_RDONLY = 0;
const O_WRONLY_CREAT_TRUNC = 0o1101;

export interface Program {
  readonly path: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Files for its standard input and output. */
  readonly input: string;
  readonly output: string;
}

/** A program could not be started, or failed. */
export class LaunchError extends Error {
  override readonly name = 'LaunchError';
  readonly code = 'VTEPD_BENCH_LAUNCH';
}

/**
 * Runs all of them at once, in a network namespace, and returns how long until the last one ended;
 * milliseconds. @param namespace a path @throws LaunchError when one fails
 */
export function launchAll(namespace: string, programs: readonly Program[]): number {
  const prepared = programs.map(prepare);
  try {
    return inNamespace(namespace, () => {
      const begin = performance.now();
      const started: number[] = [];
      let failed = -1;
      try {
        for (const { start } of prepared) started.push(start());
      } finally {
        // Those that were started are waited for, whatever happened.
        failed = started.map(wait).findIndex((status) => status !== 0);
      }
      const tookMs = performance.now() - begin;
      const program = programs[failed];
      if (program !== undefined)
        throw new LaunchError(`${program.path} failed: its answer is ${program.output}`);
      return tookMs;
    });
  } finally {
    for (const { free } of prepared) free();
  }
}

function prepare(program: Program): { readonly start: () => number; readonly free: () => void } {
  const actions = Buffer.alloc(ACTIONS_BYTES);
  initActions(actions);
  addOpen(actions, 0, program.input, O_RDONLY, 0);
  addOpen(actions, 1, program.output, O_WRONLY_CREAT_TRUNC, 0o600);
  const environment = Object.entries(program.environment).map(([name, value]) => `${name}=${value}`);
  return {
    start() {
      const pid = [0];
      const error: number = posixSpawn(
        pid,
        program.path,
        actions,
        null,
        [program.path, null],
        [...environment, null],
      );
      if (error !== 0) throw new LaunchError(`${program.path} could not be started: error ${error}`);
      return pid[0] ?? 0;
    },
    free: () => destroyActions(actions),
  };
}

/** The wait status; 0: it exited with 0. */
function wait(pid: number): number {
  const status = [0];
  checked('waitpid', waitpid(pid, status, 0));
  return status[0] ?? 0;
}
