/** What the service manager hears, over a real socket; that the daemon says it is cluster/service.test.ts. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Readiness } from '../../../overlay/desired/pods.ts';
import { NotifySocket } from '../../../overlay/kernel/notify-socket.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { recordingLog } from '../../../overlay/ops/log.ts';
import { readServiceEnvironment, ServiceNotifier } from '../../../overlay/ops/sd-notify.ts';
import { NotifyListener } from '../../lab/notify-listener.ts';

describe('ops: the service manager', () => {
  let folder = '';
  let listener: NotifyListener;
  let socket: NotifySocket;
  let notifier: ServiceNotifier | undefined;
  let readiness: Readiness;
  let stall: string | undefined;
  /** The manager's queue is full. */
  let busy: boolean;
  const log = recordingLog();

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vtepd-notify-'));
    listener = new NotifyListener(join(folder, 'notify'));
    socket = NotifySocket.open(listener.name);
    readiness = { ready: false, reason: 'no lease\nyet' };
    stall = undefined;
    busy = false;
  });
  afterEach(async () => {
    notifier?.close();
    socket[Symbol.dispose]();
    await listener.close();
    await rm(folder, { recursive: true });
  });

  function start(watchdogMs?: number): ServiceNotifier {
    notifier = new ServiceNotifier({
      watchdogMs,
      send: (message) => !busy && socket.send(message),
      readiness: () => readiness,
      stall: () => stall,
      summary: () => '10.244.1.0/24, 3 peers',
      monotonicMicros: () => 12345n,
      log,
    });
    return notifier;
  }

  it('says what it waits for and asks for more time, until it is ready: once', () => {
    const one = start();
    expect(listener.received).to.deep.equal([
      'STATUS=Not ready: no lease\\nyet',
      'EXTEND_TIMEOUT_USEC=60000000',
    ]);
    readiness = { ready: true };
    one.look();
    one.look();
    expect(listener.received.slice(2)).to.deep.equal(['READY=1', 'STATUS=Ready: 10.244.1.0/24, 3 peers']);
  });

  it('says that it is no longer ready, and that it is again, by the status alone', () => {
    readiness = { ready: true };
    const one = start();
    readiness = { ready: false, reason: 'the kernel refuses a route' };
    one.look();
    readiness = { ready: true };
    one.look();
    expect(listener.received).to.deep.equal([
      'READY=1',
      'STATUS=Ready: 10.244.1.0/24, 3 peers',
      'STATUS=Not ready: the kernel refuses a route',
      'STATUS=Ready: 10.244.1.0/24, 3 peers',
    ]);
  });

  it('gives a sign of life with each beat, and none while it is stalled', async () => {
    readiness = { ready: true };
    start(20);
    await until(() => listener.count('WATCHDOG=1') >= 3, { what: 'three beats', deadlineMs: 10_000 });
    stall = 'a pass without an end';
    await listener.until(/^STATUS=Stalled: a pass without an end$/);
    const before = listener.count('WATCHDOG=1');
    stall = undefined;
    const from = listener.received.length;
    await listener.until(/^STATUS=Ready/, from);
    // The beats in between were silent: the first after them says first that all is well again.
    expect(listener.received.slice(from)[0]).to.match(/^STATUS=Ready/);
    await until(() => listener.count('WATCHDOG=1') > before, { what: 'a beat', deadlineMs: 10_000 });
  });

  it('asks for no more time while it is stalled in its start', async () => {
    stall = 'a pass without an end';
    start(20);
    await listener.until(/^STATUS=Stalled/);
    expect(listener.count('EXTEND_TIMEOUT_USEC')).to.equal(0);
    expect(listener.count('WATCHDOG')).to.equal(0);
  });

  it('is reloading between the two, once it runs, and not before: that would end the start', () => {
    const one = start();
    one.reloading();
    one.reloaded();
    expect(listener.received.join()).to.not.match(/RELOADING|READY/);
    readiness = { ready: true };
    one.look();
    const from = listener.received.length;
    one.reloading();
    readiness = { ready: false, reason: 'the endpoints changed' };
    one.look();
    one.reloaded();
    expect(listener.received.slice(from)).to.deep.equal([
      'RELOADING=1',
      'MONOTONIC_USEC=12345',
      'STATUS=Not ready: the endpoints changed',
      'READY=1',
    ]);
  });

  it('says later what a full queue did not take', () => {
    readiness = { ready: true };
    busy = true;
    const one = start();
    one.look();
    expect(listener.received).to.deep.equal([]);
    busy = false;
    one.look();
    expect(listener.received).to.deep.equal(['READY=1', 'STATUS=Ready: 10.244.1.0/24, 3 peers']);
    one.reloading();
    busy = true;
    one.reloaded();
    busy = false;
    one.look();
    expect(listener.received.slice(-2)).to.deep.equal(['MONOTONIC_USEC=12345', 'READY=1']);
  });

  it('says nothing after it said that it stops', () => {
    const one = start();
    one.stopping();
    readiness = { ready: true };
    one.look();
    one.reloading();
    one.stopping();
    expect(listener.received.slice(2)).to.deep.equal(['STOPPING=1', 'STATUS=Stopping; the data path stays.']);
  });

  it('goes on when nobody listens any more, and says so once', async () => {
    const one = start();
    await listener.close();
    readiness = { ready: true };
    one.look();
    one.look();
    expect(log.entries.map(({ level, message }) => `${level} ${message}`)).to.deep.equal([
      'warn the service manager cannot be told how it goes',
    ]);
    listener = new NotifyListener(listener.name);
    one.look();
    expect(listener.received).to.include('READY=1');
  });

  it('cuts a status that nobody would read to its end', () => {
    readiness = { ready: false, reason: 'x'.repeat(1000) };
    start();
    expect(listener.received[0]).to.have.length('STATUS='.length + 300);
  });

  it('reads what the manager says: where it listens, and how often it wants to hear from whom', () => {
    const read = (environment: Record<string, string>) => readServiceEnvironment(environment, 42);
    expect(read({})).to.equal(undefined);
    expect(read({ NOTIFY_SOCKET: '', WATCHDOG_USEC: '1000000' })).to.equal(undefined);
    expect(read({ NOTIFY_SOCKET: '/x' })).to.deep.equal({ socketName: '/x', watchdogMs: undefined });
    const watched = { NOTIFY_SOCKET: '/x', WATCHDOG_USEC: '30000000' };
    expect(read(watched)?.watchdogMs).to.equal(30_000);
    expect(read({ ...watched, WATCHDOG_PID: '42' })?.watchdogMs).to.equal(30_000);
    expect(read({ ...watched, WATCHDOG_PID: '41' })?.watchdogMs).to.equal(undefined);
    for (const WATCHDOG_USEC of ['0', '-5', 'x', '']) {
      expect(read({ ...watched, WATCHDOG_USEC })?.watchdogMs).to.equal(undefined);
    }
  });
});

describe('kernel: notify socket', () => {
  it('reaches an abstract name, and a path', async () => {
    const name = `vtepd-test-${randomBytes(6).toString('hex')}`;
    for (const where of [`@${name}`, join(tmpdir(), name)]) {
      const listener = new NotifyListener(where);
      const socket = NotifySocket.open(where);
      expect(socket.send('READY=1\nSTATUS=ä')).to.equal(true);
      expect(listener.received).to.deep.equal(['READY=1', 'STATUS=ä']);
      socket[Symbol.dispose]();
      await listener.close();
    }
  });

  it('says what is wrong with a name that it cannot use, and where nobody listens', () => {
    const codeOf = (use: () => unknown): unknown => {
      try {
        use();
      } catch (error) {
        return error instanceof Error && 'code' in error ? error.code : error;
      }
      return 'none';
    };
    for (const name of ['vsock:2:1', 'relative', `/${'x'.repeat(107)}`]) {
      expect(codeOf(() => NotifySocket.open(name))).to.equal('VTEPD_NOTIFY_ADDRESS');
    }
    using socket = NotifySocket.open('/nonexistent/vtepd');
    expect(codeOf(() => socket.send('x'))).to.equal('ENOENT');
  });

  it('reports a full queue instead of waiting', async () => {
    const listener = new NotifyListener(`@vtepd-test-${randomBytes(6).toString('hex')}`);
    using socket = NotifySocket.open(listener.name);
    let sent = 0;
    while (sent < 100_000 && socket.send('x')) sent++;
    expect(sent).to.be.lessThan(100_000);
    expect(listener.received).to.have.length(sent);
    expect(socket.send('y')).to.equal(true);
    await listener.close();
  });
});
