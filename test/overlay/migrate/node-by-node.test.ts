/**
 * A cluster of flannel's whose nodes become vtepd's one by one, and one of them flannel's again. Node 1 runs
 * vtepd from the beginning; node 2 is flannel-shaped, with three pods:
 *
 *     vtepd  [ node 1 ]  pod                 pods  a, b, c (whose runtime has forgotten it)  [ node 2 ]  flannel
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { LabNode } from '../../../overlay/lab/lab-node.ts';
import { deleteNamespace } from '../../../overlay/lab/namespace.ts';
import { ping, RunningPing } from '../../../overlay/lab/ping.ts';
import { callPlugin, type Pod } from '../../../overlay/lab/pod.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { until } from '../../../overlay/lab/wait.ts';
import type { Address } from '../../../store/address.ts';
import { describeCluster, ETCD_DUAL } from '../../lab/cluster.ts';
import { CNI_NETWORK, CONFLIST, FlannelNode, type FlannelPod } from '../../lab/flannel-node.ts';

const DEADLINE_MS = 15_000;
const PROGRAMS = ['iptables-nft', 'iptables-legacy', 'the reference CNI plugins'];

type Reached = Pick<Pod, 'namespace' | 'addresses'>;

describeCluster('flannel node by node', [ETCD_DUAL], { idle: true, programs: PROGRAMS }, (cluster) => {
  let flannel: FlannelNode;
  let vtepdPod: Pod;
  let lateFlannelPod: FlannelPod;
  let newPod: Pod;
  const [a, b, c] = [0, 1, 2].map((at) => () => pick(flannel.pods, at)) as [PodOf, PodOf, PodOf];
  const migrated = (): LabNode => cluster.node(2);
  const options = (): string[] => ['--cni-data-dir', flannel.dataDir];
  const daemonOptions = (): string[] => [...cluster.node(2).daemonArguments, ...options()];
  const migrate = (...args: string[]) => migrated().vtepd(['migrate', ...args, ...daemonOptions()]);

  before(async () => {
    await cluster.node(1).startDaemon();
    flannel = await FlannelNode.create(cluster.lab, cluster.node(2));
    await cluster.node(1).untilProgrammed(1);
    vtepdPod = await cluster.node(1).attachPod();
    await flannel.attachPod();
    await flannel.attachPod();
    await flannel.attachPod({ remembered: false });
    await flannel.untilPeers(1);
  });
  after(() => flannel?.stop());

  it('vtepd’s and flannel’s nodes reach each other', async () => {
    await reach(vtepdPod, a());
    await reach(a(), vtepdPod);
    await reach(b(), vtepdPod);
  });

  it('migrate refuses while flanneld runs, and says so beforehand', async () => {
    const answers = await Promise.all(
      [[], ['--dry-run']].map((more) =>
        migrated().vtepd(['migrate', '--from', 'flannel', ...more, ...daemonOptions()], { tolerant: true }),
      ),
    );
    for (const { status, stderr } of answers) {
      expect(status).to.equal(1);
      expect(stderr).to.match(/flanneld runs here \(process \d+\): stop it/);
    }
  });

  it('the dry run tells what becomes of everything, and changes nothing', async () => {
    await flannel.stop();
    const before = await linkNames(migrated());
    const [{ stdout }, { stdout: text }] = await Promise.all([
      migrate('--from', 'flannel', '--dry-run', '--json'),
      migrate('--from', 'flannel', '--dry-run'),
    ]);
    const { steps } = JSON.parse(stdout) as { steps: { kind: string; what: string }[] };
    const of = (kind: string) => steps.filter((step) => step.kind === kind).map(({ what }) => what);
    expect(of('device')).to.have.length(2);
    expect(of('pod')).to.have.length(3);
    for (const pod of [a(), b(), c()]) {
      expect(
        of('pod').some((what) => what.includes(`${pod.name}:eth0`) && what.includes(pod.address)),
      ).to.equal(true);
    }
    expect(of('address')).to.deep.equal([]);
    expect(await linkNames(migrated())).to.deep.equal(before);
    expect(await readdir(migrated().stateDir).catch(() => [])).to.deep.equal([]);
    expect(text).to.contain('flannel.1').and.to.contain('Nothing was changed');
  });

  it('taking over loses no packet of a running flow, and no pod its interface', async () => {
    const mac = await macOf(migrated(), 'flannel.1');
    const report = await flowsDuring(vtepdPod, a(), async () => {
      await migrated().startDaemon(options());
      await migrated().untilProgrammed(1);
      await conflistAside(migrated());
    });
    expect(report.stream.whole).to.equal(true);
    expect(report.lost).to.equal(0);
    expect(await macOf(migrated(), 'flannel.1')).to.equal(mac);
    const status = await migrated().status();
    expect(status.lease?.vtepMAC ?? '').to.equal(mac);
    expect(status.attachments.map(({ containerID }) => containerID)).to.have.members(
      [a(), b(), c()].map(({ name }) => name),
    );
    for (const pod of [a(), b(), c()]) await reach(vtepdPod, pod);
    await reach(a(), b());
  });

  it('flannel’s routes, rules and configuration have given way to ours', async () => {
    const node = migrated();
    const gone = async () => {
      const routes = (await node.exec(['ip', 'route', 'show', 'proto', 'boot'])).stdout;
      const rules = await Promise.all(
        ['iptables-nft', 'iptables-legacy', 'ip6tables-nft', 'ip6tables-legacy'].flatMap((program) =>
          ['nat', 'filter'].map(async (table) => (await node.exec([program, '-t', table, '-S'])).stdout),
        ),
      );
      return !/flannel|\/24 via/.test(routes) && !rules.some((text) => text.includes('FLANNEL'));
    };
    await until(gone, { what: 'flannel’s routes and rules to be gone', deadlineMs: DEADLINE_MS });
    const files = await readdir(node.cni.confDir);
    expect(files).to.include('10-vtepd.conflist').and.not.to.include(CONFLIST);
    const list = JSON.parse(await readFile(join(node.cni.confDir, '10-vtepd.conflist'), 'utf8'));
    expect(list.name, 'runtime and plugins know the pods by it').to.equal(CNI_NETWORK);
    await reach(vtepdPod, a());
  });

  it('adopted pods are held to their addresses by the pod filter', async () => {
    const { stdout } = await migrated().exec(['nft', 'list', 'set', 'bridge', 'vtepd', 'pods4']);
    for (const pod of [a(), b(), c()]) expect(stdout).to.contain(pod.address);
  });

  it('no address is given twice, and a DEL of an old pod frees its', async () => {
    newPod = await migrated().attachPod();
    expect(flannel.pods.flatMap(({ addresses }) => addresses)).not.to.include.members([...newPod.addresses]);
    await reach(newPod, vtepdPod);
    const used = await usedAddresses(migrated());
    await callPlugin(migrated().cni, 'DEL', attachmentOf(b()));
    await deleteNamespace(b().namespace);
    const status = await migrated().status();
    expect(await usedAddresses(migrated())).to.equal(used - 1);
    expect(status.attachments.map(({ containerID }) => containerID)).not.to.include(b().name);
  });

  it('CHECK of an adopted pod is content', async () => {
    const path = join(flannel.dataDir, 'results', `${CNI_NETWORK}-${a().name}-eth0`);
    const { result } = JSON.parse(await readFile(path, 'utf8')) as { result: unknown };
    await callPlugin(migrated().cni, 'CHECK', {
      ...attachmentOf(a()),
      extra: { prevResult: result, cniVersion: '0.4.0' },
    });
  });

  it('a restart finds everything as it was', async () => {
    await migrated().daemon?.terminate();
    await migrated().startDaemon(options());
    await migrated().untilProgrammed(1);
    const status = await migrated().status();
    expect(status.attachments).to.have.length(3);
    await reach(vtepdPod, a());
    await reach(vtepdPod, newPod);
  });

  it('back again needs the daemon stopped, and says so', async () => {
    const result = await migrated().vtepd(['migrate', '--back', ...daemonOptions()], { tolerant: true });
    expect(result.status).to.equal(1);
    expect(result.stderr).to.contain('stop it first');
  });

  it('back to flannel: nothing is lost, and flannel finds what it expects', async () => {
    const mac = await macOf(migrated(), 'flannel.1');
    const report = await flowsDuring(vtepdPod, a(), async () => {
      await migrated().daemon?.terminate();
      const { stdout } = await migrate('--back');
      expect(stdout).to.contain('flannel');
      await flannel.start();
      await flannel.untilPeers(1);
    });
    expect(report.stream.whole).to.equal(true);
    expect(report.lost).to.equal(0);
    expect(await macOf(migrated(), 'flannel.1')).to.equal(mac);
    expect((await migrated().exec(['nft', 'list', 'tables'])).stdout).not.to.contain('vtepd');
    expect((await migrated().exec(['ip', 'nexthop'])).stdout).to.equal('');
    expect((await linkNames(migrated())).filter((name) => name.startsWith('vtp'))).to.deep.equal([]);
    const files = await readdir(migrated().cni.confDir);
    expect(files).to.include(CONFLIST).and.not.to.include('10-vtepd.conflist');
    for (const pod of [a(), c(), newPod]) await reach(vtepdPod, pod);
  });

  it('host-local has exactly the addresses that pods have, and gives none of them again', async () => {
    const held = () => readdir(join(flannel.dataDir, 'networks', CNI_NETWORK));
    const expected = [a(), c(), newPod].flatMap(({ addresses }) => addresses);
    expect((await held()).filter(isAddress)).to.have.members(expected);
    lateFlannelPod = await flannel.attachPod();
    expect(expected).not.to.include.members([...lateFlannelPod.addresses]);
    await reach(lateFlannelPod, vtepdPod);
    // One that vtepd attached ends with flannel's plugin.
    await flannel.detachPod(newPod.name);
    for (const address of newPod.addresses) expect(await held()).not.to.include(address);
  });

  it('and forth again; a pod that flannel’s plugins attach meanwhile keeps its address', async () => {
    await flannel.stop();
    await migrate('--from', 'flannel');
    const meanwhile = await flannel.attachPod();
    await migrated().startDaemon(options());
    await migrated().untilProgrammed(1);
    await conflistAside(migrated());
    expect((await migrated().status()).attachments).to.have.length(3);
    for (const pod of [a(), c(), lateFlannelPod, meanwhile]) await reach(vtepdPod, pod);
    const held = await usedAddresses(migrated());
    const after = await migrated().attachPod();
    expect(meanwhile.addresses).not.to.include.members([...after.addresses]);
    await callPlugin(migrated().cni, 'DEL', attachmentOf(meanwhile));
    expect(await usedAddresses(migrated()), 'one came, one went').to.equal(held);
  });
});

type PodOf = () => FlannelPod;

const usedAddresses = async (node: LabNode): Promise<number> =>
  (await node.status()).addresses?.used ?? Number.NaN;

const isAddress = (name: string): boolean => /^[0-9a-f.:]+$/.test(name);

function pick(pods: readonly FlannelPod[], at: number): FlannelPod {
  const pod = pods[at];
  if (pod === undefined) throw new Error(`there is no pod ${at}`);
  return pod;
}

const attachmentOf = ({ name, namespace }: FlannelPod) => ({
  containerId: name,
  namespace,
  interfaceName: 'eth0',
});

async function reach(from: Reached, to: Reached): Promise<void> {
  for (const address of to.addresses) {
    const answered = async () => (await ping(from.namespace, address, { count: 1 })).lost === 0;
    await until(answered, { what: `${address} to answer`, deadlineMs: DEADLINE_MS });
    expect((await ping(from.namespace, address, { count: 3 })).lost, address).to.equal(0);
  }
}

/** A TCP connection and a ping of 100 a second to each address, while something is done. */
async function flowsDuring(from: Reached, to: Reached, action: () => Promise<void>) {
  const running: RunningPing[] = [];
  let stream: RunningStream | undefined;
  try {
    const [address] = to.addresses;
    stream = await RunningStream.start(
      { from: from.namespace, to: to.namespace, address: address as Address, port: 5310 },
      5,
    );
    for (const each of to.addresses) running.push(await RunningPing.start(from.namespace, each, 10));
    await Promise.all(running.map((each) => each.untilAnswered(5)));
    await action();
    await Promise.all(running.map((each) => each.untilAnswered(each.answered + 20)));
  } catch (error) {
    await stream?.stop().catch(() => {});
    for (const each of running) await each.stop().catch(() => {});
    throw error;
  }
  const reports = await Promise.all(running.map((each) => each.stop()));
  return { stream: await stream.stop(), lost: reports.reduce((sum, { lost }) => sum + lost, 0) };
}

async function linkNames(node: LabNode): Promise<string[]> {
  const { stdout } = await node.exec(['ip', '-j', 'link']);
  return (JSON.parse(stdout) as { ifname: string }[]).map(({ ifname }) => ifname);
}

const macOf = async (node: LabNode, device: string): Promise<string> =>
  (await node.exec(['cat', `/sys/class/net/${device}/address`])).stdout.trim();

/** A runtime goes by the list that sorts first. */
const conflistAside = (node: LabNode): Promise<boolean> =>
  until(async () => !(await readdir(node.cni.confDir)).includes(CONFLIST), {
    what: 'flannel’s CNI configuration to be set aside',
    deadlineMs: DEADLINE_MS,
  });
