/** libnftables in the process: its words, its namespace, and what is said where it cannot be used. */
import { expect } from 'chai';
import { Firewall } from '../../../overlay/kernel/firewall.ts';
import { Nftables, NftablesError, NftablesUnavailableError } from '../../../overlay/kernel/nftables.ts';
import { run } from '../../../overlay/lab/command.ts';
import { addNamespace, deleteNamespace, namespacePath, runInside } from '../../../overlay/lab/namespace.ts';
import { need } from '../../lab/capability.ts';

describe('firewall: libnftables', () => {
  const names = [`vtepd-fwl${process.pid}a`, `vtepd-fwl${process.pid}b`] as const;

  before(async function () {
    need(this, 'root', 'ip', 'nft');
    for (const name of names) await addNamespace(name);
  });
  after(async () => {
    for (const name of names) await deleteNamespace(name);
  });

  it('works in the namespace it was opened for, and in no other', async () => {
    const [here, there] = names;
    using a = Nftables.open({ namespace: namespacePath(here) });
    using b = Nftables.open({ namespace: namespacePath(there) });
    a.run('add table inet only_in_a');
    b.run('add table inet only_in_b');
    expect(a.list()).to.include('only_in_a').and.not.include('only_in_b');
    expect(b.list()).to.include('only_in_b').and.not.include('only_in_a');
    expect((await runInside(here, ['nft', 'list', 'tables'])).stdout.trim()).to.equal('table inet only_in_a');
    expect((await run('nft', ['list', 'tables'])).stdout).to.not.include('only_in_');
  });

  it('carries a text out whole or not at all, and hands on what the library says', () => {
    using nftables = Nftables.open({ namespace: namespacePath(names[0]) });
    expect(() => nftables.run('add table inet whole\nadd rule inet whole nochain drop')).to.throw(
      NftablesError,
      /No such file or directory/,
    );
    expect(nftables.list()).to.not.include('whole');
    expect(() => nftables.run('no such command')).to.throw(NftablesError, /syntax error/);
    expect(nftables.list()).to.be.a('string');
  });

  it('lists as text, as JSON, and without elements', () => {
    using nftables = Nftables.open({ namespace: namespacePath(names[0]) });
    nftables.run('table ip l {\n set s { type ipv4_addr; elements = { 192.0.2.77 } }\n }');
    const table = { family: 'ip', name: 'l' };
    expect(nftables.list(table)).to.include('192.0.2.77');
    expect(nftables.list(table, { terse: true })).to.not.include('192.0.2.77');
    expect(JSON.parse(nftables.list(table, { json: true }))).to.have.property('nftables');
    expect(() => nftables.list({ family: 'ip', name: 'absent' })).to.throw(NftablesError);
  });

  it('refuses to work after its end', () => {
    const nftables = Nftables.open({ namespace: namespacePath(names[0]) });
    nftables.close();
    nftables.close();
    expect(() => nftables.list()).to.throw(NftablesError, /closed/);
  });

  it('names the package when the library is missing', () => {
    const open = () => Firewall.open({ namespace: namespacePath(names[0]), library: 'libnftables.so.999' });
    expect(open)
      .to.throw(NftablesUnavailableError, /libnftables\.so\.999.*apt-get install libnftables1/)
      .with.property('code', 'VTEPD_NFTABLES_UNAVAILABLE');
  });

  it('names the capability when it is missing', async function () {
    need(this, 'setpriv');
    const module = new URL('../../../overlay/kernel/firewall.js', import.meta.url).href;
    const script = `const { Firewall } = await import(${JSON.stringify(module)});
      try { Firewall.open(); } catch (error) { console.log(error.code, error.message); }`;
    const args = ['--bounding-set', '-net_admin', '--inh-caps', '-net_admin', '--', process.execPath];
    const { stdout } = await run('setpriv', [...args, '--input-type=module', '-e', script]);
    expect(stdout).to.match(/^VTEPD_NFTABLES_UNAVAILABLE .*CAP_NET_ADMIN/);
  });
});
