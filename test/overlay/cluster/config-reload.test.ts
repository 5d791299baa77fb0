/** The configuration file changes under a running daemon. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { run } from '../../../overlay/lab/command.ts';
import { LabDaemon } from '../../../overlay/lab/lab-daemon.ts';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { ipBatch } from '../../../overlay/lab/namespace.ts';
import { gatewayAddress, NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { StatusReport } from '../../../overlay/ops/status.ts';
import { describeCluster, ETCD, pingDuring, pingPod } from '../../lab/cluster.ts';
import { etcdOf } from '../../lab/etcd-keys.ts';

const DEADLINE_MS = 30_000;
const ENDPOINT = `http://${gatewayAddress}:2379`;

type Options = Readonly<Record<string, string | boolean>>;

const fileOf = (node: LabNode): string => join(node.dir, 'vtepd.yaml');

/** As an editor does it: another file in the place of the old one. */
async function writeOptions(node: LabNode, options: Options): Promise<void> {
  const lines = Object.entries({ 'etcd-endpoints': ENDPOINT, ...options });
  const text = lines.map(([name, value]) => `${name}: ${value}\n`).join('');
  await writeFile(`${fileOf(node)}.new`, text, { mode: 0o600 });
  await rename(`${fileOf(node)}.new`, fileOf(node));
}

/** A daemon whose options are in its file, but for where it lives. */
async function startWithFile(node: LabNode, options: Options = {}): Promise<void> {
  await writeOptions(node, options);
  node.daemon = await LabDaemon.start({
    namespace: node.namespace,
    arguments: [
      ...['--config', fileOf(node), '--node-name', node.name],
      ...['--run-dir', node.runDir, '--state-dir', node.stateDir],
      ...['--cni-conf-dir', node.cni.confDir, '--cni-bin-dir', node.cni.binDir],
    ],
    logFile: node.logFile,
  });
}

async function untilStatus(
  node: LabNode,
  what: string,
  isSo: (status: StatusReport) => boolean,
): Promise<StatusReport> {
  const look = async () => {
    const status = await node.status().catch(() => undefined);
    return status !== undefined && isSo(status) && status;
  };
  return until(look, { what, deadlineMs: DEADLINE_MS });
}

const ruleset = async (node: LabNode): Promise<string> =>
  (await node.exec(['nft', 'list', 'ruleset'])).stdout;
const logOf = async (node: LabNode): Promise<string> => (await node.daemon?.log()) ?? '';

describeCluster('a configuration that changes', [ETCD], { nodes: 2, idle: true }, (cluster) => {
  before(async () => {
    for (const node of cluster.lab.nodes) await startWithFile(node);
    await cluster.settled();
    for (const node of cluster.lab.nodes) await node.attachPod();
  });

  it('the firewall and subnet.env, by the file alone, and no packet is lost', async () => {
    const node = cluster.node(1);
    expect(await ruleset(node))
      .to.contain('masquerade')
      .and.contain('table bridge vtepd');
    const report = await pingDuring(cluster.pod(1), cluster.pod(2), async () => {
      await writeOptions(node, { 'ip-masq': false, 'pod-filter': false });
      const gone = async () => !/masquerade|table bridge vtepd/.test(await ruleset(node));
      await until(gone, { what: 'masquerading and pod filter to go', deadlineMs: DEADLINE_MS });
      const said = async () => /^FLANNEL_IPMASQ=false$/m.test(await readFile(node.subnetFile, 'utf8'));
      await until(said, { what: 'subnet.env to follow', deadlineMs: DEADLINE_MS });
      await writeOptions(node, {});
      const back = async () => /masquerade/.test(await ruleset(node));
      await until(back, { what: 'masquerading to come back', deadlineMs: DEADLINE_MS });
    });
    expect(report.lost).to.equal(0);
  });

  it('level and format of the log, and what needs a restart is named', async () => {
    const node = cluster.node(1);
    await writeOptions(node, { 'log-format': 'json', 'log-level': 'debug', bridge: 'other0' });
    const status = await untilStatus(
      node,
      'the restart that is needed',
      ({ configuration }) => configuration.needRestart.length > 0,
    );
    expect(status.configuration).to.include({ file: fileOf(node), problem: null });
    expect(status.configuration.needRestart).to.deep.equal(['bridge']);
    expect(status.overlay?.bridge).to.equal('vtep0');
    const lines = (await logOf(node)).split('\n');
    expect(lines.some((line) => /^\{.*"needs? a restart|^\{.*restarted.*"bridge"/.test(line))).to.equal(true);
    await writeOptions(node, {});
    await untilStatus(node, 'no restart', ({ configuration }) => configuration.needRestart.length === 0);
    expect((await logOf(node)).trimEnd().split('\n').at(-1)).to.match(/^\d{4}-.* info /);
  });

  it('a file with a mistake is refused whole, said once, and mended', async () => {
    const node = cluster.node(1);
    const before = await logOf(node);
    await writeOptions(node, { 'ip-masq': false, 'resync-interval': 'often' });
    const status = await untilStatus(
      node,
      'the mistake',
      ({ configuration }) => configuration.problem !== null,
    );
    expect(status.configuration.problem).to.match(/vtepd\.yaml:\d+: resync-interval/);
    process.kill(node.daemon?.pid ?? 0, 'SIGHUP');
    await writeOptions(node, { 'etcd-endpoints': 'https://192.0.2.1', 'etcd-cafile': '/nowhere' });
    await untilStatus(node, 'the file', ({ configuration }) => /nowhere/.test(configuration.problem ?? ''));
    expect(await ruleset(node)).to.contain('masquerade');
    expect((await node.status()).store.healthy).to.equal(true);
    expect((await logOf(node)).slice(before.length).match(/resync-interval/g)).to.have.length(1);
    await writeOptions(node, {});
    await untilStatus(node, 'no problem', ({ configuration }) => configuration.problem === null);
  });

  it('the HTTP address; one that is taken leaves the old one', async () => {
    const node = cluster.node(1);
    const answers = async (port: number) =>
      (await node.exec(['busybox', 'wget', '-qO-', `http://127.0.0.1:${port}/readyz`], { tolerant: true }))
        .status === 0;
    await writeOptions(node, { http: '127.0.0.1:9999' });
    await until(() => answers(9999), { what: 'the new address to answer', deadlineMs: DEADLINE_MS });
    expect(await answers(9472)).to.equal(false);
    await writeOptions(node, {});
    await until(() => answers(9472), { what: 'the old address to answer', deadlineMs: DEADLINE_MS });
  });

  it('endpoints that do not answer, and right ones again: nothing is withdrawn', async () => {
    const [node, other] = [cluster.node(1), cluster.node(2)];
    const report = await pingDuring(cluster.pod(1), cluster.pod(2), async () => {
      await writeOptions(node, { 'etcd-endpoints': `http://${gatewayAddress}:1` });
      await untilStatus(node, 'the store to be away', ({ store }) => !store.healthy);
      expect((await node.status()).peers[0]?.programmed).to.equal(true);
      await writeOptions(node, {});
      await untilStatus(node, 'the store to answer', ({ store }) => store.healthy);
    });
    expect(report.lost).to.equal(0);
    // What is followed now is the store that was opened last.
    const { lease } = await other.status();
    await run('ip', ['-n', other.namespace, 'addr', 'add', '192.0.2.99/24', 'dev', NODE_INTERFACE]);
    await writeOptions(other, { 'public-ip': '192.0.2.99' });
    await untilStatus(node, 'the peer to move', ({ peers }) => peers[0]?.publicIP === '192.0.2.99');
    expect((await other.status()).lease?.subnet).to.equal(lease?.subnet);
    await writeOptions(other, {});
    await untilStatus(node, 'the peer to come back', ({ peers }) => peers[0]?.publicIP === other.address);
  });

  it('another underlay interface: lease and peers follow, and back', async () => {
    const [node, other] = [cluster.node(1), cluster.node(2)];
    const { lease } = await node.status();
    await ipBatch(cluster.lab.underlay.namespace, [
      `link add second type veth peer name eth1 netns ${node.namespace}`,
      'link set second master under0 up',
    ]);
    await ipBatch(node.namespace, ['addr add 192.0.2.98/24 dev eth1', 'link set eth1 up']);
    const ways: readonly [Options, string, string][] = [
      [{ iface: 'eth1' }, 'eth1', '192.0.2.98'],
      [{}, NODE_INTERFACE, node.address],
    ];
    for (const [options, device, address] of ways) {
      await writeOptions(node, options);
      const moved = ({ underlay }: StatusReport) => underlay?.device === device;
      const { lease: now } = await untilStatus(node, `the underlay to be ${device}`, moved);
      expect(now?.subnet).to.equal(lease?.subnet);
      await untilStatus(other, 'the peer to follow', ({ peers }) => peers[0]?.publicIP === address);
      const reached = async () => (await pingPod(cluster.pod(1), cluster.pod(2), { count: 1 })).lost === 0;
      await until(reached, { what: `the pods to reach each other by ${device}`, deadlineMs: DEADLINE_MS });
      const { stdout } = await node.exec(['ip', '-d', 'link', 'show', 'vtep.1']);
      expect(stdout).to.contain(`local ${address}`);
    }
  });

  it('credentials: the lease goes on under them, and the log does not hold the password', async () => {
    const [node, etcd] = [cluster.node(1), etcdOf(cluster)];
    const before = await node.status();
    for (const words of ['user add root:fastened-door', 'user grant-role root root', 'auth enable']) {
      await etcd.etcdctl(words.split(' '));
    }
    // A watch that stands is not asked again; a store that is opened anew is.
    await writeOptions(node, { 'etcd-username': 'root', 'etcd-password': 'something else' });
    const refused = await untilStatus(node, 'the store to refuse', ({ store }) => !store.healthy);
    expect(refused.ready).to.equal(true);
    for (const each of cluster.lab.nodes) {
      await writeOptions(each, { 'etcd-username': 'root', 'etcd-password': 'fastened-door' });
      await untilStatus(each, 'the store to answer', ({ store }) => store.healthy && store.reason === null);
    }
    expect((await node.status()).lease?.subnet).to.equal(before.lease?.subnet);
    expect(await logOf(node)).not.to.match(/fastened-door|something else/);
    await etcd.etcdctl(['--user', 'root:fastened-door', 'auth', 'disable']);
  });

  it('lease times: the lease lives as long as the file says', async () => {
    const node = cluster.node(1);
    await writeOptions(node, { 'subnet-lease-ttl': '48h' });
    const day = 24 * 3_600_000;
    await untilStatus(
      node,
      'a lease of two days',
      ({ lease }) => Date.parse(lease?.expiresAt ?? '') - Date.now() > 1.5 * day,
    );
  });
});
