/**
 * A node as flannel makes it, without flannel: `ip`, `bridge` and `etcdctl` do on a lab's node what flanneld
 * does (leases, device, entries, rules), and the reference plugins what its CNI plugin has them do. Written from
 * flannel's source (backend/vxlan, backend/hostgw, subnet/etcd, trafficmngr/iptables) and its CNI plugin's.
 *
 *     etcd <-- lease, on an etcd lease of a day        etcd --watch--> ARP, FDB and route a peer
 *     flannel.1 (nolearning, <subnet>/32), flannel-v6.1          cni0 <-- bridge + host-local
 *
 * When it stops, everything stays, as with flanneld. The process named flanneld is a `sleep` of that name.
 */
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Child, run, start, stop } from '../../overlay/lab/command.ts';
import type { Lab } from '../../overlay/lab/lab.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { ETCD_PREFIX, EtcdLabStore } from '../../overlay/lab/lab-store.ts';
import {
  addNamespace,
  deleteNamespace,
  inside,
  ipBatch,
  namespacePath,
} from '../../overlay/lab/namespace.ts';
import { NODE_INTERFACE } from '../../overlay/lab/underlay.ts';
import { until } from '../../overlay/lab/wait.ts';
import {
  type Address,
  addressAt,
  FAMILIES,
  type Family,
  formatSubnet,
  type PerFamily,
  parseAddress,
  parseSubnet,
  type Subnet,
  sameSubnet,
} from '../../store/address.ts';
import { decodeLeaseKey, encodeLeaseKey } from '../../store/lease-codec.ts';

/** Where Debian has the reference plugins. */
const PLUGINS = '/usr/lib/cni';
export const CNI_NETWORK = 'cbr0';
export const CONFLIST = '10-flannel.conflist';
const SUBNETS = `${ETCD_PREFIX}/subnets/`;
const DEVICE: Readonly<Record<Family, string>> = { ipv4: 'flannel.1', ipv6: 'flannel-v6.1' };
const PORT = 8472;
const MULTICAST: Readonly<Record<Family, string>> = { ipv4: '224.0.0.0/4', ipv6: 'ff00::/8' };

interface NetworkDocument {
  readonly Network?: string;
  readonly IPv6Network?: string;
  readonly EnableIPv4?: boolean;
  readonly EnableIPv6?: boolean;
  readonly Backend: { readonly Type: string; readonly DirectRouting?: boolean };
}

/** `{"PublicIP":...}` as flannel marshals it. */
interface LeaseDocument {
  readonly PublicIP: string;
  readonly PublicIPv6: string | null;
  readonly BackendType: string;
  readonly BackendData?: { readonly VNI?: number; readonly VtepMAC: string };
  readonly BackendV6Data?: { readonly VNI?: number; readonly VtepMAC: string };
}

export interface FlannelPod {
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly Address[];
  readonly address: Address;
}

export class FlannelNode {
  readonly node: LabNode;
  readonly dataDir: string;
  readonly pods: FlannelPod[] = [];
  subnets: PerFamily<Subnet> = {};
  readonly #store: EtcdLabStore;
  /** flannel takes whichever iptables its image has: here one in each family, where the kernel has both. */
  #iptables: Readonly<Record<Family, 'nft' | 'legacy'>> = { ipv4: 'nft', ipv6: 'nft' };
  #daemon: Child | undefined;
  #watch: Child | undefined;
  #network: NetworkDocument = { Backend: { Type: 'vxlan' } };
  #mtuBytes = 1450;
  #nextPod = 1;
  /** Changes are applied one after another, in the order in which the watch told them. */
  #applying: Promise<void> = Promise.resolve();

  private constructor(lab: Lab, node: LabNode) {
    if (!(lab.store instanceof EtcdLabStore)) throw new Error('flannel needs etcd');
    this.node = node;
    this.#store = lab.store;
    this.dataDir = join(node.dir, 'cni', 'data');
  }

  /** As on a node that flannel was installed on: with its CNI configuration, and running. */
  static async create(lab: Lab, node: LabNode): Promise<FlannelNode> {
    const flannel = new FlannelNode(lab, node);
    await mkdir(join(flannel.dataDir, 'flannel'), { recursive: true });
    await mkdir(join(flannel.dataDir, 'results'), { recursive: true });
    await writeFile(join(node.cni.confDir, CONFLIST), JSON.stringify(LIST));
    const legacy = await node.exec(['ip6tables-legacy', '-t', 'nat', '-S'], { tolerant: true });
    if (legacy.status === 0) flannel.#iptables = { ipv4: 'nft', ipv6: 'legacy' };
    await flannel.start();
    return flannel;
  }

  /** What flanneld does when it starts: what is there and fits stays. */
  async start(): Promise<void> {
    await this.#startDaemon();
    const { stdout } = await this.#store.etcdctl(['get', '--print-value-only', `${ETCD_PREFIX}/config`]);
    this.#network = JSON.parse(stdout) as NetworkDocument;
    const overhead = this.#isTunnelled() ? (this.#network.EnableIPv6 === true ? 70 : 50) : 0;
    this.#mtuBytes = 1500 - overhead;
    await this.node.exec(['sysctl', '-q', '-w', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
    if (this.#isTunnelled()) for (const family of this.#families()) await this.#ensureDevice(family);
    const { leases, revision } = await this.#leases();
    await this.#acquire(leases);
    for (const family of this.#families()) await this.#configure(family);
    for (const { subnets, lease } of leases) await this.#added(subnets, lease);
    await this.#follow(revision + 1);
    for (const family of this.#families()) await this.#rules(family);
  }

  /** The end of flanneld, however it comes: all that it made stays. */
  async stop(): Promise<void> {
    for (const child of [this.#watch, this.#daemon]) if (child !== undefined) await stop(child, 'SIGKILL');
    this.#watch = undefined;
    this.#daemon = undefined;
    await this.#applying;
  }

  /** Resolves once this many peers' routes are in the kernel. */
  async untilPeers(count: number): Promise<void> {
    for (const family of this.#families()) {
      const routes = async () => {
        const { stdout } = await this.node.exec(['ip', FLAG[family], 'route', 'show', 'proto', 'boot']);
        return (
          stdout.split('\n').filter((line) => / via /.test(line) && !/^default/.test(line)).length >= count
        );
      };
      await until(routes, { what: `${count} ${family} routes of flannel's`, deadlineMs: 10_000 });
    }
  }

  /**
   * A pod, as a runtime and flannel's plugin make it: the plugin writes down what it delegates, the runtime what
   * came of it. @param remembered false: as after a loss of the runtime's cache
   */
  async attachPod({ remembered = true } = {}): Promise<FlannelPod> {
    const name = `${this.node.namespace}f${this.#nextPod++}`;
    await addNamespace(name);
    const conf = this.#delegated();
    await writeFile(join(this.dataDir, 'flannel', name), JSON.stringify(conf));
    const result = (await this.#plugin('ADD', name, conf)) as CniResult;
    if (remembered) {
      const cached = {
        kind: 'cniCacheV1',
        containerId: name,
        config: Buffer.from(JSON.stringify(LIST)).toString('base64'),
        ifName: 'eth0',
        networkName: CNI_NETWORK,
        cniArgs: [
          ['K8S_POD_NAMESPACE', 'lab'],
          ['K8S_POD_NAME', name],
        ],
        result,
      };
      await writeFile(join(this.dataDir, 'results', `${CNI_NETWORK}-${name}-eth0`), JSON.stringify(cached));
    }
    const addresses = result.ips.map(({ address }) => parseAddress(address.split('/')[0] ?? ''));
    const [address] = addresses;
    if (address === undefined) throw new Error(`${name} has no address`);
    const pod = { name, namespace: name, addresses, address };
    this.pods.push(pod);
    return pod;
  }

  /** What the runtime and flannel's plugin do with DEL: the delegate's, by what was written down. */
  async detachPod(name: string): Promise<void> {
    const path = join(this.dataDir, 'flannel', name);
    // Nothing written down: flannel's plugin takes it for done.
    const conf = await readFile(path, 'utf8').catch(() => undefined);
    if (conf !== undefined) await this.#plugin('DEL', name, JSON.parse(conf));
    await rm(path, { force: true });
    await rm(join(this.dataDir, 'results', `${CNI_NETWORK}-${name}-eth0`), { force: true });
    await deleteNamespace(name);
  }

  async #startDaemon(): Promise<void> {
    const program = join(this.node.dir, 'flanneld');
    await copyFile('/bin/sleep', program);
    this.#daemon = await start(...inside(this.node.namespace, [program, '86400']), { stdio: 'ignore' });
  }

  #isTunnelled = (): boolean => this.#network.Backend.Type === 'vxlan';

  #families(): Family[] {
    const { EnableIPv4 = true, EnableIPv6 = false } = this.#network;
    return FAMILIES.filter((family) => (family === 'ipv4' ? EnableIPv4 : EnableIPv6));
  }

  #publicAddress = (family: Family): Address => this.node.addresses[family] ?? this.node.address;

  async #ensureDevice(family: Family): Promise<void> {
    const device = DEVICE[family];
    const found = await this.node.exec(['ip', '-d', 'link', 'show', device], { tolerant: true });
    const local = this.#publicAddress(family);
    // One with the same parameters is used as it is, with its MAC (vxlanLinksIncompat).
    if (found.status === 0 && found.stdout.includes(`vxlan id 1 local ${local}`)) return;
    if (found.status === 0) await this.node.exec(['ip', 'link', 'del', device]);
    await ipBatch(this.node.namespace, [
      `link add ${device} mtu ${this.#mtuBytes} type vxlan id 1 dev ${NODE_INTERFACE} local ${local} dstport ${PORT} nolearning`,
    ]);
  }

  async #configure(family: Family): Promise<void> {
    if (!this.#isTunnelled()) return;
    const bits = family === 'ipv4' ? 32 : 128;
    const nodad = family === 'ipv6' ? ' nodad' : '';
    const device = DEVICE[family];
    await ipBatch(this.node.namespace, [
      `addr replace ${this.subnets[family]?.address}/${bits} dev ${device}${nodad}`,
      `link set ${device} up`,
    ]);
  }

  async #mac(family: Family): Promise<string> {
    const { stdout } = await this.node.exec(['cat', `/sys/class/net/${DEVICE[family]}/address`]);
    return stdout.trim();
  }

  async #leases() {
    const { stdout } = await this.#store.etcdctl(['get', '--prefix', SUBNETS, '-w', 'json']);
    const { header, kvs = [] } = JSON.parse(stdout) as EtcdAnswer;
    const leases = kvs.flatMap((kv) => {
      const read = readLease(kv);
      return read?.lease === undefined ? [] : [{ subnets: read.subnets, lease: read.lease }];
    });
    return { leases, revision: header.revision };
  }

  /** By public address, then any that is free; an unguarded write on a lease of its own, as flannel's. */
  async #acquire(leases: readonly { subnets: PerFamily<Subnet>; lease: LeaseDocument }[]): Promise<void> {
    const [publicIp, publicIpv6] = [this.#publicAddress('ipv4'), this.#publicAddress('ipv6')];
    const families = this.#families();
    const own = leases.find(({ lease }) =>
      families.includes('ipv4') ? lease.PublicIP === publicIp : lease.PublicIPv6 === publicIpv6,
    );
    this.subnets = own?.subnets ?? this.#freeSubnets();
    const data = async (family: Family) =>
      families.includes(family) && this.#isTunnelled()
        ? { VNI: 1, VtepMAC: await this.#mac(family) }
        : undefined;
    const document = {
      PublicIP: families.includes('ipv4') ? publicIp : '0.0.0.0',
      PublicIPv6: families.includes('ipv6') ? publicIpv6 : null,
      BackendType: this.#network.Backend.Type,
      BackendData: await data('ipv4'),
      BackendV6Data: await data('ipv6'),
    };
    const { stdout } = await this.#store.etcdctl(['lease', 'grant', '86400']);
    const id = /lease ([0-9a-f]+) granted/.exec(stdout)?.[1];
    const key = SUBNETS + encodeLeaseKey(this.subnets);
    await this.#store.etcdctl(['put', `--lease=${id}`, key, JSON.stringify(document)]);
  }

  #freeSubnets(): PerFamily<Subnet> {
    // Away from where vtepd's nodes of a small lab would be by chance: the last ones.
    const cut = (family: Family, text: string | undefined, length: number): Subnet | undefined => {
      if (text === undefined || !this.#families().includes(family)) return undefined;
      const network = parseSubnet(text);
      const size = 2n ** BigInt((family === 'ipv4' ? 32 : 128) - length);
      return {
        family,
        address: addressAt(network, -size * BigInt(this.node.number + 1)),
        prefixLength: length,
      };
    };
    const ipv4 = cut('ipv4', this.#network.Network, 24);
    const ipv6 = cut('ipv6', this.#network.IPv6Network, 64);
    return { ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }) };
  }

  async #follow(revision: number): Promise<void> {
    const command = ['watch', '--prefix', SUBNETS, '-w', 'json', `--rev=${revision}`];
    const child = await this.#store.startEtcdctl(command);
    this.#watch = child;
    let rest = '';
    child.process.stdout?.on('data', (chunk) => {
      rest += String(chunk);
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines.filter(Boolean)) this.#changed(JSON.parse(line) as EtcdEvents);
    });
  }

  #changed({ Events = [] }: EtcdEvents): void {
    for (const { type, kv } of Events) {
      const read = readLease(kv);
      if (read === undefined) continue;
      const { subnets, lease } = read;
      const apply = () =>
        type === 1 || lease === undefined ? this.#removed(subnets) : this.#added(subnets, lease);
      this.#applying = this.#applying.then(apply);
    }
  }

  async #added(subnets: PerFamily<Subnet>, lease: LeaseDocument): Promise<void> {
    if (this.#isOwn(subnets) || lease.BackendType !== this.#network.Backend.Type) return;
    for (const family of this.#families()) {
      const subnet = subnets[family];
      const remote = family === 'ipv4' ? lease.PublicIP : lease.PublicIPv6;
      const data = family === 'ipv4' ? lease.BackendData : lease.BackendV6Data;
      if (subnet === undefined || remote === null) continue;
      const target = formatSubnet(subnet);
      // All nodes of a lab are on one link.
      if (!this.#isTunnelled() || this.#network.Backend.DirectRouting === true) {
        await this.node.exec([
          'ip',
          FLAG[family],
          'route',
          'replace',
          target,
          'via',
          remote,
          'proto',
          'boot',
        ]);
        continue;
      }
      if (data === undefined) continue;
      const [device, mac] = [DEVICE[family], data.VtepMAC];
      await this.node.exec([
        'ip',
        'neigh',
        'replace',
        subnet.address,
        'lladdr',
        mac,
        'dev',
        device,
        'nud',
        'permanent',
      ]);
      await this.node.exec([
        'bridge',
        'fdb',
        'replace',
        mac,
        'dev',
        device,
        'dst',
        remote,
        'self',
        'permanent',
      ]);
      const route = [target, 'via', subnet.address, 'dev', device, 'onlink', 'proto', 'boot'];
      await this.node.exec(['ip', FLAG[family], 'route', 'replace', ...route]);
    }
  }

  async #removed(subnets: PerFamily<Subnet>): Promise<void> {
    if (this.#isOwn(subnets)) return;
    for (const family of this.#families()) {
      const subnet = subnets[family];
      if (subnet === undefined) continue;
      const tolerant = { tolerant: true };
      await this.node.exec(['ip', FLAG[family], 'route', 'del', formatSubnet(subnet)], tolerant);
      if (!this.#isTunnelled()) continue;
      await this.node.exec(['ip', 'neigh', 'del', subnet.address, 'dev', DEVICE[family]], tolerant);
    }
  }

  #isOwn = (subnets: PerFamily<Subnet>): boolean =>
    FAMILIES.some((family) => {
      const [own, other] = [this.subnets[family], subnets[family]];
      return own !== undefined && other !== undefined && sameSubnet(own, other);
    });

  /** trafficmngr/iptables: masquerading and forwarding, in chains of its own. */
  async #rules(family: Family): Promise<void> {
    const network = family === 'ipv4' ? this.#network.Network : this.#network.IPv6Network;
    const subnet = this.subnets[family];
    if (network === undefined || subnet === undefined) return;
    const pods = formatSubnet(subnet);
    const program = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${this.#iptables[family]}`;
    const masq = ['-m', 'comment', '--comment', 'flanneld masq', '-j'];
    const forward = ['-m', 'comment', '--comment', 'flanneld forward', '-j'];
    const nat = [
      ['-s', pods, '-d', network, ...masq, 'RETURN'],
      ['-s', network, '-d', pods, ...masq, 'RETURN'],
      ['!', '-s', network, '-d', pods, ...masq, 'RETURN'],
      ['-s', network, '!', '-d', MULTICAST[family], ...masq, 'MASQUERADE', '--random-fully'],
      ['!', '-s', network, '-d', network, ...masq, 'MASQUERADE', '--random-fully'],
    ];
    const filter = [
      ['-s', network, ...forward, 'ACCEPT'],
      ['-d', network, ...forward, 'ACCEPT'],
    ];
    for (const [table, base, chain, jump, rules] of [
      ['nat', 'POSTROUTING', 'FLANNEL-POSTRTG', masq, nat],
      ['filter', 'FORWARD', 'FLANNEL-FWD', forward, filter],
    ] as const) {
      const command = [program, '-w', '5', '-t', table];
      const call = (...args: readonly string[]) => this.node.exec([...command, ...args]);
      const attempt = (...args: readonly string[]) =>
        this.node.exec([...command, ...args], { tolerant: true });
      await attempt('-N', chain);
      await call('-F', chain);
      const isThere = (await attempt('-C', base, ...jump, chain)).status === 0;
      if (!isThere) await call('-A', base, ...jump, chain);
      for (const rule of rules) await call('-A', chain, ...rule);
    }
  }

  /** What flannel's plugin makes of subnet.env and its own configuration. */
  #delegated() {
    const subnets = this.#families().flatMap((family) => this.subnets[family] ?? []);
    const networks = [this.#network.Network, this.#network.IPv6Network].filter(
      (text): text is string => text !== undefined,
    );
    return {
      cniVersion: '0.3.1',
      name: CNI_NETWORK,
      type: 'bridge',
      hairpinMode: true,
      isGateway: true,
      isDefaultGateway: true,
      ipMasq: false,
      mtu: this.#mtuBytes,
      ipam: {
        type: 'host-local',
        ranges: subnets.map((subnet) => [{ subnet: formatSubnet(subnet) }]),
        routes: networks.map((dst) => ({ dst })),
        dataDir: join(this.dataDir, 'networks'),
      },
    };
  }

  async #plugin(verb: string, name: string, conf: unknown): Promise<unknown> {
    const { stdout } = await run(...inside(this.node.namespace, [join(PLUGINS, 'bridge')]), {
      input: JSON.stringify(conf),
      env: {
        ...process.env,
        CNI_COMMAND: verb,
        CNI_CONTAINERID: name,
        CNI_NETNS: namespacePath(name),
        CNI_IFNAME: 'eth0',
        CNI_PATH: PLUGINS,
      },
    });
    return stdout.trim() === '' ? undefined : JSON.parse(stdout);
  }
}

/** kube-flannel's cni-conf.json. */
const LIST = {
  name: CNI_NETWORK,
  cniVersion: '0.3.1',
  plugins: [
    { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
};

const FLAG: Readonly<Record<Family, string>> = { ipv4: '-4', ipv6: '-6' };

interface CniResult {
  readonly ips: readonly { readonly address: string }[];
}
interface EtcdKv {
  readonly key: string;
  readonly value?: string;
}
interface EtcdAnswer {
  readonly header: { readonly revision: number };
  readonly kvs?: readonly EtcdKv[];
}
interface EtcdEvents {
  readonly Events?: readonly { readonly type?: number; readonly kv: EtcdKv }[];
}

function readLease({ key, value }: EtcdKv) {
  const subnets = decodeLeaseKey(Buffer.from(key, 'base64').toString().slice(SUBNETS.length));
  if (subnets === undefined) return undefined;
  const text = value === undefined ? '' : Buffer.from(value, 'base64').toString();
  return { subnets, lease: text === '' ? undefined : (JSON.parse(text) as LeaseDocument) };
}
