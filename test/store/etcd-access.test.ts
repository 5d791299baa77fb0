/** TLS, client certificates, users and roles of a real etcd. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { StoreAccessError, StoreUnavailableError } from '../../store/errors.ts';
import { type EtcdStoreOptions, openEtcdStore } from '../../store/etcd/etcd-store.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { need } from '../lab/capability.ts';
import { EtcdServer, type EtcdTls, makeCertificates } from '../lab/etcd-server.ts';
import { failure, NETWORK, never, node, remembered, TTL_MS, until, watchUntil } from './store-lab.ts';
import { TcpProxy } from './tcp-proxy.ts';

const PREFIX = '/secured/network';
const ROOT = ['--user', 'root:very-secret'];
const network = parseNetworkConfig(NETWORK);

describe('store/etcd access', () => {
  const dir = mkdtempSync(join(tmpdir(), 'vtepd-tls-'));
  const stores: LeaseStore[] = [];
  let server: EtcdServer;
  let tls: EtcdTls;

  function open(options: Partial<EtcdStoreOptions>): LeaseStore {
    const store = openEtcdStore({
      endpoints: [server.url],
      prefix: PREFIX,
      random: Math.random,
      now: Date.now,
      callTimeoutMs: 5000,
      ...options,
    });
    stores.push(store);
    return store;
  }
  const pem = ({ caFile, certFile, keyFile } = tls) => ({
    ca: readFileSync(caFile),
    certificate: readFileSync(certFile),
    key: readFileSync(keyFile),
  });
  const subfolder = (name: string): string => {
    mkdirSync(join(dir, name));
    return join(dir, name);
  };

  afterEach(async () => {
    for (const store of stores.splice(0)) await store.close();
  });

  after(async () => {
    await server?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  describe('with certificates', () => {
    before('a real etcd with TLS (Debian: etcd-server, etcd-client, openssl)', async function () {
      need(this, 'etcd', 'etcdctl', 'openssl');
      tls = await makeCertificates(dir, 'node');
      server = await EtcdServer.start({ tls });
      await server.etcdctl(['put', `${PREFIX}/config`, NETWORK]);
    });

    after(() => server?.close());

    it('works with the right ones, watch included', async () => {
      const store = open(pem());
      const { revision } = await store.snapshot(never);
      const batches = await watchUntil(
        store,
        revision,
        (all) => all.some(({ changes }) => changes.length > 0),
        async () => {
          await store.claim({ network, attributes: node(1), ttlMs: TTL_MS }, never);
        },
      );
      expect(batches.at(-1)?.changes).to.have.lengthOf(1);
    });

    it('takes a certificate for what the endpoint is called only: an address or a name', async () => {
      const elsewhere = await TcpProxy.open(server.port, '127.0.0.2');
      const named = await makeCertificates(subfolder('named'), 'node', 'DNS:localhost,IP:127.0.0.1');
      const byName = await EtcdServer.start({ tls: named });
      try {
        for (const host of ['localhost', '127.0.0.1']) {
          await open({ ...pem(named), endpoints: [`https://${host}:${byName.port}`] }).snapshot(never);
        }
        for (const endpoint of [
          elsewhere.url.replace('http:', 'https:'),
          `https://localhost:${server.port}`,
        ]) {
          const refused = await failure(open({ ...pem(), endpoints: [endpoint] }).snapshot(never));
          expect(refused, endpoint).to.be.instanceOf(StoreAccessError);
          expect(String(refused)).to.match(/certificate/);
        }
      } finally {
        await byName.close();
        await elsewhere.close();
      }
    });

    it('names wrong or missing ones as what is to be mended', async () => {
      const foreign = await makeCertificates(subfolder('other'), 'node');
      const wrongAuthority = await failure(
        open({ ...pem(), ca: readFileSync(foreign.caFile) }).snapshot(never),
      );
      expect(wrongAuthority).to.be.instanceOf(StoreAccessError);
      expect(String(wrongAuthority)).to.match(/certificate/);
      // etcd ends the connection without a word to a client that has none.
      expect(await failure(open({ ca: readFileSync(tls.caFile) }).snapshot(never))).to.satisfy(
        (error: unknown) => error instanceof StoreAccessError || error instanceof StoreUnavailableError,
      );
      expect(await failure(open({}).snapshot(never))).to.be.instanceOf(StoreAccessError);
    });
  });

  describe('with users', () => {
    before('a real etcd with authentication (Debian: etcd-server, etcd-client)', async function () {
      need(this, 'etcd', 'etcdctl');
      server = await EtcdServer.start();
      for (const args of [
        ['put', `${PREFIX}/config`, NETWORK],
        ['put', '/elsewhere/config', NETWORK],
        ['user', 'add', ROOT[1] ?? ''],
        ['user', 'grant-role', 'root', 'root'],
        ['role', 'add', 'nodes'],
        ['role', 'grant-permission', 'nodes', '--prefix=true', 'readwrite', `${PREFIX}/`],
        ['user', 'add', 'node:also-secret'],
        ['user', 'grant-role', 'node', 'nodes'],
        ['auth', 'enable'],
      ]) {
        await server.etcdctl(args);
      }
    });

    const asNode = { username: 'node', password: 'also-secret' };

    it('does everything as a user who may', async () => {
      const store = open(asNode);
      const held = await store.claim({ network, attributes: node(1), ttlMs: TTL_MS }, never);
      const renewed = await store.renew(held, node(2, 1), never);
      const again = await store.claim(
        { network, attributes: node(2, 1), remembered: remembered(renewed), ttlMs: TTL_MS },
        never,
      );
      expect(again.handle).to.equal(held.handle);
      await store.release(again, never);
      expect((await store.snapshot(never)).leases.size).to.equal(0);
    });

    it('gets a new token when etcd has forgotten it: calls, writes and watches go on', async () => {
      const store = open(asNode);
      const { revision } = await store.snapshot(never);
      for (const use of [
        () => store.snapshot(never),
        () => store.claim({ network, attributes: node(3), ttlMs: TTL_MS }, never),
        () => watchUntil(store, revision, (all) => all.length > 0),
      ]) {
        // Simple tokens live in memory.
        await server.stop();
        await server.start();
        await until(
          () =>
            use().then(
              () => 'done',
              (error: unknown) => (error instanceof StoreAccessError ? error : 'away'),
            ),
          (outcome) => outcome !== 'away',
        ).then((outcome) => expect(outcome).to.equal('done'));
      }
    });

    it('refuses a wrong password, none, and a forbidden prefix, without telling the password', async () => {
      const wrong = await failure(open({ ...asNode, password: 'wrong-secret' }).snapshot(never));
      expect(wrong).to.be.instanceOf(StoreAccessError);
      expect(String(wrong))
        .to.match(/--etcd-username/)
        .and.not.match(/secret/);
      expect(JSON.stringify(wrong) + String((wrong as Error).stack)).not.to.match(/secret/);
      expect(await failure(open({}).snapshot(never))).to.be.instanceOf(StoreAccessError);
      const elsewhere = open({ ...asNode, prefix: '/elsewhere' });
      expect(await failure(elsewhere.networkConfig(never))).to.be.instanceOf(StoreAccessError);
      expect(await failure(watchUntil(elsewhere, '1', () => false))).to.be.instanceOf(StoreAccessError);
    });

    it('works with a user name where authentication is off', async () => {
      await server.etcdctl(['auth', 'disable', ...ROOT]);
      const store = open(asNode);
      expect(await store.networkConfig(never)).to.deep.equal(network);
      await server.etcdctl(['auth', 'enable']);
      expect(await store.networkConfig(never), 'and when it is switched on').to.deep.equal(network);
    });
  });
});
