/** What is made of the facts of a flannel node: pure. */
import { expect } from 'chai';
import fc from 'fast-check';
import { formatRecord, hostInterfaceName, parseRecord } from '../../../cni-shim/attachment.ts';
import type { WantedOverlay } from '../../../overlay/desired/overlay.ts';
import type { Link } from '../../../overlay/kernel/link.ts';
import type { Route } from '../../../overlay/kernel/route.ts';
import { parseCachedResult } from '../../../overlay/migrate/cached-result.ts';
import { delegatedConfiguration } from '../../../overlay/migrate/delegated.ts';
import type { FlannelFacts, FlannelPod } from '../../../overlay/migrate/flannel-facts.ts';
import { isFlannelRoute } from '../../../overlay/migrate/flannel-remains.ts';
import {
  isRefusal,
  planTakeOver,
  type TakeOverPlan,
  type TakeOverWishes,
} from '../../../overlay/migrate/take-over-plan.ts';
import { parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const CONFIG = parseNetworkConfig('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}');
const WISHES: TakeOverWishes = { device: undefined, bridge: 'vtep0', takeOver: 'auto' };
const MAC = parseMac('0e:11:22:33:44:55');

const link = (index: number, name: string, more: Partial<Link> = {}): Link => ({
  index,
  name,
  kind: 'veth',
  mac: MAC,
  mtuBytes: 1450,
  up: true,
  carrier: true,
  loopback: false,
  alias: undefined,
  master: undefined,
  group: 0,
  hairpin: false,
  vxlan: undefined,
  isTap: false,
  noLinkLocalLearn: false,
  lower: undefined,
  ...more,
});

const vxlan = { vni: 1, port: 8472, local: parseAddress('192.0.2.12'), learning: false };
const DEVICE = link(5, 'flannel.1', { kind: 'vxlan', vxlan });
const BRIDGE = link(6, 'cni0', { kind: 'bridge' });

const on = (linkIndex: number, text: string) => {
  const [address = '', length = ''] = text.split('/');
  return {
    linkIndex,
    family: 'ipv4' as const,
    address: parseAddress(address),
    prefixLength: Number(length),
    scope: 0,
    tentative: false,
    transient: false,
  };
};

const POD: FlannelPod = {
  network: 'cbr0',
  containerID: 'c1',
  ifname: 'eth0',
  port: link(7, 'veth1234', { master: 6, hairpin: true }),
  mac: MAC,
  addresses: [parseAddress('10.244.7.2')],
  cached: undefined,
};

const reserved = (address: string, containerID: string) => ({
  address: parseAddress(address),
  holder: { network: 'cbr0', containerID, ifname: 'eth0' },
});

const FACTS: FlannelFacts = {
  pid: undefined,
  devices: { ipv4: DEVICE },
  bridgeName: 'cni0',
  bridge: BRIDGE,
  conflist: { path: '/etc/cni/net.d/10-flannel.conflist', name: 'cbr0', bridge: undefined },
  addresses: [on(5, '10.244.7.0/32'), on(6, '10.244.7.1/24')],
  reservations: [reserved('10.244.7.2', 'c1'), reserved('10.244.7.9', 'c9'), reserved('10.9.9.9', 'other')],
  pods: [POD],
};

function planned(facts: FlannelFacts, wishes = WISHES, config = CONFIG): TakeOverPlan {
  const plan = planTakeOver(facts, config, wishes);
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

const refused = (facts: FlannelFacts, wishes = WISHES, config = CONFIG) => {
  const plan = planTakeOver(facts, config, wishes);
  return isRefusal(plan) ? plan : undefined;
};

describe('migrate: the plan', () => {
  it('keeps names, MACs and the lease, adopts the pods that were found, and keeps the other addresses', () => {
    const plan = planned(FACTS);
    expect(plan.record).to.include({ device: 'flannel.<VNI>', bridge: 'cni0', network: 'cbr0', pods: true });
    expect(plan.vtepMac.ipv4).to.equal(MAC);
    expect(plan.lease?.key).to.equal('10.244.7.0-24');
    expect(plan.lease?.attributes.publicAddress.ipv4).to.equal('192.0.2.12');
    expect(plan.pods.map(({ was }) => was)).to.deep.equal(['veth1234']);
    expect(plan.pods[0]?.attachment).to.include({ hairpin: true, mtuBytes: 1450, bridge: 'cni0' });
    expect(plan.pods[0]?.attachment.addresses).to.deep.equal([
      { address: '10.244.7.2', prefixLength: 24, gateway: '10.244.7.1' },
    ]);
    expect(plan.kept.map(({ address }) => address)).to.deep.equal(['10.244.7.9']);
    expect(plan.steps.map(({ kind }) => kind)).to.include.members([
      'device',
      'bridge',
      'lease',
      'pod',
      'address',
    ]);
  });

  it('an adopted pod’s record is read again as it was written', () => {
    const [pod] = planned(FACTS).pods;
    if (pod === undefined) throw new Error('no pod was adopted');
    expect(parseRecord(formatRecord(pod.attachment))).to.deep.equal({ ...pod.attachment, pod: undefined });
    expect(pod.attachment.hostInterface).to.equal(hostInterfaceName(pod.attachment));
  });

  it('leaves pods alone where they are to stay with flannel’s plugins', () => {
    const plan = planned(FACTS, { ...WISHES, takeOver: 'devices' });
    expect(plan).to.deep.include({ pods: [], kept: [] });
    expect(plan.record.pods).to.equal(false);
  });

  it('knows the subnet by the device where no pod ever was', () => {
    const plan = planned({ ...FACTS, bridge: undefined, addresses: [on(5, '10.244.7.0/32')], pods: [] });
    expect(plan.lease?.key).to.equal('10.244.7.0-24');
  });

  it('without a CNI configuration, the network’s name is that of the addresses', () => {
    expect(planned({ ...FACTS, conflist: undefined }).record.network).to.equal('cbr0');
    expect(planned({ ...FACTS, conflist: undefined, reservations: [] }).record.network).to.equal('vtepd');
  });

  it('refuses beside a running flanneld, and names that are not flannel’s', () => {
    expect(refused({ ...FACTS, pid: 42 })?.reason).to.match(/process 42.*stop it/);
    expect(refused(FACTS, { ...WISHES, bridge: 'br0' })).to.include({ kind: 'names' });
    expect(refused(FACTS, { ...WISHES, device: 'vtep.1' })?.reason).to.contain('--device vtep.1');
    expect(refused(FACTS, { ...WISHES, device: 'flannel.1', bridge: 'cni0' })).to.equal(undefined);
  });

  it('leaves alone what is another network’s, or vtepd’s already', () => {
    const other = parseNetworkConfig('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 42}}');
    expect(refused(FACTS, WISHES, other)).to.include({ kind: 'none' });
    expect(refused({ ...FACTS, pid: 42 }, WISHES, other), 'beside a flannel of another VNI').to.include({
      kind: 'none',
    });
    const ours = { ...FACTS, devices: { ipv4: { ...DEVICE, alias: 'vtepd' } } };
    expect(refused(ours)).to.include({ kind: 'none' });
    const hostGw = parseNetworkConfig('{"Network": "10.9.0.0/16", "Backend": {"Type": "host-gw"}}');
    expect(refused({ ...FACTS, devices: {} }, WISHES, hostGw)?.reason).to.contain(
      'no address of this network',
    );
  });
});

describe('migrate: what a runtime remembers of a pod', () => {
  const result = {
    cniVersion: '0.3.1',
    interfaces: [
      { name: 'cni0', mac: '02:00:00:00:00:01' },
      { name: 'veth77', mac: '02:00:00:00:00:02' },
      { name: 'eth0', mac: '02:00:00:00:00:03', sandbox: '/run/netns/x' },
    ],
    ips: [{ version: '4', interface: 2, address: '10.244.7.2/24', gateway: '10.244.7.1' }],
    routes: [{ dst: '10.244.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.244.7.1' }],
  };

  it('is read with and without libcni’s wrapping', () => {
    const wrapped = {
      kind: 'cniCacheV1',
      cniArgs: [
        ['K8S_POD_NAME', 'web'],
        ['K8S_POD_NAMESPACE', 'shop'],
      ],
      result,
    };
    const read = parseCachedResult(JSON.stringify(wrapped), 'eth0', 'cni0');
    expect(read).to.include({ hostInterface: 'veth77', mac: '02:00:00:00:00:03', pod: 'shop/web' });
    expect(read?.routes).to.have.length(2);
    expect(read?.addresses).to.deep.equal([
      { address: '10.244.7.2', prefixLength: 24, gateway: '10.244.7.1' },
    ]);
    expect(parseCachedResult(JSON.stringify(result), 'eth0', 'cni0')).to.include({ hostInterface: 'veth77' });
  });

  it('is nothing where it is no result, whatever it is', () => {
    expect(parseCachedResult('{', 'eth0', 'cni0')).to.equal(undefined);
    fc.assert(
      fc.property(fc.json(), (text) => {
        parseCachedResult(text, 'eth0', 'cni0');
        parseCachedResult(`{"kind": "cniCacheV1", "result": ${text}}`, 'eth0', 'cni0');
        parseCachedResult(`{"ips": [${text}], "interfaces": [${text}], "routes": [${text}]}`, 'eth0', 'cni0');
      }),
    );
  });

  it('what flannel’s plugin needs for a DEL says where host-local’s files are', () => {
    const [pod] = planned(FACTS).pods;
    if (pod === undefined) throw new Error('no pod was adopted');
    const conf = delegatedConfiguration(pod.attachment, '/data') as {
      ipam: { ranges: unknown; dataDir?: string };
    };
    expect(conf).to.include({ type: 'bridge', name: 'cbr0', bridge: 'cni0' });
    expect(conf.ipam).to.deep.include({ ranges: [[{ subnet: '10.244.7.0/24' }]], dataDir: '/data/networks' });
    expect(delegatedConfiguration(pod.attachment, '/var/lib/cni')).not.to.have.nested.property(
      'ipam.dataDir',
    );
  });
});

describe('migrate: flannel’s routes', () => {
  const wanted = { network: CONFIG, former: { leases: [], networks: {} } } as unknown as WantedOverlay;
  const route: Route = {
    destination: parseSubnet('10.244.9.0/24'),
    table: 254,
    protocol: 3,
    metric: undefined,
    linkIndex: 5,
    gateway: parseAddress('10.244.9.0'),
    nexthopId: undefined,
    preferredSource: undefined,
    mtuBytes: undefined,
    unicast: true,
    connected: false,
  };

  it('are by a gateway to a node’s subnet, of nobody’s protocol; any other is somebody’s', () => {
    expect(isFlannelRoute(route, wanted)).to.equal(true);
    const others: Partial<Route>[] = [
      { protocol: 4 },
      { protocol: 2, gateway: undefined },
      { table: 100 },
      { unicast: false },
      { destination: parseSubnet('10.244.9.0/25') },
      { destination: parseSubnet('10.9.9.0/24') },
    ];
    for (const other of others) expect(isFlannelRoute({ ...route, ...other }, wanted)).to.equal(false);
  });
});
