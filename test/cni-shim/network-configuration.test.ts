import { expect } from 'chai';
import fc from 'fast-check';
import { CniError } from '../../cni-shim/cni-error.ts';
import { conflistText } from '../../cni-shim/conflist.ts';
import { parseNetworkConfiguration } from '../../cni-shim/network-configuration.ts';
import { parseRequest } from '../../cni-shim/request.ts';

const base = { cniVersion: '1.0.0', name: 'net', type: 'vtepd-cni' };
const parse = (extra: object, args: Record<string, string> = {}) =>
  parseNetworkConfiguration(JSON.stringify({ ...base, ...extra }), new Map(Object.entries(args)));

function refusal(work: () => unknown): CniError {
  try {
    work();
  } catch (error) {
    if (error instanceof CniError) return error;
    throw error;
  }
  throw new Error('was accepted');
}

describe('the network configuration', () => {
  it('has defaults for everything but its name', () => {
    expect(parse({})).to.deep.equal({
      version: '1.0.0',
      name: 'net',
      bridge: undefined,
      mtuBytes: undefined,
      hairpin: false,
      defaultRoute: true,
      addresses: [],
      mac: undefined,
      sticky: undefined,
      dns: undefined,
      prevResult: undefined,
      validAttachments: undefined,
    });
  });

  it('accepts what people have written for the bridge plugin and flannel', () => {
    const config = parse({
      bridge: 'cni0',
      isGateway: true,
      isDefaultGateway: true,
      ipMasq: true,
      mtu: 0,
      hairpinMode: true,
      promiscMode: false,
      ipam: { type: 'host-local', subnet: '10.0.0.0/24' },
      capabilities: { portMappings: true },
      runtimeConfig: { portMappings: [], bandwidth: {} },
      args: { labels: { app: 'x' }, cni: null },
      dns: {},
      _comment: ['for people'],
      prevResult: null,
    });
    expect(config).to.include({ bridge: 'cni0', hairpin: true, defaultRoute: true, mtuBytes: undefined });
    expect(config.dns).to.equal(undefined);
    expect(config.prevResult).to.equal(undefined);
  });

  it('refuses a wrong type by the name of its key', () => {
    const cases: readonly (readonly [object, string])[] = [
      [{ bridge: 5 }, 'bridge: expected string'],
      [{ isGateway: 'yes' }, 'isGateway: expected boolean'],
      [{ ipMasq: 1 }, 'ipMasq: expected boolean'],
      [{ hairpinMode: {} }, 'hairpinMode: expected boolean'],
      [{ mtu: '1500' }, 'mtu: expected number'],
      [{ mtu: 1500.5 }, 'mtu: expected int'],
      [{ mtu: -1 }, 'mtu: '],
      [{ mtu: 100 }, 'mtu: 100 bytes are too few'],
      [{ runtimeConfig: { ips: '10.0.0.1' } }, 'runtimeConfig.ips: expected array'],
      [{ runtimeConfig: { ips: [7] } }, 'runtimeConfig.ips[0]: expected string'],
      [{ runtimeConfig: { ips: ['10.0.0.300'] } }, 'runtimeConfig.ips: "10.0.0.300" is not'],
      [{ runtimeConfig: { mac: 'aa' } }, 'runtimeConfig.mac: "aa" is not'],
      [{ runtimeConfig: { mac: '01:00:5e:00:00:01' } }, 'runtimeConfig.mac: '],
      [{ args: 3 }, 'args: expected object'],
      [{ args: { cni: { ips: {} } } }, 'args.cni.ips: expected array'],
      [{ dns: { nameservers: '10.0.0.1' } }, 'dns.nameservers: expected array'],
      [{ socket: 1 }, 'socket: expected string'],
      [{ vtepd: 'x' }, 'vtepd: expected object'],
      [{ vtepd: { sticky: true } }, 'vtepd.sticky: '],
      [{ vtepd: { sticky: 'two words' } }, 'vtepd.sticky: must be a name'],
      [{ name: undefined }, 'name: expected string'],
      [{ name: '../etc' }, 'name: must be letters'],
      [{ name: 'a'.repeat(256) }, 'name: must be letters'],
      [
        { 'cni.dev/valid-attachments': [{ containerID: 'x' }] },
        'cni.dev/valid-attachments[0].ifname: expected',
      ],
    ];
    for (const [extra, text] of cases) {
      const error = refusal(() => parse(extra));
      expect(error.cniCode, text).to.equal(7);
      expect(error.message).to.include(text);
    }
    expect(refusal(() => parse({}, { MAC: 'x' })).message).to.include('CNI_ARGS MAC: "x"');
    expect(refusal(() => parse({}, { VTEPD_STICKY: '' })).message).to.include('CNI_ARGS VTEPD_STICKY: must');
    expect(refusal(() => parse({}, { IP: 'x' })).message).to.include('CNI_ARGS IP: "x"');
  });

  it('refuses other versions with code 1, what is not JSON with 6, what is no object with 7', () => {
    expect(refusal(() => parse({ cniVersion: '0.2.0' }))).to.include({ cniCode: 1 });
    expect(refusal(() => parse({ cniVersion: '2.0.0' })).message).to.include('1.1.0');
    expect(refusal(() => parse({ cniVersion: undefined }))).to.include({ cniCode: 1 });
    expect(refusal(() => parse({ cniVersion: 1 }))).to.include({ cniCode: 7 });
    expect(refusal(() => parseNetworkConfiguration('{'))).to.include({ cniCode: 6 });
    expect(refusal(() => parseNetworkConfiguration('[]'))).to.include({ cniCode: 7 });
  });

  it('prefers runtimeConfig over args over CNI_ARGS', () => {
    const ask = (runtime: string | undefined, args: string | undefined) =>
      parse(
        {
          ...(runtime === undefined ? {} : { runtimeConfig: { ips: [`${runtime}/24`] } }),
          ...(args === undefined ? {} : { args: { cni: { ips: [args], mac: '02:00:00:00:00:02' } } }),
        },
        { IP: '10.0.0.3', MAC: '02:00:00:00:00:03' },
      );
    expect(ask('10.0.0.1', '10.0.0.2').addresses).to.deep.equal(['10.0.0.1']);
    expect(ask(undefined, '10.0.0.2').addresses).to.deep.equal(['10.0.0.2']);
    expect(ask(undefined, undefined)).to.deep.include({ addresses: ['10.0.0.3'], mac: '02:00:00:00:00:03' });
    expect(ask(undefined, '10.0.0.2').mac).to.equal('02:00:00:00:00:02');
  });

  it('takes GC lists under both names they have had', () => {
    const list = [{ containerID: 'a', ifname: 'eth0' }];
    expect(parse({ 'cni.dev/valid-attachments': list }).validAttachments).to.deep.equal(list);
    expect(parse({ 'cni.dev/attachments': list }).validAttachments).to.deep.equal(list);
  });

  it('reads the list that vtepd installs', () => {
    const list = JSON.parse(conflistText({ socketPath: '/run/vtepd/vtepd.sock', bridge: 'vtep0' }));
    const { cniVersion, name, plugins } = list;
    expect(plugins.map((plugin: { type: string }) => plugin.type)).to.deep.equal(['vtepd-cni', 'portmap']);
    const config = parseNetworkConfiguration(JSON.stringify({ ...plugins[0], cniVersion, name }));
    expect(config).to.include({ bridge: 'vtep0', hairpin: true, defaultRoute: true, name: 'vtepd' });
  });

  it('answers any bytes with a configuration or a CNI error', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.json().map((json) => `{"cniVersion":"1.0.0","x":${json}}`),
        ),
        (text) => {
          try {
            parseNetworkConfiguration(text);
          } catch (error) {
            expect(error).to.be.instanceOf(CniError);
          }
        },
      ),
    );
  });
});

describe('a call of the plugin', () => {
  const call = (changes: object) =>
    parseRequest({
      command: 'ADD',
      containerID: 'c1',
      netns: '/run/netns/x',
      ifname: 'eth0',
      args: '',
      path: '',
      config: JSON.stringify(base),
      ...changes,
    });

  it('names the variable that is wrong, with code 4', () => {
    const cases: readonly (readonly [object, string])[] = [
      [{ command: 'BEGONE' }, 'CNI_COMMAND'],
      [{ command: '' }, 'CNI_COMMAND'],
      [{ containerID: '' }, 'CNI_CONTAINERID'],
      [{ containerID: '../x' }, 'CNI_CONTAINERID'],
      [{ containerID: '-x' }, 'CNI_CONTAINERID'],
      [{ netns: '' }, 'CNI_NETNS'],
      [{ ifname: '' }, 'CNI_IFNAME'],
      [{ ifname: 'a/b' }, 'CNI_IFNAME'],
      [{ ifname: 'a:b' }, 'CNI_IFNAME'],
      [{ ifname: 'a b' }, 'CNI_IFNAME'],
      [{ ifname: '..' }, 'CNI_IFNAME'],
      [{ ifname: 'sixteen-letters!' }, 'CNI_IFNAME'],
      [{ args: 'A=1' }, 'CNI_ARGS: A is not known'],
      [{ args: 'novalue' }, 'CNI_ARGS'],
      [{ args: '=x' }, 'CNI_ARGS'],
    ];
    for (const [changes, text] of cases) {
      const error = refusal(() => call(changes));
      expect(error.cniCode, text).to.equal(4);
      expect(error.message).to.include(text);
    }
  });

  it('passes over unknown arguments where it is told to, and reads the pod of Kubernetes', () => {
    expect(call({ args: 'IgnoreUnknown=1;A=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p' })).to.include({
      pod: 'n/p',
    });
    expect(call({ args: 'K8S_POD_NAME=p;;' })).to.include({ pod: 'default/p' });
    expect(call({ args: 'K8S_POD_NAMESPACE=n' })).to.include({ pod: undefined });
    expect(call({ command: 'DEL', netns: '' })).to.include({ netns: '' });
  });

  it('knows since which version each verb is', () => {
    const config = (cniVersion: string) => JSON.stringify({ ...base, cniVersion });
    expect(refusal(() => call({ command: 'CHECK', config: config('0.3.1') }))).to.include({ cniCode: 1 });
    expect(call({ command: 'CHECK', config: config('0.4.0') })).to.include({ verb: 'CHECK' });
    for (const command of ['GC', 'STATUS']) {
      expect(refusal(() => call({ command, config: config('1.0.0') }))).to.include({ cniCode: 1 });
      expect(call({ command, config: config('1.1.0') })).to.include({ verb: command });
    }
    expect(call({ command: 'VERSION', config: '{"cniVersion":"0.4.0"}' })).to.include({ version: '0.4.0' });
  });
});
