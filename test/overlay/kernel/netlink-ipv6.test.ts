/** What the rtnetlink client does otherwise in IPv6, against a real kernel and `ip` as the other opinion. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { addAddress, listAddresses } from '../../../overlay/kernel/address.ts';
import { addVxlan, findLink, setLink, setVxlanLocal } from '../../../overlay/kernel/link.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { listFdb, listNeighbours, setFdbEntry, setNeighbour } from '../../../overlay/kernel/neighbour.ts';
import { NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import {
  deleteNexthop,
  deleteRoute,
  listNexthops,
  listRoutes,
  lookUpRoute,
  prependRoute,
  setNexthop,
} from '../../../overlay/kernel/route.ts';
import { ROUTE_PROTOCOL } from '../../../overlay/kernel/rtnetlink.ts';
import { addressAt, parseAddress, parseMac, parseSubnet } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';

const VXLAN = {
  name: 'vtep6.7',
  vni: 7,
  port: 8472,
  local: parseAddress('2001:db8::1'),
  learning: false,
  mac: parseMac('02:00:00:00:00:01'),
  mtuBytes: 1430,
};
const OWN = parseAddress('fc00:7::');
const PEER = parseSubnet('fc00:7:0:5::/64');
const REMOTE = parseAddress('2001:db8::5');
const MAC = parseMac('02:00:00:00:00:05');
/** As peer-entries.ts has it: before what others get by default. */
const METRIC = 512;

describe('rtnetlink client, IPv6', () => {
  const namespace = `vtnl${randomBytes(3).toString('hex')}`;
  let netlink: NetlinkSocket;
  let index: number;

  const ip = (...argv: string[]): string =>
    execFileSync('ip', ['-n', namespace, ...argv], { encoding: 'utf8' });
  const route = { destination: PEER, nexthopId: 4711, metric: METRIC };

  before(function () {
    need(this, 'root', 'ip');
    execFileSync('ip', ['netns', 'add', namespace]);
    netlink = inNamespace(`/run/netns/${namespace}`, () => NetlinkSocket.open());
    netlink.request(addVxlan(VXLAN), 'create the device');
    index = findLink(netlink, VXLAN.name)?.index ?? 0;
    netlink.request(setLink(index, { up: true }), 'raise it');
    netlink.request(addAddress({ linkIndex: index, address: OWN, prefixLength: 128 }), 'address it');
  });

  after(() => {
    netlink?.close();
    execFileSync('ip', ['netns', 'del', namespace]);
  });

  it('a vxlan device has its IPv6 end, which can move', () => {
    expect(findLink(netlink, VXLAN.name)?.vxlan).to.include({ local: VXLAN.local, learning: false });
    netlink.request(setVxlanLocal(index, parseAddress('2001:db8::2')), 'move it');
    expect(ip('-d', 'link', 'show', VXLAN.name)).to.match(/local 2001:db8::2 /);
  });

  it('an address is used at once, without duplicate address detection', () => {
    const found = listAddresses(netlink).find(({ address }) => address === OWN);
    expect(found).to.include({ prefixLength: 128, tentative: false });
    expect(ip('-6', 'addr', 'show', 'dev', VXLAN.name)).to.match(/fc00:7::\/128 scope global nodad/);
  });

  it('a peer’s entries are written and read back', () => {
    const failures = netlink.execute(
      [
        setNeighbour(index, PEER.address, MAC),
        setFdbEntry(index, MAC, REMOTE),
        setNexthop(4711, PEER.address, index),
        prependRoute(route),
      ],
      (at) => `step ${at}`,
    );
    expect(failures).to.deep.equal([]);
    expect(listNeighbours(netlink, index).filter(({ permanent }) => permanent)).to.have.length(1);
    const [entry] = listFdb(netlink, index);
    expect(entry).to.include({ linkIndex: index, mac: MAC, remote: REMOTE });
    expect(listNexthops(netlink)).to.deep.include({
      id: 4711,
      linkIndex: index,
      gateway: PEER.address,
      protocol: ROUTE_PROTOCOL,
    });
    const [read] = listRoutes(netlink, 'ipv6', ROUTE_PROTOCOL);
    expect(read).to.deep.include({ destination: PEER, metric: METRIC, nexthopId: 4711 });
    expect(ip('-6', 'neigh', 'show', 'nud', 'permanent')).to.match(/fc00:7:0:5:: .*02:00:00:00:00:05/);
  });

  it('our route wins over a stranger’s to the same subnet, and only ours is deleted', () => {
    ip('link', 'add', 'other0', 'type', 'bridge');
    ip('link', 'set', 'other0', 'up');
    ip('route', 'add', 'fc00:7:0:5::/64', 'dev', 'other0', 'metric', '1024');
    const way = () => lookUpRoute(netlink, addressAt(PEER, 9))?.linkIndex;
    expect(way()).to.equal(index);
    netlink.request(deleteRoute({ destination: PEER, metric: METRIC }), 'delete ours');
    expect(ip('-6', 'route', 'show', 'fc00:7:0:5::/64')).to.match(/^fc00:7:0:5::\/64 dev other0 metric 1024/);
    netlink.request(deleteNexthop(4711), 'delete the nexthop');
    expect(listRoutes(netlink, 'ipv6', ROUTE_PROTOCOL)).to.deep.equal([]);
  });
});
