/** The keys of a lab's etcd, as a test reads and writes them. */
import { ETCD_PREFIX, EtcdLabStore } from '../../overlay/lab/lab-store.ts';
import type { LeaseStatus } from '../../overlay/ops/status.ts';
import type { Cluster } from './cluster.ts';

export function etcdOf(cluster: Cluster): EtcdLabStore {
  const { store } = cluster.lab;
  if (!(store instanceof EtcdLabStore)) throw new Error('this cluster has no etcd');
  return store;
}

/** @param key under the lab's prefix: `config`, `subnets/10.244.5.0-24` */
export async function putKey(store: EtcdLabStore, key: string, value: string): Promise<void> {
  await store.etcdctl(['put', `${ETCD_PREFIX}/${key}`, value]);
}

export async function deleteKey(store: EtcdLabStore, key: string): Promise<void> {
  await store.etcdctl(['del', `${ETCD_PREFIX}/${key}`]);
}

export async function getKey(store: EtcdLabStore, key: string): Promise<string | undefined> {
  const { stdout } = await store.etcdctl(['get', '--print-value-only', `${ETCD_PREFIX}/${key}`]);
  return stdout === '' ? undefined : stdout.slice(0, -1);
}

/** The names of the leases' keys: `10.244.5.0-24`. */
export async function leaseKeys(store: EtcdLabStore): Promise<string[]> {
  const start = `${ETCD_PREFIX}/subnets/`;
  const { stdout } = await store.etcdctl(['get', '--prefix', '--keys-only', start]);
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((key) => key.slice(start.length));
}

/** A lease's key: `10.244.5.0-24`, `10.244.5.0-24&fc00:244:0:5::-64`, `0.0.0.0-0&fc00:244:0:5::-64`. */
export const keyOf = (lease: Pick<LeaseStatus, 'subnet' | 'subnetIPv6'> | null): string =>
  [lease?.subnet ?? '0.0.0.0/0', lease?.subnetIPv6]
    .flatMap((subnet) => subnet?.replace('/', '-') ?? [])
    .join('&');
