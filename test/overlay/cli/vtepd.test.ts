/** The commands as an operator runs them: processes of their own. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { NODE_FLAGS } from '../../../overlay/lab/lab-daemon.ts';
import { serveHttp } from '../../../overlay/ops/http.ts';
import { silentLog } from '../../../overlay/ops/log.ts';
import { packageRoot, packageVersion } from '../../../overlay/ops/package.ts';
import type { StatusReport } from '../../../overlay/ops/status.ts';
import { parseAddress, parseMac } from '../../../store/address.ts';
import { openEmbeddedStore } from '../../../store/embedded/embedded-store.ts';
import { statusReport } from '../ops/status-report.ts';

const VTEPD = join(import.meta.dirname, '../../../overlay/cli/vtepd.js');
const COMMANDS = [
  'run',
  'demo',
  'status',
  'bench',
  'doctor',
  'leases',
  'cni',
  'cleanup',
  'migrate',
  'flanneld',
  'config',
  'version',
];

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs it to its end, without the configuration of whoever runs the tests. */
function vtepd(argv: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('VTEPD_')));
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [VTEPD, ...argv],
      { env: { ...env, ...environment } },
      (_error, out, err) => resolve({ code: child.exitCode, out, err }),
    );
  });
}

describe('cli: vtepd', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vtepd-cli-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('is run by its name as the lab runs it: with the same flags of Node', async () => {
    const [first] = (await readFile(VTEPD, 'utf8')).split('\n');
    expect(first).to.equal(`#!/usr/bin/env -S node ${NODE_FLAGS.join(' ')}`);
  });

  it('lists its commands, and no other; the README does too', async () => {
    const { code, out } = await vtepd(['--help']);
    expect(code).to.equal(0);
    expect([...out.matchAll(/^ {2}(\S+) {2,}\S/gm)].map(([, name]) => name)).to.deep.equal(COMMANDS);
    const readme = await readFile(join(packageRoot, 'README.md'), 'utf8');
    const rows = [...readme.matchAll(/^\| `vtepd (\w+)` \|/gm)].map(([, name]) => name);
    expect(rows).to.have.members(COMMANDS);
  });

  it('has help for each, on standard output, with exit code 0', async () => {
    const answers = await Promise.all(COMMANDS.map((name) => vtepd([name, '--help'])));
    for (const [at, { code, out, err }] of answers.entries()) {
      expect([code, err], COMMANDS[at]).to.deep.equal([0, '']);
      expect(out).to.match(new RegExp(`^Usage: vtepd ${COMMANDS[at]}`));
      expect(out).to.include('--help');
    }
    const [run] = answers;
    expect((await vtepd(['help', 'run'])).out).to.equal(run?.out);
  });

  it('tells wrong usage by exit code 2, on standard error', async () => {
    const cases: readonly (readonly [string[], RegExp])[] = [
      [[], /Usage: vtepd COMMAND/],
      [['rum'], /no command "rum"; did you mean run\?/],
      [['surgeon'], /no command "surgeon"/],
      [['run', '--no-such'], /vtepd run: unknown flag --no-such/],
      [['run', 'word'], /vtepd run: "word" is not expected here/],
      [['run', '--log-level', 'loud'], /vtepd run: --log-level: "loud" must be one of/],
      [['run', '--datapath', 'fast'], /--datapath: "fast" must be one of auto, kernel, userspace/],
      [['config'], /say print, check, example or schema/],
      [['version', '--all'], /unknown flag --all/],
    ];
    const answers = await Promise.all(cases.map(([argv]) => vtepd(argv)));
    for (const [at, { code, out, err }] of answers.entries()) {
      expect([code, out], cases[at]?.[0].join(' ')).to.deep.equal([2, '']);
      expect(err).to.match(cases[at]?.[1] ?? /^$/);
      expect(err).to.not.match(/\n +at /);
    }
  });

  it('tells its version, for people and programs, without loading a store', async () => {
    expect((await vtepd(['version'])).out).to.match(/^vtepd \d+\.\d+\.\d+ \(Node v\d+.*, linux .*\)\n$/);
    const hook = join(folder, 'loaded.cjs');
    await writeFile(hook, `process.on('exit', () => console.error(Object.keys(require.cache).join('\\n')));`);
    const { out, err } = await vtepd(['version', '--json'], { NODE_OPTIONS: `--require=${hook}` });
    expect(JSON.parse(out)).to.include({ version: packageVersion, node: process.version });
    for (const name of ['etcd3', 'lmdb', 'koffi', 'winston', 'prom-client', 'yaml']) {
      expect(err).to.not.include(`node_modules/${name}/`);
    }
  });

  it('prints the effective configuration with origins, and no secret', async () => {
    const file = join(folder, 'vtepd.yaml');
    await writeFile(file, 'etcd-username: root\netcd-password: hunter2\nbridge: br7\n', { mode: 0o600 });
    const { code, out, err } = await vtepd(['config', 'print', '--config', file, '--device=x1'], {
      VTEPD_IP_MASQ: 'false',
    });
    expect([code, err]).to.deep.equal([0, '']);
    expect(out).to.match(/^device: x1 +# --device$/m);
    expect(out).to.match(/^ip-masq: false +# VTEPD_IP_MASQ$/m);
    expect(out).to.match(new RegExp(`^bridge: br7 +# ${file}:3: bridge$`, 'm'));
    expect(out).to.match(/^etcd-prefix: \/coreos.com\/network +# default$/m);
    expect(out).to.include('***').and.not.include('hunter2');
    const json = JSON.parse((await vtepd(['config', 'print', '--json', '--config', file])).out);
    expect(json.bridge).to.deep.equal({ value: ['br7'], source: 'file', where: `${file}:3: bridge` });
  });

  it('checks a configuration with the files that it names', async () => {
    expect(await vtepd(['config', 'check'])).to.include({ code: 0, out: 'The configuration can be used.\n' });
    const network = join(folder, 'network.json');
    await writeFile(network, '{"Network": "10.244.0.0/16", "SubnetLen": 99}');
    const embedded = ['config', 'check', '--store=embedded', '--embedded-path', folder];
    const wrong = await vtepd([...embedded, '--net-config-path', network]);
    expect(wrong.code).to.equal(2);
    expect(wrong.err).to.include('SubnetLen');
    const missing = await vtepd([
      'config',
      'check',
      '--etcd-endpoints=https://h',
      '--etcd-cafile',
      join(folder, 'none'),
    ]);
    expect(missing)
      .to.include({ code: 2 })
      .with.property('err')
      .that.matches(/--etcd-cafile: .*none cannot be read/);
    const noCertificate = await vtepd([
      'config',
      'check',
      '--etcd-endpoints=https://h',
      '--etcd-cafile',
      network,
    ]);
    expect(noCertificate)
      .to.include({ code: 2 })
      .with.property('err')
      .that.matches(/--etcd-cafile: cannot be used/);
  });

  it('prints the annotated example and the schema', async () => {
    const { out } = await vtepd(['config', 'example']);
    expect(out).to.equal(await readFile(join(packageRoot, 'manifests/vtepd-config.example.yaml'), 'utf8'));
    expect(JSON.parse((await vtepd(['config', 'schema'])).out).properties).to.have.property('etcd-prefix');
  });

  it('shows a running daemon’s status, and fails clearly without one', async () => {
    const own = new AbortController();
    let report = (): StatusReport => statusReport();
    const sources = {
      health: () => ({ healthy: true }) as const,
      readiness: () => ({ ready: true }) as const,
      status: () => report(),
      metrics: () => Promise.resolve(''),
      metricsType: 'text/plain',
    };
    const server = await serveHttp({ host: '127.0.0.1', port: 0 }, sources, silentLog, own.signal);
    const http = `127.0.0.1:${server.address.port}`;
    try {
      const shown = await vtepd(['status', '--http', http]);
      expect([shown.code, shown.err]).to.deep.equal([0, '']);
      expect(shown.out).to.match(/^Ready\.\n\nnode +node-1/);
      const json = await vtepd(['status', '--json'], { VTEPD_HTTP: http });
      expect(JSON.parse(json.out)).to.have.nested.property('lease.subnet', '10.244.5.0/24');
      report = () => {
        throw new Error('no report');
      };
      const failed = await vtepd(['status', '--http', http]);
      expect([failed.code, failed.out]).to.deep.equal([1, '']);
      expect(failed.err).to.match(/status answers HTTP 500: no report \[VTEPD_STATUS_UNAVAILABLE\]/);
    } finally {
      await server.close();
    }
    const away = await vtepd(['status', '--http', http]);
    expect([away.code, away.out]).to.deep.equal([1, '']);
    expect(away.err).to.match(
      /no vtepd answers at http:\/\/127.0.0.1:\d+\S* \(.*ECONNREFUSED.*is `vtepd run` running here/,
    );
    expect((await vtepd(['status', '--http=off'])).code).to.equal(1);
  });

  it('does not clean up under a running daemon', async () => {
    const listener = createServer();
    listener.listen(join(folder, 'vtepd.sock'));
    await once(listener, 'listening');
    try {
      const { code, out, err } = await vtepd(['cleanup', '--run-dir', folder]);
      expect([code, out]).to.deep.equal([1, '']);
      expect(err).to.match(/a daemon is running .*stop it first.*\[VTEPD_DAEMON_RUNNING\]/);
    } finally {
      listener.close();
      await once(listener, 'close');
    }
  });

  it('lists the leases of a store that is there, and makes none that is not', async () => {
    const path = join(folder, 'leases');
    const argv = ['leases', '--store=embedded', '--embedded-path', path];
    const none = await vtepd(argv);
    expect([none.code, none.out, existsSync(path)]).to.deep.equal([1, '', false]);
    expect(none.err).to.match(/there is no embedded store at .*--embedded-path \[VTEPD_NO_STORE\]/);
    const store = openEmbeddedStore({ path, now: Date.now, random: Math.random });
    try {
      await store.setNetworkConfig('{"Network": "10.244.0.0/16"}');
      const { signal } = new AbortController();
      const network = await store.networkConfig(signal);
      const attributes = {
        publicAddress: { ipv4: parseAddress('192.0.2.1') },
        backend: 'vxlan',
        vtep: { ipv4: { vni: 1, mac: parseMac('02:00:00:00:00:01') } },
      };
      expect(network).to.not.equal(undefined);
      if (network !== undefined) await store.claim({ network, attributes, ttlMs: 60_000 }, signal);
      const { code, out, err } = await vtepd(argv);
      expect([code, err]).to.deep.equal([0, '']);
      expect(out).to.match(
        /network 10\.244\.0\.0\/16.*\n\nLeases \(1\)\n.*\n10\.244\.\d+\.0\/24 +192\.0\.2\.1 +vxlan +1 +02:/,
      );
      const json = JSON.parse((await vtepd([...argv, '--json'])).out);
      expect(json.leases).to.have.length(1);
      expect(json.leases[0]).to.include({ publicIP: '192.0.2.1', vtepMAC: '02:00:00:00:00:01' });
    } finally {
      await store.close();
    }
  });

  it('installs, prints and removes the CNI plugin and its configuration', async function () {
    if (!existsSync(join(packageRoot, 'build/vtepd-cni'))) {
      console.log('      lacks build/vtepd-cni: run make build');
      this.skip();
    }
    const [confDir, binDir] = [join(folder, 'net.d'), join(folder, 'bin')];
    const options = ['--cni-conf-dir', confDir, '--cni-bin-dir', binDir, '--run-dir', folder];
    const printed = await vtepd(['cni', 'print', ...options]);
    expect(JSON.parse(printed.out).plugins[0]).to.include({
      type: 'vtepd-cni',
      socket: join(folder, 'vtepd.sock'),
    });
    const installed = await vtepd(['cni', 'install', '--json', ...options]);
    const paths: string[] = JSON.parse(installed.out).installed;
    expect(await readFile(paths[1] ?? '', 'utf8')).to.equal(printed.out);
    const removed = await vtepd(['cni', 'remove', '--json', ...options]);
    expect(JSON.parse(removed.out).removed).to.have.members(paths);
    expect((await vtepd(['cni', 'remove', ...options])).out).to.equal('There was nothing of ours.\n');
    expect(await vtepd(['cni', 'instal'])).to.include({ code: 2 });
  });

  it('keeps to its exit code when nobody takes its errors', async () => {
    const child = spawn(process.execPath, [VTEPD, 'run', '--no-such'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.destroy();
    expect(await once(child, 'close')).to.deep.equal([2, null]);
  });

  it('ends quietly when nobody reads on', async () => {
    const child: ChildProcess = spawn(process.execPath, [VTEPD, 'run', '--help'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout?.destroy();
    let err = '';
    child.stderr?.setEncoding('utf8').on('data', (part: string) => {
      err += part;
    });
    await once(child, 'close');
    expect(err).to.equal('');
  });
});
