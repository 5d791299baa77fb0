/** `vtepd run` as a process: how it starts, logs and ends. What the daemon does is overlay's other tests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { expect } from 'chai';
import { addNamespace, deleteNamespace, inside } from '../../../overlay/lab/namespace.ts';
import { need } from '../../lab/capability.ts';

const VTEPD = join(import.meta.dirname, '../../../overlay/cli/vtepd.js');
const DEADLINE_MS = 20_000;

describe('cli: vtepd run', () => {
  const namespace = `vtcli-${randomBytes(3).toString('hex')}`;
  const started: ChildProcess[] = [];
  let folder = '';

  before(async function () {
    need(this, 'root', 'ip');
    folder = await mkdtemp(join(tmpdir(), 'vtepd-run-'));
    await writeFile(join(folder, 'vtepd.yaml'), 'etcd-username: root\netcd-password: hunter2hunter2\n', {
      mode: 0o600,
    });
    await addNamespace(namespace);
  });
  after(async () => {
    if (folder === '') return;
    for (const child of started) child.kill('SIGKILL');
    await deleteNamespace(namespace);
    await rm(folder, { recursive: true, force: true });
  });

  interface Daemon {
    readonly child: ChildProcess;
    readonly lines: Interface;
    readonly logged: string[];
  }

  /** In a namespace without any interface it waits for an underlay, and works in all else. */
  function start(...options: string[]): Daemon {
    const folders = ['state', 'run'].flatMap((name) => [`--${name}-dir`, join(folder, name)]);
    const [program, argv] = inside(namespace, [process.execPath, VTEPD, 'run', ...folders, ...options]);
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith('VTEPD_')),
    );
    const child = spawn(program, argv, { env, stdio: ['ignore', 'ignore', 'pipe'], timeout: DEADLINE_MS });
    started.push(child);
    const logged: string[] = [];
    const lines = createInterface({ input: child.stderr });
    lines.on('line', (line) => logged.push(line));
    return { child, lines, logged };
  }

  const embedded = () => ['--store=embedded', '--embedded-path', join(folder, 'store')];

  /** Resolves when a line has this in it. */
  async function logs({ lines, logged, child }: Daemon, what: string): Promise<void> {
    const ended = new AbortController();
    child.once('exit', () => ended.abort());
    try {
      while (!logged.some((line) => line.includes(what))) await once(lines, 'line', { signal: ended.signal });
    } catch {
      expect.fail(`it ended without "${what}":\n${logged.join('\n')}`);
    }
  }

  it('logs to standard error in the format asked for, and ends with 0 on SIGTERM', async () => {
    const daemon = start(...embedded(), '--log-format=json');
    await logs(daemon, 'the store answers');
    daemon.child.kill('SIGTERM');
    expect(await once(daemon.child, 'close')).to.deep.equal([0, null]);
    const [first, ...rest] = daemon.logged.map((line): Record<string, unknown> => JSON.parse(line));
    expect(first).to.include({ level: 'info', message: 'vtepd starts', store: 'embedded' });
    expect(rest.at(-1)).to.include({ message: 'vtepd ended' });
  });

  it('does not wait for anything at the second signal', async () => {
    const daemon = start(...embedded());
    await logs(daemon, 'vtepd starts');
    daemon.child.kill('SIGSTOP');
    daemon.child.kill('SIGTERM');
    daemon.child.kill('SIGINT');
    daemon.child.kill('SIGCONT');
    const [code] = await once(daemon.child, 'close');
    expect([128 + 15, 128 + 2]).to.include(code);
  });

  it('ends with 1 and one line that says what to do when it cannot start', async () => {
    const daemon = start(...embedded(), '--http=192.0.2.99:9472');
    expect(await once(daemon.child, 'close')).to.deep.equal([1, null]);
    const errors = daemon.logged.filter((line) => / error /.test(line));
    expect(errors, daemon.logged.join('\n')).to.have.length(1);
    expect(errors[0]).to.match(
      /vtepd ends error="cannot listen on 192.0.2.99:9472 .*--http.* code=VTEPD_HTTP_LISTEN/,
    );
  });

  it('goes on without its store, and tells no secret at any level', async () => {
    const daemon = start(
      '--config',
      join(folder, 'vtepd.yaml'),
      '--etcd-endpoints=http://127.0.0.1:9',
      '--log-level=debug',
    );
    await logs(daemon, '127.0.0.1:9');
    daemon.child.kill('SIGTERM');
    expect(await once(daemon.child, 'close')).to.deep.equal([0, null]);
    expect(daemon.logged.join('\n')).to.not.include('hunter2');
  });
});
