/** ADD, CHECK and DEL of real pods by the real plugin: what the kernel then holds, and what is on disk. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { conflistText } from '../../cni-shim/conflist.ts';
import { until } from '../../overlay/lab/wait.ts';
import { need } from '../lab/capability.ts';
import { BRIDGE, type CniResult, inside, runPlugin, TestNode } from './test-node.ts';

describe('attaching pods', () => {
  let node: TestNode;

  before(function () {
    need(this, 'root', 'ip', 'make', 'gcc');
  });
  beforeEach(async () => {
    node = new TestNode();
    await node.start();
  });
  afterEach(() => node.remove());

  it('gives a pod an interface that reaches its gateway, and takes it away without a trace', async () => {
    const pod = node.addPod();
    const { result, address } = await node.add(pod);
    expect(address).to.equal('10.244.7.2');
    expect(result.routes).to.deep.equal([
      { dst: '10.244.0.0/16', gw: '10.244.7.1' },
      { dst: '0.0.0.0/0', gw: '10.244.7.1' },
    ]);
    expect(inside(pod, 'ip', '-br', 'addr', 'show', 'dev', 'eth0')).to.match(/UP +10\.244\.7\.2\/24/);
    expect(inside(pod, 'ip', 'route')).to.include('default via 10.244.7.1 dev eth0');
    expect(inside(pod, 'ip', 'link', 'show', 'lo')).to.include('UP');
    expect(inside(pod, 'cat', '/proc/sys/net/ipv6/conf/eth0/accept_ra')).to.equal('0\n');
    inside(pod, 'ping', '-c', '1', '-W', '5', '10.244.7.1');
    expect(node.network.settled.map((port) => port.addresses)).to.deep.equal([['10.244.7.2']]);

    const check = await node.call('CHECK', { pod, config: { prevResult: result } });
    expect(check).to.include({ status: 0, stdout: '' });

    const reserved = join(node.stateDir, 'networks', 'test-net', address);
    expect(readFileSync(reserved, 'utf8')).to.equal(`${pod}\r\neth0`);
    const last = join(node.stateDir, 'networks/test-net/last_reserved_ip.0');
    await until(() => existsSync(last), { what: 'the last address', deadlineMs: 10_000 });
    expect(readFileSync(last, 'utf8')).to.equal(address);
    expect(statSync(reserved).mode & 0o777).to.equal(0o600);

    expect(await node.call('DEL', { pod })).to.include({ status: 0, stdout: '' });
    expect(node.podLinks()).to.deep.equal([]);
    expect(inside(pod, 'ip', '-br', 'link')).to.not.include('eth0');
    expect(readdirSync(join(node.stateDir, 'attachments'))).to.deep.equal([]);
    expect(readdirSync(join(node.stateDir, 'scratch'))).to.deep.equal([]);
    expect(readdirSync(join(node.stateDir, 'networks', 'test-net'))).to.deep.equal(['last_reserved_ip.0']);
    expect(node.registry?.rows()).to.deep.equal([]);
  });

  it('gives both families when the lease has both', async () => {
    node.network.useBothFamilies();
    const pod = node.addPod();
    const { result } = await node.add(pod);
    expect(result.ips.map((ip) => ip.address)).to.deep.equal([
      '10.244.7.2/24',
      'fd00:7::1'.replace('::1', '::2/64'),
    ]);
    // Usable at once: no duplicate address detection.
    expect(inside(pod, 'ip', '-6', 'addr', 'show', 'dev', 'eth0')).to.match(
      /fd00:7::2\/64 scope global(?!.*tentative)/,
    );
    inside(pod, 'ping', '-6', '-c', '1', '-W', '5', 'fd00:7::1');
    expect(await node.call('CHECK', { pod, config: { prevResult: result } })).to.include({ status: 0 });
    expect(await node.call('DEL', { pod })).to.include({ status: 0 });
  });

  it('shows pods by Kubernetes name, in rows and in counts', async () => {
    const pod = node.addPod();
    await node.add(pod, { args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;WHAT=ever' });
    expect(node.registry?.rows()).to.deep.equal([
      { containerID: pod, ifname: 'eth0', ips: ['10.244.7.2'], mac: '0a:76:0a:f4:07:02', pod: 'shop/web-1' },
    ]);
    const { subnets, gateways } = node.network.current;
    expect(node.registry?.addressUse(subnets, gateways).ipv4).to.deep.equal({ used: 1, free: 252 });
  });

  it('honours what the configuration asks for: addresses, MAC, MTU, hairpin, no default route', async () => {
    const pod = node.addPod();
    const { result } = await node.add(pod, {
      config: {
        runtimeConfig: { ips: ['10.244.7.77/24'], mac: '02:11:22:33:44:55' },
        mtu: 1400,
        hairpinMode: true,
        isGateway: false,
        ipMasq: true,
        dns: { nameservers: ['10.96.0.10'], search: ['cluster.local'] },
        cniVersion: '1.1.0',
      },
    });
    expect(result.ips[0]?.address).to.equal('10.244.7.77/24');
    expect(result.routes).to.deep.equal([{ dst: '10.244.0.0/16', gw: '10.244.7.1' }]);
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

  it('leaves a default route alone that the pod has by another interface', async () => {
    const pod = node.addPod();
    const { result: first } = await node.add(pod);
    const { result: second } = await node.add(pod, { ifname: 'net1' });
    expect(first.routes).to.have.length(2);
    expect(second.routes).to.deep.equal([]);
    expect(inside(pod, 'ip', 'route')).to.include('default via 10.244.7.1 dev eth0');
    expect(await node.call('CHECK', { pod, ifname: 'net1', config: { prevResult: second } })).to.include({
      status: 0,
    });
    expect(await node.call('DEL', { pod })).to.include({ status: 0 });
    expect(inside(pod, 'ip', '-br', 'link')).to.include('net1');
  });

  it('answers in the format of every version', async () => {
    for (const cniVersion of ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
      const pod = node.addPod();
      const { result } = await node.add(pod, { config: { cniVersion } });
      expect(result.cniVersion).to.equal(cniVersion);
      expect(result.interfaces.map((one) => one.name)).to.have.ordered.members([
        BRIDGE,
        result.interfaces[1]?.name,
        'eth0',
      ]);
      expect(result.ips[0]).to.include({ gateway: '10.244.7.1', interface: 2 });
      expect(result.ips[0]?.version).to.equal(cniVersion.startsWith('0.') ? '4' : undefined);
      expect(result.interfaces[2]?.mtu).to.equal(cniVersion === '1.1.0' ? 1450 : undefined);
      const hostEnd = inside(node.namespace, 'ip', 'link', 'show', result.interfaces[1]?.name ?? '');
      expect(hostEnd).to.include(result.interfaces[1]?.mac).and.include(`master ${BRIDGE}`);
      if (cniVersion < '0.4.0') continue;
      expect(await node.call('CHECK', { pod, config: { cniVersion, prevResult: result } })).to.include({
        status: 0,
      });
    }
  });

  it('answers what the reference plugins after it in a list understand', async function () {
    const portmap = '/usr/lib/cni/portmap';
    if (!existsSync(portmap)) {
      console.log('      skipped: this machine lacks containernetworking-plugins');
      this.skip();
    }
    node.network.useBothFamilies();
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
    const { address } = await node.add(pod);
    expect(await node.call('ADD', { pod })).to.include({ code: 101 });
    expect(node.registry?.rows()).to.have.length(1);
    const other = node.addPod();
    inside(other, 'ip', 'link', 'add', 'eth0', 'type', 'bridge');
    expect(await node.call('ADD', { pod: other })).to.include({ code: 102 });
    expect(node.registry?.rows().map((row) => row.ips)).to.deep.equal([[address]]);
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
    inside(pod, 'ip', 'route', 'del', 'default');
    expect(await check()).to.include('lacks the route 0.0.0.0/0');
    inside(pod, 'ip', 'addr', 'flush', 'dev', 'eth0');
    expect(await check()).to.include('lacks the address 10.244.7.2/24');
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
    inside(pod, 'ip', 'route', 'del', 'default');
    const changed: CniResult = {
      ...result,
      routes: result.routes.filter((route) => route.dst !== '0.0.0.0/0'),
    };
    expect(await node.call('CHECK', { pod, config: { prevResult: changed } })).to.include({ status: 0 });
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
    const { address } = await node.add(pod);
    node.removePod(pod);
    await until(() => node.podLinks().length === 0, { what: 'the interface to go', deadlineMs: 10_000 });
    const again = node.addPod();
    const { address: second } = await node.add(again, { containerID: pod });
    expect(second).to.equal(address);
    expect(node.registry?.rows()).to.have.length(1);
  });
});
