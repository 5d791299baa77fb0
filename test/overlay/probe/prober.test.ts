/** The schedule over simulated time, and what of the answers is believed. */
import { expect } from 'chai';
import { DueQueue } from '../../../overlay/probe/due-queue.ts';
import { echoRequest, readEchoReply } from '../../../overlay/probe/echo-packet.ts';
import { type ProbedPath, Prober } from '../../../overlay/probe/prober.ts';
import { type Address, addressAt, parseAddress, parseSubnet } from '../../../store/address.ts';
import type { Sleep } from '../../../store/backoff.ts';

const SOURCE = parseAddress('192.0.2.1');
const FULL_BYTES = 1500;
const INTERVAL_MS = 30_000;

/** What a peer's kernel answers: the request with its type and its addresses turned around. */
function replyTo(packet: Buffer): Buffer {
  const reply = Buffer.from(packet);
  const isIpv4 = reply[0] === 0x45;
  reply.set(packet.subarray(...(isIpv4 ? [16, 20] : [24, 40])), isIpv4 ? 12 : 8);
  reply.set(packet.subarray(...(isIpv4 ? [12, 16] : [8, 24])), isIpv4 ? 16 : 24);
  reply[isIpv4 ? 20 : 40] = isIpv4 ? 0 : 129;
  // A raw socket gives IPv6 packets without their header.
  return isIpv4 ? reply : reply.subarray(40);
}

/** A network of simulated time: each path has a width and a round trip. */
class Network {
  nowMs = 0;
  readonly sentAtMs: number[] = [];
  readonly changes: ProbedPath[] = [];
  widthOf: (remote: Address) => number = () => FULL_BYTES;
  roundTripMs = 5;
  /** What is delivered for a packet, and from where. */
  answer: (packet: Buffer, remote: Address) => [Buffer, Address][] = (packet, remote) => [
    [replyTo(packet), remote],
  ];
  readonly prober: Prober;
  readonly #events = new DueQueue<() => void>();
  #random = 0;

  constructor() {
    // Numerical Recipes' generator: the same in every run, and cheap.
    const random = () => {
      this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0;
      return this.#random / 2 ** 32;
    };
    this.prober = new Prober({
      intervalMs: INTERVAL_MS,
      clock: () => this.nowMs,
      sleep: this.#sleep,
      random,
      randomBytes: (count) => new Uint8Array(count).map(() => Math.floor(256 * random())),
      send: (packet, remote) => this.#send(packet, remote),
      changed: (path) => this.changes.push(path),
    });
  }

  at(atMs: number, happen: () => void): void {
    this.#events.add(atMs, happen);
  }

  /** Lets so much time pass. */
  async run(durationMs: number): Promise<void> {
    const ending = new AbortController();
    const untilMs = this.nowMs + durationMs;
    this.at(untilMs, () => ending.abort());
    const running = this.prober.run(ending.signal);
    while (!ending.signal.aborted) {
      const next = this.#events.take();
      if (next === undefined) break;
      this.nowMs = Math.max(this.nowMs, next.at);
      next.item();
      // The loop takes its turn in microtasks.
      for (let turns = 0; turns < 10; turns++) await Promise.resolve();
    }
    await running;
  }

  readonly #sleep: Sleep = (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const abort = () => reject(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      this.at(this.nowMs + ms, () => {
        signal.removeEventListener('abort', abort);
        resolve();
      });
    });

  #send(packet: Buffer, remote: Address): void {
    this.sentAtMs.push(this.nowMs);
    if (packet.length > this.widthOf(remote)) return;
    for (const [bytes, from] of this.answer(packet, remote)) {
      const family = from.includes(':') ? 'ipv6' : 'ipv4';
      this.at(this.nowMs + this.roundTripMs, () => this.prober.received(family, bytes, from));
    }
  }
}

function networkWith(count: number): Network {
  const network = new Network();
  network.prober.setOrigin('ipv4', { source: SOURCE, fullBytes: FULL_BYTES });
  for (let n = 0; n < count; n++) network.prober.add('ipv4', remote(n));
  return network;
}

const remote = (n: number): Address => addressAt(parseSubnet('198.18.0.0/15'), n + 1);
const pathOf = (network: Network, n = 0) => network.prober.path('ipv4', remote(n));

describe('probe: packets', () => {
  for (const [source, destination, sizes] of [
    ['192.0.2.1', '192.0.2.2', [44, 84, 85, 1500, 9000]],
    ['2001:db8::1', '2001:db8::2', [64, 84, 1501, 9000]],
  ] as const) {
    it(`a reply is what its request was, of any size, from ${source}`, () => {
      for (const sizeBytes of sizes) {
        const token = Uint8Array.from({ length: 16 }, (_, at) => at + 7);
        const request = { identifier: 0xbeef, sequence: 0xffff, token, sizeBytes };
        const packet = echoRequest({
          ...request,
          source: parseAddress(source),
          destination: parseAddress(destination),
        });
        expect(packet.length).to.equal(sizeBytes);
        const family = source.includes(':') ? 'ipv6' : 'ipv4';
        const reply = readEchoReply(family, replyTo(packet));
        expect({ ...reply, token: Uint8Array.from(reply?.token ?? []) }).to.deep.equal(request);
        // A request is no reply, and what is cut short is nothing.
        expect(readEchoReply(family, family === 'ipv4' ? packet : packet.subarray(40))).to.equal(undefined);
        expect(
          readEchoReply(family, replyTo(packet).subarray(0, 30 - (family === 'ipv4' ? 0 : 10))),
        ).to.equal(undefined);
      }
    });
  }
});

describe('probe: the schedule', () => {
  it('measures the round trip, and asks once an interval while all is well', async () => {
    const network = networkWith(1);
    await network.run(1000);
    expect(pathOf(network)).to.include({ reachable: true, mtuBytes: FULL_BYTES, roundTripMs: 5 });
    const before = network.sentAtMs.length;
    await network.run(10 * INTERVAL_MS);
    expect(network.sentAtMs.length - before).to.be.within(9, 12);
    expect(network.changes).to.have.length(1);
  });

  it('finds a path that begins to swallow large packets within a minute, and that it stopped within another', async () => {
    const network = networkWith(3);
    await network.run(INTERVAL_MS);
    network.widthOf = (to) => (to === remote(1) ? 1403 : FULL_BYTES);
    await network.run(60_000);
    expect(pathOf(network, 1)).to.include({ reachable: true, mtuBytes: 1403 });
    expect(pathOf(network, 0)).to.include({ mtuBytes: FULL_BYTES });
    network.widthOf = () => FULL_BYTES;
    await network.run(60_000);
    expect(pathOf(network, 1)).to.include({ mtuBytes: FULL_BYTES });
    expect(network.changes.map(({ mtuBytes }) => mtuBytes)).to.deep.equal([1500, 1500, 1500, 1403, 1500]);
  });

  it('ten thousand peers: 333 packets a second, never many at once, even when all paths change', async () => {
    const network = networkWith(10_000);
    await network.run(2 * INTERVAL_MS);
    network.sentAtMs.length = 0;
    await network.run(INTERVAL_MS);
    expect(network.sentAtMs.length).to.be.within(9000, 11_000);
    expect(busiest(network.sentAtMs)).to.be.lessThan(600);
    network.widthOf = () => 1400;
    network.sentAtMs.length = 0;
    await network.run(90_000);
    const found = [...network.prober.paths()].filter(({ mtuBytes }) => mtuBytes === 1400);
    expect(found).to.have.length(10_000);
    expect(busiest(network.sentAtMs)).to.be.at.most(3100);
  }).timeout(60_000);

  it('an address that is no peer’s any more is not asked, nor one of a family that is not carried', async () => {
    const network = networkWith(1);
    network.prober.add('ipv6', parseAddress('2001:db8::2'));
    await network.run(1000);
    expect(network.prober.path('ipv6', parseAddress('2001:db8::2'))).to.include({ reachable: undefined });
    network.prober.remove('ipv4', remote(0));
    network.sentAtMs.length = 0;
    await network.run(10 * INTERVAL_MS);
    expect(network.sentAtMs).to.deep.equal([]);
    network.prober.setOrigin('ipv6', { source: parseAddress('2001:db8::1'), fullBytes: FULL_BYTES });
    await network.run(1000);
    expect(network.prober.path('ipv6', parseAddress('2001:db8::2'))).to.include({ reachable: true });
  });

  it('another interval holds at once, for the checks that are planned as well', async () => {
    const network = networkWith(50);
    await network.run(2 * INTERVAL_MS);
    network.prober.setInterval(1000);
    network.sentAtMs.length = 0;
    await network.run(10_000);
    expect(network.sentAtMs.length).to.be.within(430, 570);
    network.prober.setInterval(INTERVAL_MS);
    await network.run(2000);
    network.sentAtMs.length = 0;
    await network.run(INTERVAL_MS);
    expect(network.sentAtMs.length).to.be.at.most(60);
  });

  it('another full size is checked at once', async () => {
    const network = networkWith(1);
    network.widthOf = () => 4000;
    await network.run(1000);
    network.prober.setOrigin('ipv4', { source: SOURCE, fullBytes: 9000 });
    await network.run(20_000);
    expect(pathOf(network)).to.include({ mtuBytes: 4000, fullBytes: 9000 });
  });
});

describe('probe: forged replies', () => {
  const answers: Readonly<Record<string, (reply: Buffer, from: Address) => [Buffer, Address]>> = {
    'from another source': (reply) => [reply, parseAddress('203.0.113.9')],
    'of another request': (reply, from) => [changed(reply, 26, reply.readUInt16BE(26) + 1), from],
    'with another token': (reply, from) => [changed(reply, 28, reply.readUInt16BE(28) ^ 1), from],
    'of another program': (reply, from) => [changed(reply, 24, reply.readUInt16BE(24) ^ 1), from],
    'of a packet cut short': (reply, from) => [changed(reply.subarray(0, 60), 2, 60), from],
  };
  for (const [what, forge] of Object.entries(answers)) {
    it(`${what}: nothing changes`, async () => {
      const network = networkWith(1);
      network.answer = (packet, to) => [forge(replyTo(packet), to)];
      await network.run(3 * INTERVAL_MS);
      expect(pathOf(network)).to.include({ reachable: undefined, mtuBytes: undefined });
      expect(network.prober.counts).to.include({ answered: 0 });
      expect(network.changes).to.deep.equal([]);
    });
  }

  it('do not hide that a path became narrow', async () => {
    const network = networkWith(1);
    await network.run(1000);
    network.widthOf = () => 1400;
    // Somebody who sees no packet answers each that is swallowed with guesses.
    network.answer = (packet, to) => [
      [replyTo(packet), to],
      ...Array.from({ length: 20 }, (_, n): [Buffer, Address] => [
        changed(replyTo(packet), 26, packet.readUInt16BE(26) - n),
        to,
      ]),
    ];
    await network.run(60_000);
    expect(pathOf(network)).to.include({ mtuBytes: 1400 });
    expect(network.prober.counts.unmatched).to.be.greaterThan(20);
  });
});

function changed(reply: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(reply);
  copy.writeUInt16BE(value & 0xffff, at);
  return copy;
}

/** The most packets in any second. */
function busiest(timesMs: readonly number[]): number {
  let most = 0;
  for (let first = 0, last = 0; last < timesMs.length; last++) {
    while ((timesMs[last] ?? 0) - (timesMs[first] ?? 0) >= 1000) first++;
    most = Math.max(most, last - first + 1);
  }
  return most;
}
