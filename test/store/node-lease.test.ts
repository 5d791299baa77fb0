/**
 * Nodes as flannel's kube subnet manager annotates them: read here, and written here so that flannel reads them. The
 * fixtures have the shapes that its source and users' clusters show (pkg/subnet/kube/kube.go; `kubectl get node -o yaml`).
 */
import { expect } from 'chai';
import type { Family } from '../../store/address.ts';
import { annotationChanges, isMalformedLease, leaseOf } from '../../store/kubernetes/node-lease.ts';
import { ANNOTATION_PREFIX, type NodeObject, readNode } from '../../store/kubernetes/node-object.ts';
import { encodeLease } from '../../store/lease-codec.ts';

interface Fixture {
  readonly title: string;
  readonly families: readonly Family[];
  readonly spec: { readonly podCIDR?: string; readonly podCIDRs?: readonly string[] };
  readonly annotations: Readonly<Record<string, string>>;
  /** The lease, as etcd would hold it. */
  readonly key: string;
  readonly text: string;
}

const FLANNEL: readonly Fixture[] = [
  {
    title: 'vxlan',
    families: ['ipv4'],
    spec: { podCIDR: '10.244.5.0/24', podCIDRs: ['10.244.5.0/24'] },
    annotations: {
      'backend-data': '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}',
      'backend-type': 'vxlan',
      'kube-subnet-manager': 'true',
      'public-ip': '192.0.2.5',
    },
    key: '10.244.5.0-24',
    text: '{"PublicIP":"192.0.2.5","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}}',
  },
  {
    title: 'vxlan, dual stack',
    families: ['ipv4', 'ipv6'],
    spec: { podCIDR: 'fc00:244:0:5::/64', podCIDRs: ['fc00:244:0:5::/64', '10.244.5.0/24'] },
    annotations: {
      'backend-data': '{"VNI":1,"VtepMAC":"12:62:b6:2a:21:cf"}',
      'backend-type': 'vxlan',
      'backend-v6-data': '{"VNI":1,"VtepMAC":"ba:5d:da:3f:78:e1"}',
      'kube-subnet-manager': 'true',
      'public-ip': '192.0.2.5',
      'public-ipv6': '2001:db8::5',
    },
    key: '10.244.5.0-24&fc00:244:0:5::-64',
    text: '{"PublicIP":"192.0.2.5","PublicIPv6":"2001:db8::5","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"12:62:b6:2a:21:cf"},"BackendV6Data":{"VNI":1,"VtepMAC":"ba:5d:da:3f:78:e1"}}',
  },
  {
    title: 'vxlan, IPv6 alone: nothing is said of IPv4',
    families: ['ipv6'],
    spec: { podCIDRs: ['fc00:244:0:5::/64'] },
    annotations: {
      'backend-type': 'vxlan',
      'backend-v6-data': '{"VNI":1,"VtepMAC":"ba:5d:da:3f:78:e1"}',
      'kube-subnet-manager': 'true',
      'public-ipv6': '2001:db8::5',
    },
    key: '0.0.0.0-0&fc00:244:0:5::-64',
    text: '{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::5","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"ba:5d:da:3f:78:e1"}}',
  },
  {
    title: 'host-gw, which has no data',
    families: ['ipv4', 'ipv6'],
    spec: { podCIDRs: ['10.244.5.0/24', 'fc00:244:0:5::/64'] },
    annotations: {
      'backend-data': 'null',
      'backend-type': 'host-gw',
      'backend-v6-data': 'null',
      'kube-subnet-manager': 'true',
      'public-ip': '192.0.2.5',
      'public-ipv6': '2001:db8::5',
    },
    key: '10.244.5.0-24&fc00:244:0:5::-64',
    text: '{"PublicIP":"192.0.2.5","PublicIPv6":"2001:db8::5","BackendType":"host-gw"}',
  },
];

/** Before flannel wrote VNIs, and before Nodes had more than one podCIDR. */
const OLD: Fixture = {
  title: 'an old flannel’s, or one written by hand',
  families: ['ipv4'],
  spec: { podCIDR: '10.244.5.0/24' },
  annotations: {
    'backend-data': '{"VtepMAC":"fa:16:3e:d5:28:07"}',
    'backend-type': 'vxlan',
    'kube-subnet-manager': 'true',
    'public-ip': '192.0.2.5',
  },
  key: '10.244.5.0-24',
  text: '{"PublicIP":"192.0.2.5","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"fa:16:3e:d5:28:07"}}',
};

/** As the API has it, with what else a Node carries. */
function nodeOf({ spec, annotations }: Pick<Fixture, 'spec' | 'annotations'>): NodeObject {
  const ours = Object.entries(annotations).map(([name, value]) => [ANNOTATION_PREFIX + name, value]);
  const more = { 'node.alpha.kubernetes.io/ttl': '0' };
  const metadata = { name: 'a', resourceVersion: '7', annotations: { ...Object.fromEntries(ours), ...more } };
  return readNode({ metadata, spec, status: { conditions: [] } }) ?? expect.fail('no Node');
}

function read(fixture: Fixture) {
  const lease = leaseOf(nodeOf(fixture), fixture.families);
  if (lease === undefined || isMalformedLease(lease)) return expect.fail(`no lease: ${lease?.reason}`);
  return lease;
}

describe('store/kubernetes: flannel’s Nodes', () => {
  for (const fixture of [...FLANNEL, OLD]) {
    it(`${fixture.title}: are read`, () => {
      const { key, attributes } = read(fixture);
      expect(key).to.equal(fixture.key);
      expect(encodeLease(attributes)).to.equal(fixture.text);
    });
  }

  it('are written as flannel writes them, to the letter', () => {
    for (const fixture of FLANNEL) {
      const { attributes } = read(fixture);
      const written = annotationChanges(nodeOf({ ...fixture, annotations: {} }), attributes);
      const expected = Object.entries(fixture.annotations).map(([name, text]) => [
        ANNOTATION_PREFIX + name,
        text,
      ]);
      expect(written, fixture.title).to.deep.equal(Object.fromEntries(expected));
      expect(annotationChanges(nodeOf(fixture), attributes), 'nothing to write').to.deep.equal({});
    }
  });

  it('that are not flannel’s, or not yet, are no leases; those of which a part is missing are named', () => {
    const [vxlan, dual] = FLANNEL;
    if (vxlan === undefined || dual === undefined) return expect.fail('no fixture');
    const { 'kube-subnet-manager': _, ...unmanaged } = vxlan.annotations;
    expect(leaseOf(nodeOf({ ...vxlan, annotations: unmanaged }), ['ipv4'])).to.equal(undefined);
    const managed = { ...vxlan.annotations, 'kube-subnet-manager': 'false' };
    expect(leaseOf(nodeOf({ ...vxlan, annotations: managed }), ['ipv4'])).to.equal(undefined);
    const bare = { 'kube-subnet-manager': 'true' };
    for (const [annotations, spec, reason] of [
      [vxlan.annotations, {}, 'the Node has no podCIDR'],
      [bare, vxlan.spec, 'no public address'],
      [{ ...vxlan.annotations, 'backend-data': '{' }, vxlan.spec, 'BackendData: not JSON'],
      [vxlan.annotations, { podCIDRs: ['fc00::/64'] }, "no podCIDR is of the cluster network's families"],
    ] as const) {
      expect(leaseOf(nodeOf({ annotations, spec }), ['ipv4'])).to.have.property('reason', reason);
    }
    // A cluster that has both families, to a network of one.
    const lease = leaseOf(nodeOf(dual), ['ipv4']);
    expect(lease).to.have.property('key', '10.244.5.0-24');
    expect(lease).to.have.nested.property('attributes.publicAddress').that.deep.equals({ ipv4: '192.0.2.5' });
  });
});
