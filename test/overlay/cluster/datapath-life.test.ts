/** A tunnel in user space through its daemon's life: restarts, the change from and to the kernel's, and the end. */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { run } from '../../../overlay/lab/command.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { processesIn, runInside } from '../../../overlay/lab/namespace.ts';
import { RunningPing } from '../../../overlay/lab/ping.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, MIXED_DUAL, pingPod, streamDuring, USERSPACE_DUAL } from '../../lab/cluster.ts';
import { kernelState, stateDifference } from '../../lab/kernel-state.ts';

const DEADLINE_MS = 10_000;

describeCluster('a daemon with the data path', [USERSPACE_DUAL], { nodes: 2 }, (cluster) => {
  const restart = async (end: 'kill' | 'terminate') => {
    const node = cluster.node(1);
    await node.daemon?.[end]();
    await node.startDaemon();
    await node.untilReady();
    await cluster.settled();
  };

  for (const end of ['kill', 'terminate'] as const) {
    const how = end === 'kill' ? 'kill -9' : 'SIGTERM';

    it(`${how} and start: what is sent meanwhile waits, and at most 50 ms of it are lost`, async () => {
      const lost = await lostDuring([cluster.pod(1), cluster.pod(2)], () => restart(end));
      // In each family, ten milliseconds apart.
      expect(lost).to.be.at.most(5 * cluster.families.length);
      const { tunnels } = await cluster.node(1).status();
      expect(tunnels.map(({ resumed, fault }) => [resumed, fault])).to.deep.equal([
        [true, null],
        [true, null],
      ]);
    });
  }

  it('a TCP stream goes on over a kill -9', async () => {
    const report = await streamDuring(cluster.pod(1), cluster.pod(2), () => restart('kill'));
    expect(report.whole, JSON.stringify(report)).to.equal(true);
  });

  it('keeps its subnet, its MACs and every kernel object', async () => {
    const node = cluster.node(1);
    const [before, leaseBefore] = [await kernelState(node.namespace), (await node.status()).lease];
    await restart('terminate');
    const [after, lease] = [await kernelState(node.namespace), (await node.status()).lease];
    expect(stateDifference(before, after)).to.equal('');
    expect({ ...lease, expiresAt: 0 }).to.deep.equal({ ...leaseBefore, expiresAt: 0 });
  });

  it('without traffic its threads take no time of the processor', async () => {
    const pid = cluster.node(1).daemon?.pid ?? 0;
    const idleMs = 2000;
    const share = async () => {
      const before = await threadTimes(pid);
      await delay(idleMs);
      const after = await threadTimes(pid);
      const used = [...after].map(([thread, time]) => time - (before.get(thread) ?? 0));
      return used.reduce((sum, time) => sum + time, 0) / idleMs;
    };
    // Neighbours are asked for now and then; so the quietest of a few.
    let least = await share();
    for (let i = 0; i < 3 && least >= 0.01; i++) least = Math.min(least, await share());
    expect(least).to.be.below(0.01);
  });

  it('status and metrics tell what passed', async () => {
    const node = cluster.node(1);
    await pingPod(cluster.pod(1), cluster.pod(2), { count: 20 });
    const { overlay, tunnels } = await node.status();
    expect(overlay).to.include({ datapath: 'userspace', datapathReason: '--datapath userspace' });
    const [tunnel] = tunnels;
    expect(tunnels).to.have.length(2);
    expect(tunnel).to.include({ device: 'vtep.1', family: 'ipv4', fault: null, workerRestarts: 0 });
    for (const direction of [tunnel?.sent, tunnel?.received]) {
      expect(direction?.packets).to.be.at.least(20);
      expect(direction?.bytes).to.be.at.least(20 * 98);
      expect(direction?.batches.reduce((sum, { calls }) => sum + calls, 0)).to.be.greaterThan(0);
    }
    const text = (await node.vtepd(['status'])).stdout;
    expect(text).to.match(/data path userspace\n.*in user space: --datapath userspace\n/);
    expect(text).to.match(/^tunnel +vtep\.1 sent \d+ packets \(.*B, \d+\.\d a system call\)/m);
    const { stdout } = await node.exec(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:9472/metrics']);
    const sent = /^vtepd_datapath_packets_total\{family="ipv4",direction="sent"\} (\d+)$/m.exec(stdout)?.[1];
    expect(Number(sent)).to.be.at.least(20);
    expect(stdout).to.include('vtepd_datapath_up{family="ipv4"} 1');
    expect(stdout).to.match(/^vtepd_datapath_drops_total\{.*direction="received",reason="vni"\} 0$/m);
    expect(await node.daemon?.log()).to.match(/the tunnel is open in user space/);
  });

  it('cleanup after a kill -9 leaves no device and no process', async () => {
    const node = cluster.node(2);
    await node.daemon?.kill();
    const { stdout } = await node.vtepd([
      'cleanup',
      ...['--state-dir', node.stateDir, '--run-dir', node.runDir],
    ]);
    expect(stdout).to.match(/removed link vtep\.1/);
    expect((await node.exec(['ip', '-o', 'link'])).stdout).not.to.contain('vtep');
    const alone = async () => (await processesIn(node.namespace)).length === 0;
    await until(alone, { what: 'nothing to run in the namespace', deadlineMs: DEADLINE_MS });
  });

  it('one that never comes back: nothing runs on for longer than the packets are kept', async () => {
    const node = cluster.node(1);
    await node.daemon?.terminate();
    const left = await processesIn(node.namespace);
    const names = await Promise.all(
      left.map(async (pid) => (await run('ps', ['-o', 'args=', '-p', `${pid}`])).stdout.trim()),
    );
    expect(names, 'nothing but the holder of each family').to.have.length(2);
    for (const name of names) expect(name).to.include('sleep 30');
    // What it holds is taken over once more, and goes with the device.
    await node.startDaemon();
    await node.untilReady();
    for (const tunnel of (await node.status()).tunnels) expect(tunnel).to.include({ resumed: true });
  });
});

/**
 * Echo requests between two pods, both ways and in every family, 100 a second of each, that got no answer. Counted
 * where they leave and arrive: what waited arrives at once, and is more than the socket of a ping takes.
 */
async function lostDuring([one, other]: readonly [Pod, Pod], action: () => Promise<void>): Promise<number> {
  const counts = async () => {
    const all = await Promise.all([one, other].map(({ namespace }) => echoCounts(namespace)));
    return all.reduce((sum, { sent, answered }) => sum + sent - answered, 0);
  };
  const before = await counts();
  const running: RunningPing[] = [];
  try {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      for (const address of to.addresses) running.push(await RunningPing.start(from.namespace, address, 10));
    }
    await Promise.all(running.map((ping) => ping.untilAnswered(5)));
    await action();
    await Promise.all(running.map((ping) => ping.untilAnswered(ping.answered + 20)));
  } finally {
    await Promise.all(running.map((ping) => ping.stop()));
  }
  const lost = async () => (await counts()) - before;
  // The last ones may be under way.
  await until(async () => (await lost()) <= 0, { what: 'the last answers', deadlineMs: 1000 }).catch(
    () => {},
  );
  return lost();
}

/** What the kernel of a namespace counted since it was made, of both families. */
async function echoCounts(namespace: string): Promise<{ sent: number; answered: number }> {
  const { stdout } = await runInside(namespace, ['cat', '/proc/net/snmp', '/proc/net/snmp6']);
  const [, names = '', values = ''] = /^(Icmp: .*)\n(Icmp: .*)$/m.exec(stdout) ?? [];
  const ipv4 = (name: string) => Number(values.split(' ')[names.split(' ').indexOf(name)]);
  const ipv6 = (name: string) => Number(new RegExp(`^${name}\\s+(\\d+)$`, 'm').exec(stdout)?.[1]);
  return {
    sent: ipv4('OutEchos') + ipv6('Icmp6OutEchos'),
    answered: ipv4('InEchoReps') + ipv6('Icmp6InEchoReplies'),
  };
}

/** Of every thread but the first, which is the daemon's own: milliseconds on a processor. */
async function threadTimes(pid: number): Promise<Map<string, number>> {
  const threads = (await readdir(`/proc/${pid}/task`)).filter((thread) => thread !== String(pid));
  const read = async (thread: string) => {
    const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').catch(() => '0');
    return [thread, Number(text.split(' ')[0]) / 1e6] as const;
  };
  return new Map(await Promise.all(threads.map(read)));
}

describeCluster('a node that changes its data path', [MIXED_DUAL], { nodes: 2 }, (cluster) => {
  const changeOver = async (node: LabNode, path: 'kernel' | 'userspace', end: 'kill' | 'terminate') => {
    await node.daemon?.[end]();
    node.datapath = path;
    await node.startDaemon();
    await node.untilReady();
    await cluster.settled();
  };
  const kinds = async (node: LabNode): Promise<string[]> => {
    const { stdout } = await node.exec(['ip', '-j', '-d', 'link', 'show']);
    const links: { ifname: string; linkinfo?: { info_kind?: string } }[] = JSON.parse(stdout);
    return links
      .filter(({ ifname }) => ifname.startsWith('vtep') && ifname !== 'vtep0')
      .map(({ ifname, linkinfo }) => `${ifname} ${linkinfo?.info_kind}`);
  };

  for (const end of ['terminate', 'kill'] as const) {
    it(`by a restart (${end}), there and back: its peer notices a gap, and programs nothing anew`, async () => {
      const [node, far] = [cluster.node(1), cluster.node(2)];
      const theirs = await kernelState(far.namespace);
      const stream = await streamDuring(cluster.pod(2), cluster.pod(1), async () => {
        await changeOver(node, 'kernel', end);
        expect(await kinds(node)).to.have.members(['vtep.1 vxlan', 'vtep6.1 vxlan']);
        expect((await node.status()).overlay).to.include({ datapath: 'kernel' });
        expect((await node.status()).tunnels).to.deep.equal([]);
        expect(await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).to.include({ lost: 0 });
        await changeOver(node, 'userspace', end);
        expect(await kinds(node)).to.have.members(['vtep.1 tun', 'vtep6.1 tun']);
      });
      expect(stream.whole, JSON.stringify(stream)).to.equal(true);
      expect(await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).to.include({ lost: 0 });
      expect(stateDifference(theirs, await kernelState(far.namespace))).to.equal('');
    });
  }
});
