/** The systemd unit: checked by systemd's own tools, and run by a real systemd. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { run } from '../../overlay/lab/command.ts';
import { ETCD_PREFIX, EtcdLabStore } from '../../overlay/lab/lab-store.ts';
import { ping } from '../../overlay/lab/ping.ts';
import { until } from '../../overlay/lab/wait.ts';
import { need } from '../lab/capability.ts';
import { type Cluster, describeCluster, ETCD } from '../lab/cluster.ts';
import { type Installation, install } from '../lab/installed.ts';
import { SYSTEMD_PROGRAMS, SystemdMachine } from '../lab/systemd.ts';

const UNIT = 'vtepd.service';
/** Of ten: what systemd calls "OK" ends at 5. Root in name, netlink and the node's network cost the most. */
const MOST_EXPOSED = 2.6;
const DEADLINE_MS = 40_000;

const PLAN = {
  nodes: 2,
  pods: 0,
  idle: true,
  networkConfig: null,
  programs: [...SYSTEMD_PROGRAMS, 'raw-socket'],
};

describe('manifests: the systemd unit', function () {
  this.timeout(60_000);
  let installed: Installation;
  let unit = '';
  before(async function () {
    need(this, 'make', 'systemd-analyze');
    installed = await install();
    unit = join(installed.prefix, 'lib/systemd/system', UNIT);
  });
  // After the machine has gone, which runs on it.
  after(() => installed?.remove());

  it('is sound to systemd-analyze verify', async () => {
    // What it executes stands elsewhere on a machine where it is installed for real.
    const text = await readFile(unit, 'utf8');
    expect(text).to.include('ExecStart=/usr/local/bin/vtepd run --config=/etc/vtepd/vtepd.yaml\n');
    const here = join(installed.root, UNIT);
    await writeFile(here, text.replace('/usr/local/bin/vtepd', join(installed.prefix, 'bin/vtepd')));
    const { status, stderr } = await run('systemd-analyze', ['verify', '--man=no', here], { tolerant: true });
    const about = stderr.split('\n').filter((line) => line.includes('vtepd'));
    expect(about).to.deep.equal([]);
    expect(status).to.equal(0);
  });

  it('leaves the daemon no rights that it does not need', async () => {
    const limit = ['--threshold', String(MOST_EXPOSED * 10)];
    const { status, stdout } = await run(
      'systemd-analyze',
      ['security', '--no-pager', '--offline=true', ...limit, unit],
      { tolerant: true },
    );
    expect(status, stdout).to.equal(0);
  });

  describeCluster('run by systemd', [ETCD], PLAN, (cluster) => underSystemd(cluster, () => installed));
});

function underSystemd(cluster: Cluster, installation: () => Installation): void {
  let machine: SystemdMachine | undefined;

  before(async () => {
    const node = cluster.node(1);
    const config = join(installation().root, 'etc/vtepd/vtepd.yaml');
    const words = [...cluster.lab.store.arguments, '--node-name', node.name];
    const settings = words.map((word, at) => (at % 2 === 0 ? `${word.slice(2)}: ` : `${word}\n`)).join('');
    await writeFile(config, `${await readFile(config, 'utf8')}\n${settings}`);
    machine = await SystemdMachine.boot({
      namespace: node.namespace,
      dir: join(node.dir, 'machine'),
      installation: installation(),
      wants: [UNIT],
      // Shorter than on a node of one's own, so that the test is; all else is as it is shipped.
      units: { [`${UNIT}.d/10-lab.conf`]: '[Service]\nTimeoutStartSec=6s\nWatchdogSec=6s\n' },
    });
  });
  after(async () => {
    await machine?.close();
  });
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(await machine?.journal('-u', UNIT, '--lines=60'));
  });

  const there = (): SystemdMachine => {
    if (machine === undefined) throw new Error('there is no machine');
    return machine;
  };
  const show = (name: string) => there().property(UNIT, name);
  const untilShown = (name: string, pattern: RegExp) =>
    until(async () => pattern.test(await show(name)), {
      what: `${name} ${pattern}`,
      deadlineMs: DEADLINE_MS,
    });

  it('waits for its store as long as it takes, and says so', async () => {
    await untilShown('StatusText', /^Not ready: the etcd store has no network configuration/);
    const startedAt = Number(await show('ExecMainStartTimestampMonotonic'));
    const pid = await show('MainPID');
    const longAfter = (): boolean => Number(process.hrtime.bigint() / 1000n) > startedAt + 7_000_000;
    await until(longAfter, { what: 'more than the time limit of a start', deadlineMs: DEADLINE_MS });
    expect([await show('ActiveState'), await show('MainPID')]).to.deep.equal(['activating', pid]);
  });

  it('is active once pods would work, and does its work with no more rights than the unit leaves it', async () => {
    const network = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } });
    const { store } = cluster.lab;
    if (!(store instanceof EtcdLabStore)) throw new Error('not an etcd');
    await store.etcdctl(['put', `${ETCD_PREFIX}/config`, network]);
    const other = cluster.node(2);
    await other.startDaemon();
    await other.untilReady();
    await untilShown('ActiveState', /^active$/);
    expect(await show('StatusText')).to.match(/^Ready: 10\.244\.\d+\.0-24, \d peers?/);
    const conflist = await there().exec(['cat', '/etc/cni/net.d/10-vtepd.conflist', '/run/vtepd/subnet.env']);
    expect(conflist.stderr).to.equal('');
    await other.untilProgrammed(1);
    const pod = await other.attachPod();
    for (const address of pod.addresses) {
      expect((await ping(cluster.node(1).namespace, address, { count: 5 })).received).to.equal(5);
    }
    // The probe has its raw socket, the filter its tables, the devices their settings.
    const status = JSON.parse((await there().exec(['vtepd', 'status', '--json'])).stdout);
    expect(status).to.deep.include({ ready: true, reason: null });
    expect(status.probe).to.include({ running: true });
    const warnings = (await there().journal('-u', UNIT, '--priority=warning')).trimEnd().split('\n');
    expect(warnings, warnings.join('\n')).to.have.length(1);
    expect(warnings[0]).to.match(/^the network configuration cannot be used; waiting for a usable one/);
    const info = await there().journal('-u', UNIT, '--priority=info');
    expect(info).to.match(/^ready: pods can be attached/m);
  });

  it('is reloading while it reads its configuration again, and then active', async () => {
    const before = Number(await show('StateChangeTimestampMonotonic'));
    expect((await there().exec(['systemctl', 'reload', UNIT])).status).to.equal(0);
    const changed = async () => Number(await show('StateChangeTimestampMonotonic')) > before;
    await until(changed, { what: 'a reload', deadlineMs: DEADLINE_MS });
    await untilShown('ActiveState', /^active$/);
    expect(await there().journal('-u', UNIT)).to.match(/the configuration was read again reason=SIGHUP/);
  });

  it('gives signs of life that systemd takes for such', async () => {
    const beats = new Set<string>();
    const beat = async () => beats.add(await show('WatchdogTimestampMonotonic')).size > 2;
    await until(beat, { what: 'two more signs of life', deadlineMs: DEADLINE_MS, everyMs: 200 });
    expect([await show('ActiveState'), await show('NRestarts')]).to.deep.equal(['active', '0']);
  });

  it('ends as asked, and stays down', async () => {
    expect((await there().exec(['systemctl', 'stop', UNIT])).status).to.equal(0);
    const result = [await show('ActiveState'), await show('Result'), await show('ExecMainStatus')];
    expect(result).to.deep.equal(['inactive', 'success', '0']);
    // What others have read from it stays.
    expect((await there().exec(['cat', '/run/vtepd/subnet.env'])).status).to.equal(0);
  });

  it('is not started over and over with a configuration that it cannot use', async () => {
    await there().exec(['sh', '-c', 'echo "no-such-option: 1" >>/etc/vtepd/vtepd.yaml']);
    await there().exec(['systemctl', 'start', '--no-block', UNIT]);
    await untilShown('ActiveState', /^failed$/);
    expect([await show('ExecMainStatus'), await show('NRestarts')]).to.deep.equal(['2', '0']);
    expect(await there().journal('-u', UNIT)).to.include('no-such-option');
  });
}
