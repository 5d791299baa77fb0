/**
 * One node with its overlay, and every wire that leads to it in our hands:
 *
 *      wires (no addresses: it says nothing by itself)          node
 *
 *      under  <======= veth =======>  eth0   192.0.2.1  2001:db8::1
 *                                       |    vtep.1 (VNI 1), vtep-v6.1 (VNI 1), other42 (VNI 42), one port
 *                                     vtep0  10.244.1.1  fc00:0:0:1::1        (bridge)
 *      podA   <======= veth =======>  vtpA   10.244.1.2  fc00:0:0:1::2
 *      podB   <======= veth =======>  vtpB   10.244.1.3  fc00:0:0:1::3
 *
 * A peer 192.0.2.2, 2001:db8::2 has the subnets 10.244.2.0/24, fc00:0:0:2::/64; 192.0.2.66 and 2001:db8::66
 * are strangers on the same underlay. All neighbours are static, so nothing but what a test sends is sent.
 */

import { ENCAPSULATED_MARK, type FirewallFacts, wantFirewall } from '../../../overlay/desired/firewall.ts';
import type { DropReason } from '../../../overlay/desired/firewall-table.ts';
import type { PodPort } from '../../../overlay/desired/pods.ts';
import { Firewall } from '../../../overlay/kernel/firewall.ts';
import {
  addNamespace,
  deleteNamespace,
  ipBatch,
  namespacePath,
  runInside,
} from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import { udp, vxlan } from './frames.ts';
import { Wire } from './wire.ts';

export const PORT = 8472;
export const VNI = 1;
const DEADLINE_MS = 5000;

const NODE_MAC = parseMac('02:00:00:00:00:01');
const ROUTER_MAC = parseMac('02:00:00:00:00:02');
const VTEP_MAC = parseMac('02:00:00:00:01:01');
const PEER_VTEP_MAC = parseMac('02:00:00:00:02:01');
const BRIDGE_MAC = parseMac('02:00:00:00:01:02');

const of = (text: string) => parseAddress(text);

/** Every address of the picture, so that a test reads the same in both families. */
export const ADDRESSES = {
  ipv4: {
    node: of('192.0.2.1'),
    peer: of('192.0.2.2'),
    stranger: of('192.0.2.66'),
    world: of('198.51.100.9'),
    vtep: of('10.244.1.0'),
    gateway: of('10.244.1.1'),
    podA: of('10.244.1.2'),
    podB: of('10.244.1.3'),
    remotePod: of('10.244.2.5'),
  },
  ipv6: {
    node: of('2001:db8::1'),
    peer: of('2001:db8::2'),
    stranger: of('2001:db8::66'),
    world: of('2001:db8:ffff::9'),
    vtep: of('fc00:0:0:1::'),
    gateway: of('fc00:0:0:1::1'),
    podA: of('fc00:0:0:1::2'),
    podB: of('fc00:0:0:1::3'),
    remotePod: of('fc00:0:0:2::5'),
  },
} as const;

export const MACS = {
  node: NODE_MAC,
  router: ROUTER_MAC,
  bridge: BRIDGE_MAC,
  vtep: VTEP_MAC,
  peerVtep: PEER_VTEP_MAC,
  podA: parseMac('02:00:00:00:0a:0a'),
  podB: parseMac('02:00:00:00:0b:0b'),
} as const;

export const FACTS: FirewallFacts = {
  clusterNetworks: { ipv4: parseSubnet('10.244.0.0/16'), ipv6: parseSubnet('fc00::/48') },
  gateways: { ipv4: ADDRESSES.ipv4.gateway, ipv6: ADDRESSES.ipv6.gateway },
  devices: { ipv4: 'vtep.1', ipv6: 'vtep-v6.1' },
  bridge: 'vtep0',
  vni: VNI,
  port: PORT,
  markBit: ENCAPSULATED_MARK,
  masquerade: true,
  peerFilter: true,
  podFilter: true,
};

export const PEERS = [ADDRESSES.ipv4.peer, ADDRESSES.ipv6.peer];

export const PODS: readonly PodPort[] = (['podA', 'podB'] as const).map((name) => ({
  hostInterface: `vtp${name.slice(-1)}`,
  mac: MACS[name],
  addresses: [ADDRESSES.ipv4[name], ADDRESSES.ipv6[name]],
  hairpin: false,
}));

export type FamilyName = keyof typeof ADDRESSES;
export const FAMILY_NAMES = ['ipv4', 'ipv6'] as const;

let rigs = 0;

export class Rig implements AsyncDisposable {
  readonly node: string;
  readonly #wires: string;
  readonly firewall: Firewall;
  readonly under: Wire;
  readonly podA: Wire;
  readonly podB: Wire;
  #marker = 0;

  private constructor(node: string, wires: string) {
    this.node = node;
    this.#wires = wires;
    this.firewall = Firewall.open({ namespace: namespacePath(node) });
    this.under = new Wire(wires, 'under');
    this.podA = new Wire(wires, 'podA');
    this.podB = new Wire(wires, 'podB');
  }

  static async build(): Promise<Rig> {
    const prefix = `vtepd-fw${process.pid}-${rigs++}`;
    const [node, wires] = [`${prefix}n`, `${prefix}w`];
    try {
      await addNamespace(node);
      await addNamespace(wires);
      await silence(wires, ['net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1']);
      await silence(node, [
        'net.ipv4.ip_forward=1',
        'net.ipv6.conf.all.forwarding=1',
        'net.ipv6.conf.default.accept_dad=0',
        'net.ipv4.conf.all.rp_filter=0',
        'net.ipv4.conf.default.rp_filter=0',
      ]);
      await ipBatch(node, nodeCommands(wires));
      await ipBatch(
        wires,
        ['under', 'podA', 'podB'].map((name) => `link set ${name} up`),
      );
      return new Rig(node, wires);
    } catch (error) {
      await deleteNamespace(node);
      await deleteNamespace(wires);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.firewall.close();
    for (const wire of [this.under, this.podA, this.podB]) wire[Symbol.dispose]();
    await deleteNamespace(this.node);
    await deleteNamespace(this.#wires);
  }

  /** Applies the facts with these differences, and our peers and pods. */
  apply(facts: Partial<FirewallFacts> = {}): void {
    this.firewall.apply(wantFirewall({ ...FACTS, ...facts }, PEERS, PODS));
  }

  /** A payload that is found again. */
  marker(): string {
    return `<packet ${this.#marker++}>`;
  }

  /** Sends what `make` builds around a fresh marker, and returns how it comes out at the other wire. */
  async passes(from: Wire, make: (payload: Buffer) => Buffer | readonly Buffer[], to: Wire): Promise<Buffer> {
    const marker = this.marker();
    from.send(...[make(Buffer.from(marker))].flat());
    try {
      return await to.expect(marker);
    } catch (error) {
      console.log(JSON.stringify(this.firewall.drops()), await this.nft(['list', 'ruleset']));
      throw error;
    }
  }

  /** Sends the same; it must be counted as dropped for this reason, once, and come out nowhere. */
  async drops(
    from: Wire,
    make: (payload: Buffer) => Buffer | readonly Buffer[],
    reason: DropReason,
  ): Promise<void> {
    const marker = this.marker();
    await this.counted(reason, () => from.send(...[make(Buffer.from(marker))].flat()));
    this.nowhere(marker);
  }

  async counted(reason: DropReason, action: () => void): Promise<void> {
    const before = this.firewall.drops();
    action();
    const after = await until(
      () => {
        const drops = this.firewall.drops();
        return drops[reason] > before[reason] ? drops : undefined;
      },
      { what: `a packet dropped as ${reason}`, deadlineMs: DEADLINE_MS, everyMs: 1 },
    );
    const expected = { ...before, [reason]: before[reason] + 1 };
    if (JSON.stringify(after) !== JSON.stringify(expected)) {
      throw new Error(`dropped ${JSON.stringify(after)}, expected ${JSON.stringify(expected)}`);
    }
  }

  nowhere(marker: string): void {
    for (const [name, wire] of Object.entries({ under: this.under, podA: this.podA, podB: this.podB })) {
      if (wire.find(marker) !== undefined) throw new Error(`${marker} came out at ${name}`);
    }
  }

  /** `nft ARGUMENTS` on the node. */
  async nft(args: readonly string[]): Promise<string> {
    return (await runInside(this.node, ['nft', ...args])).stdout;
  }

  /** A raw socket on one of the node's own interfaces. */
  tap(name: string): Wire {
    return new Wire(this.node, name);
  }

  /** Outer UDP from an address of the underlay, with a frame inside. */
  encapsulated(family: FamilyName, from: 'peer' | 'stranger', frame: Buffer, vni = VNI): Buffer {
    return udp(
      { from: MACS.router, to: MACS.node },
      { from: ADDRESSES[family][from], to: ADDRESSES[family].node },
      { from: 50_000, to: PORT },
      vxlan(vni, frame),
    );
  }

  /** A datagram of the peer's pod to our pod A, as it is inside the tunnel. */
  inner(family: FamilyName, payload: Buffer): Buffer {
    const { remotePod, podA } = ADDRESSES[family];
    return udp(
      { from: MACS.peerVtep, to: MACS.vtep },
      { from: remotePod, to: podA },
      { from: 4000, to: 4001 },
      payload,
    );
  }
}

/** sysctl(8) needs /proc/sys of the namespace, which is the calling thread's. */
function silence(namespace: string, settings: readonly string[]): Promise<unknown> {
  return runInside(namespace, ['sysctl', '-q', '-w', ...settings]);
}

function nodeCommands(wires: string): string[] {
  const { ipv4, ipv6 } = ADDRESSES;
  const pods = [
    ['podA', 'vtpA'],
    ['podB', 'vtpB'],
  ] as const;
  const neighbours = [ipv4.peer, ipv4.stranger, '192.0.2.254', ipv6.peer, ipv6.stranger, '2001:db8::254'];
  return [
    `link add eth0 address ${MACS.node} type veth peer name under netns ${wires}`,
    `link add vtep.1 address ${MACS.vtep} type vxlan id ${VNI} dstport ${PORT} local ${ipv4.node} nolearning`,
    `link add vtep-v6.1 address ${MACS.vtep} type vxlan id ${VNI} dstport ${PORT} local ${ipv6.node} nolearning`,
    `link add other42 type vxlan id 42 dstport ${PORT} local ${ipv4.node} nolearning`,
    `link add vtep0 address ${MACS.bridge} type bridge`,
    ...pods.flatMap(([far, near]) => [
      `link add ${near} type veth peer name ${far} netns ${wires}`,
      `link set ${near} master vtep0 up`,
    ]),
    ...['eth0', 'vtep.1', 'vtep-v6.1', 'other42', 'vtep0'].map((name) => `link set ${name} up`),
    `addr add ${ipv4.node}/24 dev eth0`,
    `addr add ${ipv6.node}/64 dev eth0 nodad`,
    `addr add ${ipv4.vtep}/32 dev vtep.1`,
    `addr add ${ipv6.vtep}/128 dev vtep-v6.1 nodad`,
    `addr add ${ipv4.gateway}/24 dev vtep0`,
    `addr add ${ipv6.gateway}/64 dev vtep0 nodad`,
    ...neighbours.map((address) => `neigh add ${address} lladdr ${MACS.router} dev eth0 nud permanent`),
    ...pods.flatMap(([far]) =>
      FAMILY_NAMES.map(
        (family) => `neigh add ${ADDRESSES[family][far]} lladdr ${MACS[far]} dev vtep0 nud permanent`,
      ),
    ),
    'route add default via 192.0.2.254 dev eth0',
    'route add default via 2001:db8::254 dev eth0',
    `neigh add 10.244.2.0 lladdr ${MACS.peerVtep} dev vtep.1 nud permanent`,
    `neigh add fc00:0:0:2:: lladdr ${MACS.peerVtep} dev vtep-v6.1 nud permanent`,
    'route add 10.244.2.0/24 via 10.244.2.0 dev vtep.1 onlink',
    'route add fc00:0:0:2::/64 via fc00:0:0:2:: dev vtep-v6.1 onlink',
  ];
}
