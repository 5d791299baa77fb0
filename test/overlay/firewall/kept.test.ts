/** The tables made, kept, repaired and removed, compared as `nft list ruleset` shows them. */
import { expect } from 'chai';
import { peerElement, wantFirewall } from '../../../overlay/desired/firewall.ts';
import { Firewall } from '../../../overlay/kernel/firewall.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { messages, type NetlinkMessage, readText } from '../../../overlay/kernel/netlink-message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { messageType, NFNLGRP_NFTABLES, nftAttributes } from '../../../overlay/kernel/nft-message.ts';
import { addNamespace, deleteNamespace, namespacePath, runInside } from '../../../overlay/lab/namespace.ts';
import { type Address, parseAddress } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';
import { FACTS, PEERS, PODS } from './rig.ts';

const NEWTABLE = 0;
const NEWRULE = 6;

const NOTHING = { repaired: [], changed: [] };
const WANTED = wantFirewall(FACTS, PEERS, PODS);

/** What somebody may do to our tables, and how the pass after it names what it did. */
const TAMPERING: readonly {
  readonly what: string;
  readonly nft: string;
  readonly repaired: readonly string[];
}[] = [
  {
    what: 'the whole ruleset flushed',
    nft: 'flush ruleset',
    repaired: ['table inet vtepd made', 'table bridge vtepd made'],
  },
  { what: 'one table deleted', nft: 'delete table bridge vtepd', repaired: ['table bridge vtepd made'] },
  { what: 'its rules flushed', nft: 'flush table inet vtepd', repaired: ['table inet vtepd replaced'] },
  {
    what: 'one rule more',
    nft: 'insert rule inet vtepd vxlan accept',
    repaired: ['table inet vtepd replaced'],
  },
  {
    what: 'a chain more',
    nft: 'add chain inet vtepd more { type filter hook input priority 0; policy drop; }',
    repaired: ['table inet vtepd replaced'],
  },
  {
    what: 'a map more',
    nft: 'add map inet vtepd more { type ipv4_addr : verdict; }',
    repaired: ['table inet vtepd replaced'],
  },
  {
    what: 'a set more',
    nft: 'add set inet vtepd more { type ipv4_addr; }',
    repaired: ['table inet vtepd replaced'],
  },
  {
    what: 'a rule with a set of its own',
    nft: 'insert rule inet vtepd vxlan_ours ip saddr { 192.0.2.8, 192.0.2.9 } accept',
    repaired: ['table inet vtepd replaced'],
  },
  {
    what: 'a counter of another kind',
    nft: 'add quota bridge vtepd more { over 10 mbytes; }',
    repaired: ['table bridge vtepd replaced'],
  },
  {
    what: 'the table put to sleep',
    nft: 'add table inet vtepd { flags dormant; }',
    repaired: ['table inet vtepd replaced'],
  },
  {
    what: 'a policy changed',
    nft: 'add chain bridge vtepd from_port { policy drop; }',
    repaired: ['table bridge vtepd replaced'],
  },
  { what: 'a set emptied', nft: 'flush set inet vtepd peers4', repaired: ['set peers4: 1 added'] },
  {
    what: 'an element deleted',
    nft: 'delete element bridge vtepd pods4 { "vtpA" . 02:00:00:00:0a:0a . 10.244.1.2 }',
    repaired: ['set pods4: 1 added'],
  },
  {
    what: 'an element added',
    nft: 'add element inet vtepd peers6 { 2001:db8::bad }',
    repaired: ['set peers6: 1 removed'],
  },
  {
    what: 'everything admitted',
    nft: 'add element inet vtepd peers4 { * }',
    repaired: ['set peers4: 1 removed'],
  },
];

describe('firewall: the tables', () => {
  const namespace = `vtepd-fwk${process.pid}`;
  const path = namespacePath(namespace);
  let firewall: Firewall;

  before(function () {
    need(this, 'root', 'ip', 'nft');
  });
  beforeEach(async () => {
    await addNamespace(namespace);
    firewall = Firewall.open({ namespace: path });
  });
  afterEach(async () => {
    firewall?.close();
    await deleteNamespace(namespace);
  });

  const nft = async (text: string): Promise<string> =>
    (await runInside(namespace, ['nft', '-f', '-'], { input: `${text}\n` })).stdout;
  const ruleset = async (...options: string[]): Promise<string> =>
    (await runInside(namespace, ['nft', ...options, 'list', 'ruleset'])).stdout;

  it('are made, and a second pass finds nothing to do', async () => {
    expect(firewall.apply(WANTED)).to.deep.equal({
      repaired: [],
      changed: ['table inet vtepd made', 'table bridge vtepd made'],
    });
    const made = await ruleset('-a');
    expect(made).to.not.include('probe');
    expect(firewall.apply(WANTED)).to.deep.equal(NOTHING);
    expect(await ruleset('-a')).to.equal(made);
    const { tables, elements } = firewall.observe();
    expect(tables).to.deep.equal(['inet', 'bridge']);
    expect(elements).to.deep.equal(WANTED.elements);
  });

  for (const { what, nft: text, repaired } of TAMPERING) {
    it(`${what}: made right again`, async () => {
      firewall.apply(WANTED);
      const made = await ruleset();
      await nft(text);
      expect(await ruleset()).to.not.equal(made);
      expect(firewall.apply(WANTED)).to.deep.equal({ repaired, changed: [] });
      expect(sorted(await ruleset())).to.equal(sorted(made));
      expect(firewall.apply(WANTED)).to.deep.equal(NOTHING);
    });
  }

  it('of an earlier run stay as they are, with their counts', async () => {
    firewall.apply(WANTED);
    const made = await ruleset('-a');
    using next = Firewall.open({ namespace: path });
    expect(next.apply(WANTED)).to.deep.equal(NOTHING);
    expect(await ruleset('-a')).to.equal(made);
  });

  it('of an earlier version are replaced', async () => {
    await nft(`
      table inet vtepd {
        set peers4 { type ether_addr; }
        chain old { type filter hook input priority 0; policy drop; }
      }
      table bridge vtepd {
        chain from_port { type filter hook prerouting priority 7; policy accept; }
      }`);
    expect(firewall.apply(WANTED).changed).to.deep.equal([
      'table inet vtepd replaced',
      'table bridge vtepd replaced',
    ]);
    expect(firewall.apply(WANTED)).to.deep.equal(NOTHING);
    const made = await ruleset();
    await nft('flush ruleset');
    firewall.apply(WANTED);
    expect(sorted(await ruleset())).to.equal(sorted(made));
  });

  it('lose the rules of what is switched off, and a table without rules goes', async () => {
    const with_ = (facts: object, pods = PODS) => wantFirewall({ ...FACTS, ...facts }, PEERS, pods);
    firewall.apply(WANTED);
    const all = sorted(await ruleset());
    firewall.apply(with_({ masquerade: false }));
    expect(await ruleset()).to.not.include('source_nat');
    firewall.apply(with_({ peerFilter: false }));
    expect(await ruleset()).to.not.match(/peers4|vxlan/);
    firewall.apply(with_({ podFilter: false }));
    expect(await ruleset()).to.not.include('bridge vtepd');
    firewall.apply(with_({ masquerade: false, peerFilter: false, podFilter: false }));
    expect(await ruleset()).to.equal('');
    firewall.apply(WANTED);
    expect(sorted(await ruleset())).to.equal(all);
  });

  it('follow the elements wanted', () => {
    firewall.apply(WANTED);
    const more = parseAddress('203.0.113.1');
    expect(firewall.apply(wantFirewall(FACTS, [...PEERS, more], []))).to.deep.equal({
      repaired: [],
      changed: [
        'set peers4: 1 added',
        'set pods4: 2 removed',
        'set pods6: 4 removed',
        'set targets6: 4 removed',
      ],
    });
    firewall.adjust({ add: [peerElement(parseAddress('203.0.113.2'))], remove: [peerElement(more)] });
    firewall.adjust({ add: [peerElement(parseAddress('203.0.113.2'))], remove: [peerElement(more)] });
    expect([...firewall.observe().elements.peers4]).to.have.members(['192.0.2.2', '203.0.113.2']);
  });

  it('take elements while others change theirs', async () => {
    firewall.apply(WANTED);
    await nft('add table ip somebodys\nflush set inet vtepd peers4');
    const element = peerElement(parseAddress('203.0.113.2'));
    firewall.adjust({ add: [element], remove: [peerElement(PEERS[0] as Address)] });
    using other = Firewall.open({ namespace: path });
    expect([...other.observe().elements.peers4]).to.deep.equal([element.element]);
    expect(firewall.apply(WANTED).repaired).to.deep.equal([]);
    expect(firewall.observe().elements).to.deep.equal(WANTED.elements);
  });

  it('hold 10,000 peers, and adopt them', async () => {
    const peers = Array.from({ length: 10_000 }, (_, i) => parseAddress(`10.9.${i >>> 8}.${i & 255}`));
    const wanted = wantFirewall(FACTS, peers, PODS);
    firewall.apply(WANTED);
    firewall.apply(wanted);
    const listing = await runInside(namespace, ['nft', 'list', 'set', 'inet', 'vtepd', 'peers4']);
    expect(listing.stdout.match(/10\.9\.\d+\.\d+/g)).to.have.lengthOf(10_000);
    using next = Firewall.open({ namespace: path });
    expect(next.apply(wanted)).to.deep.equal(NOTHING);
    await nft('delete table inet vtepd');
    expect(next.apply(wanted).repaired).to.deep.equal(['table inet vtepd made']);
    expect(next.observe().elements).to.deep.equal(wanted.elements);
  });

  it("leave others' tables alone, even with the same chains", async () => {
    await nft(`
      table ip vtepd {
        chain input { type filter hook input priority 0; policy accept; }
      }
      table inet mine {
        set peers4 { type ipv4_addr; elements = { 192.0.2.3 }; }
        chain forward { type filter hook forward priority 0; policy drop; }
      }`);
    const theirs = await ruleset();
    firewall.apply(WANTED);
    firewall.apply(wantFirewall({ ...FACTS, masquerade: false }, [], []));
    expect(await ruleset()).to.include(theirs.trim());
    expect(firewall.foreignDrops()).to.deep.equal([
      { family: 'inet', table: 'mine', chain: 'forward', hook: 'forward' },
    ]);
    expect(firewall.remove()).to.deep.equal(['table inet vtepd', 'table bridge vtepd']);
    expect(await ruleset()).to.equal(theirs);
    expect(firewall.remove()).to.deep.equal([]);
  });

  it('stand in an order in which no packet is asked for a mark it never got', async () => {
    firewall.apply(WANTED);
    const chains = [...(await ruleset()).matchAll(/chain (\w+)/g)].map(([, name]) => name ?? '');
    expect(chains.indexOf('from_node')).to.be.within(0, chains.indexOf('encapsulated'));
    await nft('delete table inet vtepd');
    using monitor = listen();
    firewall.apply(WANTED);
    const rules = announced(monitor, NEWRULE).map((message) => readText(nftAttributes(message)[2]) ?? '');
    expect(rules.indexOf('encapsulated')).to.be.within(0, rules.indexOf('from_node'));
  });

  it('never filter twice: where their rules are read, they sleep', () => {
    using monitor = listen();
    firewall.apply(WANTED);
    const probes = announced(monitor, NEWTABLE).filter(
      (message) => readText(nftAttributes(message)[1]) === 'vtepd_probe',
    );
    expect(probes).to.have.lengthOf(2);
    for (const message of probes) expect(nftAttributes(message)[2]?.readUInt32BE(0)).to.equal(1);
    expect(announced(monitor, NEWTABLE)).to.deep.equal([]);
  });

  it('take away what a killed run left of that', async () => {
    await nft('table inet vtepd_probe {\n flags dormant;\n chain left { }\n }');
    firewall.apply(WANTED);
    expect(await ruleset()).to.not.include('vtepd_probe');
    await nft('add table bridge vtepd_probe { flags dormant; }');
    expect(firewall.remove()).to.include('table bridge vtepd_probe');
    expect(await ruleset()).to.equal('');
  });

  const listen = (): NetlinkSocket =>
    inNamespace(path, () => NetlinkSocket.open({ protocol: NETLINK_NETFILTER, groups: [NFNLGRP_NFTABLES] }));

  it('announce what others do to them, and their own changes cause no second pass', async () => {
    using monitor = listen();
    const concerned = (): number => {
      return announced(monitor).filter((message) => firewall.concerns(message)).length;
    };
    firewall.apply(WANTED);
    concerned();
    firewall.adjust({ add: [peerElement(parseAddress('203.0.113.2'))] });
    firewall.apply(WANTED);
    expect(concerned(), 'our own').to.equal(0);
    await nft('add table ip vtepd\nadd table inet somebodys\nadd chain inet somebodys c');
    expect(concerned(), "strangers'").to.equal(0);
    await nft('add element inet vtepd peers4 { 203.0.113.3 }');
    expect(concerned(), 'an element of ours').to.be.greaterThan(0);
    await nft('delete table bridge vtepd');
    expect(concerned(), 'a table of ours').to.be.greaterThan(0);
  });
});

/** Chains and sets in the order of their names: one made again stands at the end. */
const sorted = (listing: string): string =>
  listing
    .split(/\n(?=\t\S|table)/)
    .sort()
    .join('\n');

/** What was announced since the last look, of one kind if one is asked for. */
function announced(monitor: NetlinkSocket, nftMessage?: number): NetlinkMessage[] {
  const found: NetlinkMessage[] = [];
  for (let datagram = monitor.receive(); datagram !== undefined; datagram = monitor.receive()) {
    for (const message of messages(Buffer.from(datagram))) found.push(message);
  }
  return found.filter(({ type }) => nftMessage === undefined || type === messageType(nftMessage));
}
