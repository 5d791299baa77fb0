/** The conformance suite's lab over a real etcd: a prefix of its own, clients that it closes. */

import { parseEndpoint } from '../../store/etcd/endpoint.ts';
import { EtcdClient } from '../../store/etcd/etcd-client.ts';
import { EtcdKeys } from '../../store/etcd/etcd-keys.ts';
import { type EtcdStoreOptions, openEtcdStore } from '../../store/etcd/etcd-store.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import type { EtcdServer } from '../lab/etcd-server.ts';
import { never, type StoreLab } from './store-lab.ts';

let labs = 0;

export class EtcdLab implements StoreLab {
  readonly prefix = `/test-${process.pid}-${++labs}/network`;
  readonly #server: EtcdServer;
  readonly #options: Partial<EtcdStoreOptions>;
  readonly client: EtcdClient;
  readonly #stores: LeaseStore[] = [];

  constructor(server: EtcdServer, options: Partial<EtcdStoreOptions> = {}) {
    this.#server = server;
    this.#options = options;
    this.client = new EtcdClient({
      endpoints: [parseEndpoint(server.url)],
      callTimeoutMs: 30_000,
      keepaliveMs: 10_000,
    });
  }

  /** Another client; synchronous, for tests that want many. */
  openNow(options: Partial<EtcdStoreOptions> = {}): LeaseStore {
    const store = openEtcdStore({
      endpoints: [this.#server.url],
      prefix: this.prefix,
      random: Math.random,
      now: Date.now,
      ...this.#options,
      ...options,
    });
    this.#stores.push(store);
    return store;
  }

  async open(): Promise<LeaseStore> {
    return this.openNow();
  }

  #key(key: string): Buffer {
    return Buffer.from(`${this.prefix}/${key}`);
  }

  async put(key: string, text: string): Promise<void> {
    await this.putOn(key, text, '0');
  }

  /** With an etcd lease. */
  async putOn(key: string, text: string, etcdLease: string): Promise<void> {
    const put = { request_put: { key: this.#key(key), value: Buffer.from(text), lease: etcdLease } };
    await this.client.write('KV.txn', { success: [put] }, never);
  }

  async remove(key: string): Promise<void> {
    await this.client.write(
      'KV.txn',
      { success: [{ request_delete_range: { key: this.#key(key) } }] },
      never,
    );
  }

  async #kv(key: string) {
    return (await this.client.read('KV.range', { key: this.#key(key) }, never)).kvs[0];
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#kv(key))?.value.toString();
  }

  /** The number of the etcd lease that a key is on; '0': none. */
  async etcdLeaseOf(key: string): Promise<string> {
    return (await this.#kv(key))?.lease ?? '';
  }

  async expire(key: string): Promise<void> {
    await this.client.write('Lease.leaseRevoke', { ID: await this.etcdLeaseOf(`subnets/${key}`) }, never);
  }

  async expires(key: string): Promise<boolean> {
    return (await this.etcdLeaseOf(`subnets/${key}`)) !== '0';
  }

  async revision(): Promise<string> {
    return (await this.client.read('KV.range', { key: Buffer.from('x') }, never)).header.revision;
  }

  async forgetHistory(): Promise<void> {
    await this.#server.etcdctl(['compact', await this.revision()]);
  }

  keys(): EtcdKeys {
    return new EtcdKeys(this.prefix);
  }

  /** The numbers of all etcd leases of the server. */
  async etcdLeases(): Promise<string[]> {
    const { leases } = JSON.parse(await this.#server.etcdctl(['lease', 'list', '--write-out=json']));
    return (leases ?? []).map(({ id }: { id: number }) => String(id));
  }

  async close(): Promise<void> {
    for (const store of this.#stores) await store.close();
    const all = new EtcdKeys(this.prefix).all;
    await this.client
      .write('KV.txn', { success: [{ request_delete_range: all }] }, never)
      .catch(() => undefined);
    this.client.close();
  }
}
