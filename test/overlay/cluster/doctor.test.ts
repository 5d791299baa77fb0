/** `vtepd doctor` beside real daemons: nothing where all is well, and each real fault by its name. */
import { cp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { DoctorReport } from '../../../overlay/doctor/report.ts';
import { start, stop } from '../../../overlay/lab/command.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { inside } from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, EMBEDDED } from '../../lab/cluster.ts';

const DEADLINE_MS = 20_000;

/** A program on the VXLAN port. */
const HOLD_PORT = `require('node:dgram').createSocket('udp4').bind(8472)`;

interface Examination {
  readonly report: DoctorReport;
  readonly status: number | null;
  /** `check: finding`, sorted. */
  readonly found: readonly string[];
}

/** @param options those of the node's daemon unless told */
async function doctor(node: LabNode, options = node.daemonArguments): Promise<Examination> {
  const argv = ['doctor', '--json', ...options];
  const { stdout, status } = await node.vtepd(argv, { tolerant: true });
  const report = JSON.parse(stdout) as DoctorReport;
  const found = report.checks.flatMap(({ id, findings }) => findings.map((each) => `${id}: ${each.id}`));
  expect(status).to.equal(report.healthy ? 0 : 1);
  return { report, status, found: found.sort() };
}

async function each(node: LabNode, commands: readonly string[]): Promise<void> {
  for (const command of commands) await node.exec(command.split(' '));
}

describeCluster('vtepd doctor', [EMBEDDED], { nodes: 2 }, (cluster) => {
  it('finds nothing where all is well, and examines everything', async () => {
    const { report, found, status } = await doctor(cluster.node(1));
    expect(found).to.deep.equal([]);
    expect(report.checks.filter(({ state }) => state !== 'ok')).to.deep.equal([]);
    expect(status).to.equal(0);
  });

  it('names what is broken beside a running daemon', async () => {
    const node = cluster.node(1);
    const other = join(node.cni.confDir, '05-other.conflist');
    await each(node, [
      'ip link add docker9 type bridge',
      'ip addr add 10.244.0.1/25 dev docker9',
      'ip link set docker9 up',
      'nft add table ip filter',
      'nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }',
      'ip link set vtep0 mtu 1200',
      'ip link add vx-other type vxlan id 7 dstport 8472 local 192.0.2.1',
    ]);
    await writeFile(other, '{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge"}]}');
    await rename(join(node.cni.binDir, 'vtepd-cni'), join(node.cni.binDir, 'away'));
    try {
      const { found, report } = await doctor(node);
      expect(found).to.include.members([
        'cni: cni-other-first',
        'cni: plugin-missing',
        'firewall: forward-dropped',
        'routes: route-conflict',
      ]);
      // Another VNI on the same port is nobody's fault, and the daemon has the bridge's MTU right again.
      expect(found.filter((each) => /^(port|mtu|store|lease|daemon)/.test(each))).to.deep.equal([]);
      const causes = JSON.stringify(report.checks);
      for (const name of [
        '10.244.0.0/25',
        'docker9',
        'ip filter FORWARD',
        '05-other.conflist',
        node.cni.binDir,
      ])
        expect(causes).to.contain(name);
      const { stdout } = await node.vtepd(['doctor', ...node.daemonArguments], { tolerant: true });
      expect(stdout).to.match(/\nFAILED {3}routes\n.*10\.244\.0\.0\/25 by docker9/);
    } finally {
      await rm(other);
      await rename(join(node.cni.binDir, 'away'), join(node.cni.binDir, 'vtepd-cni'));
      await each(node, ['ip link del docker9', 'ip link del vx-other', 'nft delete table ip filter']);
    }
    await until(async () => (await doctor(node)).found.length === 0, {
      what: 'the node to be well again',
      deadlineMs: DEADLINE_MS,
    });
  });

  it('finds that something drops the tunnel’s packets, by a rule that no look at a policy shows', async () => {
    const [node, other] = [cluster.node(1), cluster.node(2)];
    await each(other, [
      'nft add table inet other',
      'nft add chain inet other in { type filter hook input priority 0 ; policy accept ; }',
      'nft add rule inet other in udp dport 8472 drop',
    ]);
    try {
      const { found, report } = await doctor(node);
      expect(found).to.deep.equal(['peers: tunnel-blocked']);
      expect(JSON.stringify(report.checks)).to.contain(`through the tunnel from ${other.address}`);
    } finally {
      await each(other, ['nft delete table inet other']);
    }
    expect((await doctor(node)).found).to.deep.equal([]);
  });

  it('works with the daemon down, and tells who has its port and its VNI', async () => {
    const node = cluster.node(2);
    for (const pod of node.pods.splice(0)) await pod.detach();
    await node.daemon?.terminate();
    expect((await doctor(node)).found).to.deep.equal(['daemon: daemon-down']);

    const dirs = ['--state-dir', node.stateDir, '--run-dir', node.runDir];
    await node.vtepd(['cleanup', ...dirs]);
    const holder = await start(...inside(node.namespace, [process.execPath, '-e', HOLD_PORT]), {
      stdio: 'ignore',
    });
    try {
      await until(async () => (await doctor(node)).found.includes('port: port-taken'), {
        what: 'the program to hold the port',
        deadlineMs: DEADLINE_MS,
      });
      const { report } = await doctor(node);
      expect(JSON.stringify(report.checks)).to.contain(`(process ${holder.process.pid})`);
    } finally {
      await stop(holder);
    }
    await node.exec(['ip', 'link', 'add', 'flannel.1', 'type', 'vxlan', 'id', '1', 'dstport', '8472']);
    expect((await doctor(node)).found).to.deep.equal(['daemon: daemon-down', 'port: tunnel-taken']);
    await node.exec(['ip', 'link', 'del', 'flannel.1']);

    const elsewhere = node.daemonArguments.map((word, place, words) =>
      words[place - 1] === '--embedded-path' ? join(node.dir, 'nowhere') : word,
    );
    const away = await doctor(node, elsewhere);
    expect(away.found).to.deep.equal(['daemon: daemon-down', 'store: store-unreachable']);
    await node.startDaemon();
    await cluster.settled();
    expect((await doctor(node)).found).to.deep.equal([]);
  });

  it('a machine that was cloned with its state directory has another’s VTEP MAC', async () => {
    const [original, clone] = [cluster.node(1), cluster.node(2)];
    await clone.daemon?.kill();
    await rm(clone.stateDir, { recursive: true });
    await cp(original.stateDir, clone.stateDir, { recursive: true });
    await clone.startDaemon();
    await until(async () => (await doctor(original)).found.includes('leases: mac-twice'), {
      what: 'the MAC that is there twice to be found',
      deadlineMs: DEADLINE_MS,
    });
    const { report } = await doctor(original);
    const twice = report.checks.flatMap(({ findings }) => findings).find(({ id }) => id === 'mac-twice');
    expect(twice?.cause).to.contain(original.address).and.to.contain(clone.address);
    expect(twice?.remedy).to.contain('--state-dir');
  });
});
