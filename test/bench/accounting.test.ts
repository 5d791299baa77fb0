/** What is computed rather than measured: processor time, bytes of headers, time plans, what programs print. */
import { expect } from 'chai';
import { CommandLog } from '../../bench/engine/command-log.ts';
import { busy, costPer, cpuBetween, cpuSum, parseCpuTimes, percentOf } from '../../bench/engine/cpu.ts';
import { EngineError } from '../../bench/engine/end.ts';
import { parseIperf3 } from '../../bench/engine/iperf3.ts';
import { parseSockperfLog } from '../../bench/engine/sockperf.ts';
import { commonestFrame } from '../../bench/paths/measure-overhead.ts';
import { efficiency, layersOf, overheadBytes } from '../../bench/paths/overhead.ts';
import { digits, formatChange, formatValue } from '../../bench/report/format.ts';
import { printedProgress } from '../../bench/report/progress.ts';
import { durationSeconds, LONGEST_S, SHORTEST_S, secondsEach } from '../../bench/run/time-plan.ts';

const BEFORE = 'cpu  1000 50 400 8000 100 5 95 20 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n';
const AFTER = 'cpu  1060 70 500 8150 110 10 145 30 0 0\ncpu0 2 2 2 2 2 2 2 2 0 0\nintr 9\n';

describe('bench: processor time', () => {
  it('is what passed between two readings of /proc/stat, by kind', () => {
    const passed = cpuBetween(parseCpuTimes(BEFORE), parseCpuTimes(AFTER));
    // 60 + 20 ticks in programs, 100 in the kernel, 5 + 50 in interrupts, 150 + 10 idle, 10 stolen.
    expect(passed.user).to.be.closeTo(0.8, 1e-9);
    expect(passed.system).to.be.closeTo(1, 1e-9);
    expect(passed.softirq).to.be.closeTo(0.55, 1e-9);
    expect(passed.idle).to.be.closeTo(1.6, 1e-9);
    expect(passed.steal).to.be.closeTo(0.1, 1e-9);
    expect(busy(passed)).to.be.closeTo(2.35, 1e-9);
    expect(percentOf(passed.steal, passed)).to.be.closeTo(100 * (0.1 / 4.05), 1e-9);
    expect(percentOf(busy(passed), passed)).to.be.closeTo(100 * (2.35 / 4.05), 1e-9);
  });

  it('is shared out over what was carried; nothing carried has no cost', () => {
    const passed = cpuBetween(parseCpuTimes(BEFORE), parseCpuTimes(AFTER));
    const cost = costPer(passed, 5);
    expect(cost?.total).to.be.closeTo(0.47, 1e-9);
    expect((cost?.user ?? 0) + (cost?.system ?? 0) + (cost?.softirq ?? 0)).to.be.closeTo(0.47, 1e-9);
    expect(costPer(passed, 0)).to.equal(undefined);
  });

  it('of two machines is their sum; an idle counter that goes back counts as none', () => {
    const one = parseCpuTimes(BEFORE);
    expect(cpuSum(one, one).system).to.be.closeTo(8, 1e-9);
    expect(cpuBetween({ ...one, idle: 5 }, { ...one, idle: 4.99 }).idle).to.equal(0);
  });

  it('is refused from anything but /proc/stat', () => {
    expect(() => parseCpuTimes('cpu0 1 2 3')).to.throw('/proc/stat');
    expect(() => parseCpuTimes('cpu  1 two 3')).to.throw('/proc/stat');
  });
});

describe('bench: bytes of headers', () => {
  it('what each path adds to a packet', () => {
    // RFC 7348 over IPv4: 20 + 8 + 8 and the inner frame's 14; over IPv6 20 more.
    expect(overheadBytes('vxlan', 'ipv4')).to.equal(50);
    expect(overheadBytes('vxlan', 'ipv6')).to.equal(70);
    // WireGuard: 20 + 8 + 16 + 16.
    expect(overheadBytes('wireguard', 'ipv4')).to.equal(60);
    expect(overheadBytes('wireguard', 'ipv6')).to.equal(80);
    expect(overheadBytes('none', 'ipv4')).to.equal(0);
  });

  it('the layers of a full-sized segment add up to the underlay’s MTU and its Ethernet header', () => {
    const layers = layersOf('vxlan', 'ipv4', 1450);
    expect(layers.reduce((sum, { bytes }) => sum + bytes, 0)).to.equal(1514);
    expect(layers.map(({ name, bytes }) => `${name} ${bytes}`)).to.deep.equal([
      ...['Ethernet 14', 'IPv4 20', 'UDP 8', 'VXLAN 8', 'Ethernet 14'],
      ...['IPv4 20', 'TCP 32', 'payload 1398'],
    ]);
    expect(layers.filter(({ role }) => role === 'added').reduce((sum, { bytes }) => sum + bytes, 0)).to.equal(
      50,
    );
  });

  it('what was captured is the size that requests and answers have, whatever else passed', () => {
    const sizes = [1110, 60, 1084, 1422, 1084, 60, 60, 60, 1084];
    const frames = sizes.map((size) => new Uint8Array(size));
    expect(commonestFrame(frames, 1038, 3)).to.equal(frames[2]);
    // Only probes were seen.
    expect(commonestFrame(frames, 1038, 4)).to.equal(undefined);
    expect(commonestFrame(frames, 1500, 1)).to.equal(undefined);
  });

  it('the share of a wire’s time that is payload', () => {
    // The well-known figure of TCP with timestamps on Ethernet: 1448 of 1538 bytes, 941 Mbit/s of a gigabit.
    expect(efficiency(layersOf('none', 'ipv4', 1500))).to.be.closeTo(1448 / 1538, 1e-12);
    expect(efficiency(layersOf('vxlan', 'ipv4', 1450))).to.be.closeTo(1398 / 1538, 1e-12);
  });
});

describe('bench: what programs print', () => {
  const report = (end: object): string => JSON.stringify({ start: {}, end });

  it('iperf3: what arrived counts, not what was sent', () => {
    const tcp = report({
      sum_sent: { bytes: 2000, seconds: 1, bits_per_second: 16_000 },
      sum_received: { bytes: 1000, seconds: 0.5, bits_per_second: 16_000 },
    });
    expect(parseIperf3(tcp, 'x', false)).to.deep.equal({
      bitsPerSecond: 16_000,
      receivedBytes: 1000,
      seconds: 0.5,
      packets: undefined,
    });
    const udp = report({
      sum: { packets: 100, lost_packets: 40 },
      sum_received: { bytes: 600, seconds: 1, bits_per_second: 4800 },
    });
    expect(parseIperf3(udp, 'x', true).packets).to.deep.equal({ received: 60, sent: 100 });
  });

  it('iperf3: an error, nothing received and no report are faults that say so', () => {
    expect(() => parseIperf3('{"error": "unable to connect"}', 'x', false)).to.throw(
      EngineError,
      /unable to connect/,
    );
    expect(() => parseIperf3('', 'x', false)).to.throw(EngineError, /no report/);
    const nothing = report({ sum_received: { bytes: 0, seconds: 0, bits_per_second: 0 } });
    expect(() => parseIperf3(nothing, 'x', false)).to.throw(EngineError, /nothing arrived/);
  });

  it('sockperf: round trips of its log in seconds, ascending, headings left out', () => {
    const log = [
      '------------------------------',
      'test was performed using the following parameters: --mps=100, --burst=1, a, b',
      'packet, txTime(sec), rxTime(sec), rtt(usec)',
      '0, 2.423735410, 2.423772189, 36.779',
      '1, 2.433735351, 2.433771588, 16.5',
      '',
    ].join('\n');
    expect([...parseSockperfLog(log)].map((s) => Math.round(s * 1e9))).to.deep.equal([16_500, 36_779]);
    expect(parseSockperfLog('')).to.have.length(0);
  });

  it('commands are kept once, with how often; a volume that was adapted is the same command', () => {
    const log = new CommandLog();
    log.add('a: tcp', ['iperf3', '-n', '123456']);
    log.add('a: tcp', ['iperf3', '-n', '999999']);
    log.add('b: tcp', ['iperf3', '-n', '999999']);
    expect(log.commands).to.deep.equal([
      { what: 'a: tcp', argv: ['iperf3', '-n', '999999'], times: 2 },
      { what: 'b: tcp', argv: ['iperf3', '-n', '999999'], times: 1 },
    ]);
  });
});

describe('bench: time plan', () => {
  const plain = (length: number) => ({ measurements: { length }, overheadSeconds: 0.2 });

  it('shares out what is left, within bounds', () => {
    // 10 measurements, 5 rounds: 10 * 0.2 * 7 fixed, 10 * 5.4 times the seconds each.
    expect(secondsEach([plain(10)], 5, 14 + 27)).to.be.closeTo(0.5, 1e-9);
    expect(secondsEach([plain(10)], 5, 10_000)).to.equal(LONGEST_S);
    expect(secondsEach([plain(10)], 5, 1)).to.equal(SHORTEST_S);
    expect(secondsEach([plain(10)], 5, 10_000, 1, 5)).to.equal(5);
    expect(durationSeconds([plain(10)], 5, 0.5)).to.be.closeTo(41, 1e-9);
  });

  it('measurements that begin at fixed times take these, and leave the rest to the others', () => {
    const staggered = { measurements: { length: 4 }, overheadSeconds: 0, staggerMs: 1000, fixedSeconds: 3 };
    expect(durationSeconds([staggered], 5, 1)).to.equal(23);
    expect(secondsEach([plain(10), staggered], 5, 14 + 27 + 23)).to.be.closeTo(0.5, 1e-9);
    expect(secondsEach([staggered], 5, 100)).to.equal(LONGEST_S);
  });

  it('a busy machine slows what is measured, and not what begins at fixed times', () => {
    const staggered = { measurements: { length: 4 }, overheadSeconds: 0, staggerMs: 1000, fixedSeconds: 3 };
    expect(durationSeconds([staggered], 5, 1, 3)).to.equal(23);
    expect(durationSeconds([plain(10)], 5, 0.5, 3)).to.be.closeTo(3 * 41, 1e-9);
    expect(secondsEach([plain(10), staggered], 5, 3 * (14 + 27) + 23, 3)).to.be.closeTo(0.5, 1e-9);
  });
});

describe('bench: values for people', () => {
  it('take the prefix that fits, and three digits', () => {
    expect(formatValue(9.413e9, 'bit/s')).to.equal('9.41 Gbit/s');
    expect(formatValue(999e3, 'bit/s')).to.equal('999 kbit/s');
    expect(formatValue(1e9, 'bit/s')).to.equal('1.00 Gbit/s');
    expect(formatValue(0.0000213, 's')).to.equal('21.3 µs');
    expect(formatValue(0.001, 's')).to.equal('1.00 ms');
    expect(formatValue(2.5, 's')).to.equal('2.50 s');
    expect(formatValue(0, 'bit/s')).to.equal('0 bit/s');
    expect(formatValue(480_000, 'packets/s')).to.equal('480 thousand packets/s');
    expect([1234, 99.96, 0.0123, 0].map(digits)).to.deep.equal(['1234', '100.0', '0.0123', '0']);
  });

  it('changes read as percent, as times when they are large, and as points where shares are subtracted', () => {
    const ratio = { compareBy: 'ratio', unit: 'bit/s' } as const;
    expect(formatChange(0.59, ratio)).to.equal('-41.0 %');
    expect(formatChange(1.032, ratio)).to.equal('+3.20 %');
    expect(formatChange(2.6, ratio)).to.equal('2.60 ×');
    expect(formatChange(0.4, { compareBy: 'difference', unit: '%' })).to.equal('+0.400 % points');
    expect(formatChange(-2e-6, { compareBy: 'difference', unit: 's' })).to.equal('-2.00 µs');
  });

  it('progress is one line on a terminal, and a line for each part elsewhere', () => {
    const printed = (isTerminal: boolean): string => {
      let [text, ms] = ['', 0];
      const progress = printedProgress(
        (more) => (text += more),
        isTerminal,
        () => ms,
      );
      progress.phase('making the paths');
      ms = 10_000;
      progress.begun('TCP');
      progress.done(0.25);
      progress.end();
      return text;
    };
    expect(printed(false)).to.equal('making the paths\n');
    expect(printed(true)).to.include('25 %, 30 s left  TCP');
    expect(printed(true).endsWith('\u001b[2K')).to.equal(true);
  });
});
