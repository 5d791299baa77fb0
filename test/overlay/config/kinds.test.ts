import { expect } from 'chai';
import fc from 'fast-check';
import {
  choice,
  deviceKind,
  duration,
  formatDuration,
  interfaceOrAddress,
  type Kind,
  regex,
} from '../../../overlay/config/kinds.ts';
import { endpoint, formatHttpAddress, listenAddress } from '../../../overlay/config/network-kinds.ts';

const accepts = <T>(kind: Kind<T>, text: string): T => kind.schema.parse(text);
const problemOf = (kind: Kind<unknown>, text: string): string =>
  kind.schema.safeParse(text).error?.issues[0]?.message ?? `"${text}" is accepted`;

describe('config: kinds of value', () => {
  const time = duration({ minMs: 1, maxMs: 365 * 86_400_000 });

  it('reads a time with its units', () => {
    expect(accepts(time, '24h')).to.equal(86_400_000);
    expect(accepts(time, '1h30m')).to.equal(5_400_000);
    expect(accepts(time, '500ms')).to.equal(500);
    expect(accepts(time, '0.5s')).to.equal(500);
    expect(accepts(time, '1d')).to.equal(86_400_000);
  });

  it('refuses a time without a unit, unless the option counts in one', () => {
    for (const text of ['30', '', 's', '-1s', '1 h', '1h30', '1e3s', '٣s']) {
      expect(problemOf(time, text)).to.match(/unit/);
    }
    const minutes = duration({ minMs: 1000, maxMs: 3_600_000, plainUnitMs: 60_000 });
    expect(accepts(minutes, '30')).to.equal(1_800_000);
    expect(accepts(minutes, '90s')).to.equal(90_000);
    expect(problemOf(minutes, '0')).to.match(/between 1s and 1h/);
  });

  it('reads back every time that it writes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 365 * 86_400_000 }), (valueMs) => {
        expect(accepts(time, formatDuration(valueMs))).to.equal(valueMs);
      }),
    );
  });

  it('takes interface names as the kernel does', () => {
    for (const name of ['eth0', 'enp0s31f6', 'br-lan.100', 'a'.repeat(15), '10.0.0.1', '2001:db8::1']) {
      expect(accepts(interfaceOrAddress, name)).to.equal(name);
    }
    for (const name of ['', '.', '..', 'a/b', 'a b', 'a:b', 'a'.repeat(16), 'é'.repeat(8)]) {
      expect(problemOf(interfaceOrAddress, name)).to.match(/interface name/);
    }
    for (const name of ['', '..', 'a$b', 'a"b', 'a\nb', 'vtep0;reboot']) {
      expect(problemOf(deviceKind, name)).to.match(/interface name/);
    }
  });

  it('says why a pattern is none, and refuses the one that matches everything', () => {
    expect(accepts(regex, '^en').test('enp1s0')).to.equal(true);
    expect(problemOf(regex, '(')).to.match(/not a JavaScript regular expression: /);
    expect(problemOf(regex, '')).to.match(/empty/);
  });

  it('does not take words of the language for values', () => {
    for (const text of ['constructor', '__proto__', 'toString']) {
      expect(problemOf(choice(['a', 'b'], { c: 'later' }), text)).to.equal('must be one of a, b');
    }
    expect(problemOf(choice(['a'], { c: 'comes later' }), 'c')).to.equal('comes later');
  });

  it('takes the user out of an endpoint', () => {
    const { url, user } = accepts(endpoint, 'https://us%40er:p%3Aw@etcd.example:2379/');
    expect(url).to.equal('https://etcd.example:2379');
    expect([user?.username, user?.password.reveal()]).to.deep.equal(['us@er', 'p:w']);
    expect(accepts(endpoint, 'http://[2001:db8::1]:2379')).to.deep.equal({
      url: 'http://[2001:db8::1]:2379',
    });
    expect(accepts(endpoint, 'https://etcd').url).to.equal('https://etcd:443');
  });

  it('refuses what is no endpoint', () => {
    for (const text of ['', 'etcd:2379', '127.0.0.1:2379', 'ftp://a', 'http://', 'http://a:99999']) {
      expect(problemOf(endpoint, text)).to.match(/must be a URL/);
    }
    for (const text of ['http://a/b', 'http://a?b', 'http://a/#b']) {
      expect(problemOf(endpoint, text)).to.match(/nothing behind/);
    }
  });

  it('reads where to listen', () => {
    for (const text of ['127.0.0.1:9472', '[::1]:9472', '0.0.0.0:1', '[::]:65535']) {
      const address = accepts(listenAddress, text);
      expect(address && formatHttpAddress(address)).to.equal(text);
    }
    expect(accepts(listenAddress, 'localhost:80')).to.deep.equal({ host: '127.0.0.1', port: 80 });
    expect(accepts(listenAddress, 'off')).to.equal(undefined);
    for (const text of [
      '',
      ':9472',
      '9472',
      '::1:9472',
      '[127.0.0.1]:1',
      '1.2.3.4:0',
      '1.2.3.4:65536',
      'host:1',
    ]) {
      expect(problemOf(listenAddress, text)).to.match(/address and a port/);
    }
  });
});
