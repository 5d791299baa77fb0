/**
 * What an overlay asks of the kernel's settings, in namespaces of its own, with a router that advertises itself:
 *
 *     [ node: up0, own0, plain0 ]---up0 == adv0---[ router: sends router advertisements ]
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import {
  forwardsIpv6ByDevice,
  settleForwarding,
  settleOwnDevice,
} from '../../../overlay/kernel/device-settings.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { readSysctl, writeSysctl } from '../../../overlay/kernel/sysctl.ts';
import { namespacePath } from '../../../overlay/lab/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { addressBytes, parseAddress, parseMac } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';
import { ethernet, IPV6 } from '../firewall/frames.ts';
import { Wire } from '../firewall/wire.ts';

const DEADLINE_MS = 10_000;
const ROUTER_MAC = parseMac('02:00:00:00:00:fe');
const ROUTER = parseAddress('fe80::fe');
const ALL_NODES = parseAddress('ff02::1');
const ICMPV6 = 58;
const ROUTER_ADVERTISEMENT = 134;
const LIFETIME_S = 1800;

/** RFC 4861, 4.2, without options: "I am a default router for half an hour". */
function advertisement(): Buffer {
  const message = Buffer.alloc(16);
  message[0] = ROUTER_ADVERTISEMENT;
  message[4] = 64;
  message.writeUInt16BE(LIFETIME_S, 6);
  const [source, destination] = [addressBytes(ROUTER), addressBytes(ALL_NODES)];
  const pseudo = Buffer.concat([
    source,
    destination,
    Buffer.from([0, 0, 0, message.length, 0, 0, 0, ICMPV6]),
  ]);
  message.writeUInt16BE(checksum(Buffer.concat([pseudo, message])), 2);
  const header = Buffer.from([0x60, 0, 0, 0, 0, message.length, ICMPV6, 255]);
  const packet = Buffer.concat([header, source, destination, message]);
  return ethernet({ from: ROUTER_MAC, to: parseMac('33:33:00:00:00:01') }, IPV6, packet);
}

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

describe('device settings', () => {
  const run = `vtset${randomBytes(3).toString('hex')}`;
  const [node, router] = [`${run}-n`, `${run}-r`];
  let wire: Wire;
  let changes: string[];

  const ip = (namespace: string, command: string): string =>
    execFileSync('ip', ['-n', namespace, ...command.split(' ')], { encoding: 'utf8' });
  const inNode = <T>(inside: () => T): T => inNamespace(namespacePath(node), inside);
  const setting = (path: string): string | undefined => inNode(() => readSysctl(path));
  const changed = (what: string) => changes.push(what);
  const learned = (): string => ip(node, '-6 route show default proto ra').trim();

  beforeEach(async function () {
    need(this, 'root', 'ip');
    changes = [];
    for (const name of [node, router]) execFileSync('ip', ['netns', 'add', name]);
    // A host that has IPv6 switched off for what comes later, as hardening guides have it.
    ip(node, `link add up0 type veth peer name adv0 netns ${router}`);
    ip(node, 'link set up0 up');
    ip(router, 'link set adv0 up');
    wire = new Wire(router, 'adv0');
    inNode(() => writeSysctl('ipv6/conf/default/disable_ipv6', '1'));
    for (const name of ['own0', 'plain0']) ip(node, `link add ${name} type bridge`);
    // Advertisements are heard once the link-local address stands.
    const learn = () => {
      wire.send(advertisement());
      return learned() !== '';
    };
    await until(learn, { what: 'a default route by advertisement', deadlineMs: DEADLINE_MS });
  });

  afterEach(() => {
    wire?.[Symbol.dispose]();
    for (const name of [node, router]) execFileSync('ip', ['netns', 'del', name]);
  });

  it('a device of ours has IPv6 where the host switches it off, takes no advertisement and waits for nothing', () => {
    inNode(() => settleOwnDevice('own0', ['ipv4', 'ipv6'], changed));
    expect(setting('ipv6/conf/own0/disable_ipv6')).to.equal('0');
    expect(setting('ipv6/conf/own0/accept_ra')).to.equal('0');
    expect(setting('ipv6/conf/own0/accept_dad')).to.equal('0');
    expect(changes).to.include('net.ipv6/conf/own0/disable_ipv6 = 0');
    expect(setting('ipv6/conf/plain0/disable_ipv6'), 'another’s device').to.equal('1');
    changes.length = 0;
    inNode(() => settleOwnDevice('own0', ['ipv4', 'ipv6'], changed));
    expect(changes, 'the second time').to.deep.equal([]);
  });

  it('a device that carries no IPv6 is left without', () => {
    inNode(() => settleOwnDevice('own0', ['ipv4'], changed));
    expect(setting('ipv6/conf/own0/disable_ipv6')).to.equal('1');
  });

  it('an older kernel forwards by the one switch, and the route that was learned from a router stays', () => {
    inNode(() => settleForwarding('ipv6', ['own0', 'up0'], changed, false));
    expect(setting('ipv6/conf/all/forwarding')).to.equal('1');
    expect(setting('ipv6/conf/up0/accept_ra')).to.equal('2');
    expect(changes.at(-1), 'the switch comes last').to.equal('net.ipv6/conf/all/forwarding = 1');
    expect(learned()).to.match(/via fe80::fe dev up0/);
    changes.length = 0;
    inNode(() => settleForwarding('ipv6', ['own0', 'up0'], changed, false));
    expect(changes, 'the second time').to.deep.equal([]);
  });

  it('an operator’s refusal of advertisements is not overruled', () => {
    inNode(() => writeSysctl('ipv6/conf/up0/accept_ra', '0'));
    inNode(() => settleForwarding('ipv6', ['own0'], changed, false));
    expect(setting('ipv6/conf/up0/accept_ra')).to.equal('0');
  });

  it('the switch alone would lose that route: what the order is for', async () => {
    inNode(() => writeSysctl('ipv6/conf/all/forwarding', '1'));
    await until(() => learned() === '', { what: 'the route to go', deadlineMs: DEADLINE_MS });
  });

  it('a newer kernel forwards by device: nothing of the host changes', function () {
    if (!inNode(forwardsIpv6ByDevice)) this.skip();
    inNode(() => settleForwarding('ipv6', ['own0', 'up0'], changed));
    expect(setting('ipv6/conf/own0/force_forwarding')).to.equal('1');
    expect(setting('ipv6/conf/all/forwarding')).to.equal('0');
    expect(setting('ipv6/conf/up0/accept_ra')).to.equal('1');
    expect(learned()).to.match(/via fe80::fe dev up0/);
  });
});
