/** The lab's own parts on real namespaces, before any daemon: two nodes on an underlay. */
import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { takeApart } from '../../../encap/wire/layers.ts';
import { Capture } from '../../../overlay/lab/capture.ts';
import { CommandError, run } from '../../../overlay/lab/command.ts';
import { Lab, sweep } from '../../../overlay/lab/lab.ts';
import { namespaces } from '../../../overlay/lab/namespace.ts';
import { ping, RunningPing } from '../../../overlay/lab/ping.ts';
import { RunningStream, throughput } from '../../../overlay/lab/tcp.ts';
import { NODE_INTERFACE } from '../../../overlay/lab/underlay.ts';
import { DeadlineError, until } from '../../../overlay/lab/wait.ts';
import { parseSubnet } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';

describe('overlay/lab', () => {
  let lab: Lab;
  before(async function () {
    need(this, 'root', 'ip', 'nft', 'busybox', 'tcpdump');
    lab = await Lab.create({ nodes: 2, store: 'embedded' });
  });
  after(() => lab?.close());

  const route = () => ({
    from: lab.node(1).namespace,
    to: lab.node(2).namespace,
    address: lab.node(2).address,
  });

  it('joins its nodes by an underlay', async () => {
    const report = await ping(lab.node(1).namespace, lab.node(2).address, { count: 3 });
    expect(report).to.include({ sent: 3, received: 3, lost: 0 });
    expect(report.roundTripMs?.mean).to.be.greaterThan(0);
  });

  it('has only the nodes it was made with', () => {
    expect(() => lab.node(3)).to.throw(RangeError, '2 nodes');
  });

  it('drops and counts what bears a refused address, and nothing else', async () => {
    const { namespace } = lab.node(1);
    await lab.underlay.refuse([parseSubnet('10.244.0.0/16'), parseSubnet('fc00::/48')]);
    await ping(namespace, lab.node(2).address, { count: 2 });
    expect(await lab.underlay.refused()).to.equal(0);
    const stray = parseSubnet('10.244.7.7/32').address;
    const report = await ping(namespace, stray, { count: 2, device: NODE_INTERFACE });
    expect(report).to.include({ sent: 2, received: 0, lost: 2 });
    expect(await lab.underlay.refused()).to.equal(2);
  });

  it('captures frames as they pass', async () => {
    const { namespace } = lab.node(2);
    const capture = await Capture.start(namespace, NODE_INTERFACE, 'icmp');
    await ping(lab.node(1).namespace, lab.node(2).address, { count: 1 });
    await capture.untilCaptured(2);
    const packets = await capture.stop();
    expect(packets.map(({ bytes }) => takeApart(bytes, 8472).map(({ kind }) => kind))).to.deep.equal([
      ['ethernet', 'ipv4', 'icmp', 'data'],
      ['ethernet', 'ipv4', 'icmp', 'data'],
    ]);
  });

  it('counts what a running ping loses while the path is cut', async () => {
    const running = await RunningPing.start(lab.node(1).namespace, lab.node(2).address, 10);
    const cable = (how: string) => run('ip', ['-n', lab.underlay.namespace, 'link', 'set', 'n2', how]);
    const arrived = async () => {
      const { stdout } = await run('ip', ['-n', lab.underlay.namespace, '-s', '-j', 'link', 'show', 'n1']);
      return Number(JSON.parse(stdout)[0].stats64.rx.packets);
    };
    await running.untilAnswered(10);
    await cable('down');
    const [seen, sent] = [running.answered, await arrived()];
    await until(async () => (await arrived()) > sent + 3, { what: 'requests in vain', deadlineMs: 10_000 });
    await cable('up');
    await running.untilAnswered(seen + 10);
    const report = await running.stop();
    expect(report.lost).to.be.greaterThan(0).and.lessThan(report.sent);
  });

  it('carries a TCP stream whole', async () => {
    const stream = await RunningStream.start(route(), 1);
    const report = await stream.stop();
    expect(report.whole).to.equal(true);
    expect(report.sink.bytes).to.equal(report.source.bytes);
  });

  it('measures TCP', async () => {
    expect((await throughput(route(), 1)).bitsPerSecond).to.be.greaterThan(1e6);
  });

  it('names a program that is missing, and a condition that never came true', async () => {
    const missing = await run('vtepd-no-such-program', []).catch((error) => error);
    expect(missing).to.be.instanceOf(CommandError);
    expect(missing.message).to.contain('not installed');
    const late = await until(() => false, { what: 'the moon', deadlineMs: 1 }).catch((error) => error);
    expect(late).to.be.instanceOf(DeadlineError);
    expect(late.message).to.contain('the moon');
  });

  it('leaves nothing when it is closed, and when only its name is left', async () => {
    const other = await Lab.create({ nodes: 1, store: 'embedded' });
    expect(await namespaces(`${other.run}-`)).to.have.length(2);
    const ping = await RunningPing.start(other.node(1).namespace, other.node(1).address);
    expect(await sweep(other.run)).to.equal(2);
    await ping.exited;
    expect(await namespaces(`${other.run}-`)).to.deep.equal([]);
    expect(existsSync(other.dir)).to.equal(false);
    await other.close();
    expect(await sweep(other.run)).to.equal(0);
    expect(await sweep('../etc').catch((error) => error)).to.be.instanceOf(RangeError);
  });
});
