/** Opens the store that the settings name. */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { delay } from '../../store/backoff.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import type {
  EmbeddedSettings,
  EtcdSettings,
  KubernetesSettings,
  StoreSettings,
} from '../config/settings.ts';

/** A file that the settings name cannot be read. */
export class StoreFileError extends Error {
  override readonly name = 'StoreFileError';
  readonly code = 'VTEPD_STORE_FILE';
}

/** What tells one store from another: what was cached of one is no use for another. */
export function storeIdentity(settings: StoreSettings): string {
  switch (settings.kind) {
    case 'etcd':
      return `etcd ${settings.prefix}`;
    case 'embedded':
      return `embedded ${settings.path}`;
    case 'kubernetes':
      return `kubernetes ${settings.apiUrl ?? settings.kubeconfigFile ?? 'of this pod'}`;
  }
}

/**
 * The implementation's library is loaded only for the store in use. A store that is away is no error here.
 * @throws StoreFileError, StoreUnavailableError (embedded), NetworkConfigError (the seed's), NoKubernetesError,
 * CredentialsError
 */
export function openStore(settings: StoreSettings): Promise<LeaseStore> {
  switch (settings.kind) {
    case 'etcd':
      return openEtcd(settings);
    case 'embedded':
      return openEmbedded(settings);
    case 'kubernetes':
      return openKubernetes(settings);
  }
}

async function openKubernetes(settings: KubernetesSettings): Promise<LeaseStore> {
  const [{ openKubernetesStore }, { ACCOUNT_DIR, kubernetesAccess }, { openTransport }, { NetConfigFile }] =
    await Promise.all([
      import('../../store/kubernetes/kubernetes-store.ts'),
      import('./kubernetes-access.ts'),
      import('./kubernetes-http.ts'),
      import('./net-config-file.ts'),
    ]);
  const clock = (): number => performance.now();
  const sources = { environment: process.env, accountDir: ACCOUNT_DIR, clock };
  return openKubernetesStore({
    transport: openTransport(await kubernetesAccess(settings, sources)),
    nodeName: settings.nodeName,
    network: new NetConfigFile(settings.netConfigPath),
    random: Math.random,
    now: Date.now,
    clock,
    sleep: delay,
  });
}

async function openEtcd(settings: EtcdSettings): Promise<LeaseStore> {
  const { openEtcdStore } = await import('../../store/etcd/etcd-store.ts');
  const { caFile, clientCertificate, credentials } = settings;
  const read = async (option: string, path: string): Promise<Buffer> => {
    try {
      return await readFile(path);
    } catch (error) {
      throw new StoreFileError(`--${option}: ${path} cannot be read`, { cause: error });
    }
  };
  return openEtcdStore({
    endpoints: settings.endpoints,
    prefix: settings.prefix,
    random: Math.random,
    now: Date.now,
    ...(caFile !== undefined && { ca: await read('etcd-cafile', caFile) }),
    ...(clientCertificate !== undefined && {
      certificate: await read('etcd-certfile', clientCertificate.certFile),
      key: await read('etcd-keyfile', clientCertificate.keyFile),
    }),
    ...(credentials !== undefined && {
      username: credentials.username,
      password: credentials.password.reveal(),
    }),
  });
}

async function openEmbedded(settings: EmbeddedSettings): Promise<LeaseStore> {
  const { openEmbeddedStore } = await import('../../store/embedded/embedded-store.ts');
  let seed: string | undefined;
  if (settings.netConfigPath !== undefined) {
    try {
      seed = await readFile(settings.netConfigPath, 'utf8');
    } catch (error) {
      throw new StoreFileError(`--net-config-path: ${settings.netConfigPath} cannot be read`, {
        cause: error,
      });
    }
    parseNetworkConfig(seed);
  }
  await refuseForeignFile(join(settings.path, 'data.mdb'));
  const store = openEmbeddedStore({ path: settings.path, now: Date.now, random: Math.random });
  if (seed !== undefined) await store.setNetworkConfig(seed, { ifAbsent: true });
  return store;
}

const LMDB_MAGIC = 0xbeefc0de;
/** Behind the page's header, which is longer in LMDB's newer format. */
const LMDB_MAGIC_OFFSETS = [16, 24];

/** LMDB maps its file into memory and trusts what is there: a foreign or damaged one would end the process. */
async function refuseForeignFile(path: string): Promise<void> {
  let head: Buffer;
  try {
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(32), 0, 32, 0);
      // Another daemon is making it at this moment.
      if (bytesRead === 0) return;
      head = buffer;
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw new StoreFileError(`--embedded-path: ${path} cannot be read`, { cause: error });
  }
  if (LMDB_MAGIC_OFFSETS.some((offset) => head.readUInt32LE(offset) === LMDB_MAGIC)) return;
  throw new StoreFileError(
    `--embedded-path: ${path} is no LMDB file, or damaged: remove the directory, and every daemon claims anew`,
  );
}
