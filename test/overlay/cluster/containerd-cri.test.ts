/**
 * containerd with its CRI plugin, as on a Kubernetes node: pods on two nodes, ports published through portmap, a daemon
 * that is restarted in between, and nothing left at the end.
 */
import { expect } from 'chai';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { type Cluster, describeCluster, KUBERNETES_DUAL, pingPod } from '../../lab/cluster.ts';
import { CRI_PROGRAMS, type CriPod, CriRuntime } from '../../lab/cri.ts';
import { daemonSetPod } from '../../lab/daemon-set.ts';
import { SERVE } from '../../lab/image.ts';
import { kubernetesOf } from '../../lab/kubernetes-lab-store.ts';

const DEADLINE_MS = 30_000;
const HOST_PORT = 8080;

describeCluster(
  'containerd through CRI',
  [KUBERNETES_DUAL],
  { pods: 0, programs: [...CRI_PROGRAMS, 'raw-socket'] },
  (cluster) => {
    const runtimes: CriRuntime[] = [];
    before(async () => {
      for (const node of cluster.lab.nodes)
        runtimes.push(await CriRuntime.start(node, `a page of ${node.name}\n`));
    });
    after(() => Promise.all(runtimes.map((runtime) => runtime.close())));

    const runtime = (number: number): CriRuntime =>
      runtimes[number - 1] ?? expect.fail('the runtime is not up');
    const serving = (number: number, name: string, hostPort?: number) =>
      runtime(number).runPod({ name, command: SERVE, ...(hostPort === undefined ? {} : { hostPort }) });

    it('runs pods that reach each other, publishes a port, and takes them away without a trace', async () => {
      await Promise.all(runtimes.map((each) => each.untilNetworkReady()));
      const before = await traces(cluster);
      const pods: readonly [CriPod, CriPod] = [await serving(1, 'web', HOST_PORT), await serving(2, 'web')];
      for (const pod of pods) expect(pod.addresses).to.have.length(2);
      const reachEachOther = async () => {
        for (const address of pods[1].addresses)
          expect(await fetched(1, pods[0], address)).to.equal('a page of node-2\n');
        for (const address of pods[0].addresses)
          expect(await fetched(2, pods[1], address)).to.equal('a page of node-1\n');
      };
      const published = async () => {
        const url = `http://${cluster.node(1).addresses.ipv4}:${HOST_PORT}/`;
        const { stdout } = await cluster.node(2).exec(['busybox', 'wget', '-q', '-O', '-', url]);
        expect(stdout).to.equal('a page of node-1\n');
      };
      await reachEachOther();
      await published();

      // The daemon goes and comes back: pods notice nothing, one is removed meanwhile, and another comes afterwards.
      const node = cluster.node(1);
      const short = await serving(1, 'short');
      await node.daemon?.terminate();
      await reachEachOther();
      await runtime(1).removePod(short);
      await node.startDaemon();
      await node.untilReady();
      await cluster.settled();
      await reachEachOther();
      await published();
      const late = await serving(1, 'late');
      for (const address of late.addresses)
        expect(await fetched(2, pods[1], address)).to.equal('a page of node-1\n');

      await runtime(1).removePod(late);
      await runtime(1).removePod(pods[0]);
      await runtime(2).removePod(pods[1]);
      expect(await traces(cluster)).to.deep.equal(before);
      for (const each of cluster.lab.nodes) {
        const { attachments, addresses } = await each.status();
        expect(attachments).to.deep.equal([]);
        expect(addresses?.used).to.equal(0);
      }
    });

    it('runs the daemon itself as the DaemonSet has it, with the rights that it has there', async () => {
      const node = cluster.node(2);
      await node.daemon?.terminate();
      const plan = await daemonSetPod('vtepd', node, kubernetesOf(cluster));
      const daemon = await runtime(2).runPod(plan);
      try {
        await until(async () => (await node.status().catch(() => undefined))?.ready, {
          what: 'the daemon in its container',
          deadlineMs: DEADLINE_MS,
        });
        await cluster.node(1).untilProgrammed(1);
        const pods: [Pod, Pod] = [await cluster.node(1).attachPod(), await node.attachPod()];
        expect(await pingPod(...pods, { count: 2 })).to.include({ lost: 0 });
        const { probe, store } = await node.status();
        expect([probe?.running, store.kind, store.healthy]).to.deep.equal([true, 'kubernetes', true]);
        const log = await runtime(2).logOf('vtepd');
        expect(log.filter((line) => / (warn|error) /.test(line))).to.deep.equal([]);
        const rights = await inContainer(
          daemon,
          '/bin/busybox grep -h -e CapEff -e NoNewPrivs -e Seccomp: /proc/1/status',
        );
        expect(rights.replaceAll(/\s+/g, ' ')).to.equal('CapEff: 0000000000003000 NoNewPrivs: 1 Seccomp: 2 ');

        // The first process of its container, it waits for whoever has no parent any more.
        const orphan = await inContainer(daemon, '/bin/sleep 1000 >/dev/null 2>&1 & echo $!');
        const processes = () => inContainer(daemon, 'cat /proc/[0-9]*/stat');
        expect(await processes()).to.include('(sleep)');
        await inContainer(daemon, `kill ${orphan}`);
        await until(async () => !(await processes()).includes('(sleep)'), {
          what: 'an orphan to be waited for',
          deadlineMs: DEADLINE_MS,
        });

        expect(await runtime(2).stopContainer(daemon, 10)).to.equal(0);
        expect(await pingPod(...pods, { count: 2 }), 'the data path stays').to.include({ lost: 0 });
      } catch (error) {
        const log = (
          await runtime(2)
            .logOf('vtepd')
            .catch(() => [])
        ).slice(-30);
        if (error instanceof Error) error.message += `\nits log ends:\n  ${log.join('\n  ')}`;
        throw error;
      } finally {
        await runtime(2).removePod(daemon);
      }
    });

    const inContainer = async (pod: CriPod, script: string): Promise<string> =>
      (await runtime(2).exec(pod, ['/bin/sh', '-c', script])).output;

    /** The server's process comes up some time after its interface: asked until it answers. */
    async function fetched(number: number, from: CriPod, address: string): Promise<string> {
      let last = '';
      const url = `http://${address.includes(':') ? `[${address}]` : address}/`;
      const get = async () => {
        const { status, output } = await runtime(number).exec(from, ['wget', '-q', '-O', '-', url]);
        last = `${status} ${output}`;
        return status === 0 ? output : undefined;
      };
      try {
        return await until(get, { what: `a page from ${address}`, deadlineMs: DEADLINE_MS });
      } catch (error) {
        if (error instanceof Error) error.message += `: ${last}`;
        throw error;
      }
    }
  },
);

/** What a pod leaves on its node while it lives: interfaces, forwarded ports. */
async function traces({ lab }: Cluster): Promise<string[]> {
  const all: string[] = [];
  for (const node of lab.nodes) {
    const { stdout: links } = await node.exec(['ip', '-o', 'link', 'show', 'type', 'veth']);
    all.push(...[...links.matchAll(/^\d+: (vtp\w+)/gm)].map(([, name]) => `${node.name} ${name}`));
    const { stdout: rules } = await node.exec(['nft', 'list', 'ruleset']);
    const forwarded = rules.split('\n').filter((line) => line.includes(`dport ${HOST_PORT}`));
    all.push(...forwarded.map((rule) => `${node.name} ${rule.trim()}`));
  }
  return all;
}
