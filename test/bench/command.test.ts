/**
 * `vtepd bench` as a person runs it: a measurement here, one that is interrupted, one between two machines
 * (namespaces), and machines that lack what it needs. And a link of a known rate, which must measure as that.
 */

import { randomBytes } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { CommandLog } from '../../bench/engine/command-log.ts';
import { LocalEnd } from '../../bench/engine/end.ts';
import { transfer } from '../../bench/engine/iperf3.ts';
import { layersOf } from '../../bench/paths/overhead.ts';
import { type BenchReport, parseReport } from '../../bench/report/schema.ts';
import { UsageError } from '../../overlay/cli/arguments.ts';
import { command } from '../../overlay/cli/bench.ts';
import type { CommandIo } from '../../overlay/cli/command.ts';
import { type Child, type CommandResult, run, start, stop } from '../../overlay/lab/command.ts';
import { Lab } from '../../overlay/lab/lab.ts';
import { VTEPD } from '../../overlay/lab/lab-daemon.ts';
import { namespacePath, namespaces, runInside } from '../../overlay/lab/namespace.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import { until } from '../../overlay/lab/wait.ts';
import { need } from '../lab/capability.ts';

const bench = (args: readonly string[], env?: NodeJS.ProcessEnv): Promise<CommandResult> =>
  run(process.execPath, [VTEPD, 'bench', ...args], { tolerant: true, timeoutMs: 90_000, env });

const never = new AbortController().signal;

/** What its labs are called is in its commands. */
const runsOf = ({ commands }: BenchReport): string[] => [
  ...new Set(commands.flatMap(({ argv }) => argv).flatMap((word) => /^vt[0-9a-f]{6}/.exec(word)?.[0] ?? [])),
];

async function noneLeft(report: BenchReport): Promise<void> {
  const runs = runsOf(report);
  expect(runs).to.have.length.greaterThan(0);
  for (const name of runs) expect(await namespaces(name)).to.deep.equal([]);
}

describe('vtepd bench', function () {
  this.timeout(90_000);
  before(function () {
    need(this, 'root', 'ip', 'nft', 'busybox', 'tcpdump', 'iperf3', 'sockperf');
  });

  it('measures paths side by side, and reports it as JSON and as a page', async () => {
    const html = join(tmpdir(), `vtepd-bench-${randomBytes(4).toString('hex')}.html`);
    try {
      const args = [
        '--quick',
        ...['--rounds', '2', '--seconds', '0.2', '--paths', 'underlay,vxlan', '--seed', '7'],
        '--measure',
        'tcp-1,connections',
      ];
      const result = await bench([...args, '--json', '--html', html]);
      expect(result.status, result.stderr).to.equal(0);
      const report = parseReport(result.stdout, 'stdout');
      expect(report).to.include({
        complete: true,
        quick: true,
        plannedRounds: 2,
        baseline: 'underlay',
        seed: 7,
      });
      expect(report.contestants.map(({ id, mtuBytes }) => `${id} ${mtuBytes}`)).to.deep.equal([
        'underlay 1500',
        'vxlan 1450',
      ]);
      for (const contestant of ['underlay', 'vxlan']) {
        const of = (quantity: string) =>
          report.results.find((each) => each.contestant === contestant && each.quantity === quantity);
        expect(of('tcp-1.throughput')?.rounds).to.have.length(2);
        expect(of('tcp-1.throughput')?.median).to.be.greaterThan(1e6);
        expect(of('connections.rate')?.min).to.be.greaterThan(10);
        const [whole, ...parts] = ['', '.user', '.system', '.softirq'].map(
          (part) => of(`tcp-1.cpu${part}`)?.rounds[0],
        );
        expect(parts.reduce<number>((sum, part) => sum + (part ?? 0), 0)).to.be.closeTo(whole ?? 0, 1e-9);
      }
      expect(report.results.some(({ quantity }) => quantity === 'memory.resident')).to.equal(true);
      // Captured on the underlay, against the arithmetic.
      expect(
        report.overheads.map(({ computedBytes, captured }) => [computedBytes, captured?.agrees]),
      ).to.deep.equal([
        [0, true],
        [50, true],
      ]);
      expect(report.commands.some(({ argv }) => argv.includes('iperf3'))).to.equal(true);
      expect(report.machine.programs).to.include.keys('iperf3', 'vtepd', 'ip');
      expect(await readFile(html, 'utf8')).to.match(/<svg/);
      await noneLeft(report);
    } finally {
      await rm(html, { force: true });
    }
  });

  it('Ctrl-C: prints what it has, exits with 1, and leaves no namespace', async () => {
    const file = join(tmpdir(), `vtepd-bench-${randomBytes(4).toString('hex')}.json`);
    try {
      const args = [
        ...['--rounds', '1', '--seconds', '0.2', '--paths', 'underlay,vxlan'],
        '--measure',
        'tcp-1,latency',
        '--json',
        file,
      ];
      const child = await start(process.execPath, [VTEPD, 'bench', ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const text = collect(child);
      await until(() => /^round trips/m.test(text()), { what: 'the second part', deadlineMs: 60_000 });
      process.kill(child.pid, 'SIGINT');
      expect(await child.exited).to.include({ status: 1 });
      expect(text()).to.include('interrupted');
      expect(text()).to.match(/TCP, 1 stream.*\n {2}bare underlay +\d/);
      const report = parseReport(await readFile(file, 'utf8'), file);
      expect(report.complete).to.equal(false);
      expect(report.results.some(({ quantity }) => quantity === 'tcp-1.throughput')).to.equal(true);
      expect(report.results.some(({ quantity }) => quantity === 'latency.p50')).to.equal(false);
      await noneLeft(report);
    } finally {
      await rm(file, { force: true });
    }
  });

  it('says what this machine lacks, at once and with its Debian package', async () => {
    const bare = await bench(['--quick'], { ...process.env, PATH: '/nonexistent' });
    expect(bare.status).to.equal(1);
    expect(bare.stderr).to.match(/lacks .*iperf3.*apt-get install .*iperf3 sockperf/);
    expect(bare.stderr).to.include('tcpdump');
    // In a user namespace without a mapping nobody is root.
    const args = ['-U', process.execPath, VTEPD, 'bench', '--quick'];
    const unprivileged = await run('unshare', args, { tolerant: true });
    expect(unprivileged.status).to.equal(1);
    expect(unprivileged.stderr).to.match(/needs root: run it with sudo/);
  });

  it('refuses what it does not understand as usage, and a file that cannot be written at once', async () => {
    const io: CommandIo = {
      out: () => {},
      err: () => {},
      environment: {},
      isTerminal: false,
      signal: never,
      hide: () => {},
    };
    const failure = async (args: readonly string[]): Promise<unknown> =>
      command.run(args, io).catch((error: unknown) => error);
    for (const args of [
      ['--paths', 'underlay,vxlam'],
      ['--measure', 'everything'],
      ['--rounds', '0'],
      ['--seconds', '0.1'],
      ['--seconds', 'long'],
      ['--to', 'host', '--paths', 'vxlan'],
      ['--to', 'host:99999'],
      ['--cni-conf-dir', '/etc/cni/net.d'],
      ['serve'],
      ['serve', '--allow', 'somebody'],
      ['fast'],
    ]) {
      expect(await failure(args), args.join(' ')).to.be.instanceOf(UsageError);
    }
    expect(String(await failure(['--json', '/nonexistent/report.json']))).to.match(
      /report\.json cannot be written/,
    );
    const ended = await bench(['--rounds', '0']);
    expect(ended.status).to.equal(2);
    expect(ended.stderr).to.match(/vtepd bench: --rounds takes/);
  });
});

describe('vtepd bench between two machines', function () {
  this.timeout(90_000);
  let lab: Lab;

  before(async function () {
    need(this, 'root', 'ip', 'nft', 'busybox', 'iperf3', 'sockperf');
    lab = await Lab.create({ nodes: 2, store: 'embedded' });
    await lab.startDaemons();
  });
  after(() => lab?.close());

  /** In the node's namespace, and else as on a machine of its own. */
  const at = (node: number, args: readonly string[]): [string, string[]] => [
    'nsenter',
    [`--net=${namespacePath(lab.node(node).namespace)}`, process.execPath, VTEPD, 'bench', ...args],
  ];
  const cniOf = (node: number): string[] => {
    const { confDir, binDir } = lab.node(node).cni;
    return ['--cni-conf-dir', confDir, '--cni-bin-dir', binDir];
  };

  it('measures between the hosts, and between pods that it attaches and detaches', async () => {
    const allowed = ['--allow', lab.node(1).address];
    const server = await start(...at(2, ['serve', ...allowed, ...cniOf(2)]), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const said = collect(server);
    try {
      await until(() => said().includes('waiting at'), { what: 'the server', deadlineMs: 20_000 });
      const wish = ['--rounds', '1', '--seconds', '0.2', '--measure', 'tcp-1,latency,connections', '--json'];
      const to = ['--to', lab.node(2).address, ...cniOf(1)];
      const result = await run(...at(1, [...to, ...wish]), { tolerant: true, timeoutMs: 80_000 });
      expect(result.status, result.stderr).to.equal(0);
      const report = parseReport(result.stdout, 'stdout');
      expect(report.problems.filter((text) => !/other programs|hypervisor/.test(text))).to.deep.equal([]);
      expect(report.contestants.map(({ id, mtuBytes }) => `${id} ${mtuBytes}`)).to.deep.equal([
        'underlay 1500',
        'pods 1450',
      ]);
      const measured = report.results.map(
        ({ contestant, quantity, direction = 'either way' }) => `${contestant} ${quantity} ${direction}`,
      );
      for (const contestant of ['underlay', 'pods']) {
        expect(measured).to.include.members([
          `${contestant} tcp-1.throughput forward`,
          `${contestant} tcp-1.throughput reverse`,
          `${contestant} latency.p50 forward`,
          `${contestant} connections.rate either way`,
        ]);
      }
      // It is one machine, whose processor time counts once.
      expect(report.contestants[0]?.about).to.include('Both ends are of one machine');
      const trips = report.results.find(({ quantity }) => quantity === 'latency.p50');
      expect(trips?.distribution?.samples).to.be.greaterThan(100);
      // Where nobody serves, the message says what to run there.
      const other = await run(...at(1, ['--to', `${lab.node(1).address}:1`, ...wish]), { tolerant: true });
      expect(other.stderr).to.match(/cannot be reached.*vtepd bench serve --allow/);
      process.kill(server.pid, 'SIGINT');
      expect(await server.exited).to.include({ status: 0 });
      expect(await namespaces('vtbench-')).to.deep.equal([]);
    } finally {
      await stop(server);
    }
  });

  it('serves nobody who is not allowed', async () => {
    const server = await start(...at(2, ['serve', '--allow', '192.0.2.99']), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const said = collect(server);
    try {
      await until(() => said().includes('waiting at'), { what: 'the server', deadlineMs: 20_000 });
      const wish = ['--to', lab.node(2).address, '--measure', 'tcp-1'];
      const result = await run(...at(1, wish), { tolerant: true });
      expect(result.status).to.equal(1);
      expect(result.stderr).to.match(/is this machine one of its --allow/);
      expect(said()).to.include(`refused`);
    } finally {
      await stop(server);
    }
  });

  it('a link of a known rate measures as that', async () => {
    const limitBitsPerSecond = 50e6;
    const [one, two] = [lab.node(1), lab.node(2)];
    // On a busy machine its timer comes late: the bucket holds what goes through in 10 ms meanwhile.
    const tbf = ['tc', 'qdisc', 'add', 'dev', NODE_INTERFACE, 'root', 'tbf'];
    await runInside(one.namespace, [...tbf, 'rate', '50mbit', 'burst', '64kb', 'latency', '100ms']);
    try {
      const log = new CommandLog();
      const ends = {
        from: new LocalEnd(one.namespace, one.address, log),
        to: new LocalEnd(two.namespace, two.address, log),
      };
      const common = {
        ...ends,
        direction: 'forward',
        streams: 1,
        port: 5300,
        what: 'tbf',
        signal: never,
      } as const;
      // tbf counts whole frames, of which the segment's payload is a part.
      const layers = layersOf('none', 'ipv4', 1500);
      const frameBytes = layers.reduce((sum, { bytes }) => sum + bytes, 0);
      const payloadBytes = layers.find(({ name }) => name === 'payload')?.bytes ?? 0;
      const tcp = await transfer({ ...common, volumeBytes: 9e6 });
      expect((tcp.bitsPerSecond * frameBytes) / payloadBytes / limitBitsPerSecond).to.be.within(0.95, 1.05);
      // More than goes through.
      const udpPayload = 1200;
      const udp = await transfer({
        ...common,
        udp: { payloadBytes: udpPayload, bitsPerSecond: 100e6 },
        volumeBytes: 9e6,
      });
      const wire = (udp.bitsPerSecond * (udpPayload + 42)) / udpPayload;
      expect(wire / limitBitsPerSecond).to.be.within(0.95, 1.05);
    } finally {
      await runInside(one.namespace, ['tc', 'qdisc', 'del', 'dev', NODE_INTERFACE, 'root']);
    }
  });
});

function collect(child: Child): () => string {
  let text = '';
  for (const stream of [child.process.stdout, child.process.stderr]) {
    stream?.on('data', (chunk) => {
      text += String(chunk);
    });
  }
  return () => text;
}
