#!/usr/bin/env -S node --max-semi-space-size=1
/**
 * `vtepd`: finds the command, runs it, and turns what it throws into one clear line and an exit code.
 *
 * The flag keeps V8's nursery at 1 MiB. It grows to 48 otherwise while 10,000 leases are read, and stays so:
 * 189 MiB resident instead of 107, for nothing that was measurable in latency.
 * A command's file is loaded only when it is named, and it loads what is heavy only when it runs.
 */
import { messageWithCauses } from '../ops/log.ts';
import { printable, redactor } from '../ops/redact.ts';
import { type Command, type CommandIo, EXIT_FAILED, EXIT_OK, EXIT_USAGE } from './command.ts';

/** In the order in which help lists them. */
const COMMANDS: ReadonlyMap<string, () => Promise<{ readonly command: Command }>> = new Map([
  ['run', () => import('./run.ts')],
  ['demo', () => import('./demo.ts')],
  ['status', () => import('./status.ts')],
  ['bench', () => import('./bench.ts')],
  ['doctor', () => import('./doctor.ts')],
  ['leases', () => import('./leases.ts')],
  ['cni', () => import('./cni.ts')],
  ['cleanup', () => import('./cleanup.ts')],
  ['migrate', () => import('./migrate.ts')],
  ['flanneld', () => import('./flannel-daemon.ts')],
  ['config', () => import('./config.ts')],
  ['version', () => import('./version.ts')],
]);

/** How long open handles may hold up the end of a command that has finished. */
const LINGER_MS = 2000;

/** What an abort by signal is recognised by. */
class InterruptedError extends Error {
  override readonly name = 'InterruptedError';
  readonly code = 'VTEPD_INTERRUPTED';
}

async function main(argv: readonly string[]): Promise<number> {
  const io = processIo();
  const [first, ...rest] = argv;
  if (first === undefined || first === 'help' || first === '--help' || first === '-h') {
    const asked = first === 'help' ? COMMANDS.get(rest[0] ?? '') : undefined;
    const text = asked === undefined ? await overview() : (await asked()).command.usage;
    (first === undefined ? io.err : io.out)(text);
    return first === undefined ? EXIT_USAGE : EXIT_OK;
  }
  const load = COMMANDS.get(first === '--version' ? 'version' : first);
  if (load === undefined) {
    const { didYouMean } = await import('../config/settings-error.ts');
    io.err(`vtepd: there is no command "${printable(first)}"${didYouMean(first, COMMANDS.keys())}\n`);
    io.err(`Commands: ${[...COMMANDS.keys()].join(', ')}\n`);
    return EXIT_USAGE;
  }
  try {
    const { command } = await load();
    if (!asksForHelp(rest)) return await command.run(rest, io);
    io.out(command.usage);
    return EXIT_OK;
  } catch (error) {
    return report(error, first, rest, io);
  }
}

const asksForHelp = (argv: readonly string[]): boolean => {
  const end = argv.indexOf('--');
  return argv.slice(0, end < 0 ? undefined : end).some((word) => word === '--help' || word === '-h');
};

async function overview(): Promise<string> {
  const loaded = await Promise.all([...COMMANDS.values()].map((load) => load()));
  const rows = loaded.map(({ command }) => `  ${command.name.padEnd(9)} ${command.summary}`);
  return [
    'vtepd: a VXLAN overlay network daemon. Every pod gets an address that works from every node.',
    '',
    'Usage: vtepd COMMAND [options]',
    '',
    ...rows,
    '',
    '`vtepd COMMAND --help` says more. Exit codes: 0 success, 1 failed, 2 wrong usage or configuration.',
    '',
  ].join('\n');
}

function report(error: unknown, name: string, argv: readonly string[], io: CommandIo): number {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'VTEPD_INTERRUPTED') {
    io.err(`vtepd ${name}: interrupted\n`);
    return EXIT_FAILED;
  }
  const isUsage = code === 'VTEPD_USAGE' || code === 'VTEPD_SETTINGS';
  const text = messageWithCauses(error);
  const shownCode = isUsage || typeof code !== 'string' ? '' : ` [${code}]`;
  // A SettingsError has a line for each mistake.
  for (const line of `${text}${shownCode}`.split('\n')) io.err(`vtepd ${name}: ${printable(line)}\n`);
  if (isUsage) {
    io.err(`\`vtepd ${name} --help\` lists what it takes.\n`);
    return EXIT_USAGE;
  }
  if (isDebug(argv, io) && error instanceof Error) io.err(`${error.stack}\n`);
  return EXIT_FAILED;
}

const isDebug = (argv: readonly string[], io: CommandIo): boolean =>
  argv.some(
    (word, at) => word === '--log-level=debug' || (word === 'debug' && argv[at - 1] === '--log-level'),
  ) || io.environment.VTEPD_LOG_LEVEL === 'debug';

/** The process as commands see it. Whatever is printed as an error loses the secrets that are known by then. */
function processIo(): CommandIo {
  const secrets: string[] = [];
  const hide = (secret: string) => {
    secrets.push(secret);
  };
  if (process.env.VTEPD_ETCD_PASSWORD) hide(process.env.VTEPD_ETCD_PASSWORD);
  const err = (text: string) => process.stderr.write(redactor(secrets)(text));
  const interrupted = new AbortController();
  // A reader that went away (`vtepd leases | head`) is no failure, but what runs long ends and cleans up.
  process.stdout.on('error', () => interrupted.abort(new InterruptedError('nobody reads what it prints')));
  // A log that nobody takes any more must not take the node's network down.
  process.stderr.on('error', () => {});
  process.on('uncaughtException', (error) => {
    err(`vtepd: crashed: ${printable(messageWithCauses(error))}\n${error.stack ?? ''}\n`);
    process.exit(EXIT_FAILED);
  });
  return {
    out: (text) => process.stdout.write(text),
    err,
    environment: process.env,
    isTerminal: process.stdout.isTTY === true,
    signal: signalOfProcess(interrupted),
    hide,
  };
}

/** Aborts on the first SIGINT or SIGTERM; the second one does not wait for anything. */
function signalOfProcess(controller: AbortController): AbortSignal {
  const numbers = { SIGINT: 2, SIGTERM: 15 } as const;
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(128 + numbers[name]);
      controller.abort(new InterruptedError(`ended by ${name}`));
    });
  }
  return controller.signal;
}

process.exitCode = await main(process.argv.slice(2));
setTimeout(() => process.exit(), LINGER_MS).unref();
