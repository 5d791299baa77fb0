/** A configuration that is read again: what counts as a change, and what is refused. */
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { checkFiles } from '../../../overlay/config/check-files.ts';
import { compareOptions, storeFingerprint } from '../../../overlay/config/fingerprint.ts';
import { type LoadedSettings, loadSettings } from '../../../overlay/config/load-settings.ts';
import type { Settings } from '../../../overlay/config/settings.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { recordingLog } from '../../../overlay/ops/log.ts';
import { ConfigReloader } from '../../../overlay/reload.ts';

describe('config: read again', () => {
  let folder = '';
  let file = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vtepd-reload-'));
    file = join(folder, 'vtepd.yaml');
    await write('');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  /** As an editor does it, and with what every start here needs. */
  async function write(text: string): Promise<void> {
    await writeFile(`${file}.new`, `run-dir: ${folder}/run\nstate-dir: ${folder}/state\n${text}`, {
      mode: 0o600,
    });
    await rename(`${file}.new`, file);
  }
  const load = (): Promise<LoadedSettings> =>
    loadSettings({ flags: new Map([['config', [file]]]), environment: {} });

  it('tells live changes from those that need a restart, secrets and patterns too', async () => {
    await write('etcd-username: a\netcd-password: one\niface-regex: ^eth\n');
    const started = (await load()).fingerprints;
    expect(compareOptions(started, started, (await load()).fingerprints)).to.deep.equal({
      live: [],
      needRestart: [],
    });
    await write('etcd-username: a\netcd-password: two\niface-regex: ^en\nbridge: br9\nlog-level: warn\n');
    const now = (await load()).fingerprints;
    expect(compareOptions(started, started, now)).to.deep.equal({
      live: ['etcd-password', 'iface-regex', 'log-level'],
      needRestart: ['bridge'],
    });
    // What is live counts from the last time, what is not from the start.
    expect(compareOptions(started, now, now)).to.deep.equal({ live: [], needRestart: ['bridge'] });
    expect([...now.values()].join(' ')).not.to.contain('two');
  });

  it('sees a certificate that was renewed under the same name', async () => {
    const caFile = join(folder, 'ca.pem');
    await writeFile(caFile, 'one');
    const { settings } = await load();
    const store = {
      ...settings.store,
      kind: 'etcd',
      endpoints: ['https://a'],
      prefix: '/p',
      caFile,
    } as const;
    const before = storeFingerprint(store);
    expect(storeFingerprint(store)).to.equal(before);
    await writeFile(caFile, 'two');
    expect(storeFingerprint(store)).not.to.equal(before);
  });

  describe('by the reloader', () => {
    let hangup: () => void = () => {};
    let applied: { settings: Settings; changed: readonly string[] }[];
    let reloader: ConfigReloader;
    let log: ReturnType<typeof recordingLog>;

    beforeEach(async () => {
      applied = [];
      log = recordingLog();
      reloader = new ConfigReloader({
        source: {
          loaded: await load(),
          file,
          load,
          setLog: () => {},
          onHangup: (listener) => {
            hangup = listener;
          },
        },
        log,
        checkFiles,
        apply: async (settings, changed) => {
          applied.push({ settings, changed });
          return settings.http === undefined ? [{ where: '--http', problem: 'is needed here' }] : [];
        },
      });
    });
    afterEach(() => reloader.close());

    const waitFor = (what: string, isSo: () => boolean): Promise<unknown> =>
      until(async () => isSo(), { what, deadlineMs: 10_000 });

    it('takes a changed file up by itself, and a SIGHUP without a change as well', async () => {
      await write('ip-masq: false\n');
      await waitFor('the change', () => applied.length === 1);
      expect(applied[0]?.changed).to.deep.equal(['ip-masq']);
      expect(applied[0]?.settings.overlay.masquerade).to.equal(false);
      hangup();
      await waitFor('the signal', () => applied.length === 2);
      expect(applied[1]?.changed).to.deep.equal([]);
    });

    it('refuses what cannot be used, tells why once, and goes on with the next', async () => {
      await write('ip-masq: perhaps\n');
      await reloader.reload('SIGHUP');
      await reloader.reload('SIGHUP');
      expect(applied).to.deep.equal([]);
      expect(reloader.state.problem).to.match(/vtepd\.yaml:3: ip-masq: "perhaps" must be true or false/);
      expect(log.entries.filter(({ level }) => level === 'error')).to.have.length(1);
      await write('ip-masq: false\n');
      await reloader.reload('SIGHUP');
      expect(reloader.state.problem).to.equal(undefined);
      expect(applied.map(({ changed }) => changed)).to.deep.equal([['ip-masq']]);
    });

    it('tells what could not be applied, and what needs a restart', async () => {
      await write('http: off\nstore: embedded\n');
      await reloader.reload('SIGHUP');
      expect(reloader.state.problem).to.equal('--http: is needed here');
      expect(reloader.state.needRestart).to.deep.equal(['store']);
      await write('');
      await reloader.reload('SIGHUP');
      expect(reloader.state).to.deep.include({ problem: undefined, needRestart: [] });
    });
  });
});
