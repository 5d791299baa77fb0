/** flanneld's flags: each is honoured, translated, ignored aloud or refused by name, and the page says the same. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { translate } from '../../../overlay/cli/flannel-daemon.ts';
import { FLANNEL_FLAGS, flannelFlagsTable, readFlannelFlags } from '../../../overlay/cli/flannel-flags.ts';
import { loadSettings } from '../../../overlay/config/load-settings.ts';
import { isOptionName } from '../../../overlay/config/options.ts';
import { packageRoot } from '../../../overlay/ops/package.ts';

type Environment = Readonly<Record<string, string>>;

const told = (argv: readonly string[], environment: Environment = {}) =>
  translate(readFlannelFlags(argv, environment).values, environment);

const settingsOf = async (argv: readonly string[], environment: Environment = {}) =>
  (await loadSettings({ flags: told(argv, environment).flags, environment })).settings;

describe('migrate: flanneld’s flags', () => {
  it('manifests/flannel.md lists them as they are', () => {
    expect(readFileSync(join(packageRoot, 'manifests/flannel.md'), 'utf8')).to.include(flannelFlagsTable());
  });

  it('has an option of ours for each that is "the same", and a reason for each that is not', () => {
    for (const { name, treatment, note } of FLANNEL_FLAGS) {
      if (treatment === 'same') expect(isOptionName(name), name).to.equal(true);
      else expect(note, name).to.have.length.greaterThan(3);
    }
    expect(new Set(FLANNEL_FLAGS.map(({ name }) => name)).size).to.equal(FLANNEL_FLAGS.length);
  });

  it('takes one dash or two, a value behind = or as the next word, a switch alone or with =', () => {
    const { flags } = told(['-iface', 'eth1', '--iface=eth2', '-ip-masq', '--public-ip=192.0.2.9']);
    expect(flags.get('iface')).to.deep.equal(['eth1', 'eth2']);
    expect(flags.get('ip-masq')).to.deep.equal(['true']);
    expect(flags.get('public-ip')).to.deep.equal(['192.0.2.9']);
    expect(told(['-ip-masq=F']).flags.get('ip-masq')).to.deep.equal(['false']);
    expect(() => told(['-ip-masq=perhaps'])).to.throw('-ip-masq is a switch');
    expect(() => told(['-iface'])).to.throw('-iface needs a value');
    expect(() => told(['-ifaze', 'x'])).to.throw(/unknown flag -ifaze.*-iface/);
    expect(() => told(['word'])).to.throw('"word" is not expected');
  });

  it('reads FLANNELD_ variables, after the flags', () => {
    const environment = { FLANNELD_ETCD_PREFIX: '/a', FLANNELD_IP_MASQ: 'true', FLANNELD_IFACE: '' };
    const { flags } = told(['-etcd-prefix', '/b'], environment);
    expect(flags.get('etcd-prefix')).to.deep.equal(['/b']);
    expect(flags.get('ip-masq')).to.deep.equal(['true']);
    expect(flags.has('iface')).to.equal(false);
  });

  it('has flannel’s defaults, and vtepd’s variables where somebody set them', async () => {
    const settings = await settingsOf([]);
    expect(settings.files.subnetFile).to.equal('/run/flannel/subnet.env');
    expect(settings.overlay).to.include({
      masquerade: false,
      bridge: 'cni0',
      device: 'flannel.<VNI>',
      takeOver: 'devices',
    });
    expect(settings.healthz).to.equal(undefined);
    expect(settings.lease.renewMarginMs).to.equal(3_600_000);
    const other = await settingsOf([], {
      VTEPD_IP_MASQ: 'true',
      VTEPD_BRIDGE: 'br9',
      VTEPD_CNI_CONF_DIR: '/etc/cni/net.d',
    });
    expect(other.overlay).to.include({ masquerade: true, bridge: 'br9', takeOver: 'auto' });
  });

  it('translates what has another name here', async () => {
    const settings = await settingsOf(['-healthz-port=10254', '-v=4', '-subnet-lease-renew-margin', '90']);
    expect(settings.healthz).to.deep.equal({ host: '0.0.0.0', port: 10254 });
    expect(settings.log.level).to.equal('debug');
    expect(settings.lease.renewMarginMs).to.equal(90 * 60_000);
    expect((await settingsOf(['-healthz-ip=::1', '-healthz-port=80'])).healthz).to.deep.equal({
      host: '::1',
      port: 80,
    });
    const kubernetes = await settingsOf(['-kube-subnet-mgr', '-kubeconfig-file=/k', '-net-config-path=/n']);
    expect(kubernetes.store).to.include({ kind: 'kubernetes', kubeconfigFile: '/k', netConfigPath: '/n' });
    for (const wrong of [
      ['-healthz-port=many'],
      ['-healthz-port=70000'],
      ['-subnet-lease-renew-margin=1440'],
    ]) {
      expect(() => told(wrong), wrong.join()).to.throw(wrong[0]?.slice(1).split('=')[0] ?? '');
    }
  });

  it('refuses by name what cannot be honoured, unless it asks for the default', () => {
    for (const { name, treatment, isSwitch } of FLANNEL_FLAGS.filter(
      (flag) => flag.treatment === 'refused',
    )) {
      const word = isSwitch === true ? `-${name}` : `-${name}=other`;
      expect(() => told([word]), `${name} ${treatment}`).to.throw(`--${name} cannot be honoured: `);
    }
    expect(told(['-kube-annotation-prefix=flannel.alpha.coreos.com']).warnings).to.deep.equal([]);
    expect(told(['-ip-blackhole-route=false']).warnings).to.deep.equal([]);
  });

  it('warns of what it ignores, unless that makes no difference', () => {
    expect(told(['-iptables-resync=10']).warnings.join()).to.include('--iptables-resync is ignored');
    expect(told(['-iptables-resync=5', '-iptables-forward-rules']).warnings).to.deep.equal([]);
    expect(told(['-net-config-path=/n']).warnings.join()).to.include('without --kube-subnet-mgr');
    expect(told(['-net-config-path=/n']).flags.has('net-config-path')).to.equal(false);
    const both = told(['-iface=eth0', '-iface-can-reach=192.0.2.1']);
    expect(both.flags.has('iface-can-reach')).to.equal(false);
    expect(both.warnings.join()).to.include('--iface-can-reach');
  });
});
