/**
 * Nodes and hosts that are not all alike in their families:
 *
 *   - a dual-stack cluster with a node that lacks one family on the underlay;
 *   - a host, or a pod's runtime, that switches IPv6 off for new devices.
 */
import { expect } from 'chai';
import { ping } from '../../../overlay/lab/ping.ts';
import { addressLines, NODE_INTERFACE, nodePrefix } from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { FAMILIES, type Family, familyOf } from '../../../store/address.ts';
import { type Cluster, describeCluster, EMBEDDED_DUAL, pingPod } from '../../lab/cluster.ts';
import { inFamily } from '../../lab/in-family.ts';

const DEADLINE_MS = 30_000;

const other = (family: Family): Family => (family === 'ipv4' ? 'ipv6' : 'ipv4');

for (const lacking of FAMILIES) {
  describeCluster(`a node without ${lacking}`, [EMBEDDED_DUAL], { nodes: 3, idle: true }, (cluster) => {
    const has = other(lacking);
    before(async () => {
      const node = cluster.node(1);
      await node.exec(['ip', 'addr', 'del', nodePrefix(1, lacking), 'dev', NODE_INTERFACE]);
      await cluster.lab.startDaemons();
      await cluster.settled();
      for (const each of cluster.lab.nodes) await each.attachPod();
    });

    it(`its pods have ${has} alone, and reach all others in it`, async () => {
      expect(cluster.pod(1).addresses.map(familyOf)).to.deep.equal([has]);
      for (const number of [2, 3]) {
        const address = addressIn(cluster, number, has);
        expect(await ping(cluster.pod(1).namespace, address, { count: 3 })).to.include({ lost: 0 });
        expect(await pingPod(cluster.pod(number), cluster.pod(1), { count: 3 })).to.include({ lost: 0 });
      }
    });

    it('the others have both between them', async () => {
      expect(cluster.pod(2).addresses.map(familyOf)).to.deep.equal(FAMILIES);
      expect(await pingPod(cluster.pod(2), cluster.pod(3), { count: 3 })).to.include({ lost: 0 });
    });

    it('it says so, in log and status', async () => {
      const { underlay, lease } = await cluster.node(1).status();
      expect(underlay?.lackingFamilies).to.deep.equal([lacking]);
      expect((await cluster.node(2).status()).underlay?.lackingFamilies).to.deep.equal([]);
      expect(inFamily(lease, has).publicIP).to.equal(cluster.node(1).addresses[has]);
      expect(() => inFamily(lease, lacking)).to.throw('not there');
      expect(await cluster.node(1).daemon?.log()).to.match(
        new RegExp(`no ${lacking} address.*served in ${has}`),
      );
      expect((await cluster.node(1).vtepd(['status'])).stdout).to.match(new RegExp(`no ${lacking} address`));
    });

    it('given the family, it carries it from then on', async () => {
      const node = cluster.node(1);
      const [line = ''] = addressLines(1, [lacking]);
      await node.exec(['ip', ...line.split(' ')]);
      const follows = async () => (await node.status()).underlay?.lackingFamilies.length === 0;
      await until(follows, { what: 'the family to be carried', deadlineMs: DEADLINE_MS });
      await cluster.settled();
      const pod = await node.attachPod();
      expect(pod.addresses.map(familyOf)).to.deep.equal(FAMILIES);
      const reached = async () => (await pingPod(cluster.pod(2), pod, { count: 1 })).lost === 0;
      await until(reached, { what: 'the pod to be reached in both', deadlineMs: DEADLINE_MS });
    });
  });
}

describeCluster(
  'a host that switches IPv6 off for new devices',
  [EMBEDDED_DUAL],
  { idle: true },
  (cluster) => {
    before(async () => {
      for (const node of cluster.lab.nodes) {
        await node.exec(['sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
      }
      await cluster.lab.startDaemons();
      await cluster.settled();
      for (const node of cluster.lab.nodes) await node.attachPod();
    });

    it('pods reach each other, with their first packet', async () => {
      expect(await pingPod(cluster.pod(1), cluster.pod(2), { count: 1 })).to.include({ lost: 0 });
      for (const family of cluster.families) {
        const addresses = cluster.pod(1).addresses.map(familyOf);
        expect(addresses).to.include(family);
      }
    });
  },
);

function addressIn(cluster: Cluster, number: number, family: Family) {
  const found = cluster.pod(number).addresses.find((address) => familyOf(address) === family);
  if (found === undefined) throw new Error(`the pod of node ${number} has no ${family} address`);
  return found;
}
