/**
 * Two ends of a tunnel without daemons, each of either kind, over one wire:
 *
 *     one  vtep.1 10.9.1.1 fc00:9:1::1                vtep.1 10.9.2.1 fc00:9:2::1  two
 *          eth0   192.0.2.1 2001:db8::1 ==== veth ==== 192.0.2.2 2001:db8::2  eth0
 *
 * One is always the user-space tunnel; two is that or kernel vxlan. All neighbours are permanent, as a daemon has them.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../overlay/lab/command.ts';
import { LoneTunnel } from '../../overlay/lab/lone-tunnel.ts';
import { addNamespace, deleteNamespace, ipBatch } from '../../overlay/lab/namespace.ts';
import { type Address, type Family, type Mac, parseAddress, parseMac } from '../../store/address.ts';

export const PORT = 8472;
export const VNI = 1;
export const UNDERLAY_MTU = 1500;
export const DEVICE = 'vtep.1';

export type Kind = 'userspace' | 'kernel';

export interface RigOptions {
  readonly two?: Kind | undefined;
  /** The family of the outer packets; `ipv4` unless told. */
  readonly outer?: Family | undefined;
  readonly queues?: number | undefined;
  /** Whether one's tunnel has a holder. */
  readonly held?: boolean | undefined;
}

export class RigEnd {
  readonly number: 1 | 2;
  readonly namespace: string;
  readonly mac: Mac;
  readonly underlay: Address;
  /** Inside the tunnel. */
  readonly inner: Readonly<Record<Family, Address>>;
  tunnel: LoneTunnel | undefined;

  constructor(number: 1 | 2, namespace: string, outer: Family) {
    this.number = number;
    this.namespace = namespace;
    this.mac = parseMac(`02:00:00:00:09:0${number}`);
    this.underlay = parseAddress(outer === 'ipv4' ? `192.0.2.${number}` : `2001:db8::${number}`);
    this.inner = {
      ipv4: parseAddress(`10.9.${number}.1`),
      ipv6: parseAddress(`fc00:9:${number}::1`),
    };
  }
}

export class Rig {
  readonly one: RigEnd;
  readonly two: RigEnd;
  readonly #outer: Family;
  readonly #queues: number | undefined;
  readonly #folder: string | undefined;

  static async create({ two = 'userspace', outer = 'ipv4', queues, held }: RigOptions = {}): Promise<Rig> {
    const folder = held === true ? await mkdtemp(join(tmpdir(), 'vtepd-encap-')) : undefined;
    const rig = new Rig(outer, queues, folder);
    try {
      await rig.#wire();
      await rig.openTunnel(rig.one);
      if (two === 'userspace') await rig.openTunnel(rig.two);
      else await rig.#addVxlan();
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  private constructor(outer: Family, queues: number | undefined, folder: string | undefined) {
    const run = `vt${randomBytes(3).toString('hex')}`;
    this.one = new RigEnd(1, `${run}-1`, outer);
    this.two = new RigEnd(2, `${run}-2`, outer);
    this.#outer = outer;
    this.#queues = queues;
    this.#folder = folder;
  }

  get mtuBytes(): number {
    return UNDERLAY_MTU - (this.#outer === 'ipv4' ? 50 : 70);
  }

  get holderFile(): string | undefined {
    return this.#folder === undefined ? undefined : join(this.#folder, 'holder');
  }

  other(end: RigEnd): RigEnd {
    return end === this.one ? this.two : this.one;
  }

  /** A tunnel at this end, with the other as its peer. */
  async openTunnel(
    end: RigEnd,
    { device = DEVICE, port = PORT }: { readonly device?: string; readonly port?: number } = {},
  ): Promise<LoneTunnel> {
    const other = this.other(end);
    const tunnel = await LoneTunnel.start({
      namespace: end.namespace,
      tunnel: {
        device,
        mac: end.mac,
        vni: VNI,
        port,
        local: end.underlay,
        underlayMtuBytes: UNDERLAY_MTU,
        mark: 0,
        queues: this.#queues,
        holderFile: end === this.one ? this.holderFile : undefined,
        peers: [[other.mac, other.underlay]],
      },
      mtuBytes: this.mtuBytes,
      addresses: addressesOf(end),
    });
    end.tunnel = tunnel;
    await ipBatch(end.namespace, routesTo(other));
    return tunnel;
  }

  async close(): Promise<void> {
    await this.one.tunnel?.close();
    await this.two.tunnel?.close();
    await deleteNamespace(this.one.namespace);
    await deleteNamespace(this.two.namespace);
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true });
  }

  async #wire(): Promise<void> {
    const [one, two] = [this.one.namespace, this.two.namespace];
    await addNamespace(one);
    await addNamespace(two);
    await ipBatch(one, [`link add eth0 type veth peer name eth0 netns ${two}`]);
    for (const { namespace, number } of [this.one, this.two]) {
      await ipBatch(namespace, [
        `addr add 192.0.2.${number}/24 dev eth0`,
        `addr add 2001:db8::${number}/64 dev eth0 nodad`,
        `link set dev eth0 mtu ${UNDERLAY_MTU} up`,
      ]);
    }
  }

  async #addVxlan(): Promise<void> {
    const { two, one } = this;
    await ipBatch(two.namespace, [
      `link add ${DEVICE} address ${two.mac} mtu ${this.mtuBytes} type vxlan id ${VNI} local ${two.underlay} dstport ${PORT} nolearning`,
      ...addressesOf(two).map((address) => `addr add ${address} dev ${DEVICE}${nodad(address)}`),
      `link set dev ${DEVICE} up`,
      ...routesTo(one),
    ]);
    await run('bridge', ['-n', two.namespace, 'fdb', 'append', one.mac, 'dev', DEVICE, 'dst', one.underlay]);
  }
}

const nodad = (address: string): string => (address.includes(':') ? ' nodad' : '');

const addressesOf = ({ inner }: RigEnd): string[] => [`${inner.ipv4}/32`, `${inner.ipv6}/128`];

const routesTo = ({ inner, mac }: RigEnd): string[] =>
  Object.values(inner).flatMap((address) => [
    `neigh replace ${address} lladdr ${mac} dev ${DEVICE} nud permanent`,
    `route replace ${address} dev ${DEVICE}`,
  ]);
