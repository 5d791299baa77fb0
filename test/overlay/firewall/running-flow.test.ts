/** While rules are replaced, tables lost and made again, a flow through the tunnel loses no packet. */
import { expect } from 'chai';
import { wantFirewall } from '../../../overlay/desired/firewall.ts';
import { Firewall } from '../../../overlay/kernel/firewall.ts';
import { Nftables } from '../../../overlay/kernel/nftables.ts';
import { start, stop } from '../../../overlay/lab/command.ts';
import {
  addNamespace,
  deleteNamespace,
  inside,
  ipBatch,
  namespacePath,
  runInside,
} from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { type Address, parseAddress } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';
import { FACTS, PODS } from './rig.ts';

const ROUNDS = 10;

describe('firewall: a running flow', () => {
  const [near, far] = [`vtepd-fwr${process.pid}a`, `vtepd-fwr${process.pid}b`] as const;
  const peers = Array.from({ length: 2000 }, (_, i) => parseAddress(`10.9.${i >>> 8}.${i & 255}`));

  before(async function () {
    need(this, 'root', 'ip', 'nft', 'ping');
    await addNamespace(near);
    await addNamespace(far);
    await ipBatch(near, [`link add eth0 type veth peer name eth0 netns ${far}`]);
    // On both: node N has 192.0.2.N on the underlay and 10.244.N.0 in the overlay.
    for (const [name, own, other] of [
      [near, 1, 2],
      [far, 2, 1],
    ] as const) {
      await ipBatch(name, [
        `addr add 192.0.2.${own}/24 dev eth0`,
        'link set eth0 up',
        `link add vtep.1 address 02:00:00:00:0${own}:01 type vxlan id 1 dstport 8472 local 192.0.2.${own} nolearning`,
        'link set vtep.1 up',
        `addr add 10.244.${own}.0/32 dev vtep.1`,
        `neigh add 10.244.${other}.0 lladdr 02:00:00:00:0${other}:01 dev vtep.1 nud permanent`,
        `route add 10.244.${other}.0/24 via 10.244.${other}.0 dev vtep.1 onlink`,
      ]);
      const entry = [`02:00:00:00:0${other}:01`, 'dev', 'vtep.1', 'dst', `192.0.2.${other}`, 'self'];
      await runInside(name, ['bridge', 'fdb', 'add', ...entry]);
    }
  });
  after(async () => {
    await deleteNamespace(near);
    await deleteNamespace(far);
  });

  it('loses no packet', async () => {
    using firewall = Firewall.open({ namespace: namespacePath(near) });
    using nftables = Nftables.open({ namespace: namespacePath(near) });
    const wanted = (facts: object, others: readonly Address[]) =>
      wantFirewall({ ...FACTS, ...facts }, [parseAddress('192.0.2.2'), ...others], PODS);
    const steps: readonly (() => void)[] = [
      () => firewall.apply(wanted({}, [])),
      () => firewall.apply(wanted({ masquerade: false }, peers)),
      () => nftables.run('flush ruleset'),
      () => firewall.apply(wanted({}, peers)),
      () => nftables.run('flush table inet vtepd'),
      () => firewall.apply(wanted({ podFilter: false }, peers)),
      () => nftables.run('add table inet vtepd { flags dormant; }'),
      () => firewall.apply(wanted({}, peers.slice(1000))),
      () => nftables.run('delete table inet vtepd'),
      () => firewall.apply(wanted({ bridge: 'vtep9' }, [])),
      () => nftables.run('add chain inet vtepd more'),
      () => firewall.apply(wanted({}, peers)),
      () => firewall.apply(wanted({ peerFilter: false }, peers)),
    ];
    firewall.apply(wanted({}, []));
    const ping = await start(...inside(near, ['ping', '-n', '-i', '0.001', '10.244.2.0']), {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    ping.process.stdout?.on('data', (chunk: Buffer) => {
      output += chunk;
    });
    try {
      await until(() => output.includes('icmp_seq='), { what: 'a first answer', deadlineMs: 10_000 });
      for (let round = 0; round < ROUNDS; round++) {
        for (const step of steps) {
          step();
          await new Promise<void>((resolve) => setImmediate(resolve));
        }
      }
      expect(firewall.drops()).to.include({ vxlan_stranger: 0, vxlan_forged: 0 });
      const before = output.length;
      await until(() => output.length > before, {
        what: 'an answer after the last step',
        deadlineMs: 10_000,
      });
    } finally {
      await stop(ping, 'SIGINT');
    }
    // The last one may have been under way at the end; of all before it, none is missing.
    const answered = [...output.matchAll(/icmp_seq=(\d+)/g)].map((match) => Number(match[1]));
    expect(answered).to.deep.equal(Array.from(answered, (_, i) => i + 1));
  });
});
