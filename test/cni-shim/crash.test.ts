/**
 * kill -9 of the daemon at every step of ADD and DEL, and at any moment. Afterwards a daemon is started on
 * what is left: no address of either family is lost, none is given twice, and what the runtime does next
 * succeeds.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { hostInterfaceName } from '../../cni-shim/attachment.ts';
import type { Checkpoint } from '../../cni-shim/verbs/context.ts';
import { need } from '../lab/capability.ts';
import { TestNode } from './test-node.ts';

describe('a daemon that is killed', () => {
  let node: TestNode;
  let daemon: ChildProcess | undefined;

  before(function () {
    need(this, 'root', 'ip', 'make', 'gcc');
  });
  beforeEach(() => {
    node = new TestNode('dual');
  });
  afterEach(async () => {
    await kill();
    await node.remove();
  });

  const start = async (checkpoint?: Checkpoint): Promise<void> => {
    const program = join(import.meta.dirname, 'crashing-daemon.js');
    const { namespace, network, stateDir, socketPath } = node;
    const args = [namespace, String(network.current.bridgeIndex), stateDir, socketPath];
    daemon = spawn(process.execPath, [program, ...args, ...(checkpoint === undefined ? [] : [checkpoint])], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line]: unknown[] = await Promise.race([
      once(daemon.stdout ?? daemon, 'data'),
      once(daemon, 'exit').then(([status]) => [`the daemon ended: ${status}`]),
    ]);
    expect(String(line)).to.equal('listening\n');
  };

  const dead = async (): Promise<void> => {
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null)
      await once(daemon, 'exit');
    daemon = undefined;
  };

  const kill = async (): Promise<void> => {
    daemon?.kill('SIGKILL');
    await dead();
  };

  const files = (folder: string): string[] => readdirSync(join(node.stateDir, folder)).sort();

  /** What must hold whenever a daemon has just started. */
  const expectOrder = (): void => {
    const records = files('attachments').map((name) => name.split('.')[0] ?? '');
    expect(new Set(records).size, 'records').to.equal(records.length);
    expect(node.podLinks().sort(), 'links without a record').to.deep.equal([...records].sort());
    const rows = node.registry?.rows() ?? [];
    const held = rows.flatMap((row) => row.ips.map((ip) => `${ip} ${row.containerID}\r\n${row.ifname}`));
    const folder = join(node.stateDir, 'networks/test-net');
    mkdirSync(folder, { recursive: true });
    const reserved = readdirSync(folder)
      .filter((name) => /^[\da-f.:]+$/.test(name))
      .map((name) => `${name} ${readFileSync(join(folder, name), 'utf8')}`);
    expect(held.sort(), 'addresses').to.deep.equal(reserved.sort());
    expect(files('scratch')).to.deep.equal([]);
  };

  const expectNothingLeft = (): void => {
    expect(node.registry?.rows()).to.deep.equal([]);
    expectOrder();
    expect(node.podLinks()).to.deep.equal([]);
  };

  const addSteps: readonly Checkpoint[] = [
    'add:reserved',
    'add:created',
    'add:configured',
    'add:settled',
    'add:answered',
    'add:confirmed',
  ];
  for (const step of addSteps) {
    it(`at ${step}: the pod can be attached again, and detached`, async () => {
      await start(step);
      const pod = node.addPod();
      const first = await node.call('ADD', { pod });
      await dead();
      // The runtime has the answer in the last two, and knows nothing in the others.
      const answered = step === 'add:answered' || step === 'add:confirmed';
      expect(first.code).to.equal(answered ? undefined : 11);
      await node.start();
      expectOrder();
      expect(node.registry?.rows()).to.have.length(step === 'add:reserved' ? 0 : 1);
      if (step === 'add:confirmed') {
        expect(await node.call('ADD', { pod })).to.include({ code: 101 });
      } else {
        const { result } = await node.add(pod);
        expect(node.registry?.rows()).to.have.length(1);
        expect(await node.call('CHECK', { pod, config: { prevResult: result } })).to.include({ status: 0 });
      }
      expect(await node.call('DEL', { pod })).to.include({ status: 0 });
      expectNothingLeft();
    });

    it(`at ${step}: the pod can be detached`, async () => {
      await start(step);
      const pod = node.addPod();
      await node.call('ADD', { pod });
      await dead();
      // Kept for the daemon, which carries it out at its start.
      expect(await node.call('DEL', { pod })).to.include({ status: 0 });
      await node.start();
      expectNothingLeft();
    });
  }

  for (const step of ['del:leaving', 'del:removed', 'del:released'] as const) {
    it(`at ${step}: the pod is gone with the next start`, async () => {
      await start(step);
      const [pod, other] = [node.addPod(), node.addPod()];
      await node.add(pod);
      const { addresses } = await node.add(other);
      expect(await node.call('DEL', { pod })).to.include({ status: 0 });
      await dead();
      await node.start();
      expectOrder();
      expect(node.registry?.rows().map((row) => row.ips)).to.deep.equal([addresses]);
      await node.add(pod);
    });
  }

  it('between two files: what is there is brought in order', async () => {
    await node.start();
    const pods = [node.addPod(), node.addPod(), node.addPod(), node.addPod()];
    for (const pod of pods) await node.add(pod);
    await node.stop();
    const attachments = join(node.stateDir, 'attachments');
    const recordOf = (pod: string): string =>
      join(
        attachments,
        readdirSync(attachments).find((name) =>
          readFileSync(join(attachments, name), 'utf8').includes(pod),
        ) ?? '',
      );
    const addressOf = (index: number): string =>
      join(node.stateDir, `networks/test-net/10.244.7.${index + 2}`);
    // A record whose address file was not written yet, one whose file is empty; their links stand.
    rmSync(addressOf(0));
    writeFileSync(addressOf(1), '');
    // A record of an ADD that came no further: no link, no file; and one whose file is there.
    const record = readFileSync(recordOf(pods[2] ?? ''), 'utf8');
    await node.start();
    await node.call('DEL', { pod: pods[2] ?? '' });
    await node.call('DEL', { pod: pods[3] ?? '' });
    await node.stop();
    const half = join(node.stateDir, 'half.json');
    writeFileSync(half, record);
    copyFileSync(half, join(attachments, 'vtpaaaaaaaaaaaa.adding.json'));
    writeFileSync(join(attachments, 'vtpbbbbbbbbbbbb.adding.json'), '');
    // The address of a pod that stands, still named by the record of one that had it before.
    const former = JSON.parse(record);
    const formerKey = { network: 'test-net', containerID: 'former', ifname: 'eth0' };
    former.addresses[0].address = '10.244.7.2';
    writeFileSync(
      join(attachments, `${hostInterfaceName(formerKey)}.json`),
      JSON.stringify({ ...former, ...formerKey }),
    );
    writeFileSync(addressOf(3), `${pods[3]}\r\neth0`);
    await node.start();
    // The record under a wrong name is reported and its addresses stay reserved by their files.
    expect(
      node.log.entries.some(({ level, message }) => level === 'error' && message.includes('cannot be read')),
    ).to.equal(true);
    rmSync(join(attachments, 'vtpaaaaaaaaaaaa.adding.json'));
    expect(node.registry?.rows().map((row) => row.containerID)).to.have.members([pods[0], pods[1]]);
    expect(await node.call('DEL', { pod: pods[3] ?? '' })).to.include({ status: 0 });
    expectOrder();
    expect(node.log.entries.some(({ message }) => message.includes('two attachments claim'))).to.equal(false);
  });

  it('at any moment: in order again after the next start', async function () {
    this.timeout(60_000);
    const pods = Array.from({ length: 6 }, () => node.addPod());
    for (let round = 0; round < 6; round++) {
      await start();
      const calls = pods.map(async (pod, i) => {
        // Half of them come and go, so that the kill meets both verbs.
        const added = await node.call('ADD', { pod });
        if (i % 2 === 0) await node.call('DEL', { pod });
        return added;
      });
      await sleep(12 * round);
      await kill();
      const added = await Promise.all(calls);
      await node.start();
      expectOrder();
      for (const [i, pod] of pods.entries()) {
        expect(added[i]?.code, added[i]?.stdout).to.be.oneOf([undefined, 11]);
        // The runtime knows of the pod, unless it has detached it; an ADD that failed it tries again.
        if (added[i]?.code === 11 || i % 2 === 0) await node.add(pod);
        else
          expect(await node.call('ADD', { pod })).to.satisfy(
            ({ code, status }: { code?: number; status: number }) => code === 101 || status === 0,
          );
      }
      const rows = node.registry?.rows() ?? [];
      expect(new Set(rows.flatMap((row) => row.ips)).size).to.equal(2 * 6);
      expect(
        (await Promise.all(pods.map((pod) => node.call('DEL', { pod })))).every(({ status }) => status === 0),
      ).to.equal(true);
      expectNothingLeft();
      await node.stop();
    }
  });
});
