import { Writable } from 'node:stream';
import { expect } from 'chai';
import fc from 'fast-check';
import { Secret } from '../../../overlay/config/secret.ts';
import {
  type Log,
  type LogFormat,
  type LogLevel,
  messageWithCauses,
  recordingLog,
} from '../../../overlay/ops/log.ts';
import { type OpenLog, openLog } from '../../../overlay/ops/open-log.ts';
import { printable, redactor, withoutUser } from '../../../overlay/ops/redact.ts';

interface Wanted {
  readonly level?: LogLevel;
  readonly format?: LogFormat;
  readonly secrets?: readonly string[];
}

/** What a log writes. */
async function linesOf(write: (log: Log) => void, { level = 'info', format = 'text', secrets }: Wanted = {}) {
  let written = '';
  const stream = new Writable({
    write(chunk, _encoding, done) {
      written += String(chunk);
      done();
    },
  });
  const log = openLog({ level, format, secrets, stream, now: () => new Date(0) });
  write(log);
  await log.close();
  expect(written === '' || written.endsWith('\n')).to.equal(true);
  return written.split('\n').slice(0, -1);
}

describe('ops: log', () => {
  it('writes a line for people: time, level, message, fields', async () => {
    const lines = await linesOf((log) =>
      log
        .child({ store: 'etcd' })
        .warn('the store is away', { durationMs: 1.23456, reason: 'two "words"', peer: undefined }),
    );
    expect(lines).to.deep.equal([
      '1970-01-01T00:00:00.000Z warn  the store is away store=etcd durationMs=1.235 reason="two \\"words\\""',
    ]);
  });

  it('writes a line for the journal: its priority first, and no time', async () => {
    const write = (log: Log) => {
      log.error('a\n<0>forged', { reason: 'two words' });
      log.warn('b');
      log.info('c', { count: 2 });
      log.debug('d');
    };
    const lines = await linesOf(write, { format: 'journal', level: 'debug' });
    expect(lines).to.deep.equal(['<3>a\\n<0>forged reason="two words"', '<4>b', '<6>c count=2', '<7>d']);
  });

  it('writes a JSON object for machines, whose head no field can replace', async () => {
    const [line = ''] = await linesOf(
      (log) => log.info('hello', { level: 'error', message: 'x', count: 2, list: [1] }),
      {
        format: 'json',
      },
    );
    expect(JSON.parse(line)).to.deep.equal({
      time: '1970-01-01T00:00:00.000Z',
      level: 'info',
      message: 'hello',
      count: 2,
      list: '[1]',
    });
  });

  it('leaves out what is below the level', async () => {
    const speak = (log: Log) => {
      log.debug('d');
      log.info('i');
      log.warn('w');
      log.error('e');
    };
    for (const [level, count] of [
      ['debug', 4],
      ['info', 3],
      ['warn', 2],
      ['error', 1],
    ] as const) {
      expect(await linesOf(speak, { level })).to.have.length(count);
    }
  });

  it('has another level and format, and another secret, from the next line on', async () => {
    const lines = await linesOf(
      (log) => {
        const open = log as OpenLog;
        log.debug('door');
        log.info('door');
        open.configure({ level: 'debug', format: 'json' });
        open.hide('door');
        log.debug('door and window');
        open.configure({ level: 'error', format: 'text' });
        log.warn('door');
      },
      { secrets: ['window'] },
    );
    expect(lines).to.have.length(2);
    expect(lines[0]).to.match(/ info {2}door$/);
    expect(JSON.parse(lines[1] ?? '')).to.include({ level: 'debug', message: '*** and ***' });
  });

  it('prints an error with its causes and its code, its stack only at level debug', async () => {
    const cause = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED' });
    const error = Object.assign(new Error('the store is away', { cause }), { code: 'VTEPD_X' });
    const write = (log: Log) => log.error('failed', { error });
    const [line = ''] = await linesOf(write);
    expect(line).to.include('error="the store is away: connection refused" code=VTEPD_X');
    expect(line).to.not.include('stack=');
    expect((await linesOf(write, { level: 'debug' })).join()).to.include('stack="Error: the store is away');
    const grpc = new Error('etcd: no connection', { cause: new Error('14 UNAVAILABLE: no connection') });
    expect(messageWithCauses(grpc)).to.equal('etcd: no connection');
    const many = new AggregateError([new Error('a refused'), new Error('a refused'), new Error('b refused')]);
    expect(messageWithCauses(many)).to.equal('a refused; b refused');
  });

  it('writes one line an entry, whatever is in it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: 'binary' }),
        fc.string({ unit: 'binary' }),
        async (message, value) => {
          for (const format of ['text', 'json'] as const) {
            const lines = await linesOf(
              (log) => log.info(message, { reason: value, error: new Error(value) }),
              { format },
            );
            expect(lines).to.have.length(1);
            if (format === 'text') expect(lines[0]).to.equal(printable(lines[0] ?? ''));
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('lets no secret through, in message, field, error or circle', async () => {
    const password = 'p"w/d ü?';
    const circle: { self?: unknown; password: Secret } = { password: new Secret(password) };
    circle.self = circle;
    const write = (log: Log) => {
      log.info(`password ${password}`, { reason: password, list: [password], secret: new Secret(password) });
      log.error('failed', {
        error: new Error(`at http://u:${encodeURIComponent(password)}@h/`, { cause: new Error(password) }),
      });
      log.info('circle', { circle });
      log.info('http://user:other@etcd:2379 is away');
    };
    for (const format of ['text', 'json'] as const) {
      const text = (await linesOf(write, { format, level: 'debug', secrets: [password] })).join('\n');
      for (const form of [password, encodeURIComponent(password), 'p\\"w', 'other', 'user']) {
        expect(text).to.not.include(form);
      }
      expect(text).to.include('http://etcd:2379 is away');
    }
  });

  it('records for tests', () => {
    const log = recordingLog();
    log.child({ store: 'etcd' }).debug('x', { count: 1 });
    expect(log.entries).to.deep.equal([
      { level: 'debug', message: 'x', fields: { store: 'etcd', count: 1 } },
    ]);
  });

  it('takes the user part from URLs only', () => {
    expect(withoutUser('GET https://a:b@c@h:1/x@y, http://h/')).to.equal('GET https://h:1/x@y, http://h/');
    expect(withoutUser('mail me@example.org')).to.equal('mail me@example.org');
    expect(redactor(['abc', 'secret', 'secret2'])('abc secret2 secret')).to.equal('abc *** ***');
  });
});
