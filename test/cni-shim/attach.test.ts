/** ADD, CHECK and DEL of real pods by the real plugin: what the kernel then holds, and what is on disk. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { conflistText } from '../../cni-shim/conflist.ts';
import { familiesOf } from '../../overlay/lab/lab-network.ts';
import { until } from '../../overlay/lab/wait.ts';
import type { Family } from '../../store/address.ts';
import { need } from '../lab/capability.ts';
import {
  BRIDGE,
  type CniResult,
  EVERY_FAMILIES,
  FAMILIES_TEXT,
  IN_FAMILY,
  inside,
  ipFlag,
  runPlugin,
  TestNode,
} from './test-node.ts';

const subnetText = ({ address, prefixLength }: { address: string; prefixLength: number }): string =>
  `${address}/${prefixLength}`;
/** `10.244.7.2/24` */
const withLength = (family: Family, address: string): string =>
  `${address}/${IN_FAMILY[family].subnet.prefixLength}`;

for (const each of EVERY_FAMILIES) {
  describe(`attaching pods (${FAMILIES_TEXT[each]})`, () => {
    const families = familiesOf(each);
    let node: TestNode;

    before(function () {
      need(this, 'root', 'ip', 'make', 'gcc');
    });
    beforeEach(async () => {
      node = new TestNode(each);
      await node.start();
    });
    afterEach(() => node.remove());

    const clusterRoutes = families.map((family) => ({
      dst: subnetText(IN_FAMILY[family].cluster),
      gw: IN_FAMILY[family].gateway,
    }));
    const defaultRoutes = families.map((family) => ({
      dst: IN_FAMILY[family].everything,
      gw: IN_FAMILY[family].gateway,
    }));
    const ping = (pod: string, family: Family): string =>
      inside(pod, 'ping', '-c', '1', '-W', '5', IN_FAMILY[family].gateway);

    it('gives a pod an interface that reaches its gateway, and takes it away without a trace', async () => {
      const pod = node.addPod();
      const { result, addresses } = await node.add(pod);
      expect(addresses).to.deep.equal(families.map((family) => IN_FAMILY[family].first));
      expect(result.ips).to.deep.equal(
        families.map((family) => ({
          interface: 2,
          address: withLength(family, IN_FAMILY[family].first),
          gateway: IN_FAMILY[family].gateway,
        })),
      );
      expect(result.routes).to.have.deep.members([...clusterRoutes, ...defaultRoutes]);
      for (const family of families) {
        const { first, gateway } = IN_FAMILY[family];
        const shown = inside(pod, 'ip', ipFlag(family), 'addr', 'show', 'dev', 'eth0');
        // Usable at once: no duplicate address detection.
        expect(shown).to.include(withLength(family, first)).and.not.include('tentative');
        expect(inside(pod, 'ip', ipFlag(family), 'route')).to.include(`default via ${gateway} dev eth0`);
        ping(pod, family);
      }
      expect(inside(pod, 'ip', 'link', 'show', 'lo')).to.include('UP');
      expect(inside(pod, 'cat', '/proc/sys/net/ipv6/conf/eth0/accept_ra')).to.equal('0\n');
      expect(node.network.settled.map((port) => port.addresses)).to.deep.equal([addresses]);

      const check = await node.call('CHECK', { pod, config: { prevResult: result } });
      expect(check).to.include({ status: 0, stdout: '' });

      const folder = join(node.stateDir, 'networks', 'test-net');
      const last = families.map((family) => IN_FAMILY[family].lastReserved);
      for (const address of addresses) {
        expect(readFileSync(join(folder, address), 'utf8')).to.equal(`${pod}\r\neth0`);
        expect(statSync(join(folder, address)).mode & 0o777).to.equal(0o600);
      }
      await until(() => last.every((name) => existsSync(join(folder, name))), {
        what: 'the last address',
        deadlineMs: 10_000,
      });
      expect(last.map((name) => readFileSync(join(folder, name), 'utf8'))).to.deep.equal(addresses);

      expect(await node.call('DEL', { pod })).to.include({ status: 0, stdout: '' });
      expect(node.podLinks()).to.deep.equal([]);
      expect(inside(pod, 'ip', '-br', 'link')).to.not.include('eth0');
      expect(readdirSync(join(node.stateDir, 'attachments'))).to.deep.equal([]);
      expect(readdirSync(join(node.stateDir, 'scratch'))).to.deep.equal([]);
      expect(readdirSync(folder)).to.have.members(last);
      expect(node.registry?.rows()).to.deep.equal([]);
    });

    it('shows pods by Kubernetes name, in rows and in counts', async () => {
      const pod = node.addPod();
      const { addresses, result } = await node.add(pod, {
        args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;WHAT=ever',
      });
      expect(node.registry?.rows()).to.deep.equal([
        {
          containerID: pod,
          ifname: 'eth0',
          ips: addresses,
          mac: result.interfaces[2]?.mac,
          pod: 'shop/web-1',
        },
      ]);
      if (each !== 'ipv6') expect(result.interfaces[2]?.mac).to.equal('0a:76:0a:f4:07:02');
      const { subnets, gateways } = node.network.current;
      const use = node.registry?.addressUse(subnets, gateways);
      for (const family of families) expect(use?.[family]?.used).to.equal(1);
      if (each !== 'ipv6') expect(use?.ipv4).to.deep.equal({ used: 1, free: 252 });
    });

    it('honours what the configuration asks for: addresses, MAC, MTU, hairpin, no default route', async () => {
      const pod = node.addPod();
      const asked = families.map((family) => withLength(family, IN_FAMILY[family].asked));
      const { result } = await node.add(pod, {
        config: {
          runtimeConfig: { ips: asked, mac: '02:11:22:33:44:55' },
          mtu: 1400,
          hairpinMode: true,
          isGateway: false,
          ipMasq: true,
          dns: { nameservers: ['10.96.0.10'], search: ['cluster.local'] },
          cniVersion: '1.1.0',
        },
      });
      expect(result.ips.map(({ address }) => address)).to.deep.equal(asked);
      expect(result.routes).to.deep.equal(clusterRoutes);
      expect(result.dns).to.deep.equal({ nameservers: ['10.96.0.10'], search: ['cluster.local'] });
      expect(result.interfaces[2]).to.deep.equal({
        name: 'eth0',
        mac: '02:11:22:33:44:55',
        mtu: 1400,
        sandbox: `/run/netns/${pod}`,
      });
      expect(node.network.settled[0]).to.deep.include({ hairpin: true, mac: '02:11:22:33:44:55' });
      expect(inside(pod, 'ip', 'link', 'show', 'eth0'))
        .to.include('mtu 1400')
        .and.include('02:11:22:33:44:55');
    });

    it('gives one of two families the address that was asked for, or says why not', async () => {
      for (const family of families) {
        const { asked, gateway } = IN_FAMILY[family];
        const ask = (address: string) => ({
          pod: node.addPod(),
          config: { args: { cni: { ips: [address] } }, cniVersion: '1.0.0' },
        });
        const wanted = ask(asked);
        expect((await node.add(wanted.pod, wanted)).addresses)
          .to.include(asked)
          .and.have.length(families.length);
        expect(await node.call('ADD', ask(asked))).to.include({ code: 103 });
        expect(await node.call('ADD', ask(gateway))).to.include({ code: 7 });
      }
      expect(node.registry?.rows()).to.have.length(families.length);
      const lacking = (['ipv4', 'ipv6'] as const).filter((family) => !families.includes(family));
      for (const family of lacking) {
        const config = { runtimeConfig: { ips: [IN_FAMILY[family].asked] } };
        const refused = await node.call('ADD', { pod: node.addPod(), config });
        expect(refused).to.include({ code: 7 });
        expect(refused.stdout).to.include(`no ${family} subnet`);
      }
    });

    it('leaves a default route alone that the pod has by another interface', async () => {
      const pod = node.addPod();
      const { result: first } = await node.add(pod);
      const { result: second } = await node.add(pod, { ifname: 'net1' });
      expect(first.routes).to.have.length(2 * families.length);
      expect(second.routes).to.deep.equal([]);
      for (const family of families) {
        expect(inside(pod, 'ip', ipFlag(family), 'route')).to.include(
          `default via ${IN_FAMILY[family].gateway} dev eth0`,
        );
      }
      expect(await node.call('CHECK', { pod, ifname: 'net1', config: { prevResult: second } })).to.include({
        status: 0,
      });
      expect(await node.call('DEL', { pod })).to.include({ status: 0 });
      expect(inside(pod, 'ip', '-br', 'link')).to.include('net1');
    });

    it('answers in the format of every version, and takes wishes in every version', async () => {
      for (const [at, cniVersion] of ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'].entries()) {
        const pod = node.addPod();
        const asked = families.map((family) => `${IN_FAMILY[family].first}0${at}`);
        const ips = asked.map((address, i) => withLength(families[i] ?? 'ipv4', address));
        const { result, addresses } = await node.add(pod, { config: { cniVersion, runtimeConfig: { ips } } });
        expect(addresses).to.deep.equal(asked);
        expect(result.cniVersion).to.equal(cniVersion);
        expect(result.interfaces.map((one) => one.name)).to.have.ordered.members([
          BRIDGE,
          result.interfaces[1]?.name,
          'eth0',
        ]);
        for (const [i, family] of families.entries()) {
          const { gateway, version } = IN_FAMILY[family];
          expect(result.ips[i]).to.include({ gateway, interface: 2 });
          expect(result.ips[i]?.version).to.equal(cniVersion.startsWith('0.') ? version : undefined);
        }
        expect(result.interfaces[2]?.mtu).to.equal(cniVersion === '1.1.0' ? 1450 : undefined);
        const hostEnd = inside(node.namespace, 'ip', 'link', 'show', result.interfaces[1]?.name ?? '');
        expect(hostEnd).to.include(result.interfaces[1]?.mac).and.include(`master ${BRIDGE}`);
        const config = { cniVersion, prevResult: result };
        if (cniVersion >= '0.4.0')
          expect(await node.call('CHECK', { pod, config })).to.include({ status: 0 });
        expect(await node.call('DEL', { pod, config: { cniVersion } })).to.include({ status: 0 });
      }
    });

    it('answers what the reference plugins after it in a list understand', async function () {
      const portmap = '/usr/lib/cni/portmap';
      if (!existsSync(portmap)) {
        console.log('      skipped: this machine lacks containernetworking-plugins');
        this.skip();
      }
      const list = JSON.parse(conflistText({ socketPath: node.socketPath, bridge: BRIDGE }));
      for (const cniVersion of ['0.3.0', '0.3.1', '0.4.0', '1.0.0']) {
        const pod = node.addPod();
        const { result } = await node.add(pod, { config: { ...list.plugins[0], cniVersion } });
        const { status, stdout } = await runPlugin(
          portmap,
          {
            CNI_COMMAND: 'ADD',
            CNI_CONTAINERID: pod,
            CNI_NETNS: `/run/netns/${pod}`,
            CNI_IFNAME: 'eth0',
            CNI_PATH: '/',
          },
          JSON.stringify({ ...list.plugins[1], cniVersion, name: list.name, prevResult: result }),
        );
        expect(status, stdout).to.equal(0);
        const { cniVersion: passed, ips, interfaces, routes } = JSON.parse(stdout);
        const { cniVersion: given, ips: ours, interfaces: links, routes: ways } = result;
        expect({ passed, ips, interfaces, routes }).to.deep.equal({
          passed: given,
          ips: ours,
          interfaces: links,
          routes: ways,
        });
      }
    });

    it('refuses an attachment that stands, at no cost, and a name that another interface has', async () => {
      const pod = node.addPod();
      const { addresses } = await node.add(pod);
      expect(await node.call('ADD', { pod })).to.include({ code: 101 });
      expect(node.registry?.rows()).to.have.length(1);
      const other = node.addPod();
      inside(other, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
      expect(await node.call('ADD', { pod: other })).to.include({ code: 102 });
      expect(node.registry?.rows().map((row) => row.ips)).to.deep.equal([addresses]);
      expect(readdirSync(join(node.stateDir, 'attachments'))).to.have.length(1);
    });

    it('finds with CHECK each thing that is not as ADD made it', async () => {
      const pod = node.addPod();
      const { result } = await node.add(pod);
      const check = async (): Promise<string> => {
        const { code, stdout } = await node.call('CHECK', { pod, config: { prevResult: result } });
        expect(code).to.equal(104);
        return stdout;
      };
      for (const family of families) {
        const { everything, first } = IN_FAMILY[family];
        inside(pod, 'ip', ipFlag(family), 'route', 'del', 'default');
        expect(await check()).to.include(`lacks the route ${everything}`);
        inside(pod, 'ip', ipFlag(family), 'addr', 'flush', 'dev', 'eth0');
        expect(await check()).to.include(`lacks the address ${withLength(family, first)}`);
      }
      inside(pod, 'ip', 'link', 'set', 'eth0', 'down');
      expect(await check()).to.include('eth0 is down');
      inside(node.namespace, 'ip', 'link', 'set', result.interfaces[1]?.name ?? '', 'nomaster');
      expect(await check()).to.include(`is not a port of ${BRIDGE}`);
      inside(node.namespace, 'ip', 'link', 'del', result.interfaces[1]?.name ?? '');
      expect(await check()).to.include('eth0 is missing in the pod');
      expect(
        await node.call('CHECK', { pod, containerID: 'stranger', config: { prevResult: result } }),
      ).to.include({ code: 3 });
      expect(await node.call('CHECK', { pod })).to.include({ code: 7 });
    });

    it('lets a route go that a later plugin in the chain has changed', async () => {
      const pod = node.addPod();
      const { result } = await node.add(pod);
      for (const family of families) inside(pod, 'ip', ipFlag(family), 'route', 'del', 'default');
      const changed: CniResult = { ...result, routes: clusterRoutes };
      expect(await node.call('CHECK', { pod, config: { prevResult: changed } })).to.include({ status: 0 });
    });

    it('removes with GC what the runtime does not name, and its addresses are free', async () => {
      const [valid, stale] = [node.addPod(), node.addPod()];
      const kept = await node.add(valid);
      const gone = await node.add(stale);
      const config = {
        cniVersion: '1.1.0',
        'cni.dev/valid-attachments': [{ containerID: valid, ifname: 'eth0' }],
      };
      expect(await node.call('GC', { config })).to.include({ status: 0, stdout: '' });
      expect(node.registry?.rows().map((row) => row.ips)).to.deep.equal([kept.addresses]);
      expect(node.podLinks()).to.have.length(1);
      for (const address of gone.addresses) {
        expect(existsSync(join(node.stateDir, 'networks/test-net', address))).to.equal(false);
      }
      const again = { config: { runtimeConfig: { ips: gone.addresses } } };
      expect((await node.add(node.addPod(), again)).addresses).to.deep.equal(gone.addresses);
    });

    it('says when a family is full, in STATUS too, and goes on when a pod leaves', async () => {
      for (const full of families) {
        const { subnets } = node.network.current;
        const small = { ...IN_FAMILY[full].subnet, prefixLength: full === 'ipv4' ? 29 : 125 };
        node.network.current = { ...node.network.current, subnets: { ...subnets, [full]: small } };
        // IPv6 has no broadcast address.
        const places = full === 'ipv4' ? 5 : 6;
        const pods = Array.from({ length: places + 2 }, () => node.addPod());
        const codes = await Promise.all(pods.map(async (pod) => (await node.call('ADD', { pod })).code));
        expect(codes.filter((code) => code === undefined)).to.have.length(places);
        expect(codes.filter((code) => code === 11)).to.have.length(2);
        expect(node.podLinks()).to.have.length(places);
        // What the other family had chosen for those refused is free again.
        const { gateways, subnets: now } = node.network.current;
        const use = node.registry?.addressUse(now, gateways);
        for (const family of families) expect(use?.[family]?.used).to.equal(places);
        const status = () => node.call('STATUS', { config: { cniVersion: '1.1.0' } });
        const refused = await status();
        expect(refused).to.include({ code: 50 });
        expect(refused.stdout).to.include(`no ${full} address is free`);
        await node.call('DEL', { pod: pods[codes.indexOf(undefined)] ?? '' });
        expect(await status()).to.include({ status: 0, stdout: '' });
        expect(await node.call('ADD', { pod: pods[codes.indexOf(11)] ?? '' })).to.include({ status: 0 });
        for (const pod of pods) expect(await node.call('DEL', { pod })).to.include({ status: 0 });
        node.network.useFamilies(each);
      }
    });

    it('deletes what is not there any more: the namespace, the interface, everything', async () => {
      const [gone, bare, unknown] = [node.addPod(), node.addPod(), node.addPod()];
      await node.add(gone);
      const { result } = await node.add(bare);
      node.removePod(gone);
      inside(node.namespace, 'ip', 'link', 'del', result.interfaces[1]?.name ?? '');
      expect(await node.call('DEL', { containerID: gone, netns: `/run/netns/${gone}` })).to.include({
        status: 0,
      });
      expect(await node.call('DEL', { pod: bare })).to.include({ status: 0 });
      expect(await node.call('DEL', { pod: bare })).to.include({ status: 0 });
      expect(await node.call('DEL', { pod: unknown, netns: '' })).to.include({ status: 0 });
      expect(node.registry?.rows()).to.deep.equal([]);
    });

    it('removes a pod whose end on the node somebody renamed, before its address is free', async () => {
      const pod = node.addPod();
      const { result } = await node.add(pod);
      inside(node.namespace, 'ip', 'link', 'set', result.interfaces[1]?.name ?? '', 'down');
      inside(node.namespace, 'ip', 'link', 'set', result.interfaces[1]?.name ?? '', 'name', 'renamed');
      expect(await node.call('DEL', { pod })).to.include({ status: 0 });
      expect(inside(pod, 'ip', '-br', 'link')).to.not.include('eth0');
      expect(node.registry?.rows()).to.deep.equal([]);
    });

    it('works again on an attachment whose namespace vanished without a DEL', async () => {
      const pod = node.addPod();
      const { addresses } = await node.add(pod);
      node.removePod(pod);
      await until(() => node.podLinks().length === 0, { what: 'the interface to go', deadlineMs: 10_000 });
      const again = node.addPod();
      const { addresses: second } = await node.add(again, { containerID: pod });
      expect(second).to.deep.equal(addresses);
      expect(node.registry?.rows()).to.have.length(1);
    });
  });
}

describe('attaching pods to a bridge that does not carry packets yet', () => {
  let node: TestNode;
  const bridge = (how: string) => inside(node.namespace, 'ip', 'link', 'set', BRIDGE, how);

  before(function () {
    need(this, 'root', 'ip', 'make', 'gcc');
  });
  beforeEach(() => {
    node = new TestNode('ipv4');
  });
  afterEach(() => node.remove());

  it('answers when they pass, and the first one does', async () => {
    await node.start();
    const raised = new Promise((resolve) => {
      node.network.settle = async () => {
        bridge('down');
        setTimeout(() => resolve(bridge('up')), 50);
      };
    });
    const pod = node.addPod();
    await node.add(pod);
    const links: { ifname: string; operstate: string; linkinfo?: { info_slave_data?: { state: string } } }[] =
      JSON.parse(inside(node.namespace, 'ip', '-d', '-j', 'link', 'show'));
    const port = links.find(({ ifname }) => ifname.startsWith('vtp'));
    expect(port).to.include({ operstate: 'UP' });
    expect(port?.linkinfo?.info_slave_data?.state).to.equal('forwarding');
    expect(links.find(({ ifname }) => ifname === BRIDGE)).to.include({ operstate: 'UP' });
    inside(pod, 'ping', '-c', '1', '-W', '1', IN_FAMILY.ipv4.gateway);
    await raised;
  });

  it('says what it is that does not, and leaves nothing', async () => {
    await node.start(undefined, { carrierDeadlineMs: 30 });
    node.network.settle = async () => {
      bridge('down');
    };
    const refused = await node.call('ADD', { pod: node.addPod() });
    expect(refused).to.include({ code: 11 });
    expect(refused.stdout).to.match(/vtp\w+ is a port of vtep0 that does not forward, 30 ms after/);
    expect(node.podLinks()).to.deep.equal([]);
    expect(node.registry?.rows()).to.deep.equal([]);
  });

  it('waits for no interface that somebody has removed', async () => {
    await node.start(undefined, { carrierDeadlineMs: 3_600_000 });
    node.network.settle = async () => {
      inside(node.namespace, 'ip', 'link', 'del', node.podLinks()[0] ?? '');
    };
    expect(await node.call('ADD', { pod: node.addPod() })).to.include({ status: 1 });
    expect(node.registry?.rows()).to.deep.equal([]);
  });
});
