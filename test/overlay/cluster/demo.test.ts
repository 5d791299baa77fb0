/** `vtepd demo` as a person runs it: a process, its output, its exit code, and nothing left afterwards. */
import { expect } from 'chai';
import type { DemoReport } from '../../../overlay/cli/demo-report.ts';
import { type Child, type CommandResult, run, start } from '../../../overlay/lab/command.ts';
import { VTEPD } from '../../../overlay/lab/lab-daemon.ts';
import { namespaces } from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { need } from '../../lab/capability.ts';

const DEMO = [VTEPD, 'demo'];

const demo = (args: readonly string[]): Promise<CommandResult> =>
  run(process.execPath, [...DEMO, ...args], { tolerant: true, timeoutMs: 120_000 });

describe('vtepd demo', function () {
  this.timeout(120_000);
  before(function () {
    need(this, 'root', 'ip', 'nft', 'busybox', 'tcpdump');
  });

  for (const store of ['embedded', 'etcd']) {
    it(`works with leases in ${store}, reports it as JSON, and leaves nothing`, async function () {
      if (store === 'etcd') need(this, 'etcd', 'etcdctl');
      const result = await demo(['--json', '--store', store]);
      expect(result.status, result.stderr).to.equal(0);
      const report: DemoReport = JSON.parse(result.stdout);
      expect(report).to.include({ ok: true, store });
      expect(report.problems).to.deep.equal([]);
      expect(report.nodes).to.have.length(3);
      expect(new Set(report.nodes.map(({ subnet }) => subnet)).size).to.equal(3);
      expect(report.pings).to.have.length(30);
      expect(report.pings.filter(({ acrossNodes }) => acrossNodes)).to.have.length(24);
      expect(report.pings.every(({ lost, received }) => lost === 0 && received > 0)).to.equal(true);
      expect(report.guard).to.include({ refusedDuringPings: 0, plainAnswered: 0 });
      expect(report.guard.refusedPlain).to.be.at.least(report.guard.plainSent);
      expect(report.packet?.overheadBytes).to.equal(50);
      expect(report.packet?.layers.map(({ name, depth }) => `${depth} ${name}`)).to.deep.equal([
        ...['0 Ethernet', '0 IPv4', '0 UDP', '0 VXLAN', '1 Ethernet', '1 IPv4', '1 ICMP', '1 data'],
      ]);
      expect(report.tcp.overlayBitsPerSecond).to.be.greaterThan(1e6);
      expect(await namespaces(report.run)).to.deep.equal([]);
    });
  }

  it('works with both data paths in turns', async function () {
    need(this, '/dev/net/tun');
    const result = await demo(['--json', '--nodes', '2', '--pods', '1', '--datapath', 'mixed']);
    expect(result.status, result.stderr).to.equal(0);
    const report: DemoReport = JSON.parse(result.stdout);
    expect(report).to.include({ ok: true });
    expect(report.nodes.map(({ datapath }) => datapath)).to.deep.equal(['userspace', 'kernel']);
    expect(report.packet?.overheadBytes).to.equal(50);
    expect(report.tcp.overlayBitsPerSecond).to.be.greaterThan(1e6);
  });

  it('prints what it does for people, keeps the cluster when told to, and removes it by its name', async () => {
    const result = await demo(['--nodes', '2', '--pods', '1', '--keep']);
    const name = /demo --clean (vt[0-9a-f]{6})/.exec(result.stdout)?.[1] ?? '';
    try {
      expect(result.status, result.stderr).to.equal(0);
      expect(result.stdout).to.contain('Everything worked').and.to.contain('VNI 1').and.to.contain('Gbit/s');
      expect(result.stdout, 'no colours where there is no terminal').not.to.contain('\u001b');
      const inNode = ['netns', 'exec', `${name}-n1`, process.execPath, VTEPD, 'status', '--json'];
      const status = await run('ip', inNode);
      expect(JSON.parse(status.stdout)).to.include({ ready: true });
    } finally {
      expect((await demo(['--clean', name])).status).to.equal(0);
    }
    expect(await namespaces(name)).to.deep.equal([]);
  });

  for (const [title, end] of [
    ['Ctrl-C in the middle', (child: Child) => process.kill(child.pid, 'SIGINT')],
    ['a reader that goes (`vtepd demo | head`)', (child: Child) => child.process.stdout?.destroy()],
  ] as const) {
    it(`${title}: everything is removed`, async () => {
      await endedEarly(end);
    });
  }

  async function endedEarly(end: (child: Child) => unknown): Promise<void> {
    const child = await start(process.execPath, DEMO, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.process.stdout?.on('data', (chunk) => {
      output += String(chunk);
    });
    child.process.stderr?.resume();
    await until(() => /✓ node 2/.test(output), { what: 'two nodes', deadlineMs: 60_000 });
    const name = /vt[0-9a-f]{6}/.exec(output)?.[0] ?? '';
    expect(await namespaces(name)).to.have.length.greaterThan(3);
    end(child);
    expect(await child.exited).to.include({ status: 1 });
    expect(await namespaces(name)).to.deep.equal([]);
  }

  it('refuses what it does not understand with status 2', async () => {
    for (const args of [
      ['--nodes', '1'],
      ['--pods', 'two'],
      ['--store', 'zk'],
      ['--datapath', 'magic'],
      ['--clean', '../etc'],
      ['x'],
    ]) {
      const result = await demo(args);
      expect(result.status, args.join(' ')).to.equal(2);
      expect(result.stderr).to.match(/vtepd demo: /);
    }
    const help = await demo(['--help']);
    expect(help.status).to.equal(0);
    expect(help.stdout).to.match(/--keep/);
  });
});
