import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { installCni, removeCni } from '../../cni-shim/install.ts';

describe('installing the CNI plugin', () => {
  let root: string;
  let options: Parameters<typeof installCni>[0];

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'vtepd-install-'));
    writeFileSync(join(root, 'shim'), 'the plugin', { mode: 0o600 });
    options = {
      shimPath: join(root, 'shim'),
      confDir: join(root, 'etc', 'net.d'),
      binDir: join(root, 'bin'),
      socketPath: '/run/one/vtepd.sock',
      bridge: 'vtep7',
    };
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('writes the plugin for all to run and the configuration for root to read, and nothing else', async () => {
    const [plugin = '', conflist = ''] = await installCni(options);
    expect(plugin).to.equal(join(options.binDir, 'vtepd-cni'));
    expect(conflist).to.equal(join(options.confDir, '10-vtepd.conflist'));
    expect(statSync(plugin).mode & 0o777).to.equal(0o755);
    expect(statSync(conflist).mode & 0o777).to.equal(0o600);
    expect(readFileSync(plugin, 'utf8')).to.equal('the plugin');
    expect(JSON.parse(readFileSync(conflist, 'utf8')).plugins[0]).to.include({
      type: 'vtepd-cni',
      socket: '/run/one/vtepd.sock',
      bridge: 'vtep7',
    });
    expect(readdirSync(options.confDir)).to.deep.equal(['10-vtepd.conflist']);
    expect(readdirSync(options.binDir)).to.deep.equal(['vtepd-cni']);
  });

  it('replaces an older installation, and is removed with it', async () => {
    await installCni(options);
    writeFileSync(options.shimPath, 'a newer plugin');
    const written = await installCni({ ...options, bridge: 'vtep8' });
    expect(readFileSync(written[0] ?? '', 'utf8')).to.equal('a newer plugin');
    writeFileSync(join(options.confDir, '99-other.conflist'), '{}');
    expect(await removeCni(options, { keepPlugin: true })).to.deep.equal([written[1]]);
    expect(await removeCni(options)).to.deep.equal([written[0]]);
    expect(await removeCni(options)).to.deep.equal([]);
    expect(readdirSync(options.confDir)).to.deep.equal(['99-other.conflist']);
  });

  it('says how to get a plugin that has not been built, and leaves nothing', async () => {
    const failure = await installCni({ ...options, shimPath: join(root, 'none') }).catch((error) => error);
    expect(failure).to.have.property('code', 'VTEPD_SHIM_MISSING');
    expect(failure.message).to.include('make build');
    expect(readdirSync(root)).to.deep.equal(['shim']);
  });
});
