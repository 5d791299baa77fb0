/** The plugin binary by itself: with the daemon away, hung or talking nonsense, and with hostile input. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { encodeAnswer, encodeIpv6Wish, encodeRequest, requestLength } from '../../cni-shim/frames.ts';
import { CNI_VERSIONS } from '../../cni-shim/versions.ts';
import { need } from '../lab/capability.ts';
import { buildShim, runPlugin, type ShimResult } from './test-node.ts';

/** Long for a machine under load; only the tests of a hung daemon wait it out, with a shorter one. */
const PATIENT = { VTEPD_CNI_TIMEOUT_MS: '20000' };
const IMPATIENT = { VTEPD_CNI_TIMEOUT_MS: '150' };

for (const [kind, target] of [
  ['as built', 'build/vtepd-cni'],
  ['under sanitizers', 'build/vtepd-cni.sanitized'],
] as const) {
  describe(`vtepd-cni ${kind}`, () => {
    let plugin: string;
    let directory: string;
    let socketPath: string;
    let server: Server | undefined;

    before(function () {
      need(this, 'root', 'make', 'gcc');
      this.timeout(120_000);
      plugin = buildShim(target);
    });
    beforeEach(() => {
      directory = mkdtempSync(join(tmpdir(), 'vtepd-shim-'));
      socketPath = join(directory, 'run', 'vtepd.sock');
    });
    afterEach(async () => {
      await new Promise<void>((resolve) =>
        server === undefined ? resolve() : server.close(() => resolve()),
      );
      server = undefined;
      rmSync(directory, { recursive: true, force: true });
    });

    const configuration = (extra: object = {}): string =>
      JSON.stringify({ cniVersion: '0.4.0', name: 'net', type: 'vtepd-cni', socket: socketPath, ...extra });

    const call = async (
      command: string | undefined,
      env: Record<string, string> = {},
      stdin: string | Buffer = configuration(),
    ): Promise<ShimResult & { code: number | undefined; msg: string }> => {
      const result = await runPlugin(
        plugin,
        { ...(command === undefined ? {} : { CNI_COMMAND: command }), ...PATIENT, ...env },
        stdin,
      );
      expect(result.stderr).to.equal('');
      const json = result.status === 0 ? {} : JSON.parse(result.stdout);
      return { ...result, code: json.code, msg: json.msg ?? '' };
    };

    /** A daemon that does with each request what it is told. */
    const listen = async (serve: (frame: Buffer, socket: Socket) => void): Promise<void> => {
      socketPath = join(directory, 'fake.sock');
      server = createServer((socket) => {
        let bytes = Buffer.alloc(0);
        socket.on('error', () => {});
        socket.on('data', (chunk) => {
          bytes = Buffer.concat([bytes, chunk]);
          if (bytes.length === requestLength(bytes)) serve(bytes, socket);
        });
      });
      await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
    };

    it('answers VERSION by itself, in the version it is asked in', async () => {
      const { status, stdout } = await call('VERSION');
      expect(status).to.equal(0);
      expect(JSON.parse(stdout)).to.deep.equal({ cniVersion: '0.4.0', supportedVersions: CNI_VERSIONS });
      for (const stdin of ['', 'x', '{"cniVersion":"9.9.9"}']) {
        expect(JSON.parse((await call('VERSION', {}, stdin)).stdout)).to.include({ cniVersion: '1.1.0' });
      }
    });

    it('says with the daemon away: try again later; to STATUS: not available', async () => {
      for (const command of ['ADD', 'CHECK', 'GC']) expect(await call(command)).to.include({ code: 11 });
      const status = await call('STATUS');
      expect(status).to.include({ code: 50, status: 1 });
      expect(status.msg).to.include(socketPath);
      expect(JSON.parse(status.stdout).cniVersion).to.equal('0.4.0');
    });

    it('keeps a DEL for a daemon that is away, whole and for root alone', async () => {
      const env = {
        CNI_CONTAINERID: 'c1',
        CNI_IFNAME: 'eth0',
        CNI_NETNS: '/gone',
        CNI_ARGS: 'A=1',
        CNI_PATH: '/p',
      };
      expect(await call('DEL', env)).to.include({ status: 0, stdout: '' });
      expect(await call('DEL', env)).to.include({ status: 0, stdout: '' });
      const spool = join(directory, 'run', 'spool');
      const names = readdirSync(spool);
      expect(names).to.have.length(2);
      expect(names[0]).to.match(/^\d{10}\.\d{9}\.\d+$/);
      expect(statSync(spool).mode & 0o777).to.equal(0o700);
      expect(statSync(join(spool, names[0] ?? '')).mode & 0o777).to.equal(0o600);
      expect(readFileSync(join(spool, names[0] ?? ''))).to.deep.equal(
        encodeRequest({
          command: 'DEL',
          containerID: 'c1',
          netns: '/gone',
          ifname: 'eth0',
          args: 'A=1',
          path: '/p',
          config: configuration(),
        }),
      );
    });

    it('does not say that a DEL is done when it can neither be delivered nor kept', async () => {
      writeFileSync(join(directory, 'run'), 'a file where the folder should be');
      expect(await call('DEL')).to.include({ code: 11, status: 1 });
    });

    it('hands over the request and prints the answer as it is', async () => {
      const frames: Buffer[] = [];
      await listen((frame, socket) => {
        frames.push(frame);
        socket.end(encodeAnswer(frames.length === 1 ? 0 : 1, '{"any":"thing \\u00e9 é"}'));
      });
      const large = configuration({ padding: 'x'.repeat(3_000_000) });
      const first = await call('GC', { CNI_PATH: '/a:/b' }, large);
      expect(first).to.include({ status: 0, stdout: '{"any":"thing \\u00e9 é"}\n' });
      expect(await call('GC')).to.include({ status: 1, stdout: '{"any":"thing \\u00e9 é"}\n' });
      expect(
        frames[0]?.equals(
          encodeRequest({
            command: 'GC',
            containerID: '',
            netns: '',
            ifname: '',
            args: '',
            path: '/a:/b',
            config: large,
          }),
        ),
      ).to.equal(true);
    });

    it('does not wait for a daemon that hangs', async () => {
      await listen(() => {});
      expect(await call('ADD', IMPATIENT)).to.include({ code: 11 });
      expect(await call('STATUS', IMPATIENT)).to.include({ code: 50 });
      expect(await call('DEL', { ...IMPATIENT, CNI_CONTAINERID: 'c1', CNI_IFNAME: 'eth0' })).to.include({
        status: 0,
      });
      expect(readdirSync(join(directory, 'spool'))).to.have.length(1);
    });

    it('takes an answer that is cut short, too long or none for no answer', async () => {
      const whole = encodeAnswer(0, '{}');
      const tooLong = Buffer.from(whole);
      tooLong.writeUInt32BE(2 ** 31, 4);
      const tooShort = Buffer.from(whole);
      tooShort.writeUInt32BE(3, 4);
      const answers = [
        Buffer.alloc(0),
        whole.subarray(0, 5),
        whole.subarray(0, 12),
        whole.subarray(0, -1),
        tooLong,
        tooShort,
        Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
        // There is no pod to switch IPv6 on in: nothing of the node's own is written.
        encodeIpv6Wish(),
      ];
      let next = 0;
      await listen((_, socket) => socket.end(answers[next++] ?? ''));
      for (const _ of answers) expect(await call('ADD')).to.include({ code: 11 });
      expect(next).to.equal(answers.length);
    });

    it('names what is wrong with its input', async () => {
      const cases: readonly (readonly [Record<string, string>, string | Buffer, number, string])[] = [
        [{}, '', 6, 'not a JSON object'],
        [{}, '[]', 6, 'not a JSON object'],
        [{}, '{"socket":"/a"', 6, 'not a JSON object'],
        [{}, Buffer.alloc(100, 0xff), 6, 'not a JSON object'],
        [{}, '{"socket":5}', 7, 'socket: must be'],
        [{}, '{"socket":"vtepd.sock"}', 7, 'socket: "vtepd.sock" is not an absolute path'],
        [{}, '{"socket":""}', 7, 'socket: "" is not an absolute path'],
        [{}, `{"socket":"/${'a'.repeat(107)}"}`, 7, 'at most 107 bytes'],
        [{}, Buffer.alloc(8 * 1024 * 1024 + 1, ' '), 7, 'longer than 8388608 bytes'],
        [
          { CNI_ARGS: 'x'.repeat(127 * 1024), CNI_PATH: 'y'.repeat(2048) },
          '{}',
          4,
          'longer than 131072 bytes',
        ],
        [{ CNI_NETNS: '/no/such/é"\\\n/path' }, configuration(), 3, 'CNI_NETNS: cannot open /no/such/'],
        [{ CNI_NETNS: '/proc/self/status' }, configuration(), 4, 'is not a network namespace'],
        [{ CNI_NETNS: '/' }, configuration(), 4, 'is not a network namespace'],
      ];
      for (const [env, stdin, code, text] of cases) {
        const result = await call('ADD', env, stdin);
        expect(result.code, text).to.equal(code);
        expect(result.msg).to.include(text);
      }
      expect(await call(undefined)).to.include({ code: 4 });
      expect((await call(undefined)).msg).to.include('CNI_COMMAND');
    });

    it('takes nonsense for a timeout as the default', async () => {
      await listen((_, socket) => socket.end(encodeAnswer(0, '')));
      for (const value of ['', '0', '-1', 'x', '99999999999999999999', '1e3']) {
        expect(await call('STATUS', { VTEPD_CNI_TIMEOUT_MS: value })).to.include({ status: 0, stdout: '' });
      }
    });
  });
}
