/**
 * Where a lab's leases live: an embedded store's directory, or Debian's etcd, started in the underlay's
 * namespace. The lab owns it and closes it last.
 */
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Address, familyOf } from '../../store/address.ts';
import { type Child, type CommandOptions, type CommandResult, start, stop } from './command.ts';
import { inside, runInside } from './namespace.ts';
import { until } from './wait.ts';

export type LabStoreKind = 'embedded' | 'etcd';

/** One that somebody else makes: a test has a Kubernetes API of its own. */
export type LabStoreMaker = (plan: LabStorePlan) => Promise<ForeignLabStore>;

export interface ForeignLabStore extends LabStore {
  readonly kind: 'kubernetes';
}

export interface LabStore {
  readonly kind: LabStoreKind | 'kubernetes';
  /** What every daemon is told (`vtepd run ...`). */
  readonly arguments: readonly string[];
  close(): Promise<void>;
  /** Lets it live when we end: a kept lab. */
  abandon(): void;
}

/** A directory; the first daemon that comes seeds the network configuration, if there is one. */
export async function embeddedLabStore(
  dir: string,
  networkConfig: string | undefined,
): Promise<EmbeddedLabStore> {
  const path = join(dir, 'store');
  const config = join(dir, 'network.json');
  await mkdir(path, { mode: 0o700 });
  if (networkConfig !== undefined) await writeFile(config, networkConfig);
  return {
    kind: 'embedded',
    path,
    arguments: [
      ...['--store', 'embedded', '--embedded-path', path],
      ...(networkConfig === undefined ? [] : ['--net-config-path', config]),
    ],
    close: async () => {},
    abandon: () => {},
  };
}

export interface EmbeddedLabStore extends LabStore {
  readonly kind: 'embedded';
  readonly path: string;
}

const clientUrl = (at: Address): string => `http://${familyOf(at) === 'ipv6' ? `[${at}]` : at}:2379`;
const PEER_URL = 'http://127.0.0.1:2380';
/** Where the lab's leases and network configuration are: flannel's default. */
export const ETCD_PREFIX = '/coreos.com/network';
/** Starting takes a third of a second; a machine under load may be thirty times slower. */
const START_DEADLINE_MS = 20_000;

export interface LabStorePlan {
  /** The lab's folder. */
  readonly dir: string;
  /** The underlay's. */
  readonly namespace: string;
  /** Where a server listens: an address that every node reaches. */
  readonly at: Address;
  readonly networkConfig: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Debian's etcd, in the underlay's namespace at its gateway address, with a data directory of its own. */
export class EtcdLabStore implements LabStore {
  readonly kind = 'etcd';
  readonly arguments: readonly string[];
  private readonly namespace: string;
  private readonly dir: string;
  private readonly url: string;
  private server: Child | undefined;

  private constructor({ namespace, dir, at }: LabStorePlan) {
    this.namespace = namespace;
    this.dir = join(dir, 'etcd');
    this.url = clientUrl(at);
    this.arguments = ['--store', 'etcd', '--etcd-endpoints', this.url, '--etcd-prefix', ETCD_PREFIX];
  }

  /** @throws CommandError when etcd is not installed or does not start */
  static async create(plan: LabStorePlan): Promise<EtcdLabStore> {
    const { networkConfig, signal } = plan;
    const store = new EtcdLabStore(plan);
    await mkdir(store.dir, { mode: 0o700 });
    try {
      await store.start(signal);
      if (networkConfig !== undefined) await store.etcdctl(['put', `${ETCD_PREFIX}/config`, networkConfig]);
      return store;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  get pid(): number | undefined {
    return this.server?.pid;
  }

  /** Starts the server, on the data it had, and waits until it answers. */
  async start(signal?: AbortSignal): Promise<void> {
    const log = await open(join(this.dir, '..', 'etcd.log'), 'a');
    try {
      this.server = await start(
        ...inside(this.namespace, [
          'etcd',
          ...['--name', 'lab', '--data-dir', this.dir, '--logger', 'zap', '--log-level', 'warn'],
          ...['--listen-client-urls', this.url, '--advertise-client-urls', this.url],
          ...['--listen-peer-urls', PEER_URL, '--initial-advertise-peer-urls', PEER_URL],
          ...['--initial-cluster', `lab=${PEER_URL}`],
        ]),
        { stdio: ['ignore', log.fd, log.fd] },
      );
    } finally {
      await log.close();
    }
    const { exited } = this.server;
    let ended = false;
    exited.then(() => {
      ended = true;
    });
    await until(
      async () => {
        if (ended) throw new Error(`etcd ended at once; its log is ${join(this.dir, '..', 'etcd.log')}`);
        return (await this.etcdctl(['endpoint', 'health'], { tolerant: true })).status === 0;
      },
      { what: 'etcd to answer', deadlineMs: START_DEADLINE_MS, signal },
    );
  }

  /** Ends the server; its data stay for `start`. */
  async close(): Promise<void> {
    if (this.server !== undefined) await stop(this.server, 'SIGKILL');
    this.server = undefined;
  }

  abandon(): void {
    this.server?.process.unref();
  }

  /** The same, running on: a watch. Its owner stops it. @throws CommandError */
  startEtcdctl(args: readonly string[]): Promise<Child> {
    return start(...inside(this.namespace, ['etcdctl', '--endpoints', this.url, ...args]), {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, ETCDCTL_API: '3' },
    });
  }

  /** Debian's client, in the underlay's namespace. @throws CommandError */
  etcdctl(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return runInside(this.namespace, ['etcdctl', '--endpoints', this.url, '--command-timeout=2s', ...args], {
      ...options,
      env: { ...process.env, ETCDCTL_API: '3' },
    });
  }
}
