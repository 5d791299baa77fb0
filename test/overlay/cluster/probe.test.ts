/**
 * Two nodes whose underlay swallows large packets without a word, in both families:
 *
 *   pod -- vtep0 [node 1] eth0 ==== 1500 by its own account, in truth 1400 ==== eth0 [node 2] vtep0 -- pod
 */
import { expect } from 'chai';
import { ipBatch, runInside } from '../../../overlay/lab/namespace.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { PathStatus, PeerStatus } from '../../../overlay/ops/status.ts';
import { type Cluster, describeCluster, EMBEDDED } from '../../lab/cluster.ts';

const DEADLINE_MS = 45_000;
const FULL_BYTES = 1500;
const NARROW_BYTES = 1400;
const NETWORK = {
  Network: '10.244.0.0/16',
  EnableIPv6: true,
  IPv6Network: 'fd00:244::/48',
  Backend: { Type: 'vxlan' },
};
/** The overlay's MTU: the IPv6 underlay's is the smaller one. In IPv4, 20 bytes more would fit. */
const FULL_SENT = { ipv4: FULL_BYTES - 20, ipv6: FULL_BYTES };

describeCluster(
  'an underlay that swallows large packets',
  [EMBEDDED],
  {
    nodes: 2,
    idle: true,
    networkConfig: JSON.stringify(NETWORK),
    daemonArguments: ['--probe-interval', '1s'],
    programs: ['ss', 'raw-socket'],
  },
  (cluster) => {
    it('without the probe TCP hangs; with it, it flows on, and it is said where and why', async () => {
      await startDaemons(cluster, '--probe=false');
      // A pair of pods a family.
      for (const node of cluster.lab.nodes) for (const _ of ['ipv4', 'ipv6']) await node.attachPod();
      await swallow(cluster);
      const streams = await Promise.all([startStream(cluster, 0), startStream(cluster, 1)]);
      try {
        for (const place of [0, 1]) {
          const hangs = async () => (await tcpState(podOf(cluster, 1, place))).backoff >= 2;
          await until(hangs, { what: 'TCP to hang', deadlineMs: DEADLINE_MS, everyMs: 100 });
          expect((await tcpState(podOf(cluster, 1, place))).ackedBytes).to.be.lessThan(NARROW_BYTES);
        }
        for (const { daemon } of cluster.lab.nodes) await daemon?.terminate();
        await startDaemons(cluster);
        await untilPaths(cluster, 1, { mtuBytes: NARROW_BYTES });
        await untilPaths(cluster, 2, { mtuBytes: NARROW_BYTES });
        for (const place of [0, 1]) {
          const flows = async () => (await tcpState(podOf(cluster, 1, place))).ackedBytes > 1_000_000;
          await until(flows, { what: 'TCP to flow', deadlineMs: DEADLINE_MS, everyMs: 100 });
        }
      } finally {
        const reports = await Promise.all(streams.map((stream) => stream.stop()));
        for (const report of reports) expect(report.whole, JSON.stringify(report)).to.equal(true);
      }
      const node = cluster.node(1);
      expect(await overlayRoutes(cluster, '-4')).to.match(/ mtu 1350/);
      expect(await overlayRoutes(cluster, '-6')).to.match(/ mtu 1330/);
      const peer = cluster.node(2).address;
      expect((await node.vtepd(['status'])).stdout).to.include(
        `! underlay: 2 of 2 paths swallow large packets: ${peer} (1400 of ${FULL_SENT.ipv4} bytes pass)`,
      );
      const log = (await node.daemon?.log()) ?? '';
      expect(log.split('\n').filter((line) => line.includes('swallows large packets'))).to.have.length(2);
      expect(await metrics(cluster)).to.include('vtepd_probe_reduced_paths{family="ipv6"} 1');
    });

    it('when the path recovers, so does the route', async () => {
      await swallow(cluster, 'accept');
      await untilPaths(cluster, 1, { mtuBytes: FULL_BYTES });
      for (const family of ['-4', '-6']) {
        expect(await overlayRoutes(cluster, family))
          .to.match(/ nhid /)
          .and.not.match(/ mtu /);
      }
      expect((await cluster.node(1).vtepd(['status'])).stdout).to.not.include('! underlay');
    });

    it('a peer that no longer answers is named, and its routes stay as they are', async () => {
      const before = await overlayRoutes(cluster, '-4');
      await swallow(cluster, 'drop icmp');
      await untilPaths(cluster, 1, { reachable: false });
      expect((await cluster.node(1).vtepd(['status'])).stdout).to.include(
        '! underlay: 2 of 2 paths no longer',
      );
      expect(await overlayRoutes(cluster, '-4')).to.equal(before);
    });

    it('where ICMP is filtered from the start, nothing is known and nothing is changed', async () => {
      await cluster.node(1).daemon?.terminate();
      await cluster.node(1).startDaemon();
      await cluster.node(1).untilReady();
      const sent = async () =>
        Number(/vtepd_probe_packets_total\{result="sent"\} (\d+)/.exec(await metrics(cluster))?.[1]);
      // Two packets a path and attempt.
      await until(async () => (await sent()) >= 12, { what: 'three checks', deadlineMs: DEADLINE_MS });
      await untilPaths(cluster, 1, { reachable: null, mtuBytes: null, rttMs: null });
      expect((await cluster.node(1).vtepd(['status'])).stdout).to.not.include('! underlay');
      expect(await overlayRoutes(cluster, '-4')).to.not.match(/ mtu /);
    });
  },
);

const podOf = (cluster: Cluster, node: number, place: number): Pod => cluster.node(node).pods[place] as Pod;

async function startDaemons(cluster: Cluster, ...extra: readonly string[]): Promise<void> {
  await Promise.all(cluster.lab.nodes.map((node) => node.startDaemon(extra)));
  await cluster.settled();
}

/** From now on the underlay drops what is larger than NARROW_BYTES, or echo packets of all sizes, or nothing. */
async function swallow(
  cluster: Cluster,
  what: 'drop large' | 'drop icmp' | 'accept' = 'drop large',
): Promise<void> {
  const rules = {
    // The IPv6 header's length is that of what follows it.
    'drop large': `ip length > ${NARROW_BYTES} drop; ip6 length > ${NARROW_BYTES - 40} drop;`,
    'drop icmp':
      'icmp type { echo-request, echo-reply } drop; icmpv6 type { echo-request, echo-reply } drop;',
    accept: '',
  };
  const { namespace } = cluster.lab.underlay;
  await runInside(namespace, ['nft', '-f', '-'], {
    input: `
      table bridge swallow
      delete table bridge swallow
      table bridge swallow {
        chain incoming { type filter hook prerouting priority -300; policy accept; ${rules[what]} }
      }`,
  });
  // Between namespaces packets stay together that a real wire would see apart.
  for (const node of cluster.lab.nodes) {
    await ipBatch(node.namespace, [`link set ${NODE_INTERFACE} gso_max_segs 1`]);
  }
}

async function startStream(cluster: Cluster, place: number): Promise<RunningStream> {
  const [from, to] = [podOf(cluster, 1, place), podOf(cluster, 2, place)];
  const address = to.addresses[place];
  if (address === undefined) throw new Error(`${to.name} has no address of that family`);
  return RunningStream.start({ from: from.namespace, to: to.namespace, address }, 0);
}

/** Of the one connection that a pod has open. */
async function tcpState(pod: Pod): Promise<{ readonly ackedBytes: number; readonly backoff: number }> {
  const { stdout } = await runInside(pod.namespace, ['ss', '-tinH', 'state', 'established']);
  const number = (name: string) => Number(new RegExp(`${name}:(\\d+)`).exec(stdout)?.[1] ?? 0);
  return { ackedBytes: number('bytes_acked'), backoff: number('backoff') };
}

/** Waits until a node says this of its paths to the one peer, in both families. */
async function untilPaths(cluster: Cluster, number: number, wanted: Partial<PathStatus>): Promise<void> {
  let last: readonly PeerStatus[] = [];
  const isSo = (path: PathStatus | undefined, fullBytes: number) =>
    path !== undefined &&
    Object.entries(wanted).every(
      ([key, value]) => path[key as keyof PathStatus] === (value === FULL_BYTES ? fullBytes : value),
    );
  const allSo = async () => {
    last = (await cluster.node(number).status()).peers;
    const [peer] = last;
    return isSo(peer?.path, FULL_SENT.ipv4) && isSo(peer?.pathIPv6, FULL_SENT.ipv6);
  };
  try {
    await until(allSo, { what: JSON.stringify(wanted), deadlineMs: DEADLINE_MS, everyMs: 100 });
  } catch (error) {
    if (error instanceof Error) error.message += `; it says ${JSON.stringify(last)}`;
    throw error;
  }
}

async function overlayRoutes(cluster: Cluster, family: string): Promise<string> {
  return (await cluster.node(1).exec(['ip', family, 'route', 'show', 'proto', '118'])).stdout;
}

async function metrics(cluster: Cluster): Promise<string> {
  const { stdout } = await cluster
    .node(1)
    .exec(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:9472/metrics']);
  return stdout;
}
