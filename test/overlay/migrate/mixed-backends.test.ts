/**
 * Clusters of both daemons in which peers are routed plainly, and flanneld's place taken by `flanneld`.
 * Node 1 runs vtepd; node 2 is flannel-shaped, or runs our flanneld.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Child, start, stop } from '../../../overlay/lab/command.ts';
import { labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import { inside } from '../../../overlay/lab/namespace.ts';
import { ping } from '../../../overlay/lab/ping.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { describeCluster, ETCD } from '../../lab/cluster.ts';
import { FlannelNode } from '../../lab/flannel-node.ts';

const DEADLINE_MS = 15_000;
const PROGRAMS = ['iptables-nft', 'the reference CNI plugins'];
const FLANNELD = join(import.meta.dirname, '../../../overlay/cli/flanneld.js');

type Reached = Pick<Pod, 'namespace' | 'addresses'>;

for (const [title, backend] of [
  ['host-gw', { Type: 'host-gw' }],
  ['vxlan with DirectRouting', { Type: 'vxlan', DirectRouting: true }],
] as const) {
  const plan = {
    idle: true,
    programs: PROGRAMS,
    networkConfig: (families: Parameters<typeof labNetworkConfig>[0]) =>
      labNetworkConfig(families, { Backend: backend }),
  };
  describeCluster(`flannel beside vtepd: ${title}`, [ETCD], plan, (cluster) => {
    let flannel: FlannelNode;
    before(async () => {
      await cluster.node(1).startDaemon();
      flannel = await FlannelNode.create(cluster.lab, cluster.node(2));
      await cluster.node(1).untilProgrammed(1);
      await cluster.node(1).attachPod();
      await flannel.attachPod();
      await flannel.untilPeers(1);
    });
    after(() => flannel?.stop());

    it('pods reach each other both ways, by plain routes', async () => {
      const [theirs] = flannel.pods;
      const { peers } = await cluster.node(1).status();
      expect(peers.map(({ route }) => route)).to.deep.equal(['direct']);
      await reach(cluster.pod(1), theirs);
      await reach(theirs, cluster.pod(1));
    });

    it('the node changes over, and flannel’s plain routes go', async () => {
      const [theirs] = flannel.pods;
      const node = cluster.node(2);
      await flannel.stop();
      // As Docker has it, and as a flannel does that speaks nftables itself.
      await node.exec(['iptables-nft', '-P', 'FORWARD', 'DROP']);
      await node.exec(['nft', 'add', 'table', 'ip', 'flannel-ipv4']);
      await node.startDaemon(['--cni-data-dir', flannel.dataDir]);
      await cluster.node(2).untilProgrammed(1);
      const gone = async () => {
        const { stdout } = await cluster.node(2).exec(['ip', 'route', 'show', 'proto', 'boot']);
        const nat = (await node.exec(['iptables-nft', '-t', 'nat', '-S'])).stdout;
        const tables = (await node.exec(['nft', 'list', 'tables'])).stdout;
        return !stdout.includes('/24 via') && !nat.includes('FLANNEL') && !tables.includes('flannel-ipv4');
      };
      await until(gone, { what: 'flannel’s routes and rules to be gone', deadlineMs: DEADLINE_MS });
      const filter = (await node.exec(['iptables-nft', '-S'])).stdout;
      expect(filter, 'without it nothing would be forwarded').to.include('-j FLANNEL-FWD');
      expect((await cluster.node(2).status()).attachments).to.have.length(1);
      await reach(cluster.pod(1), theirs);
      await reach(theirs, cluster.pod(1));
    });
  });
}

describeCluster('flanneld, which is vtepd', [ETCD], { idle: true, programs: PROGRAMS }, (cluster) => {
  let daemon: Child;
  let flannel: FlannelNode;
  const subnetFile = () => join(cluster.node(2).dir, 'subnet.env');
  before(async () => {
    const node = cluster.node(2);
    await cluster.node(1).startDaemon();
    // A node on which flannel has run, with a pod.
    flannel = await FlannelNode.create(cluster.lab, node);
    await flannel.attachPod();
    await flannel.stop();
    const endpoints =
      cluster.lab.store.arguments[cluster.lab.store.arguments.indexOf('--etcd-endpoints') + 1];
    const flags = [
      ...[`-etcd-endpoints=${endpoints}`, `-subnet-file=${subnetFile()}`, '-iptables-resync', '5'],
      ...[`--healthz-ip=${node.address}`, '-healthz-port=10254', '-ip-masq'],
    ];
    daemon = await start(...inside(node.namespace, [process.execPath, FLANNELD, ...flags]), {
      stdio: 'ignore',
      env: {
        ...process.env,
        FLANNELD_ETCD_PREFIX: '/coreos.com/network',
        VTEPD_STATE_DIR: node.stateDir,
        VTEPD_RUN_DIR: node.runDir,
        VTEPD_NODE_NAME: node.name,
        VTEPD_CNI_DATA_DIR: flannel.dataDir,
      },
    });
    await cluster.node(1).untilProgrammed(1);
    await cluster.node(1).attachPod();
  });
  after(async () => {
    if (daemon !== undefined) await stop(daemon, 'SIGTERM');
  });

  it('writes subnet.env as flannel’s plugins read it', async () => {
    const text = await until(() => readFile(subnetFile(), 'utf8').catch(() => undefined), {
      what: 'subnet.env',
      deadlineMs: DEADLINE_MS,
    });
    const subnet = flannel.subnets.ipv4;
    expect(text.trimEnd().split('\n')).to.deep.equal([
      'FLANNEL_NETWORK=10.244.0.0/16',
      `FLANNEL_SUBNET=${subnet?.address.replace(/0$/, '1')}/24`,
      'FLANNEL_MTU=1450',
      'FLANNEL_IPMASQ=true',
    ]);
  });

  it('serves /healthz where it was told to, and nothing else there', async () => {
    const get = (path: string) =>
      cluster
        .node(1)
        .exec(['busybox', 'wget', '-q', '-O', '-', `http://${cluster.node(2).address}:10254${path}`], {
          tolerant: true,
        });
    expect((await get('/healthz')).stdout).to.equal('ok\n');
    expect((await get('/metrics')).status).not.to.equal(0);
  });

  it('leaves pods to flannel’s plugins, old ones and new ones', async () => {
    const [before] = flannel.pods;
    await reach(cluster.pod(1), before);
    const later = await flannel.attachPod();
    await reach(cluster.pod(1), later);
    await reach(later, cluster.pod(1));
    const { stdout } = await cluster.node(2).exec(['ip', '-j', 'link', 'show', 'master', 'cni0']);
    expect(
      (JSON.parse(stdout) as { ifname: string }[]).every(({ ifname }) => ifname.startsWith('veth')),
    ).to.equal(true);
  });
});

async function reach(from: Reached | undefined, to: Reached | undefined): Promise<void> {
  const [address] = to?.addresses ?? [];
  if (from === undefined || address === undefined) throw new Error('there is no such pod');
  const answered = async () => (await ping(from.namespace, address, { count: 1 })).lost === 0;
  await until(answered, { what: `${address} to answer`, deadlineMs: DEADLINE_MS });
  expect((await ping(from.namespace, address, { count: 3 })).lost).to.equal(0);
}
