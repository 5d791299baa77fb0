/** Pods in whose namespace IPv6 is off, as Docker and containerd make them. */
import { expect } from 'chai';
import { familiesOf } from '../../overlay/lab/lab-network.ts';
import { need } from '../lab/capability.ts';
import { EVERY_FAMILIES, FAMILIES_TEXT, IN_FAMILY, inside, TestNode } from './test-node.ts';

const isOff = (pod: string, device: string): boolean =>
  inside(pod, 'cat', `/proc/sys/net/ipv6/conf/${device}/disable_ipv6`) === '1\n';

for (const each of EVERY_FAMILIES) {
  describe(`a pod whose namespace has IPv6 off (${FAMILIES_TEXT[each]})`, () => {
    const hasIpv6 = familiesOf(each).includes('ipv6');
    let node: TestNode;
    let pod: string;

    before(function () {
      need(this, 'root', 'ip', 'make', 'gcc');
    });
    beforeEach(async () => {
      node = new TestNode(each);
      await node.start();
      pod = node.addPod();
      for (const which of ['all', 'default'])
        inside(pod, 'sysctl', '-qw', `net.ipv6.conf.${which}.disable_ipv6=1`);
    });
    afterEach(() => node.remove());

    it('gets every address that the network has, and IPv6 for its interface alone', async () => {
      const { result, addresses } = await node.add(pod);
      expect(addresses).to.deep.equal(familiesOf(each).map((family) => IN_FAMILY[family].first));
      for (const family of familiesOf(each)) {
        inside(pod, 'ping', '-c', '1', '-W', '5', IN_FAMILY[family].gateway);
        // By the loopback.
        inside(pod, 'ping', '-c', '1', '-W', '5', IN_FAMILY[family].first);
      }
      expect(await node.call('CHECK', { pod, config: { prevResult: result } })).to.include({ status: 0 });
      // A network without IPv6 changes nothing, and one with IPv6 nothing of the pod's other interfaces.
      expect(['eth0', 'lo'].map((device) => isOff(pod, device))).to.deep.equal([!hasIpv6, !hasIpv6]);
      expect(isOff(pod, 'default')).to.equal(true);
      inside(pod, 'ip', 'link', 'add', 'other0', 'type', 'bridge');
      expect(isOff(pod, 'other0')).to.equal(true);
      expect(await node.call('DEL', { pod })).to.include({ status: 0 });
      expect((await node.add(pod)).addresses).to.have.length(addresses.length);
    });

    if (!hasIpv6) return;

    it('is refused, with nothing left of it, when its settings cannot be written', async () => {
      const readOnly = ['-o', 'bind,remount,ro', '/proc/sys'];
      const refused = await node.call('ADD', {
        pod,
        launcher: [
          'unshare',
          '-m',
          'sh',
          '-c',
          `mount --bind /proc/sys /proc/sys && mount ${readOnly.join(' ')} && exec "$0"`,
        ],
      });
      expect(refused).to.include({ code: 105 });
      expect(refused.stdout).to.include('net.ipv6.conf.eth0.disable_ipv6=1').and.include('EROFS');
      expect(node.podLinks()).to.deep.equal([]);
      expect(node.registry?.rows()).to.deep.equal([]);
      await node.add(pod);
    });
  });
}
