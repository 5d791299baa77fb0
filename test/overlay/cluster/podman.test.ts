/**
 * podman on two nodes, with vtepd's conflist as its network: containers reach each other, publish a port, outlive a
 * restart of the daemon, and leave nothing.
 */
import { expect } from 'chai';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, EMBEDDED } from '../../lab/cluster.ts';
import { SERVE } from '../../lab/image.ts';
import { NodePodman, PODMAN_PROGRAMS } from '../../lab/podman.ts';

const DEADLINE_MS = 30_000;
const HOST_PORT = 8081;

describeCluster('podman', [EMBEDDED], { pods: 0, programs: PODMAN_PROGRAMS }, (cluster) => {
  const runtimes: NodePodman[] = [];
  before(async () => {
    const { nodes } = cluster.lab;
    runtimes.push(...nodes.map((node) => new NodePodman(node)));
    await Promise.all(nodes.map((node, at) => runtimes[at]?.prepare(`a page of ${node.name}\n`)));
  });
  after(() => Promise.all(runtimes.map((podman) => podman.close())));
  const podman = (number: number): NodePodman => runtimes[number - 1] ?? expect.fail('no podman');

  it('runs containers that reach each other, publishes a port, and takes them away without a trace', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const before = [await traces(first), await traces(second)];
    await Promise.all([
      podman(1).run('web', SERVE, ['--publish', `${HOST_PORT}:80`]),
      podman(2).run('web', SERVE),
    ]);
    const [one, two] = [await addressOf(first), await addressOf(second)];
    const reachEachOther = async () => {
      const pages = await Promise.all([fetched(1, `http://${two}/`), fetched(2, `http://${one}/`)]);
      expect(pages).to.deep.equal(['a page of node-2\n', 'a page of node-1\n']);
    };
    // From the other node, at the node's own address.
    const published = async () => {
      const url = `http://${first.addresses.ipv4}:${HOST_PORT}/`;
      expect((await second.exec(['busybox', 'wget', '-q', '-O', '-', url])).stdout).to.equal(
        'a page of node-1\n',
      );
    };
    await reachEachOther();
    await published();
    expect(await traces(first), 'a veth and a forwarded port').to.have.length.greaterThan(1);

    // The daemon goes, and the containers notice nothing; it comes back, and knows them.
    await first.daemon?.terminate();
    await reachEachOther();
    await first.startDaemon();
    await cluster.settled();
    await published();
    expect(await addressOf(first)).to.equal(one);

    await Promise.all([podman(1).remove('web'), podman(2).remove('web')]);
    expect([await traces(first), await traces(second)]).to.deep.equal(before);
    for (const node of cluster.lab.nodes) expect((await node.status()).addresses?.used).to.equal(0);
  });

  async function addressOf(node: LabNode): Promise<string> {
    const { attachments } = await node.status();
    expect(attachments).to.have.length(1);
    return attachments[0]?.ips[0] ?? expect.fail('no address');
  }

  /** The server's process comes up some time after its interface: asked until it answers. */
  async function fetched(number: number, url: string): Promise<string> {
    let last = '';
    const get = async () => {
      const { status, stdout, stderr } = await podman(number).exec('web', ['wget', '-q', '-O', '-', url]);
      last = `${status} ${stderr}`;
      return status === 0 ? stdout : undefined;
    };
    try {
      return await until(get, { what: `a page from ${url}`, deadlineMs: DEADLINE_MS });
    } catch (error) {
      if (error instanceof Error) error.message += `: ${last}`;
      throw error;
    }
  }
});

/** What a container leaves on its node while it lives: interfaces, forwarded ports. */
async function traces(node: LabNode): Promise<string[]> {
  const { stdout: links } = await node.exec(['ip', '-o', 'link', 'show', 'type', 'veth']);
  const { stdout: rules } = await node.exec(['nft', 'list', 'ruleset']);
  return [
    ...[...links.matchAll(/^\d+: (vtp\w+)/gm)].map(([, name = '']) => name),
    ...rules.split('\n').filter((line) => line.includes(`dport ${HOST_PORT}`)),
  ];
}
