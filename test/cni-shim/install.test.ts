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

  it('installs an operator’s list in the place of ours, with the socket and the bridge that it leaves to us', async () => {
    const confFile = join(root, 'cni-conf.json');
    const own = { type: 'vtepd-cni', mtu: 1300 };
    const list = {
      cniVersion: '1.0.0',
      name: 'theirs',
      disableCheck: true,
      plugins: [own, { type: 'tuning' }],
    };
    writeFileSync(confFile, JSON.stringify(list));
    const [, conflist = ''] = await installCni({ ...options, confFile });
    expect(JSON.parse(readFileSync(conflist, 'utf8'))).to.deep.equal({
      ...list,
      plugins: [{ ...own, socket: '/run/one/vtepd.sock', bridge: 'vtep7' }, { type: 'tuning' }],
    });
    const named = { ...own, socket: '/run/two.sock', bridge: 'br1' };
    writeFileSync(confFile, JSON.stringify({ ...list, plugins: [named] }));
    await installCni({ ...options, confFile });
    expect(JSON.parse(readFileSync(conflist, 'utf8')).plugins).to.deep.equal([named]);
  });

  it('refuses an operator’s list that no pod could be attached by, and installs nothing', async () => {
    const confFile = join(root, 'cni-conf.json');
    const reasons = new Map([
      ['{', 'it is not JSON'],
      ['{"cniVersion": "1.0.0", "plugins": []}', 'name: '],
      ['{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]}', 'exactly one .* "vtepd-cni"'],
    ]);
    for (const [text, reason] of reasons) {
      writeFileSync(confFile, text);
      const failure = await installCni({ ...options, confFile }).catch((error) => error);
      expect(failure).to.have.property('code', 'VTEPD_CONFLIST');
      expect(failure.message).to.match(new RegExp(`^${confFile} cannot be used .*: ${reason}`));
    }
    const failure = await installCni({ ...options, confFile: join(root, 'none') }).catch((error) => error);
    expect(failure).to.have.property('code', 'VTEPD_CONFLIST');
    expect(readdirSync(root).sort()).to.deep.equal(['cni-conf.json', 'shim']);
  });

  it('says how to get a plugin that has not been built, and leaves nothing', async () => {
    const failure = await installCni({ ...options, shimPath: join(root, 'none') }).catch((error) => error);
    expect(failure).to.have.property('code', 'VTEPD_SHIM_MISSING');
    expect(failure.message).to.include('make build');
    expect(readdirSync(root)).to.deep.equal(['shim']);
  });
});
