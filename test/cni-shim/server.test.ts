/** The server among many calls, with clients that vanish, with stale files, stopping and starting. */
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { encodeRequest } from '../../cni-shim/frames.ts';
import { AttachmentRegistry } from '../../cni-shim/registry.ts';
import { createCniServer } from '../../cni-shim/server.ts';
import { until } from '../../overlay/lab/wait.ts';
import { need } from '../lab/capability.ts';
import { BRIDGE, inside, TestNode } from './test-node.ts';

const DEADLINE_MS = 20_000;

/** Our own descriptors that are open, but for those that come and go with Node's work. */
const openDescriptors = (): string[] =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return /^(net:|socket:)/.test(target) ? [target.replace(/\d+/, '')] : [];
    } catch {
      return [];
    }
  });

describe('the CNI server', () => {
  let node: TestNode;

  before(function () {
    need(this, 'root', 'ip', 'make', 'gcc');
  });
  beforeEach(() => {
    node = new TestNode();
  });
  afterEach(() => node.remove());

  it('attaches and detaches 50 pods at once, each with an address of its own, and leaves no descriptor', async () => {
    await node.start();
    await node.call('STATUS', { config: { cniVersion: '1.1.0' } });
    const before = openDescriptors();
    const pods = Array.from({ length: 50 }, () => node.addPod());
    const added = await Promise.all(pods.map((pod) => node.add(pod)));
    expect(new Set(added.map(({ address }) => address)).size).to.equal(50);
    expect(node.podLinks()).to.have.length(50);
    expect(node.network.settled).to.have.length(50);
    for (const [i, pod] of pods.entries()) {
      if (i % 10 === 0) inside(pod, 'ping', '-c', '1', '-W', '5', added[(i + 1) % 50]?.address ?? '');
    }
    const deleted = await Promise.all(pods.map((pod) => node.call('DEL', { pod })));
    expect(deleted.every(({ status }) => status === 0)).to.equal(true);
    expect(node.podLinks()).to.deep.equal([]);
    expect(readdirSync(join(node.stateDir, 'attachments'))).to.deep.equal([]);
    expect(
      readdirSync(join(node.stateDir, 'networks/test-net')).filter((name) => /^1/.test(name)),
    ).to.deep.equal([]);
    expect(node.reports.filter((report) => report.result === 'success')).to.have.length(101);
    await until(() => openDescriptors().length === before.length, {
      what: 'descriptors',
      deadlineMs: DEADLINE_MS,
    });
  });

  it('carries out one of two ADDs of the same attachment, and refuses the other', async () => {
    await node.start();
    const pod = node.addPod();
    const both = await Promise.all([node.call('ADD', { pod }), node.call('ADD', { pod })]);
    expect(both.map(({ code }) => code).sort()).to.deep.equal([101, undefined]);
    expect(node.registry?.rows()).to.have.length(1);
  });

  it('attaches nothing before it is ready, and still detaches', async () => {
    await node.start();
    const pod = node.addPod();
    await node.add(pod);
    node.network.ready = { ready: false, reason: 'the lease is not held yet' };
    const refused = await node.call('ADD', { pod: node.addPod() });
    expect(refused).to.include({ code: 11 });
    expect(refused.stdout).to.include('the lease is not held yet');
    expect((await node.call('STATUS', { config: { cniVersion: '1.1.0' } })).stdout).to.include('"code":50');
    expect(await node.call('DEL', { pod })).to.include({ status: 0 });
  });

  it('refuses what it cannot do, by the name of the key', async () => {
    await node.start();
    const pod = node.addPod();
    for (const [config, text] of [
      [{ bridge: 'cni0' }, `bridge: the pods of this node are on ${BRIDGE}`],
      [{ mtu: 9000 }, 'mtu: 9000 bytes do not fit'],
      [{ prevResult: { cniVersion: '1.0.0' } }, 'prevResult: vtepd-cni makes the interface'],
    ] as const) {
      const { code, stdout } = await node.call('ADD', { pod, config });
      expect(code).to.equal(7);
      expect(stdout).to.include(text);
    }
    expect(await node.call('ADD', { pod, netns: '/proc/self/ns/net' })).to.include({ code: 4 });
    expect(await node.call('DEL', { pod, netns: '/proc/self/ns/net' })).to.include({ status: 0 });
    expect(node.registry?.rows()).to.deep.equal([]);
  });

  it('undoes an ADD that the overlay does not follow, and one whose namespace refuses an address', async () => {
    await node.start();
    const pod = node.addPod();
    node.network.settle = () => Promise.reject(new Error('no table'));
    expect(await node.call('ADD', { pod })).to.include({ code: 100 });
    node.network.settle = () => Promise.resolve();
    node.network.useFamilies('dual');
    // IPv6 needs 1,280.
    const refused = await node.call('ADD', { pod, config: { mtu: 1000 } });
    expect(refused).to.include({ code: 105 });
    expect(refused.stdout).to.include('configure eth0 in the pod: E');
    expect(node.podLinks()).to.deep.equal([]);
    expect(node.registry?.rows()).to.deep.equal([]);
    await node.add(pod);
  });

  it('undoes an ADD whose plugin was killed, and one that was under way when it stops', async () => {
    await node.start();
    let settling = 0;
    node.network.settle = () => new Promise(() => settling++);
    const killed = node.addPod();
    const plugin = spawn(node.plugin, {
      env: {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: killed,
        CNI_NETNS: `/run/netns/${killed}`,
        CNI_IFNAME: 'eth0',
      },
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    plugin.stdin.end(JSON.stringify(node.configuration()));
    await until(() => settling === 1, { what: 'the ADD', deadlineMs: DEADLINE_MS });
    expect(node.podLinks()).to.have.length(1);
    plugin.kill('SIGKILL');
    await until(() => node.registry?.rows().length === 0, { what: 'the undoing', deadlineMs: DEADLINE_MS });
    expect(node.podLinks()).to.deep.equal([]);

    const stopped = node.call('ADD', { pod: node.addPod() });
    await until(() => settling >= 2, { what: 'the second ADD', deadlineMs: DEADLINE_MS });
    await node.stop();
    expect(await stopped).to.include({ code: 11 });
    expect(node.podLinks()).to.deep.equal([]);
    expect(readdirSync(join(node.stateDir, 'attachments'))).to.deep.equal([]);
  });

  it('keeps pods over a restart, and gives up those that went with a reboot', async () => {
    await node.start();
    const [stays, goes, detached] = [node.addPod(), node.addPod(), node.addPod()];
    const { result, address } = await node.add(stays);
    const { address: freed } = await node.add(goes);
    await node.add(detached);
    await node.stop();
    expect(existsSync(node.socketPath)).to.equal(false);
    node.removePod(goes);
    expect(await node.call('DEL', { pod: detached })).to.include({ status: 0 });
    expect(readdirSync(node.spoolDir)).to.have.length(1);
    await until(() => node.podLinks().length === 2, { what: 'the namespace to go', deadlineMs: DEADLINE_MS });
    await node.start();
    expect(readdirSync(node.spoolDir)).to.deep.equal([]);
    expect(node.registry?.rows().map((row) => row.ips)).to.deep.equal([[address]]);
    expect(node.registry?.ports()).to.have.length(1);
    expect(readdirSync(join(node.stateDir, 'networks/test-net'))).to.not.include(freed);
    expect(await node.call('CHECK', { pod: stays, config: { prevResult: result } })).to.include({
      status: 0,
    });
    expect(await node.call('ADD', { pod: stays })).to.include({ code: 101 });
    expect(await node.call('DEL', { pod: stays })).to.include({ status: 0 });
  });

  it('carries out a late DEL before an ADD of the same attachment, and drops what is no request', async () => {
    await node.start();
    const pod = node.addPod();
    const { address } = await node.add(pod);
    const config = JSON.stringify(node.configuration());
    const late = { command: 'DEL', containerID: pod, netns: '', ifname: 'eth0', args: '', path: '', config };
    writeFileSync(join(node.spoolDir, '1'), encodeRequest(late));
    writeFileSync(join(node.spoolDir, '2'), 'not a frame');
    writeFileSync(join(node.spoolDir, '3'), encodeRequest({ ...late, command: 'ADD' }));
    writeFileSync(join(node.spoolDir, '4'), encodeRequest({ ...late, config: '{' }));
    // Not 101: the DEL came first.
    expect((await node.add(pod)).address).to.not.equal(address);
    expect(readdirSync(node.spoolDir)).to.deep.equal([]);
    writeFileSync(join(node.spoolDir, '5'), encodeRequest(late));
    await until(() => node.registry?.rows().length === 0, { what: 'upkeep', deadlineMs: DEADLINE_MS });
  });

  it('removes with GC what the runtime does not name, and nothing without a list', async () => {
    await node.start();
    const [valid, stale, other] = [node.addPod(), node.addPod(), node.addPod()];
    await node.add(valid);
    await node.add(stale);
    await node.add(other, { config: { name: 'other-net' } });
    mkdirSync(join(node.stateDir, 'networks', 'old-net'));
    writeFileSync(join(node.stateDir, 'networks/old-net/10.244.7.99'), 'gone\r\neth0');
    await node.stop();
    await node.start();
    const gc = (config: object) => node.call('GC', { config: { cniVersion: '1.1.0', ...config } });
    expect(await gc({})).to.include({ code: 7 });
    expect(node.podLinks()).to.have.length(3);
    const list = [{ containerID: valid, ifname: 'eth0' }];
    expect(await gc({ 'cni.dev/valid-attachments': list })).to.include({ status: 0, stdout: '' });
    expect(node.registry?.rows().map((row) => row.containerID)).to.have.members([valid, other]);
    expect(readdirSync(join(node.stateDir, 'networks/old-net'))).to.deep.equal(['10.244.7.99']);
    expect(await gc({ name: 'old-net', 'cni.dev/valid-attachments': [] })).to.include({ status: 0 });
    expect(readdirSync(join(node.stateDir, 'networks/old-net'))).to.deep.equal([]);
  });

  it("detaches a pod that host-local's files name", async () => {
    mkdirSync(join(node.stateDir, 'networks/test-net'), { recursive: true });
    writeFileSync(join(node.stateDir, 'networks/test-net/10.244.7.2'), 'before\r\neth0');
    await node.start();
    expect((await node.add(node.addPod())).address).to.equal('10.244.7.3');
    expect(await node.call('DEL', { containerID: 'before' })).to.include({ status: 0 });
    expect(readdirSync(join(node.stateDir, 'networks/test-net'))).to.not.include('10.244.7.2');
  });

  it('has a socket for root alone, takes over a dead one, and not one that is served', async () => {
    mkdirSync(join(node.directory, 'run'));
    // A socket file that nobody listens on, as kill -9 leaves it.
    const bindAndDie = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`;
    spawnSync(process.execPath, ['-e', bindAndDie, node.socketPath]);
    expect(existsSync(node.socketPath)).to.equal(true);
    await node.start();
    expect(statSync(node.socketPath).mode & 0o777).to.equal(0o600);
    const { log, network, openNetlink, socketPath, registry } = node;
    if (registry === undefined) throw new Error('not started');
    const second = await createCniServer({ socketPath, network, registry, log, openNetlink }).catch(
      (error) => error,
    );
    expect(second).to.have.property('code', 'VTEPD_SOCKET_IN_USE');
    const third = await AttachmentRegistry.open({ stateDir: node.stateDir, log, openNetlink }).catch(
      (error) => error,
    );
    expect(third).to.have.property('code', 'VTEPD_STATE_IN_USE');
    const long = await createCniServer({
      socketPath: `/${'x'.repeat(107)}`,
      network,
      registry,
      log,
      openNetlink,
    }).catch((error) => error);
    expect(long).to.have.property('code', 'VTEPD_SOCKET_PATH');
    expect(await node.call('STATUS', { config: { cniVersion: '1.1.0' } })).to.include({ status: 0 });
  });

  it('listens again when its socket was removed', async () => {
    await node.start();
    unlinkSync(node.socketPath);
    await until(() => existsSync(node.socketPath), { what: 'the socket', deadlineMs: DEADLINE_MS });
    expect(await node.call('STATUS', { config: { cniVersion: '1.1.0' } })).to.include({ status: 0 });
    rmSync(join(node.directory, 'run'), { recursive: true });
    await until(() => existsSync(node.socketPath), { what: 'the folder', deadlineMs: DEADLINE_MS });
    expect(await node.call('STATUS', { config: { cniVersion: '1.1.0' } })).to.include({ status: 0 });
  });

  it('survives clients that talk nonsense, stop in the middle or say nothing', async () => {
    await node.start();
    const send = (bytes: Buffer) =>
      new Promise<void>((resolve) => {
        const socket = connect(node.socketPath, () => socket.end(bytes));
        socket.on('error', () => {});
        socket.once('close', () => resolve());
        socket.resume();
      });
    const whole = encodeRequest({
      command: 'ADD',
      containerID: 'c',
      netns: '/x',
      ifname: 'eth0',
      args: '',
      path: '',
      config: JSON.stringify(node.configuration({ padding: 'x'.repeat(300_000) })),
    });
    await send(Buffer.alloc(0));
    await send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await send(whole.subarray(0, 3));
    await send(whole.subarray(0, 1000));
    await send(whole.subarray(0, 200_000));
    // Without descriptors an ADD has no pod.
    await send(whole);
    await send(Buffer.concat([whole, Buffer.from('more')]));
    const silent = connect(node.socketPath);
    await new Promise<void>((resolve) => silent.once('connect', () => resolve()));
    expect(await node.call('STATUS', { config: { cniVersion: '1.1.0' } })).to.include({ status: 0 });
    await node.stop();
    silent.destroy();
  });

  it('answers VERSION to whoever asks it', async () => {
    await node.start();
    const answer = await new Promise<Buffer>((resolve) => {
      const chunks: Buffer[] = [];
      const socket = connect(node.socketPath);
      socket
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .once('close', () => resolve(Buffer.concat(chunks)));
      socket.write(
        encodeRequest({
          command: 'VERSION',
          containerID: '',
          netns: '',
          ifname: '',
          args: '',
          path: '',
          config: '',
        }),
      );
    });
    expect(JSON.parse(answer.toString('utf8', 12))).to.have.property('cniVersion', '1.1.0');
  });
});
