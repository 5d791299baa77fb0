/** Where the Kubernetes store is, and what this node is called there. */
import { hostname } from 'node:os';
import { expect } from 'chai';
import { loadSettings, loadStoreSettings } from '../../../overlay/config/load-settings.ts';

describe('config: the Kubernetes store', () => {
  const load = (flags: Readonly<Record<string, string>>, environment: Record<string, string> = {}) => ({
    flags: new Map(Object.entries({ store: 'kubernetes', ...flags }).map(([name, text]) => [name, [text]])),
    environment,
  });

  it('is that of the pod, with flannel’s place for the network, unless told otherwise', async () => {
    const { store } = await loadStoreSettings(load({ 'node-name': 'worker-1' }));
    expect(store).to.deep.equal({
      kind: 'kubernetes',
      nodeName: 'worker-1',
      kubeconfigFile: undefined,
      apiUrl: undefined,
      netConfigPath: '/etc/kube-flannel/net-conf.json',
    });
    const told = await loadStoreSettings(
      load({ 'kubeconfig-file': '/k', 'kube-api-url': 'https://a:6443', 'net-config-path': '/n' }),
    );
    expect(told.store).to.include({ kubeconfigFile: '/k', apiUrl: 'https://a:6443', netConfigPath: '/n' });
  });

  it('knows the node by --node-name, else NODE_NAME, else the host name in small letters', async () => {
    const named = async (...sources: Parameters<typeof load>) => {
      const { settings } = await loadSettings(load(...sources));
      return settings.store.kind === 'kubernetes' ? [settings.nodeName, settings.store.nodeName] : [];
    };
    expect(await named({ 'node-name': 'worker-1' }, { NODE_NAME: 'other' })).to.deep.equal([
      'worker-1',
      'worker-1',
    ]);
    expect(await named({}, { NODE_NAME: 'worker-2' })).to.deep.equal(['worker-2', 'worker-2']);
    expect(await named({}, { NODE_NAME: '' })).to.deep.equal([hostname(), hostname().toLowerCase()]);
  });

  it('refuses its options where they would do nothing, and a URL that is none', async () => {
    const refusal = (flags: Record<string, string>) =>
      loadSettings(load(flags)).then(
        () => '',
        (error: Error) => error.message,
      );
    expect(await refusal({ store: 'etcd', 'kubeconfig-file': '/k' })).to.match(
      /--kubeconfig-file: does nothing with --store etcd/,
    );
    const named = await refusal({ 'kube-api-url': 'https://user:hunter2@a' });
    expect(named)
      .to.match(/--kube-api-url.*must be a URL/)
      .and.not.include('hunter2');
    expect(await refusal({ 'kube-api-url': 'ftp://a' })).to.match(/--kube-api-url.*must be a URL/);
  });
});
