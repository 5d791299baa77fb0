/** Opens the store that the settings name. */
import { readFile } from 'node:fs/promises';
import type { LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import type { EmbeddedSettings, EtcdSettings, StoreSettings } from '../config/settings.ts';

/** A file that the settings name cannot be read. */
export class StoreFileError extends Error {
  override readonly name = 'StoreFileError';
  readonly code = 'VTEPD_STORE_FILE';
}

/** What tells one store from another: what was cached of one is no use for another. */
export const storeIdentity = (settings: StoreSettings): string =>
  settings.kind === 'etcd' ? `etcd ${settings.prefix}` : `embedded ${settings.path}`;

/**
 * The implementation's library is loaded only for the store in use. A store that is away is no error here.
 * @throws StoreFileError, StoreUnavailableError (embedded), NetworkConfigError (the seed's)
 */
export const openStore = (settings: StoreSettings): Promise<LeaseStore> =>
  settings.kind === 'etcd' ? openEtcd(settings) : openEmbedded(settings);

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
  const store = openEmbeddedStore({ path: settings.path, now: Date.now, random: Math.random });
  if (seed !== undefined) await store.setNetworkConfig(seed, { ifAbsent: true });
  return store;
}
