/**
 * Network namespaces of a lab, by name (`ip netns`). Every name begins with the run's own prefix, so that a
 * sweep finds all of a run's and nothing of anybody else's.
 */
import { readdir } from 'node:fs/promises';
import { type CommandOptions, type CommandResult, run } from './command.ts';

/** Where `ip netns` keeps them; also the path a runtime gives to a CNI plugin. */
const FOLDER = '/run/netns';

export const namespacePath = (name: string): string => `${FOLDER}/${name}`;

/** `ip netns add`, with loopback up. */
export async function addNamespace(name: string): Promise<void> {
  await run('ip', ['netns', 'add', name]);
  await run('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
}

/** `ip netns del`. One that is gone already is what was wanted. */
export async function deleteNamespace(name: string): Promise<void> {
  const { status, stderr } = await run('ip', ['netns', 'del', name], { tolerant: true });
  if (status !== 0 && (await namespaces(name)).includes(name)) throw new Error(stderr.trim());
}

/** The names of all namespaces that begin with this. */
export async function namespaces(prefix: string): Promise<string[]> {
  const all = await readdir(FOLDER).catch(() => []);
  return all.filter((name) => name.startsWith(prefix)).sort();
}

/** The program and arguments that run a command inside a namespace; `ip` replaces itself by the command. */
export const inside = (namespace: string, command: readonly string[]): [string, string[]] => [
  'ip',
  ['netns', 'exec', namespace, ...command],
];

/** Runs a command inside a namespace to its end. @throws CommandError */
export function runInside(
  namespace: string,
  command: readonly string[],
  options?: CommandOptions,
): Promise<CommandResult> {
  return run(...inside(namespace, command), options);
}

/** Many `ip` commands in one process (`ip -n NAMESPACE -batch -`): the first that fails ends it. */
export async function ipBatch(namespace: string, lines: readonly string[]): Promise<void> {
  await run('ip', ['-n', namespace, '-batch', '-'], { input: `${lines.join('\n')}\n` });
}

/** The processes whose network namespace it is (`ip netns pids`). */
export async function processesIn(namespace: string): Promise<number[]> {
  const { stdout } = await run('ip', ['netns', 'pids', namespace], { tolerant: true });
  return stdout.split('\n').filter(Boolean).map(Number);
}
