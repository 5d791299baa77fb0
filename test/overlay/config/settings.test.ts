import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { expect } from 'chai';
import fc from 'fast-check';
import { effectiveText } from '../../../overlay/config/example.ts';
import { loadOptions, type Source } from '../../../overlay/config/load-options.ts';
import { type LoadedSettings, loadSettings } from '../../../overlay/config/load-settings.ts';
import { environmentName, type OptionName } from '../../../overlay/config/options.ts';
import { deviceName, secretsOf } from '../../../overlay/config/settings.ts';
import { SettingsError } from '../../../overlay/config/settings-error.ts';

type Texts = Readonly<Record<string, string>>;

describe('config: settings', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vtepd-config-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  let files = 0;
  async function written(text: string, mode = 0o600): Promise<string> {
    const path = join(folder, `${++files}.yaml`);
    await writeFile(path, text, { mode });
    return path;
  }

  interface Given {
    readonly flags?: Texts | undefined;
    readonly environment?: Texts | undefined;
    readonly file?: string | undefined;
  }

  async function sources({ flags = {}, environment = {}, file }: Given) {
    const given = new Map(Object.entries(flags).map(([name, text]) => [name, [text]]));
    if (file !== undefined) given.set('config', [await written(file)]);
    return { flags: given, environment };
  }

  const load = async (given: Given): Promise<LoadedSettings> => loadSettings(await sources(given));

  async function refused(given: Given): Promise<string> {
    try {
      await load(given);
    } catch (error) {
      if (error instanceof SettingsError) return error.message;
      throw error;
    }
    return expect.fail('it was accepted');
  }

  it('has defaults that make sense together', async () => {
    const { settings, warnings } = await load({});
    expect(warnings).to.deep.equal([]);
    expect(settings).to.deep.include({
      nodeName: hostname(),
      http: { host: '127.0.0.1', port: 9472 },
      lease: { ttlMs: 86_400_000, renewMarginMs: 3_600_000, releaseOnExit: false },
      log: { level: 'info', format: 'text' },
    });
    expect(settings.store).to.include({ kind: 'etcd', prefix: '/coreos.com/network' });
    expect(settings.files.subnetFile).to.equal('/run/vtepd/subnet.env');
    expect(deviceName(settings.overlay, 'ipv4', 7)).to.equal('vtep.7');
    expect(deviceName(settings.overlay, 'ipv6', 7)).to.equal('vtep6.7');
  });

  it('takes flags over the environment over the file over the default, for any option', async () => {
    const two: Readonly<Partial<Record<OptionName, readonly [string, string, string]>>> = {
      'etcd-prefix': ['/a', '/b', '/c'],
      'log-level': ['debug', 'warn', 'error'],
      'ip-masq': ['false', 'true', 'false'],
      'resync-interval': ['5s', '6s', '7s'],
      'run-dir': ['/r1', '/r2', '/r3'],
      device: ['d1', 'd2', 'd3'],
      'public-ip': ['192.0.2.1', '192.0.2.2', '192.0.2.3'],
      iface: ['a,b', 'c', 'd,e'],
      http: ['off', '[::1]:1', '127.0.0.1:2'],
    };
    const names = Object.keys(two) as OptionName[];
    const places = fc.record({ flag: fc.boolean(), environment: fc.boolean(), file: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), places, async (name, place) => {
        const [flag = '', variable = '', line = ''] = two[name] ?? [];
        const given = await sources({
          flags: place.flag ? { [name]: flag } : undefined,
          environment: place.environment ? { [environmentName(name)]: variable } : undefined,
          file: place.file ? `${name}: '${line}'\n` : undefined,
        });
        const { origins } = await loadOptions([name], given);
        const wins: Source = place.flag
          ? 'flag'
          : place.environment
            ? 'environment'
            : place.file
              ? 'file'
              : 'default';
        const origin = origins.get(name);
        expect(origin?.source).to.equal(wins);
        const text = { flag, environment: variable, file: line, default: undefined }[wins];
        if (text !== undefined) expect(origin?.shown.join()).to.equal(text);
      }),
      { numRuns: 60 },
    );
  });

  it('names every mistake by flag, variable, or file and line, with the value and the remedy', async () => {
    const message = await refused({
      flags: { http: 'nowhere' },
      environment: { VTEPD_PUBLIC_IP: '224.0.0.1' },
      file: '# a comment\nlog-level: loud\n\netcd-pasword: x\niface:\ndevice: [a, b]\n',
    });
    const lines = message.split('\n');
    expect(lines).to.have.length(6);
    expect(message).to.match(/^--http: "nowhere" must be an address and a port/m);
    expect(message).to.match(/^VTEPD_PUBLIC_IP: "224.0.0.1" must be an address that a host can have/m);
    expect(message).to.match(/^\/\S+\.yaml:2: log-level: "loud" must be one of debug, info, warn, error/m);
    expect(message).to.match(/:4: etcd-pasword: there is no such option; did you mean etcd-password\?/);
    expect(message).to.match(/:5: iface: has no value/);
    expect(message).to.match(/:6: device: must be a single value/);
  });

  it('refuses what is no YAML, with the line and without the text', async () => {
    for (const bad of ['a: [hunter22\n', 'a: "hunter22\n', 'a: hunter22\n\tb: c\n']) {
      const message = await refused({ file: bad });
      expect(message).to.match(/\.yaml:\d+: is not YAML: /);
      expect(message).to.not.include('hunter22');
    }
    expect(await refused({ file: 'iface: a\niface: b\n' })).to.match(
      /:2: is not YAML: the option is there twice/,
    );
    const alias = await refused({ file: 'etcd-password: *hunter22\n' });
    expect(alias)
      .to.match(/:1: etcd-password: is an alias .* needs quotes/)
      .and.not.include('hunter22');
    expect(await refused({ file: '- a\n' })).to.match(/must be a YAML mapping/);
    expect(await refused({ flags: { config: '/nonexistent/vtepd.yaml' } })).to.match(/ENOENT.*--config/);
    expect(await refused({ flags: { config: folder } })).to.match(/is not a file/);
  });

  it('takes file values as they are written', async () => {
    const { settings } = await load({
      file: 'node-name: 0123\nip-masq: false\niface: [a, "b"]\niface-regex:\n  - ^a,b\n  - c\nresync-interval: 1m\n',
    });
    expect(settings.nodeName).to.equal('0123');
    expect(settings.overlay).to.include({ masquerade: false, resyncIntervalMs: 60_000 });
    expect(settings.underlay.names).to.deep.equal(['a', 'b']);
    expect(settings.underlay.patterns.map((each) => each.source)).to.deep.equal(['^a,b', 'c']);
  });

  it('takes an empty variable for one that is not set, and warns of one that is nearly an option’s', async () => {
    const environment = {
      VTEPD_IFACE: '',
      VTEPD_ETCD_PREFX: '/x',
      VTEPD_PORT: 'tcp://1.2.3.4:1',
      VTEPD_SERVICE_HOST: 'a',
    };
    const { settings, warnings } = await load({ environment });
    expect(settings.underlay.names).to.deep.equal([]);
    expect(warnings).to.deep.equal([
      'VTEPD_ETCD_PREFX means nothing to vtepd; did you mean VTEPD_ETCD_PREFIX?',
    ]);
  });

  it('refuses options that contradict each other', async () => {
    const cases: readonly (readonly [Texts, RegExp])[] = [
      [{ 'iface-can-reach': '192.0.2.1', iface: 'eth0' }, /--iface-can-reach: would be ignored/],
      [{ bridge: 'x0', device: 'x0' }, /--bridge: "x0" is the name of --device/],
      [{ bridge: 'vtp0' }, /--bridge: "vtp0" begins with "vtp"/],
      [{ 'etcd-certfile': '/c', 'etcd-endpoints': 'https://a' }, /needs --etcd-keyfile/],
      [{ 'etcd-keyfile': '/k', 'etcd-endpoints': 'https://a' }, /needs --etcd-certfile/],
      [{ 'etcd-cafile': '/c' }, /--etcd-cafile: certificates do nothing with http/],
      [{ 'etcd-endpoints': 'https://a,http://b' }, /mixes http/],
      [{ 'etcd-username': 'u' }, /--etcd-username: needs a password/],
      [{ 'etcd-password': 'u' }, /--etcd-password: needs --etcd-username/],
      [{ 'etcd-endpoints': 'http://a:b@h,http://c:d@h' }, /name different users/],
      [{ 'etcd-endpoints': 'http://a:b@h', 'etcd-username': 'u', 'etcd-password': 'p' }, /remove one/],
      [
        { 'net-config-path': '/n' },
        /--net-config-path: only Kubernetes and the embedded store .*etcdctl put/,
      ],
      [
        { 'subnet-lease-ttl': '10m', 'subnet-lease-renew-margin': '10' },
        /must be shorter than --subnet-lease-ttl/,
      ],
      [{ 'public-ip': '127.0.0.1' }, /--public-ip: 127.0.0.1 is this machine/],
      [{ 'run-dir': `/${'r'.repeat(100)}` }, /--run-dir: is too long/],
      [{ 'run-dir': '/x', 'state-dir': '/x' }, /--run-dir: must not be --state-dir/],
    ];
    for (const [flags, expected] of cases) expect(await refused({ flags })).to.match(expected);
  });

  it('shortens the renewal margin with a short lease', async () => {
    const { settings } = await load({ flags: { 'subnet-lease-ttl': '10s' } });
    expect(settings.lease).to.include({ ttlMs: 10_000, renewMarginMs: 5000 });
  });

  it('reads only what a command asks for', async () => {
    const given = await sources({ file: 'http: off\nlog-level: loud\n' });
    expect((await loadOptions(['http'], given)).values).to.deep.equal({ http: undefined });
  });

  describe('secrets', () => {
    const password = 'hunter2:"&ü';
    const ways: readonly Given[] = [
      { flags: { 'etcd-username': 'u', 'etcd-password': password } },
      { flags: { 'etcd-username': 'u' }, environment: { VTEPD_ETCD_PASSWORD: password } },
      { file: `etcd-username: u\netcd-password: '${password}'\n` },
      { flags: { 'etcd-endpoints': `http://u:${encodeURIComponent(password)}@h:1` } },
    ];

    it('arrive from each source, and show nowhere', async () => {
      for (const way of ways) {
        const { settings, origins, warnings } = await load(way);
        expect(secretsOf(settings)).to.deep.equal([password]);
        const shown = [
          inspect(settings, { depth: 9 }),
          JSON.stringify(settings),
          JSON.stringify([...origins]),
          effectiveText(origins),
          warnings.join(),
        ].join('\n');
        expect(shown).to.not.include('hunter2');
      }
    });

    it('show in no error', async () => {
      for (const way of ways) {
        expect(
          await refused({ ...way, environment: { ...way.environment, VTEPD_HTTP: 'x' } }),
        ).to.not.include('hunter2');
      }
      const endpoints = [
        'http//u:hunter2@h',
        'u:hunter2@h',
        'http://u:hunter2@h/x',
        'http://u:hunter2,x@h',
        'http://u:hunter2%@h',
      ];
      for (const text of endpoints) {
        expect(await refused({ flags: { 'etcd-endpoints': text } }), text).to.not.include('hunter2');
        expect(await refused({ file: `etcd-endpoints: '${text}'\n` }), text).to.not.include('hunter2');
      }
    });

    it('are warned of where others can read them', async () => {
      const path = await written('etcd-username: u\netcd-password: hunter2\n', 0o644);
      const fromFile = await loadSettings({ flags: new Map([['config', [path]]]), environment: {} });
      expect(fromFile.warnings.join()).to.include(`chmod 600 ${path}`);
      const fromFlag = await load({ flags: { 'etcd-username': 'u', 'etcd-password': 'hunter2' } });
      expect(fromFlag.warnings.join()).to.match(/--etcd-password is visible/);
    });
  });
});
