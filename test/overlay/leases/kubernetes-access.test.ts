/** Who we are to the Kubernetes API: a pod's service account whose token is replaced, and kubeconfig files. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { rename, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { kubernetesAccess } from '../../../overlay/leases/kubernetes-access.ts';
import { openTransport } from '../../../overlay/leases/kubernetes-http.ts';
import { NetConfigFile } from '../../../overlay/leases/net-config-file.ts';
import { openStore } from '../../../overlay/leases/open-store.ts';
import { delay } from '../../../store/backoff.ts';
import { StoreAccessError } from '../../../store/errors.ts';
import { openKubernetesStore } from '../../../store/kubernetes/kubernetes-store.ts';
import type { LeaseStore } from '../../../store/lease-store.ts';
import { need } from '../../lab/capability.ts';
import { makeCertificates } from '../../lab/etcd-server.ts';
import { KubernetesApi } from '../../lab/kubernetes-api.ts';

const never = new AbortController().signal;
const USER = 'system:serviceaccount:kube-vtepd:vtepd';

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('access to the Kubernetes API', () => {
  let dir: string;
  let api: KubernetesApi;
  const opened: LeaseStore[] = [];

  before(async function () {
    need(this, 'openssl');
    dir = mkdtempSync(join(tmpdir(), 'vtepd-access-'));
    const { certFile, keyFile } = await makeCertificates(dir, 'kube-apiserver');
    api = await KubernetesApi.start({ tls: { cert: readFileSync(certFile), key: readFileSync(keyFile) } });
  });

  afterEach(async () => {
    for (const store of opened.splice(0)) await store.close();
  });

  after(async () => {
    await api?.close();
    if (dir !== undefined) rmSync(dir, { recursive: true });
  });

  const kept = (store: LeaseStore): LeaseStore => {
    opened.push(store);
    return store;
  };

  describe('in a pod', () => {
    let accountDir: string;
    let nowMs = 0;

    const open = async (environment?: Record<string, string>): Promise<LeaseStore> => {
      const settings = { kind: 'kubernetes', nodeName: 'a', netConfigPath: join(dir, 'none') } as const;
      const access = await kubernetesAccess(settings, {
        environment: environment ?? {
          KUBERNETES_SERVICE_HOST: '127.0.0.1',
          KUBERNETES_SERVICE_PORT: String(api.port),
        },
        accountDir,
        clock: () => nowMs,
      });
      const options = { nodeName: 'a', network: new NetConfigFile(settings.netConfigPath), sleep: delay };
      const clock = () => performance.now();
      const transport = openTransport(access);
      return kept(openKubernetesStore({ ...options, transport, random: Math.random, now: Date.now, clock }));
    };

    beforeEach(() => {
      accountDir = mkdtempSync(join(dir, 'account-'));
      writeFileSync(join(accountDir, 'ca.crt'), readFileSync(join(dir, 'ca.pem')));
      writeFileSync(join(accountDir, 'token'), 'first\n');
      api.tokens = new Map([['first', USER]]);
    });

    it('a replaced token is taken up in a minute, and at once when the old one is refused', async () => {
      const store = await open();
      await store.snapshot(never);
      writeFileSync(join(accountDir, 'token'), 'second');
      api.tokens = new Map([['second', USER]]);
      await store.snapshot(never);
      api.tokens.set('third', USER);
      writeFileSync(join(accountDir, 'token'), 'third');
      nowMs += 61_000;
      await store.snapshot(never);
      api.tokens.delete('second');
      await store.snapshot(never);
      api.tokens = new Map();
      const error = await failure(store.snapshot(never));
      expect(error).to.be.instanceOf(StoreAccessError);
      expect(error).to.have.property('message').that.includes('Unauthorized').and.not.includes('third');
    });

    it('a token or an authority that is missing, or another one’s, is named', async () => {
      writeFileSync(join(accountDir, 'ca.crt'), '');
      const untrusted = await failure((await open()).snapshot(never));
      expect(untrusted).to.be.instanceOf(StoreAccessError);
      expect(untrusted)
        .to.have.property('message')
        .that.matches(/certificate/);
      rmSync(join(accountDir, 'token'));
      const missing = await failure((await open()).snapshot(never));
      expect(missing).to.be.instanceOf(StoreAccessError);
      expect(missing).to.have.property('message').that.includes('automountServiceAccountToken');
    });

    it('no pod is not taken for one', async () => {
      expect(await failure(open({})))
        .to.have.property('message')
        .that.includes('--kubeconfig-file');
    });

    it('a token is not shown where others can hear it', async () => {
      const plain = await KubernetesApi.start();
      try {
        plain.tokens = new Map([['first', USER]]);
        const settings = {
          kind: 'kubernetes',
          nodeName: 'a',
          apiUrl: plain.url,
          netConfigPath: '/n',
        } as const;
        const sources = { environment: {}, accountDir, clock: () => 0 };
        const { credentials } = await kubernetesAccess(settings, sources);
        expect(await credentials(false)).to.deep.equal({});
      } finally {
        await plain.close();
      }
    });
  });

  describe('with a kubeconfig file', () => {
    const write = (user: object, cluster: object = {}): string => {
      const path = join(dir, 'kubeconfig');
      const authority = readFileSync(join(dir, 'ca.pem')).toString('base64');
      const config = {
        apiVersion: 'v1',
        kind: 'Config',
        'current-context': 'c',
        clusters: [
          { name: 'k', cluster: { server: api.url, 'certificate-authority-data': authority, ...cluster } },
        ],
        users: [{ name: 'u', user }],
        contexts: [{ name: 'c', context: { cluster: 'k', user: 'u' } }],
      };
      writeFileSync(path, JSON.stringify(config));
      return path;
    };
    const open = async (kubeconfigFile: string): Promise<LeaseStore> =>
      kept(
        await openStore({
          kind: 'kubernetes',
          nodeName: 'a',
          kubeconfigFile,
          netConfigPath: join(dir, 'none'),
        }),
      );

    beforeEach(() => {
      api.tokens = new Map([['hunter2', 'admin']]);
    });

    it('its server, authority and token are used; what it gets wrong is named, its secrets are not', async function () {
      // The library takes half a second to load, and many times that on a machine under load.
      this.timeout(60_000);
      const { leases } = await (await open(write({ token: 'hunter2' }))).snapshot(never);
      expect(leases.size).to.equal(0);
      const refused = await failure((await open(write({ token: 'hunter3' }))).snapshot(never));
      expect(refused).to.be.instanceOf(StoreAccessError);
      expect(refused)
        .to.have.property('message')
        .that.includes('--kubeconfig-file')
        .and.not.includes('hunter');
      const [path, replaced] = [write({ token: 'hunter3' }), await open(join(dir, 'kubeconfig'))];
      expect(path).to.equal(write({ token: 'hunter2' }));
      await replaced.snapshot(never);
      const tokenFile = join(dir, 'token-file');
      writeFileSync(tokenFile, 'hunter2');
      await (await open(write({ tokenFile }))).snapshot(never);
      const strange = { 'certificate-authority-data': undefined };
      const untrusted = await failure((await open(write({ token: 'hunter2' }, strange))).snapshot(never));
      expect(untrusted).to.be.instanceOf(StoreAccessError);
      const lax = { ...strange, 'insecure-skip-tls-verify': true };
      await (await open(write({ token: 'hunter2' }, lax))).snapshot(never);
    });

    it('that is not there, or none, is refused by its name', async () => {
      expect(await failure(open('/nowhere')))
        .to.have.property('message')
        .that.includes('--kubeconfig-file: /nowhere');
      const path = join(dir, 'other');
      writeFileSync(path, 'a: 1\n');
      expect(await failure(open(path)))
        .to.have.property('message')
        .that.includes(`--kubeconfig-file: ${path}`);
    });
  });

  describe('the network configuration’s file', () => {
    it('tells of another content, however it is put there, and of nothing else', async () => {
      const folder = join(dir, 'net');
      const path = join(folder, 'net-conf.json');
      const file = new NetConfigFile(path);
      expect(await file.read(), 'there is no directory yet').to.equal(undefined);
      mkdirSync(folder);
      // As Kubernetes does it with a ConfigMap: all files are links into a directory, which is replaced.
      const version = (name: string, text: string): void => {
        mkdirSync(join(folder, name));
        writeFileSync(join(folder, name, 'net-conf.json'), text);
      };
      version('..1', 'one');
      symlinkSync('..1', join(folder, '..data'));
      symlinkSync(join('..data', 'net-conf.json'), path);
      let calls = 0;
      const nextCall = (): Promise<void> =>
        new Promise((resolve) => {
          const unlisten = file.onChange(() => {
            calls++;
            unlisten();
            resolve();
          });
        });
      expect(await file.read()).to.equal('one');
      const second = nextCall();
      version('..2', 'two');
      await symlink('..2', join(folder, '..data_tmp'));
      await rename(join(folder, '..data_tmp'), join(folder, '..data'));
      await second;
      expect(await file.read()).to.equal('two');
      expect(calls).to.equal(1);
      const third = nextCall();
      writeFileSync(join(folder, 'unrelated'), 'x');
      rmSync(path);
      await third;
      expect(await file.read()).to.equal(undefined);
      expect(calls).to.equal(2);
    });

    it('that cannot be read is named', async () => {
      const error = await failure(new NetConfigFile(dir).read());
      expect(error).to.have.property('message').that.includes(`--net-config-path: ${dir} cannot be read`);
    });
  });
});
