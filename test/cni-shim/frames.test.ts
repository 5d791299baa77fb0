import { execFileSync } from 'node:child_process';
import { expect } from 'chai';
import fc from 'fast-check';
import { CniError } from '../../cni-shim/cni-error.ts';
import {
  decodeReport,
  decodeRequest,
  encodeIpv6Wish,
  encodeReport,
  encodeRequest,
  FrameError,
  MAX_REQUEST_BYTES,
  requestLength,
} from '../../cni-shim/frames.ts';
import { parsePreviousResult } from '../../cni-shim/result.ts';
import { need } from '../lab/capability.ts';
import { buildShim } from './test-node.ts';

describe('frames', () => {
  const text = fc.string({ unit: 'grapheme' }).map((value) => value.replaceAll('\0', ''));
  const frame = fc.record({
    command: text,
    containerID: text,
    netns: text,
    ifname: text,
    args: text,
    path: text,
    config: fc.string({ unit: 'grapheme' }),
  });

  it('are read back as they were written, and never from a part', () => {
    fc.assert(
      fc.property(frame, fc.nat(), (request, cut) => {
        const bytes = encodeRequest(request);
        expect(decodeRequest(bytes)).to.deep.equal(request);
        const part = bytes.subarray(0, cut % bytes.length);
        expect(() => decodeRequest(part)).to.throw(FrameError);
      }),
    );
  });

  it('are refused, and nothing worse, when they are anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.boolean(), (bytes, dressed) => {
        const header = Buffer.from('VTPQ\0\0\0\0');
        header.writeUInt32BE(bytes.length, 4);
        const input = dressed ? Buffer.concat([header, bytes]) : Buffer.from(bytes);
        try {
          decodeRequest(input);
        } catch (error) {
          expect(error).to.be.instanceOf(FrameError);
        }
      }),
    );
    const long = Buffer.from('VTPQ\0\0\0\0');
    long.writeUInt32BE(MAX_REQUEST_BYTES + 1, 4);
    expect(() => requestLength(long)).to.throw(FrameError, 'are allowed');
  });

  it('report an errno, and are refused when they are no report', () => {
    expect([0, 13, 30].map((errno) => decodeReport(encodeReport(errno)))).to.deep.equal([0, 13, 30]);
    for (let length = 0; length < 12; length++) {
      expect(decodeReport(encodeReport(30).subarray(0, length))).to.equal(undefined);
    }
    const tooLong = Buffer.concat([encodeReport(0), Buffer.alloc(1)]);
    for (const bytes of [tooLong, encodeIpv6Wish(), Buffer.alloc(12)]) {
      expect(() => decodeReport(bytes)).to.throw(FrameError, 'no report');
    }
  });
});

describe('the shim looking for its socket in the configuration', () => {
  let probe: string;

  before(function () {
    need(this, 'make', 'gcc');
    this.timeout(120_000);
    probe = buildShim('build/json-member.sanitized');
  });

  /** What the C code, under sanitizers, says of each text. */
  const look = (texts: readonly Buffer[]): string[] => {
    const input = texts.flatMap((bytes) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      return [length, bytes];
    });
    const output = execFileSync(probe, { input: Buffer.concat(input), encoding: 'latin1', stdio: 'pipe' });
    return output.split('\n').slice(0, -1);
  };

  const expected = (text: string): string => {
    const json: unknown = JSON.parse(text);
    if (typeof json !== 'object' || json === null || Array.isArray(json)) return 'malformed ';
    if (!Object.hasOwn(json, 'socket')) return 'absent ';
    const value: unknown = (json as { socket: unknown }).socket;
    if (typeof value !== 'string') return 'not-a-string ';
    return /^[\x20-\x7e]{0,63}$/.test(value) ? `found ${value}` : 'unusable ';
  };

  it('sees what JSON.parse sees', () => {
    const key = fc.oneof(fc.constantFrom('socket', 'Socket', 'socket ', '', 'so\\cket', '"'), fc.string());
    const path = fc
      .string({ unit: 'binary-ascii', maxLength: 70 })
      .filter((value) => !value.includes('\x7f'));
    const value = fc.oneof(path, fc.jsonValue({ maxDepth: 4 }));
    const pairs = fc.array(fc.tuple(key, value), { maxLength: 6 });
    const spaced = fc.tuple(pairs, fc.constantFrom(undefined, 1, '\t', '\n ')).map(([entries, space]) => {
      // Repeated keys stay repeated: the last counts.
      const members = entries.map(
        ([name, one]) => `${JSON.stringify(name)}:${JSON.stringify(one, undefined, space)}`,
      );
      return `${space ?? ''}{${members.join(space === undefined ? ',' : ' , ')}}`.replace(/^1/, ' ');
    });
    const texts = fc.sample(fc.oneof(spaced, fc.json()), 3000);
    const found = look(texts.map((text) => Buffer.from(text)));
    for (const [i, text] of texts.entries()) expect(found[i], text).to.equal(expected(text));
  });

  it('reads escapes, and takes a value that is too long or no path for unusable', () => {
    const cases: readonly (readonly [string, string])[] = [
      ['{"socket":"\\u002frun\\/x\\"\\\\"}', 'found /run/x"\\'],
      ['{"sock\\u0065t":"/a"}', 'found /a'],
      [`{"socket":"/${'a'.repeat(62)}"}`, `found /${'a'.repeat(62)}`],
      [`{"socket":"/${'a'.repeat(63)}"}`, 'unusable '],
      ['{"socket":"/\\u00e9"}', 'unusable '],
      ['{"socket":"/\\n"}', 'unusable '],
      ['{"socket":"/\\x"}', 'malformed '],
      ['{"socket":"/\\u12"}', 'malformed '],
      ['{"socket":"/a"', 'malformed '],
      ['{"socket":"/a","x":[}', 'malformed '],
      ['{"x":{"socket":"/inner"}}', 'absent '],
      ['{"socket":"/first","socket":"/last"}', 'found /last'],
      ['{"socket":"/a\0b"}', 'malformed '],
      ['', 'malformed '],
      [`{"x":${'['.repeat(1000)}`, 'malformed '],
    ];
    expect(look(cases.map(([text]) => Buffer.from(text)))).to.deep.equal(cases.map(([, found]) => found));
  });

  it('survives any bytes, cut anywhere', () => {
    const valid = Buffer.from('{"cniVersion":"1.0.0","socket":"/run/a\\u002fb","x":[1,{"y":"\\\\"}]}');
    const cuts = Array.from({ length: valid.length }, (_, i) => valid.subarray(0, i));
    const random = fc.sample(fc.uint8Array({ maxLength: 100 }), 1000).map((bytes) => Buffer.from(bytes));
    const flipped = fc
      .sample(fc.tuple(fc.nat(valid.length - 1), fc.integer({ min: 0, max: 255 })), 2000)
      .map(([at, byte]) =>
        Buffer.concat([valid.subarray(0, at), Buffer.from([byte]), valid.subarray(at + 1)]),
      );
    const texts = [...cuts, ...random, ...flipped];
    expect(
      look(texts).filter((line) => /^(found|absent|not-a-string|unusable|malformed) /.test(line)),
    ).to.have.length(texts.length);
  });
});

describe('the result of an earlier ADD', () => {
  const result = {
    cniVersion: '0.4.0',
    interfaces: [
      { name: 'vtep0' },
      { name: 'vtpx' },
      { name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/x' },
    ],
    ips: [
      { version: '4', interface: 2, address: '10.1.1.2/24', gateway: '10.1.1.1' },
      { version: '4', interface: 0, address: '10.9.9.9/24' },
    ],
    routes: [{ dst: '0.0.0.0/0', gw: '10.1.1.1' }, { dst: '10.5.0.0/16' }],
  };

  it('is read of the pod interface alone', () => {
    expect(parsePreviousResult(result, 'eth0')).to.deep.equal({
      mac: '02:00:00:00:00:01',
      addresses: [{ address: '10.1.1.2', prefixLength: 24 }],
      routes: new Set(['0.0.0.0/0 via 10.1.1.1', '10.5.0.0/16 via ']),
    });
  });

  it('is refused with code 7 when it is none', () => {
    const bad = [
      null,
      5,
      { interfaces: 'x' },
      { ...result, interfaces: [] },
      { ...result, ips: [{ address: '10.1.1.2' }] },
      { ...result, ips: [{ address: '10.1.1.2/33' }] },
      { ...result, routes: [{ dst: 'default' }] },
    ];
    for (const one of bad) {
      expect(() => parsePreviousResult(one, 'eth0'))
        .to.throw(CniError)
        .with.property('cniCode', 7);
    }
    expect(() => parsePreviousResult(result, 'eth1')).to.throw('has no eth1');
  });
});
