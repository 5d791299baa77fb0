/**
 * Three nodes, both families. Nodes 1 and 2 are on one link, node 3 is behind the underlay's router, which
 * has no route to any pod:
 *
 *   pod 1 -- [node 1] --.
 *                       +-- near link -- [router] -- far link -- [node 3] -- pod 3
 *   pod 2 -- [node 2] --'
 */
import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { takeApart } from '../../../encap/wire/layers.ts';
import { Capture } from '../../../overlay/lab/capture.ts';
import { run } from '../../../overlay/lab/command.ts';
import { type LabFamilies, labNetworkConfig } from '../../../overlay/lab/lab-network.ts';
import { ETCD_PREFIX } from '../../../overlay/lab/lab-store.ts';
import { ipBatch, runInside } from '../../../overlay/lab/namespace.ts';
import { ping, RunningPing } from '../../../overlay/lab/ping.ts';
import type { Pod } from '../../../overlay/lab/pod.ts';
import {
  gatewayAddress,
  gatewayAddresses,
  NODE_INTERFACE,
  nodeAddress,
  nodeAddress6,
  nodePrefix,
} from '../../../overlay/lab/underlay.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { FAMILIES } from '../../../store/address.ts';
import { type Cluster, describeCluster, EMBEDDED_DUAL, ETCD_DUAL, streamDuring } from '../../lab/cluster.ts';
import { farAddresses, putBehindRouter } from '../../lab/far-link.ts';
import { kernelState, untilState } from '../../lab/kernel-state.ts';

const DEADLINE_MS = 20_000;
const PLAN = { nodes: 3, idle: true, programs: ['tcpdump'] };

const network = (backend: Readonly<Record<string, unknown>>) => (families: LabFamilies) =>
  labNetworkConfig(families, { Backend: backend });

const DIRECT = { ...PLAN, networkConfig: network({ Type: 'vxlan', DirectRouting: true }) };

describeCluster('direct routing', [EMBEDDED_DUAL], DIRECT, (cluster) => {
  before(async () => {
    await putBehindRouter(cluster.lab, 3);
    await cluster.lab.startDaemons();
    await cluster.settled();
    for (const node of cluster.lab.nodes) await node.attachPod();
  });

  it('a peer on the link is reached plainly, one behind a router through the tunnel', async () => {
    const capture = await Capture.start(
      cluster.node(1).namespace,
      NODE_INTERFACE,
      'icmp or icmp6 or udp port 8472',
    );
    await untilReachable(cluster.pod(1), cluster.pod(2));
    await untilReachable(cluster.pod(1), cluster.pod(3));
    const frames = (await capture.stop()).map(({ bytes }) => takeApart(bytes, 8472));
    const echoes = frames.filter((layers) => layers.some(({ kind, header }) => isEcho(kind, header)));
    const seen = new Set(
      echoes.map((layers) =>
        layers
          .map(({ kind }) => kind)
          .filter((kind) => kind !== 'data')
          .join(' '),
      ),
    );
    expect([...seen].toSorted()).to.deep.equal([
      'ethernet ipv4 icmp',
      'ethernet ipv4 udp vxlan ethernet ipv4 icmp',
      'ethernet ipv6 icmpv6',
      'ethernet ipv6 udp vxlan ethernet ipv6 icmpv6',
    ]);
  });

  it('status tells how each peer is reached', async () => {
    const { peers, overlay } = await cluster.node(1).status();
    const [far] = farAddresses(3);
    for (const peer of peers) {
      const route = peer.publicIP === far ? 'tunnel' : 'direct';
      expect(peer).to.include({ route, routeIPv6: route, programmed: true });
    }
    expect(overlay).to.include({ directRouting: true, datapath: 'kernel', mtuBytes: 1430 });
  });

  it('a node reaches the pods of both, and they it', async () => {
    for (const number of [2, 3]) {
      for (const to of cluster.pod(number).addresses) {
        expect(await ping(cluster.node(1).namespace, to, { count: 2 }), to).to.include({ lost: 0 });
      }
    }
  });

  it('a peer whose way on the link goes moves into the tunnel and back: nothing is lost', async () => {
    const { namespace } = cluster.node(1);
    const before = await kernelState(namespace);
    const detours = [
      [`${nodeAddress(2)}/32`, gatewayAddresses.ipv4],
      [`${nodeAddress6(2)}/128`, gatewayAddresses.ipv6],
    ];
    const lost = await lostDuring(cluster.pod(1), cluster.pod(2), async () => {
      await ipBatch(
        namespace,
        detours.map(([peer, router]) => `route add ${peer} via ${router}`),
      );
      await untilRoute(cluster, 1, 2, 'tunnel');
      await ipBatch(
        namespace,
        detours.map(([peer, router]) => `route del ${peer} via ${router}`),
      );
      await untilRoute(cluster, 1, 2, 'direct');
    });
    expect(lost).to.deep.equal([]);
    await untilState(namespace, before);
  });

  it('a peer whose lease moves off the link and back is followed: nothing is lost', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const before = await kernelState(first.namespace);
    // Addresses besides its own, which the router knows the way to and nobody has on its link.
    const elsewhere = ['203.0.113.2', '2001:db8:0:2::2'] as const;
    const own = [nodeAddress(2), nodeAddress6(2)] as const;
    await ipBatch(second.namespace, [
      `addr add ${elsewhere[0]}/32 dev ${NODE_INTERFACE}`,
      `addr add ${elsewhere[1]}/128 dev ${NODE_INTERFACE} nodad`,
    ]);
    await ipBatch(cluster.lab.underlay.namespace, [
      `route add ${elsewhere[0]}/32 via ${own[0]}`,
      `route add ${elsewhere[1]}/128 via ${own[1]}`,
    ]);
    const lost = await lostDuring(cluster.pod(1), cluster.pod(2), async () => {
      for (const [[ipv4, ipv6], route] of [
        [elsewhere, 'tunnel'],
        [own, 'direct'],
      ] as const) {
        await second.daemon?.terminate();
        await second.startDaemon(['--public-ip', ipv4, '--public-ipv6', ipv6]);
        await second.untilReady();
        await untilRoute(cluster, 1, 2, route);
      }
    });
    expect(lost).to.deep.equal([]);
    await untilState(first.namespace, before);
    await cluster.settled();
  });

  it('our own address moves off the link and back: the peers there move with it, and streams go on', async () => {
    const { namespace } = cluster.node(1);
    const before = await kernelState(namespace);
    const [router4, router6] = [gatewayAddresses.ipv4, gatewayAddresses.ipv6];
    const own = FAMILIES.map((family) => nodePrefix(1, family));
    const elsewhere = ['203.0.113.1/32', '2001:db8:0:3::1/128'];
    const onLink = (words: string, addresses: readonly string[]) =>
      addresses.map((each) => `${words} ${each} dev ${NODE_INTERFACE}${nodad(words, each)}`);
    await ipBatch(cluster.lab.underlay.namespace, [
      `route add 203.0.113.1/32 dev under0`,
      `route add 2001:db8:0:3::1/128 dev under0`,
    ]);
    // What comes is there before what goes; until the peers know of it they take nothing from the new address.
    const stream = await streamDuring(cluster.pod(1), cluster.pod(2), async () => {
      await ipBatch(namespace, [
        ...onLink('route add', [`${router4}/32`, `${router6}/128`]),
        ...onLink('addr add', elsewhere),
        ...onLink('addr del', own),
        ...[router4, router6].map((router) => `route replace default via ${router}`),
      ]);
      await untilRoute(cluster, 1, 2, 'tunnel');
      await untilRoute(cluster, 2, 1, 'tunnel');
      await ipBatch(namespace, [
        ...onLink('addr add', own),
        ...onLink('addr del', elsewhere),
        ...[router4, router6].map((router) => `route replace default via ${router}`),
        ...onLink('route del', [`${router4}/32`, `${router6}/128`]),
      ]);
      await untilRoute(cluster, 1, 2, 'direct');
      await untilRoute(cluster, 2, 1, 'direct');
    });
    expect(stream.whole, JSON.stringify(stream)).to.equal(true);
    await untilState(namespace, before);
  });

  it('a strict rp_filter of the underlay would drop a peer on the move, and is made loose', async () => {
    const { namespace } = cluster.node(1);
    const setting = `net/ipv4/conf/${NODE_INTERFACE}/rp_filter`;
    await runInside(namespace, ['sysctl', '-qw', `${setting}=1`]);
    const isLoose = async () => (await runInside(namespace, ['sysctl', '-n', setting])).stdout.trim() === '2';
    await until(isLoose, { what: `${setting} to be 2`, deadlineMs: DEADLINE_MS });
  });

  it('the link goes down and up, and its carrier away and back: every direct route is there again', async () => {
    const { number, namespace } = cluster.node(1);
    const before = await kernelState(namespace);
    await run('ip', ['-n', cluster.lab.underlay.namespace, 'link', 'set', `n${number}`, 'down']);
    await untilGone(namespace);
    await run('ip', ['-n', cluster.lab.underlay.namespace, 'link', 'set', `n${number}`, 'up']);
    await untilState(namespace, before);
    await run('ip', ['-n', namespace, 'link', 'set', NODE_INTERFACE, 'down']);
    // Down takes the default routes and the IPv6 address with it: what a network manager puts back.
    await ipBatch(namespace, [
      `link set ${NODE_INTERFACE} up`,
      `addr add ${nodeAddress6(number)}/64 dev ${NODE_INTERFACE} nodad`,
      `route add default via ${gatewayAddress}`,
      'route add default via 2001:db8::1',
    ]);
    await untilState(namespace, before);
    await untilReachable(cluster.pod(1), cluster.pod(2));
  });

  it('what the kernel holds of it is put back when somebody takes it away', async () => {
    const { namespace } = cluster.node(1);
    const before = await kernelState(namespace);
    for (const family of ['-4', '-6']) {
      const { stdout } = await run('ip', ['-n', namespace, family, '-j', 'route', 'show', 'proto', '118']);
      for (const { dst } of JSON.parse(stdout))
        await run('ip', ['-n', namespace, family, 'route', 'del', dst]);
    }
    await untilState(namespace, before);
    await runInside(namespace, ['ip', 'nexthop', 'flush', 'proto', '118']);
    await untilState(namespace, before);
  });

  it('a restart loses nothing and changes nothing', async () => {
    const node = cluster.node(1);
    const before = await kernelState(node.namespace);
    const lost = await lostDuring(cluster.pod(1), cluster.pod(2), async () => {
      await node.daemon?.kill();
      await node.startDaemon();
      await node.untilReady();
      await cluster.settled();
    });
    expect(lost).to.deep.equal([]);
    expect(await kernelState(node.namespace)).to.equal(before);
  });

  it('a plain packet that claims to be from a pod of this node is dropped, and counted', async () => {
    const [first, second] = [cluster.node(1), cluster.node(2)];
    const forged = cluster.pod(1).address.replace(/\d+$/, '250');
    await run('ip', ['-n', second.namespace, 'addr', 'add', `${forged}/32`, 'dev', 'lo']);
    const command = ['busybox', 'ping', '-c', '1', '-W', '1', '-I', forged, cluster.pod(1).address];
    await runInside(second.namespace, command, { tolerant: true });
    await run('ip', ['-n', second.namespace, 'addr', 'del', `${forged}/32`, 'dev', 'lo']);
    expect((await first.status()).firewall?.drops.plain_forged).to.equal(1);
  });
});

describeCluster('direct routing that is switched on and off', [ETCD_DUAL], {}, (cluster) => {
  it('in the store: every node moves its peers, nothing is lost, and the tunnel is as it was', async () => {
    const before = await Promise.all(cluster.lab.nodes.map(({ namespace }) => kernelState(namespace)));
    const { store } = cluster.lab;
    if (!('etcdctl' in store)) throw new Error('unreachable: the store is etcd');
    const set = (directRouting: boolean) =>
      store.etcdctl([
        ...['put', `${ETCD_PREFIX}/config`],
        labNetworkConfig('dual', { Backend: { Type: 'vxlan', DirectRouting: directRouting } }),
      ]);
    const lost = await lostDuring(cluster.pod(1), cluster.pod(2), async () => {
      for (const [on, route] of [
        [true, 'direct'],
        [false, 'tunnel'],
      ] as const) {
        await set(on);
        await untilRoute(cluster, 1, 2, route);
        await untilRoute(cluster, 2, 1, route);
      }
    });
    expect(lost).to.deep.equal([]);
    for (const [i, { namespace }] of cluster.lab.nodes.entries())
      await untilState(namespace, before[i] ?? '');
  });
});

const HOST_GW = { ...PLAN, networkConfig: network({ Type: 'host-gw' }) };

describeCluster('host-gw', [EMBEDDED_DUAL], HOST_GW, (cluster) => {
  before(async () => {
    await putBehindRouter(cluster.lab, 3);
    await cluster.lab.startDaemons();
    await Promise.all([1, 2].map((number) => cluster.node(number).untilProgrammed(1)));
    await cluster.node(3).untilProgrammed(0);
    for (const node of cluster.lab.nodes) await node.attachPod();
  });

  it('pods of nodes on one link reach each other plainly, at the underlay’s whole MTU', async () => {
    const capture = await Capture.start(cluster.node(1).namespace, NODE_INTERFACE, 'udp port 8472');
    await untilReachable(cluster.pod(1), cluster.pod(2));
    expect(await capture.stop()).to.deep.equal([]);
    expect(await readFile(cluster.node(1).subnetFile, 'utf8')).to.match(/^FLANNEL_MTU=1500$/m);
    const { stdout } = await runInside(cluster.pod(1).namespace, ['ip', '-j', 'link', 'show', 'eth0']);
    expect(JSON.parse(stdout)[0].mtu).to.equal(1500);
  });

  it('a node that is not on the link is named with the reason, and the others work', async () => {
    const [far] = farAddresses(3);
    const { skipped, peers, overlay, ready } = await cluster.node(1).status();
    expect(skipped).to.have.length(1);
    expect(skipped[0]?.reason).to.match(
      new RegExp(`public address ${far} is not on the underlay link, and the host-gw backend has no tunnel`),
    );
    expect(peers.map(({ route, routeIPv6 }) => [route, routeIPv6])).to.deep.equal([['direct', 'direct']]);
    expect(overlay).to.include({ backend: 'host-gw', datapath: 'direct', device: null, mtuBytes: 1500 });
    expect(ready).to.equal(true);
  });

  it('has neither a vxlan device nor a guard of its port, and its lease names no VTEP', async () => {
    const state = await kernelState(cluster.node(1).namespace);
    expect(state).not.to.match(/vxlan/);
    const { stdout } = await cluster
      .node(1)
      .vtepd([
        ...['leases', '--json', '--store', 'embedded'],
        ...['--embedded-path', 'path' in cluster.lab.store ? cluster.lab.store.path : ''],
      ]);
    for (const lease of JSON.parse(stdout).leases) {
      expect(lease).to.include({ backend: 'host-gw' });
      expect(lease).not.to.have.property('vtepMAC');
    }
  });

  it('a node reaches the other’s pods, and a pod what is outside', async () => {
    expect(await ping(cluster.node(1).namespace, cluster.pod(2).address, { count: 2 })).to.include({
      lost: 0,
    });
    expect(await ping(cluster.pod(1).namespace, gatewayAddress, { count: 2 })).to.include({ lost: 0 });
  });

  it('cleanup leaves no route and no nexthop object of ours', async () => {
    const { namespace, daemon, stateDir, runDir } = cluster.node(2);
    await daemon?.terminate();
    await cluster.node(2).vtepd(['cleanup', '--state-dir', stateDir, '--run-dir', runDir]);
    for (const family of ['-4', '-6']) {
      const { stdout } = await run('ip', ['-n', namespace, family, 'route', 'show', 'proto', '118']);
      expect(stdout).to.equal('');
    }
    expect((await run('ip', ['-n', namespace, 'nexthop', 'show', 'proto', '118'])).stdout).to.equal('');
  });
});

/** The echo requests that went unanswered, of 100 a second in both directions and families. */
async function lostDuring(one: Pod, other: Pod, action: () => Promise<void>): Promise<string[]> {
  const running = new Map<string, RunningPing>();
  const lost: string[] = [];
  try {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      for (const address of to.addresses)
        running.set(address, await RunningPing.start(from.namespace, address, 10));
    }
    for (const each of running.values()) await each.untilAnswered(5);
    await action();
    for (const each of running.values()) await each.untilAnswered(each.answered + 20);
  } finally {
    for (const [address, each] of running) {
      const report = await each.stop();
      if (report.lost > 0) lost.push(`${report.lost} of ${report.sent} to ${address}`);
    }
  }
  return lost;
}

async function untilRoute(cluster: Cluster, at: number, peer: number, route: string): Promise<void> {
  const { lease } = await cluster.node(peer).status();
  const follows = async () => {
    const { peers } = await cluster.node(at).status();
    const found = peers.find(({ subnet }) => subnet === lease?.subnet);
    return found?.route === route && found.routeIPv6 === route && found.programmed;
  };
  await until(follows, { what: `node ${peer} to be reached: ${route}`, deadlineMs: DEADLINE_MS });
}

async function untilReachable(from: Pod, to: Pod): Promise<void> {
  const all = async () => {
    const reports = await Promise.all(
      to.addresses.map((address) => ping(from.namespace, address, { count: 1 })),
    );
    return reports.every(({ received }) => received === 1);
  };
  await until(all, { what: 'the pods to reach each other', deadlineMs: DEADLINE_MS });
}

/** The kernel takes nexthop objects over a link without a carrier away. */
async function untilGone(namespace: string): Promise<void> {
  const isGone = async () =>
    (await run('ip', ['-n', namespace, 'nexthop', 'show', 'dev', NODE_INTERFACE])).stdout.trim() === '';
  await until(isGone, { what: 'the nexthops over the link to go', deadlineMs: DEADLINE_MS });
}

/** Nobody else has these addresses: they are used at once. */
const nodad = (words: string, address: string): string =>
  words === 'addr add' && address.includes(':') ? ' nodad' : '';

/** Neighbour discovery is ICMPv6 too, and always plain. */
const isEcho = (kind: string, header: object | undefined): boolean =>
  header !== undefined &&
  'type' in header &&
  ((kind === 'icmp' && (header.type === 8 || header.type === 0)) ||
    (kind === 'icmpv6' && (header.type === 128 || header.type === 129)));
