/**
 * The underlay's MTU shrinks under running pods. Their interfaces stay as they were born: what makes their TCP
 * go on is that the node tells the senders ("fragmentation needed", "packet too big"), who learn the path's MTU.
 */
import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { run } from '../../../overlay/lab/command.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, EMBEDDED_DUAL } from '../../lab/cluster.ts';

const DEADLINE_MS = 30_000;
const MEGABYTE = 1e6;

async function receivedBytes(pod: Pod): Promise<number> {
  const { stdout } = await runInside(pod.namespace, ['cat', '/proc/net/dev']);
  return Number(/eth0: *(\d+)/.exec(stdout)?.[1]);
}

async function untilReceived(pod: Pod, bytes: number, when: string): Promise<void> {
  const start = await receivedBytes(pod);
  const enough = async () => (await receivedBytes(pod)) - start > bytes;
  await until(enough, { what: `${bytes} bytes more ${when}`, deadlineMs: DEADLINE_MS });
}

describeCluster('an underlay whose MTU shrinks', [EMBEDDED_DUAL], {}, (cluster) => {
  /** Both ends of every cable, as when a provider changes a network. */
  async function setMtu(mtuBytes: number): Promise<void> {
    const { underlay, nodes } = cluster.lab;
    for (const { namespace, number } of nodes) {
      await run('ip', ['-n', namespace, 'link', 'set', NODE_INTERFACE, 'mtu', String(mtuBytes)]);
      await run('ip', ['-n', underlay.namespace, 'link', 'set', `n${number}`, 'mtu', String(mtuBytes)]);
    }
    for (const node of nodes) await untilMtu(node, mtuBytes - 70);
  }

  async function untilMtu(node: LabNode, mtuBytes: number): Promise<void> {
    const follows = async () => {
      const [status, file] = [await node.status(), await readFile(node.subnetFile, 'utf8')];
      return status.overlay?.mtuBytes === mtuBytes && file.includes(`FLANNEL_MTU=${mtuBytes}\n`);
    };
    await until(follows, { what: `${node.name} to have MTU ${mtuBytes}`, deadlineMs: DEADLINE_MS });
    for (const device of ['vtep.1', 'vtep6.1', 'vtep0']) {
      const { stdout } = await node.exec(['ip', 'link', 'show', device]);
      expect(stdout).to.contain(` mtu ${mtuBytes} `);
    }
  }

  for (const [place, family] of cluster.families.entries()) {
    it(`a TCP stream over ${family} goes on, and a new one starts`, async () => {
      const [from, to] = [cluster.pod(1), cluster.pod(2)];
      const address = to.addresses[place];
      if (address === undefined) throw new Error(`the pod has no ${family} address`);
      const route = { from: from.namespace, to: to.namespace, address };
      const stream = await RunningStream.start(route, 0);
      try {
        await untilReceived(to, 5 * MEGABYTE, 'before');
        await setMtu(1400);
        await untilReceived(to, 20 * MEGABYTE, 'after');
        const { stdout } = await runInside(from.namespace, ['ip', 'route', 'get', address]);
        expect(stdout).to.match(/ mtu 1330\b/);
      } finally {
        const report = await stream.stop();
        expect(report.whole).to.equal(true);
      }
      const again = await RunningStream.start(route, 0);
      try {
        await untilReceived(to, 5 * MEGABYTE, 'of a new stream');
      } finally {
        await again.stop();
        await setMtu(1500);
      }
    });
  }

  it('a pod that was born before and one that was born since reach each other, on one node and across', async () => {
    await setMtu(1400);
    const [node, old] = [cluster.node(1), cluster.pod(2)];
    const young = await node.attachPod();
    expect((await runInside(young.namespace, ['ip', 'link', 'show', 'eth0'])).stdout).to.contain('mtu 1330');
    for (const [from, to] of [
      [old, young],
      [young, old],
      [cluster.pod(1), young],
      [young, cluster.pod(1)],
    ] as const) {
      const route = { from: from.namespace, to: to.namespace, address: to.address };
      const stream = await RunningStream.start(route, 0);
      try {
        await untilReceived(to, 5 * MEGABYTE, `from ${from.name}`);
      } finally {
        await stream.stop();
      }
    }
  });
});
