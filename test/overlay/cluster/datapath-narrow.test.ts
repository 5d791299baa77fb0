/**
 * A router between two nodes has a link of a smaller MTU behind it, which neither node's interface knows of:
 *
 *   pod 1 -- [node 1] eth0 (1500) -- router -- under1 (1400) -- eth0 (1500) [node 2] -- pod 2
 *
 * It says "fragmentation needed" and "packet too big" to the tunnel's socket; nothing else tells, for the probe is off.
 */
import { expect } from 'chai';
import { runInside } from '../../../overlay/lab/namespace.ts';
import { RunningStream } from '../../../overlay/lab/tcp.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { familyOf } from '../../../store/address.ts';
import { describeCluster, pingPod, USERSPACE_DUAL } from '../../lab/cluster.ts';
import { farAddresses, putBehindRouter } from '../../lab/far-link.ts';

const NARROW_BYTES = 1400;
const ENOUGH_BYTES = 2e6;
const DEADLINE_MS = 30_000;

describeCluster(
  'a narrow link behind a router',
  [USERSPACE_DUAL],
  { nodes: 2, idle: true, daemonArguments: ['--probe=false'], programs: ['sysctl'] },
  (cluster) => {
    before(async () => {
      const { lab } = cluster;
      await putBehindRouter(lab, 2);
      await runInside(lab.underlay.namespace, ['ip', 'link', 'set', 'under1', 'mtu', `${NARROW_BYTES}`]);
      await lab.startDaemons();
      await cluster.settled();
      for (const node of lab.nodes) await node.attachPod();
    });

    it('TCP goes on in packets that fit, in both families, and status names the path', async () => {
      const [from, to] = [cluster.pod(1), cluster.pod(2)];
      expect(await pingPod(from, to, { count: 3 })).to.include({ lost: 0 });
      for (const address of to.addresses) {
        const route = { from: from.namespace, to: to.namespace, address };
        const stream = await RunningStream.start(route, 0);
        try {
          const received = async () => {
            const { stdout } = await runInside(to.namespace, ['cat', '/proc/net/dev']);
            return Number(/eth0: *(\d+)/.exec(stdout)?.[1]);
          };
          const before = await received();
          await until(async () => (await received()) - before > ENOUGH_BYTES, {
            what: `${ENOUGH_BYTES} bytes over ${familyOf(address)}`,
            deadlineMs: DEADLINE_MS,
          });
        } finally {
          expect(await stream.stop()).to.include({ whole: true });
        }
      }
      const { tunnels } = await cluster.node(1).status();
      const far = farAddresses(2).map((remote) => ({ remote, mtuBytes: NARROW_BYTES }));
      expect(tunnels.flatMap(({ narrowPaths }) => narrowPaths)).to.deep.equal(far);
      const text = (await cluster.node(1).vtepd(['status'])).stdout;
      expect(text).to.include(
        `carry less than the underlay's interface: ${far[0]?.remote} (${NARROW_BYTES} bytes)`,
      );
    });
  },
);
