/**
 * A real etcd of Debian on the loopback: its own data directory, random ports, gone afterwards. Whoever
 * starts one closes it.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

export interface EtcdTls {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

export interface EtcdServerOptions {
  /** Serves https only, and wants client certificates of the same authority. */
  readonly tls?: EtcdTls;
  /** A data directory that a snapshot was restored to; made anew without it. */
  readonly dataDir?: string;
  readonly arguments?: readonly string[];
}

const START_DEADLINE_MS = 20_000;
const run = promisify(execFile);

export class EtcdServer {
  readonly url: string;
  readonly port: number;
  readonly #dir: string;
  readonly #peerPort: number;
  readonly #options: EtcdServerOptions;
  #process: ChildProcess | undefined;

  private constructor(dir: string, ports: readonly [number, number], options: EtcdServerOptions) {
    this.#dir = dir;
    [this.port, this.#peerPort] = ports;
    this.#options = options;
    this.url = `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${this.port}`;
  }

  static async start(options: EtcdServerOptions = {}): Promise<EtcdServer> {
    const dir = mkdtempSync(join(tmpdir(), 'vtepd-etcd-'));
    const server = new EtcdServer(dir, [await freePort(), await freePort()], options);
    try {
      await server.start();
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  get dataDir(): string {
    return this.#options.dataDir ?? join(this.#dir, 'data');
  }

  /** Starts it (again), with the data and the ports that it had, and waits until it serves. */
  async start(): Promise<void> {
    const { tls, arguments: more = [] } = this.#options;
    const peerUrl = `http://127.0.0.1:${this.#peerPort}`;
    const child = spawn(
      'etcd',
      [
        ...['--name', 'default', '--data-dir', this.dataDir],
        ...['--listen-client-urls', this.url, '--advertise-client-urls', this.url],
        ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
        ...['--initial-cluster', `default=${peerUrl}`, '--logger', 'zap', '--log-level', 'error'],
        ...(tls === undefined ? [] : ['--cert-file', tls.certFile, '--key-file', tls.keyFile]),
        ...(tls === undefined ? [] : ['--trusted-ca-file', tls.caFile, '--client-cert-auth']),
        ...more,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.#process = child;
    let log = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      log = (log + chunk.toString()).slice(-4000);
    });
    const deadline = performance.now() + START_DEADLINE_MS;
    // Without credentials, health cannot be asked once authentication is on: a refusal is an answer as well.
    const answers = () =>
      this.etcdctl(['get', 'is-there-an-answer', '--command-timeout=1s']).then(
        () => true,
        (error: Error) => /user name is empty|permission denied/.test(error.message),
      );
    while (!(await answers())) {
      if (child.exitCode !== null) throw new Error(`etcd ended with ${child.exitCode}: ${log}`);
      if (performance.now() > deadline) throw new Error(`etcd does not answer: ${log}`);
      await sleep(20);
    }
  }

  /** Runs etcdctl (API 3) against it and gives back its output. */
  async etcdctl(args: readonly string[]): Promise<string> {
    const { tls } = this.#options;
    const secure =
      tls === undefined ? [] : ['--cacert', tls.caFile, '--cert', tls.certFile, '--key', tls.keyFile];
    const env = { ...process.env, ETCDCTL_API: '3' };
    const { stdout } = await run('etcdctl', ['--endpoints', this.url, ...secure, ...args], { env });
    return stdout;
  }

  /** Writes a snapshot of its data to a file and restores that to a data directory for another server. */
  async backUp(): Promise<{ restore: () => Promise<string> }> {
    const file = join(this.#dir, `backup-${Date.now()}.db`);
    await this.etcdctl(['snapshot', 'save', file]);
    return {
      restore: async () => {
        const dataDir = join(this.#dir, `restored-${Date.now()}`);
        const peerUrl = `http://127.0.0.1:${this.#peerPort}`;
        const cluster = ['--initial-cluster', `default=${peerUrl}`, '--initial-advertise-peer-urls', peerUrl];
        await this.etcdctl(['snapshot', 'restore', file, '--data-dir', dataDir, ...cluster]);
        return dataDir;
      },
    };
  }

  /** Stops it and puts another data directory in the place of its own. */
  async replaceData(dataDir: string): Promise<void> {
    await this.stop();
    rmSync(this.dataDir, { recursive: true, force: true });
    await run('mv', [dataDir, this.dataDir]);
  }

  /** It hangs: connections stand, nothing is answered. */
  pause(): void {
    this.#process?.kill('SIGSTOP');
  }

  resume(): void {
    this.#process?.kill('SIGCONT');
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGCONT');
    child.kill(signal);
    await ended;
  }

  /** Stops it and removes what it wrote. */
  async close(): Promise<void> {
    await this.stop();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** An authority, and a certificate for a server and client on the loopback, as files in a directory. */
export async function makeCertificates(
  dir: string,
  commonName: string,
  names = 'IP:127.0.0.1',
): Promise<EtcdTls> {
  const file = (name: string) => join(dir, name);
  const openssl = (...args: string[]) => run('openssl', args);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  await openssl(
    'req',
    '-x509',
    ...key,
    '-subj',
    '/CN=test authority',
    '-keyout',
    file('ca.key'),
    '-out',
    file('ca.pem'),
  );
  await openssl(
    'req',
    ...key.slice(0, 5),
    '-subj',
    `/CN=${commonName}`,
    '-keyout',
    file('node.key'),
    '-out',
    file('node.csr'),
  );
  const extension = file('node.ext');
  await writeFile(extension, `subjectAltName=${names}\nextendedKeyUsage=serverAuth,clientAuth\n`);
  await openssl(
    ...['x509', '-req', '-in', file('node.csr'), '-CA', file('ca.pem'), '-CAkey', file('ca.key')],
    ...['-CAcreateserial', '-days', '2', '-extfile', extension, '-out', file('node.pem')],
  );
  return { caFile: file('ca.pem'), certFile: file('node.pem'), keyFile: file('node.key') };
}
