/** Addresses: no two holders ever, released ones reused last, host-local's own files respected. */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { AddressPool } from '../../cni-shim/address-pool.ts';
import { AddressStore } from '../../cni-shim/address-store.ts';
import {
  type Attachment,
  formatRecord,
  hostInterfaceName,
  macOfAddress,
  parseRecord,
} from '../../cni-shim/attachment.ts';
import { CniError } from '../../cni-shim/cni-error.ts';
import { DurableFiles } from '../../cni-shim/durable-files.ts';
import { AddressTakenError, Ipam } from '../../cni-shim/ipam.ts';
import { silentLog } from '../../overlay/ops/log.ts';
import { type Address, addressAt, isUnicastMac, parseAddress, parseSubnet } from '../../store/address.ts';
import { need } from '../lab/capability.ts';

const GATEWAY = parseAddress('10.1.1.1');
const holder = (containerID: string) => ({ network: 'net', containerID, ifname: 'eth0' });

describe('addresses', () => {
  let root: string;
  let files: DurableFiles;
  let ipam: Ipam;

  const open = (): void => {
    files = new DurableFiles(join(root, 'scratch'));
    ipam = new Ipam(new AddressStore(join(root, 'networks'), files), silentLog);
  };
  const release = async (id: string, address: Address): Promise<void> => {
    await ipam.removeFiles(holder(id), [address]);
    ipam.free(holder(id), [address]);
  };
  const take = (
    id: string,
    subnet = '10.1.1.0/28',
    asked: Address[] = [],
    preferred: Address[] = [],
  ): Address => {
    const request = {
      holder: holder(id),
      subnets: { ipv4: parseSubnet(subnet) },
      gateways: { ipv4: GATEWAY },
      asked,
      preferred,
    };
    for (;;) {
      const chosen = ipam.choose(request);
      try {
        ipam.write(request.holder, chosen);
        return chosen[0]?.address ?? GATEWAY;
      } catch (error) {
        if (!(error instanceof AddressTakenError)) throw error;
      }
    }
  };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'vtepd-ipam-'));
    open();
    ipam.load(new Map());
  });
  afterEach(async () => {
    ipam.close();
    await files.close();
    rmSync(root, { recursive: true, force: true });
  });

  it('gives every address but the network, the gateway and the broadcast, then says that there is none', () => {
    const given = Array.from({ length: 13 }, (_, i) => take(`c${i}`));
    expect(given).to.deep.equal(Array.from({ length: 13 }, (_, i) => `10.1.1.${i + 2}`));
    expect(() => take('late'))
      .to.throw(CniError, 'no address of 10.1.1.0/28 is free: 13 pods')
      .with.property('cniCode', 11);
    expect(ipam.use({ ipv4: parseSubnet('10.1.1.0/28') }, { ipv4: GATEWAY }).ipv4).to.deep.equal({
      used: 13,
      free: 0,
    });
  });

  it('reuses released addresses last, the longest released first', async () => {
    const [a, b] = [take('a'), take('b')];
    await release('b', b);
    await release('a', a);
    const rest = Array.from({ length: 11 }, (_, i) => take(`c${i}`));
    expect(rest).to.not.include.members([a, b]);
    expect([take('d'), take('e')]).to.deep.equal([b, a]);
  });

  it('goes on after the last address given before a restart', async () => {
    take('a');
    const b = take('b');
    await release('b', b);
    ipam.close();
    expect(readFileSync(join(root, 'networks/net/last_reserved_ip.0'), 'latin1')).to.equal(b);
    open();
    ipam.load(new Map([[parseAddress('10.1.1.2'), holder('a')]]));
    expect(take('c')).to.equal('10.1.1.4');
  });

  it('gives an asked-for address or says why not', () => {
    const asked = parseAddress('10.1.1.9');
    expect(take('a', undefined, [asked])).to.equal(asked);
    const refuse = (address: string, code: number, text: string) =>
      expect(() => take('b', undefined, [parseAddress(address)]))
        .to.throw(CniError, text)
        .with.property('cniCode', code);
    refuse('10.1.1.9', 103, 'in use by container a');
    refuse('10.1.1.1', 7, 'it is the gateway');
    refuse('10.1.1.0', 7, 'itself');
    refuse('10.1.1.15', 7, 'broadcast');
    refuse('10.2.0.1', 7, "this node's subnet is 10.1.1.0/28");
    refuse('fd00::5', 7, 'no ipv6 subnet');
    expect(() => take('b', undefined, [parseAddress('10.1.1.3'), parseAddress('10.1.1.4')])).to.throw(
      'one ipv4 address',
    );
    expect(Array.from({ length: 12 }, (_, i) => take(`c${i}`))).to.not.include(asked);
  });

  it('respects files that it did not write, also those that appear while it runs', () => {
    const folder = join(root, 'networks', 'cbr0');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, '10.1.1.2'), 'other\r\neth0');
    writeFileSync(join(folder, 'last_reserved_ip.0'), '10.1.1.2');
    writeFileSync(join(folder, 'lock'), '');
    open();
    ipam.load(new Map());
    mkdirSync(join(root, 'networks', 'net'));
    writeFileSync(join(root, 'networks', 'net', '10.1.1.3'), 'sudden\r\neth0');
    expect(take('a')).to.equal('10.1.1.4');
    for (let i = 0; i < 10; i++) take(`c${i}`);
    expect(() => take('late')).to.throw(CniError, 'no address');
    rmSync(join(folder, '10.1.1.2'));
    expect(take('now')).to.equal('10.1.1.2');
    expect(ipam.foreign('net')).to.deep.equal([
      { address: '10.1.1.3', holder: { network: 'net', containerID: 'sudden', ifname: 'eth0' } },
    ]);
  });

  it('removes only its own files', async () => {
    const a = take('a');
    const path = join(root, 'networks', 'net', a);
    writeFileSync(path, 'stranger\r\neth0');
    await release('a', a);
    expect(existsSync(path)).to.equal(true);
  });

  it('puts back a file that was removed by hand, and fills one that a crash left empty', () => {
    const address = parseAddress('10.1.1.7');
    const path = join(root, 'networks', 'net', address);
    for (const content of [undefined, '']) {
      rmSync(path, { force: true });
      mkdirSync(join(root, 'networks', 'net'), { recursive: true });
      if (content !== undefined) writeFileSync(path, content);
      open();
      expect(ipam.load(new Map([[address, holder('a')]]))).to.deep.equal([]);
      expect(readFileSync(path, 'utf8')).to.equal('a\r\neth0');
      expect(ipam.isReserved(holder('a'), address)).to.equal(true);
    }
  });

  it('takes an empty file that nobody claims for none, as a loss of power leaves it', () => {
    mkdirSync(join(root, 'networks', 'net'));
    writeFileSync(join(root, 'networks', 'net', '10.1.1.2'), '');
    open();
    ipam.load(new Map());
    expect(take('a')).to.equal('10.1.1.2');
  });

  it('shares a folder with the real host-local plugin', function () {
    need(this, 'ip');
    const hostLocal = '/usr/lib/cni/host-local';
    if (!existsSync(hostLocal)) {
      console.log('      skipped: this machine lacks containernetworking-plugins');
      this.skip();
    }
    const run = (command: string, id: string): string =>
      execFileSync(hostLocal, {
        input: JSON.stringify({
          cniVersion: '1.0.0',
          name: 'net',
          ipam: { type: 'host-local', subnet: '10.1.1.0/28', dataDir: join(root, 'networks') },
        }),
        env: {
          CNI_COMMAND: command,
          CNI_CONTAINERID: id,
          CNI_NETNS: '/x',
          CNI_IFNAME: 'eth0',
          CNI_PATH: '/x',
        },
        encoding: 'utf8',
      });
    const given = (id: string): string => JSON.parse(run('ADD', id)).ips[0].address.split('/')[0];
    const first = given('theirs');
    expect(take('ours')).to.not.equal(first);
    const second = given('theirs-2');
    const all = [first, second, take('ours-2'), given('theirs-3')];
    expect(new Set([...all, '10.1.1.3']).size).to.equal(5);
    run('DEL', 'theirs');
    expect(readdirSync(join(root, 'networks', 'net'))).to.not.include(first);
  });

  it('gives no address twice, whatever comes and goes', async () => {
    const step = fc.oneof(
      fc.record({ take: fc.integer({ min: 0, max: 19 }) }),
      fc.record({ release: fc.integer({ min: 0, max: 19 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        rmSync(root, { recursive: true, force: true });
        open();
        const held = new Map<number, Address>();
        for (const one of steps) {
          if ('take' in one && !held.has(one.take)) {
            try {
              const address = take(`c${one.take}`);
              expect([...held.values()]).to.not.include(address);
              held.set(one.take, address);
            } catch (error) {
              expect(error).to.be.instanceOf(CniError);
              expect(held.size).to.equal(13);
            }
          } else if ('release' in one && held.has(one.release)) {
            await release(`c${one.release}`, held.get(one.release) ?? GATEWAY);
            held.delete(one.release);
          }
        }
        await files.flushed();
        const listed = readdirSync(root).includes('networks')
          ? new AddressStore(join(root, 'networks'), files).list()
          : [];
        expect(listed.map((one) => one.address).sort()).to.deep.equal([...held.values()].sort());
      }),
      { numRuns: 40 },
    );
  });
});

describe('an address pool', () => {
  it('has the sizes that the subnets have', () => {
    const size = (subnet: string, gateway: string) =>
      new AddressPool(parseSubnet(subnet), parseAddress(gateway), undefined).size;
    expect(size('10.1.0.0/24', '10.1.0.1')).to.equal(253);
    expect(size('10.1.0.0/30', '10.1.0.1')).to.equal(1);
    expect(size('10.1.0.0/31', '10.1.0.1')).to.equal(1);
    expect(size('10.1.0.1/32', '10.1.0.1')).to.equal(0);
    expect(size('10.0.0.0/8', '10.0.0.1')).to.equal(2 ** 20 - 2);
    expect(size('fd00::/64', 'fd00::1')).to.equal(2 ** 20 - 2);
  });

  it('takes its rounds in a subnet too large to count', () => {
    const subnet = parseSubnet('fd00::/64');
    const pool = new AddressPool(subnet, addressAt(subnet, 1), addressAt(subnet, 2 ** 20 - 1));
    expect([1, 2].map(() => pool.next(() => false))).to.deep.equal(['fd00::2', 'fd00::3']);
  });
});

describe('an attachment', () => {
  const attachment: Attachment = {
    ...holder('c1'),
    hostInterface: hostInterfaceName(holder('c1')),
    mac: macOfAddress(parseAddress('10.1.1.2')),
    addresses: [{ address: parseAddress('10.1.1.2'), prefixLength: 24, gateway: GATEWAY }],
    routes: [{ destination: parseSubnet('0.0.0.0/0'), gateway: GATEWAY }],
    bridge: 'vtep0',
    mtuBytes: 1450,
    hairpin: true,
    pod: undefined,
    netns: '/run/netns/x',
  };

  it('is read back as it was written', () => {
    expect(parseRecord(formatRecord(attachment))).to.deep.equal(attachment);
    const other = { ...attachment, pod: 'ns/name' };
    expect(parseRecord(formatRecord(other))).to.deep.equal(other);
    expect(() => parseRecord(formatRecord(attachment).replace('10.1.1.2', '10.1.1.999'))).to.throw('address');
  });

  it('names its interface always the same, validly, and unlike any other', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), (network, containerID, ifname) => {
        const name = hostInterfaceName({ network, containerID, ifname });
        expect(name).to.match(/^vtp[a-z2-7]{12}$/);
        expect(name).to.equal(hostInterfaceName({ network, containerID, ifname }));
        expect(name).to.not.equal(hostInterfaceName({ network, containerID, ifname: `${ifname}0` }));
      }),
    );
  });

  it('has a MAC that an interface can have, made of its address', () => {
    const macs = ['10.1.1.2', '10.1.1.3', 'fd00::2', 'fd00::3'].map((text) =>
      macOfAddress(parseAddress(text)),
    );
    expect(new Set(macs).size).to.equal(4);
    expect(macs.every(isUnicastMac)).to.equal(true);
    expect(macs[0]).to.equal('0a:76:0a:01:01:02');
  });
});
