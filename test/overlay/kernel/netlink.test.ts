/** The rtnetlink client against a real kernel, with `ip` and `bridge` of iproute2 as the other opinion. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { addAddress, deleteAddress, listAddresses } from '../../../overlay/kernel/address.ts';
import {
  addBridge,
  addVeth,
  addVxlan,
  deleteLinkGroup,
  findLink,
  listLinks,
  setHairpin,
  setLink,
  setVxlanLocal,
} from '../../../overlay/kernel/link.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import {
  deleteFdbEntry,
  deleteNeighbour,
  listFdb,
  listNeighbours,
  setFdbEntry,
  setNeighbour,
} from '../../../overlay/kernel/neighbour.ts';
import { NetlinkError, NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import {
  deleteNexthop,
  deleteRoute,
  listNexthops,
  listOthersRoutes,
  listRoutes,
  lookUpRoute,
  prependRoute,
  setNexthop,
  setRoute,
} from '../../../overlay/kernel/route.ts';
import { ROUTE_PROTOCOL } from '../../../overlay/kernel/rtnetlink.ts';
import { executeSlowly } from '../../../overlay/kernel/slow-netlink.ts';
import { readUnderlayFacts } from '../../../overlay/kernel/underlay-facts.ts';
import {
  type Address,
  addressAt,
  formatSubnet,
  parseAddress,
  parseMac,
  parseSubnet,
} from '../../../store/address.ts';

const VXLAN = {
  name: 'vtep.7',
  vni: 7,
  port: 8472,
  local: parseAddress('192.0.2.1'),
  learning: false,
  mac: parseMac('02:00:00:00:00:01'),
  mtuBytes: 1450,
};

describe('rtnetlink client', () => {
  const namespace = `vtnl${randomBytes(3).toString('hex')}`;
  let netlink: NetlinkSocket;
  let index: number;

  const ip = (...argv: string[]): string =>
    execFileSync('ip', ['-n', namespace, ...argv], { encoding: 'utf8' });
  const bridge = (...argv: string[]): string =>
    execFileSync('bridge', ['-n', namespace, ...argv], { encoding: 'utf8' });

  before(() => {
    execFileSync('ip', ['netns', 'add', namespace]);
    netlink = inNamespace(`/run/netns/${namespace}`, () => NetlinkSocket.open());
    netlink.request(addVxlan(VXLAN), 'create the device');
    index = findLink(netlink, VXLAN.name)?.index ?? 0;
    netlink.request(setLink(index, { up: true }), 'raise it');
    netlink.request(
      addAddress({ linkIndex: index, address: parseAddress('10.7.0.0'), prefixLength: 32 }),
      'address it',
    );
  });

  after(() => {
    netlink?.close();
    execFileSync('ip', ['netns', 'del', namespace]);
  });

  it('makes a vxlan device as asked for, and reads it back', () => {
    expect(ip('-d', 'link', 'show', VXLAN.name)).to.match(
      /link\/ether 02:00:00:00:00:01[\s\S]*vxlan id 7 local 192\.0\.2\.1 .*dstport 8472.*nolearning/,
    );
    const { name, vni, port, local, learning, mac, mtuBytes } = VXLAN;
    expect(findLink(netlink, name)).to.deep.include({
      name,
      mac,
      mtuBytes,
      vxlan: { vni, port, local, learning },
    });
  });

  it('changes the local address of a vxlan device in its life', () => {
    netlink.request(setVxlanLocal(index, parseAddress('192.0.2.2')), 'move it');
    expect(ip('-d', 'link', 'show', VXLAN.name)).to.include('local 192.0.2.2');
    expect(findLink(netlink, VXLAN.name)?.index).to.equal(index);
  });

  it('finds no link where there is none', () => {
    expect(findLink(netlink, 'nothing')).to.equal(undefined);
  });

  it('sets, replaces, lists and removes a neighbour and an FDB entry', () => {
    const [gateway, mac] = [parseAddress('10.7.5.0'), parseMac('02:00:00:00:05:00')];
    for (const remote of ['192.0.2.5', '192.0.2.6']) {
      const failures = netlink.execute(
        [setNeighbour(index, gateway, mac), setFdbEntry(index, mac, parseAddress(remote))],
        String,
      );
      expect(failures).to.deep.equal([]);
    }
    expect(ip('neigh')).to.include('10.7.5.0 dev vtep.7 lladdr 02:00:00:00:05:00 PERMANENT');
    expect(bridge('fdb', 'show', 'dev', VXLAN.name).trim()).to.equal(
      '02:00:00:00:05:00 dst 192.0.2.6 self permanent',
    );
    const permanent = listNeighbours(netlink, index).filter((entry) => entry.permanent);
    expect(permanent).to.deep.equal([{ linkIndex: index, address: gateway, mac, permanent: true }]);
    expect(listFdb(netlink, index)).to.deep.equal([
      { linkIndex: index, mac, remote: '192.0.2.6', permanent: true },
    ]);
    netlink.execute([deleteFdbEntry(index, mac), deleteNeighbour(index, gateway)], String);
    expect(listFdb(netlink, index)).to.deep.equal([]);
    expect(bridge('fdb', 'show', 'dev', VXLAN.name)).to.equal('');
  });

  it('routes through a nexthop object, before a stranger’s route to the same subnet, and leaves that', () => {
    const [destination, gateway] = [parseSubnet('10.7.6.0/24'), parseAddress('10.7.6.0')];
    ip('route', 'add', '10.7.6.0/24', 'dev', VXLAN.name);
    netlink.execute(
      [setNexthop(4711, gateway, index), prependRoute({ destination, nexthopId: 4711 })],
      String,
    );
    expect(ip('nexthop')).to.match(/id 4711 via 10\.7\.6\.0 dev vtep\.7 scope link proto 118 onlink/);
    const [route] = listRoutes(netlink, 'ipv4', ROUTE_PROTOCOL);
    expect(route).to.deep.include({ destination, nexthopId: 4711, linkIndex: index, table: 254 });
    expect(lookUpRoute(netlink, addressAt(destination, 9))).to.deep.include({ gateway, linkIndex: index });
    expect(listNexthops(netlink)).to.deep.equal([
      { id: 4711, linkIndex: index, gateway, protocol: ROUTE_PROTOCOL },
    ]);
    netlink.execute([deleteRoute({ destination }), deleteNexthop(4711)], String);
    expect(ip('route', 'show', '10.7.6.0/24').trim()).to.equal('10.7.6.0/24 dev vtep.7 scope link');
    ip('route', 'del', '10.7.6.0/24');
  });

  it('lists the routes of others, and which of them name no gateway', () => {
    const gateway = parseAddress('10.7.9.9');
    netlink.execute(
      [
        setRoute({ destination: parseSubnet('10.7.8.0/24'), linkIndex: index }),
        setRoute({ destination: parseSubnet('10.7.7.0/24'), linkIndex: index, protocol: 4 }),
        setRoute({ gateway, linkIndex: index, onlink: true, protocol: 4 }),
      ],
      String,
    );
    const found = listOthersRoutes(netlink, 'ipv4').filter(
      ({ linkIndex, unicast }) => linkIndex === index && unicast,
    );
    expect(found.map(({ destination, connected }) => [formatSubnet(destination), connected])).to.deep.equal([
      ['0.0.0.0/0', false],
      ['10.7.7.0/24', true],
    ]);
    ip('route', 'flush', 'proto', '4');
    ip('route', 'flush', 'proto', String(ROUTE_PROTOCOL));
  });

  it('names the default routes of IPv4 first, whatever their metrics, and in each family the best first', () => {
    const gateways = ['10.7.9.8', '10.7.9.9', 'fd00:7::9'];
    ip('addr', 'add', 'fd00:7::1/64', 'dev', VXLAN.name, 'nodad');
    for (const [i, gateway] of gateways.entries()) {
      ip(
        'route',
        'add',
        'default',
        'via',
        gateway,
        'dev',
        VXLAN.name,
        'onlink',
        'metric',
        `${3000 - 500 * i}`,
      );
    }
    const wishes = { names: [], patterns: [], publicAddress: {} };
    const { defaultRoutes, routes } = readUnderlayFacts(netlink, wishes, () => false);
    expect(defaultRoutes.map(({ family }) => family)).to.deep.equal(['ipv4', 'ipv4', 'ipv6']);
    const metrics = routes.filter(
      ({ destination }) => destination.prefixLength === 0 && destination.family === 'ipv4',
    );
    expect(metrics.map(({ metric }) => metric)).to.have.members([3000, 2500]);
    for (const gateway of gateways) ip('route', 'del', 'default', 'via', gateway, 'dev', VXLAN.name);
    ip('addr', 'del', 'fd00:7::1/64', 'dev', VXLAN.name);
  });

  it('adds an address with its broadcast address, lists and removes it', () => {
    const wanted = { linkIndex: index, address: parseAddress('10.7.1.1'), prefixLength: 24 };
    netlink.request(addAddress(wanted), 'add');
    expect(ip('address', 'show', 'dev', VXLAN.name)).to.include(
      'inet 10.7.1.1/24 brd 10.7.1.255 scope global',
    );
    expect(listAddresses(netlink).some((found) => found.address === wanted.address)).to.equal(true);
    netlink.request(deleteAddress(wanted), 'remove');
    expect(ip('address', 'show', 'dev', VXLAN.name)).not.to.include('10.7.1.1');
  });

  it('carries out what can be done of a batch, and says what could not and in whose words', () => {
    const gateway = parseAddress('10.7.5.0');
    const failures = netlink.execute(
      [
        setNexthop(1, gateway, 9999),
        setNexthop(2, gateway, index),
        deleteNexthop(3),
        deleteNeighbour(index, gateway),
        deleteNexthop(2),
      ],
      (i) => `request ${i}`,
    );
    expect(failures.map(({ index: at, error }) => [at, error.code])).to.deep.equal([
      [0, 'EINVAL'],
      [2, 'ENOENT'],
      [3, 'ENOENT'],
    ]);
    expect(failures[0]?.error).to.be.instanceOf(NetlinkError);
    expect(failures[0]?.error.message).to.match(/^request 0: EINVAL \(.+\)$/);
  });

  it('sends thousands of requests and tells each failure by its place', () => {
    const mac = parseMac('02:00:00:00:00:99');
    const gateway = (i: number): Address => addressAt(parseSubnet('10.8.0.0/16'), i);
    const requests = Array.from({ length: 5000 }, (_, i) =>
      i % 1000 === 7 ? deleteNexthop(100_000 + i) : setNeighbour(index, gateway(i), mac),
    );
    const failures = netlink.execute(requests, (i) => `request ${i}`);
    expect(failures.map(({ index: at }) => at)).to.deep.equal([7, 1007, 2007, 3007, 4007]);
    expect(listNeighbours(netlink, index).filter((entry) => entry.mac === mac)).to.have.length(4995);
    ip('neigh', 'flush', 'dev', VXLAN.name, 'nud', 'permanent');
  });

  it('makes veth pairs into another namespace as ports, and removes them together', async () => {
    const far = `${namespace}f`;
    execFileSync('ip', ['netns', 'add', far]);
    try {
      netlink.request(
        addBridge({ name: 'vtbr', mac: parseMac('02:00:00:00:00:02'), mtuBytes: 1450 }),
        'bridge',
      );
      const master = findLink(netlink, 'vtbr')?.index;
      const { openSync, closeSync } = await import('node:fs');
      const namespaceFd = openSync(`/run/netns/${far}`, 'r');
      try {
        for (const n of [1, 2]) {
          const end = { name: `eth${n}`, mac: parseMac(`02:00:00:00:01:0${n}`), namespaceFd };
          netlink.request(
            addVeth({ name: `vtt${n}`, mtuBytes: 1450, master, group: 77, up: true, far: end }),
            `pair ${n}`,
          );
        }
      } finally {
        closeSync(namespaceFd);
      }
      const port = findLink(netlink, 'vtt1');
      expect(port).to.deep.include({ kind: 'veth', master, group: 77, up: true, hairpin: false });
      netlink.request(setHairpin('vtt1', true), 'hairpin');
      expect(findLink(netlink, 'vtt1')?.hairpin).to.equal(true);
      const there = execFileSync('ip', ['-n', far, '-br', 'link'], { encoding: 'utf8' });
      expect(there)
        .to.match(/eth1@.* 02:00:00:00:01:01/)
        .and.to.match(/eth2@.* 02:00:00:00:01:02/);
      expect(await executeSlowly(netlink, [deleteLinkGroup(77)], String)).to.deep.equal([]);
      expect(listLinks(netlink).filter(({ kind }) => kind === 'veth')).to.deep.equal([]);
    } finally {
      execFileSync('ip', ['netns', 'del', far]);
    }
  });
});
