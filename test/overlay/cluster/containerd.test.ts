/** A real runtime: containerd starts two containers on two nodes, and each fetches a page from the other. */
import { expect } from 'chai';
import { type Child, stop } from '../../../overlay/lab/command.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, EMBEDDED_DUAL } from '../../lab/cluster.ts';
import { CONTAINERD_PROGRAMS, NodeContainerd } from '../../lab/containerd.ts';

/** The first process of a container gets only those signals that it has a handler for. */
const SERVE = [
  ...['/bin/busybox', 'sh', '-c'],
  'trap "exit 0" TERM; /bin/busybox httpd -f -p 80 -h /www & wait',
];

const PLAN = { nodes: 2, pods: 0, programs: CONTAINERD_PROGRAMS };

describeCluster('containerd', [EMBEDDED_DUAL], PLAN, (cluster) => {
  const runtimes: NodeContainerd[] = [];
  before(async () => {
    for (const node of cluster.lab.nodes) {
      runtimes.push(await NodeContainerd.start(node, `a page of ${node.name}\n`));
    }
  });
  after(() => Promise.all(runtimes.map((runtime) => runtime.close())));

  const runtime = (number: number): NodeContainerd => {
    const found = runtimes[number - 1];
    if (found === undefined) throw new Error('the runtime is not up');
    return found;
  };

  it('two containers on two nodes fetch a page from each other by pod address', async () => {
    const servers = [
      await runtime(1).runContainer('web', SERVE),
      await runtime(2).runContainer('web', SERVE),
    ];
    try {
      const [first = [], second = []] = await Promise.all(cluster.lab.nodes.map(addressesOfWeb));
      expect([first.length, second.length]).to.deep.equal([2, 2]);
      for (const address of second) expect(await fetched(runtime(1), address)).to.equal('a page of node-2\n');
      for (const address of first) expect(await fetched(runtime(2), address)).to.equal('a page of node-1\n');
    } finally {
      for (const server of servers) await stop(server, 'SIGTERM', 15_000);
    }
    for (const node of cluster.lab.nodes) {
      const { attachments, addresses } = await node.status();
      expect(attachments).to.deep.equal([]);
      expect(addresses?.used).to.equal(0);
    }
  });

  async function addressesOfWeb(node: LabNode): Promise<readonly string[]> {
    const found = async () =>
      (await node.status()).attachments.find(({ containerID }) => containerID.endsWith('-web'));
    const attachment = await until(found, { what: 'the container to be attached', deadlineMs: 30_000 });
    return attachment.ips;
  }

  /** The server's process comes up some time after its interface: asked until it answers. */
  function fetched(from: NodeContainerd, address: string): Promise<string> {
    let attempt = 0;
    return until(
      async () => {
        const wget = [
          '/bin/busybox',
          'wget',
          '-q',
          '-O',
          '-',
          `http://${address.includes(':') ? `[${address}]` : address}/`,
        ];
        const text = await output(await from.runContainer(`fetch-${attempt++}`, wget));
        return text === '' ? undefined : text;
      },
      { what: `a page from ${address}`, deadlineMs: 30_000 },
    );
  }
});

async function output({ process, exited }: Child): Promise<string> {
  let text = '';
  process.stdout?.on('data', (chunk) => {
    text += String(chunk);
  });
  process.stderr?.resume();
  await new Promise((resolve) => process.once('close', resolve));
  await exited;
  return text;
}
