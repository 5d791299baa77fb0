/** The etcd store against a real etcd: the conformance suite, and what is etcd's own. */
import { need } from '../lab/capability.ts';
import { EtcdServer } from '../lab/etcd-server.ts';
import { describeLeaseStore } from './conformance.ts';
import { EtcdLab } from './etcd-lab.ts';

describe('store/etcd', () => {
  let server: EtcdServer;

  before('a real etcd (Debian: etcd-server, etcd-client)', async function () {
    need(this, 'etcd', 'etcdctl');
    server = await EtcdServer.start();
  });

  after(() => server?.close());

  describeLeaseStore('etcd', async () => new EtcdLab(server));
});
