/** A pod that comes again gets the address that it had, while that is free. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { StickyAddresses } from '../../cni-shim/sticky-addresses.ts';
import { recordingLog, silentLog } from '../../overlay/ops/log.ts';
import { addressAt, parseAddress, parseSubnet } from '../../store/address.ts';
import { need } from '../lab/capability.ts';
import { EVERY_FAMILIES, FAMILIES_TEXT, TestNode } from './test-node.ts';

describe('remembered addresses', () => {
  let path: string;
  beforeEach(() => {
    path = join(mkdtempSync(join(tmpdir(), 'vtepd-sticky-')), 'sticky.json');
  });
  afterEach(() => rmSync(join(path, '..'), { recursive: true }));

  const key = (name: string) => ({ network: 'net', ifname: 'eth0', name });
  const address = parseAddress('10.1.1.5');

  it('outlive the daemon, for root alone, and a network or an interface is no other’s', () => {
    const first = new StickyAddresses(path, silentLog);
    first.remember(key('pod a/b'), [address]);
    first.close();
    expect(statSync(path).mode & 0o777).to.equal(0o600);
    const second = new StickyAddresses(path, silentLog);
    expect(second.of(key('pod a/b'))).to.deep.equal([address]);
    expect(second.of({ ...key('pod a/b'), ifname: 'eth1' })).to.deep.equal([]);
    expect(second.of(undefined)).to.deep.equal([]);
    expect(second.all()).to.deep.equal([address]);
  });

  it('are bounded: the one used longest ago goes first', () => {
    const sticky = new StickyAddresses(path, silentLog);
    const subnet = parseSubnet('10.2.0.0/16');
    for (let i = 0; i < 1024; i++) sticky.remember(key(`pod ${i}`), [addressAt(subnet, i)]);
    sticky.remember(key('pod 0'), [address]);
    sticky.remember(key('one more'), [addressAt(subnet, 2000)]);
    expect(sticky.of(key('pod 1'))).to.deep.equal([]);
    expect(sticky.of(key('pod 0'))).to.deep.equal([address]);
    sticky.close();
    expect(JSON.parse(readFileSync(path, 'utf8'))).to.have.length(1024);
  });

  it('are none when the file is damaged, which is said', () => {
    for (const damage of ['', '{', '[["a"]]', '[["a",[5]]]']) {
      writeFileSync(path, damage);
      const log = recordingLog();
      expect(new StickyAddresses(path, log).all()).to.deep.equal([]);
      expect(log.entries.map(({ level }) => level)).to.deep.equal(['warn']);
    }
  });
});

for (const families of EVERY_FAMILIES) {
  describe(`a pod that comes again (${FAMILIES_TEXT[families]})`, () => {
    let node: TestNode;

    before(function () {
      need(this, 'root', 'ip', 'make', 'gcc');
    });
    beforeEach(async () => {
      node = new TestNode(families);
      await node.start();
    });
    afterEach(() => node.remove());

    const kubernetes = (name: string) => ({
      args: `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${name}`,
    });

    it('gets its address, after others have come and gone and the daemon was started anew', async () => {
      await node.add(node.addPod());
      const first = node.addPod();
      const { addresses } = await node.add(first, kubernetes('db-0'));
      await node.call('DEL', { pod: first });
      for (let i = 0; i < 3; i++) {
        const pod = node.addPod();
        const { addresses: others } = await node.add(pod, kubernetes(`web-${i}`));
        for (const address of addresses) expect(others).not.to.include(address);
        await node.call('DEL', { pod });
      }
      await node.stop();
      await node.start();
      const { addresses: others } = await node.add(node.addPod(), kubernetes('web-9'));
      for (const address of addresses) expect(others).not.to.include(address);
      expect((await node.add(node.addPod(), kubernetes('db-0'))).addresses).to.deep.equal(addresses);
    });

    it('gets another while its predecessor is there', async () => {
      const [old, young] = [node.addPod(), node.addPod()];
      const before = await node.add(old, kubernetes('db-0'));
      const after = await node.add(young, kubernetes('db-0'));
      for (const address of before.addresses) expect(after.addresses).not.to.include(address);
      await node.call('DEL', { pod: young });
      await node.call('DEL', { pod: old });
      expect((await node.add(node.addPod(), kubernetes('db-0'))).addresses).to.deep.equal(before.addresses);
    });

    it('is known by the name that CNI_ARGS or the configuration gives, or not at all', async () => {
      const attach = async (args: string, sticky?: string | false): Promise<readonly string[]> => {
        const pod = node.addPod();
        const config = sticky === undefined ? {} : { vtepd: { sticky } };
        const { addresses } = await node.add(pod, { args: `IgnoreUnknown=1;${args}`, config });
        await node.call('DEL', { pod });
        return addresses;
      };
      const named = await attach('VTEPD_STICKY=cache');
      expect(await attach('', 'cache')).to.deep.equal(named);
      expect(await attach('VTEPD_STICKY=cache', 'other')).to.deep.equal(named);
      expect(await attach('K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cache')).not.to.deep.equal(named);
      const forgotten = await attach('K8S_POD_NAME=db-1', false);
      expect(await attach('K8S_POD_NAME=db-1', false)).not.to.deep.equal(forgotten);
    });
  });
}
