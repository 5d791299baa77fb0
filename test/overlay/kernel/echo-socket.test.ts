/** Raw sockets against a real kernel: two namespaces and a cable, 1,500 bytes wide. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { type EchoSocket, openEchoSocket } from '../../../overlay/kernel/echo-socket.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { echoRequest, readEchoReply } from '../../../overlay/probe/echo-packet.ts';
import { parseAddress } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';

const WHOLE_ONLY = `
table inet whole {
  chain incoming {
    type filter hook prerouting priority -500;
    icmp type echo-request ip frag-off & 0x4000 == 0 drop
    ip frag-off & 0x3fff != 0 drop
    exthdr frag exists drop
  }
}
`;

describe('EchoSocket', function () {
  this.timeout(20_000);
  const run = `vtech${randomBytes(3).toString('hex')}`;
  const ip = (end: string, ...args: string[]) => execFileSync('ip', ['-n', `${run}${end}`, ...args]);

  before(function () {
    need(this, 'root', 'ip', 'nft', 'raw-socket');
    for (const end of ['a', 'b']) execFileSync('ip', ['netns', 'add', `${run}${end}`]);
    ip('a', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', `${run}b`);
    for (const [end, last] of [
      ['a', '1'],
      ['b', '2'],
    ] as const) {
      ip(end, 'addr', 'add', `192.0.2.${last}/24`, 'dev', 'eth0');
      ip(end, 'addr', 'add', `2001:db8::${last}/64`, 'dev', 'eth0', 'nodad');
      ip(end, 'link', 'set', 'eth0', 'up');
    }
    // The far end hears no request that somebody on the way might cut up, and none that was.
    execFileSync('ip', ['netns', 'exec', `${run}b`, 'nft', '-f', '-'], { input: WHOLE_ONLY });
  });

  after(() => {
    for (const end of ['a', 'b']) {
      try {
        execFileSync('ip', ['netns', 'del', `${run}${end}`], { stdio: 'ignore' });
      } catch {
        // A suite that was skipped has made none.
      }
    }
  });

  for (const [family, own, peer] of [
    ['ipv4', '192.0.2.1', '192.0.2.2'],
    ['ipv6', '2001:db8::1', '2001:db8::2'],
  ] as const) {
    it(`${family}: whole packets up to the link's MTU come back, larger ones are refused, none is cut up`, async () => {
      const sizes = new Set<number>();
      const refused: string[] = [];
      let closed = 0;
      let socket: EchoSocket | undefined;
      try {
        socket = inNamespace(`/run/netns/${run}a`, () =>
          openEchoSocket(family, {
            received(bytes, source) {
              expect(source).to.equal(peer);
              const reply = readEchoReply(family, bytes);
              expect(reply).to.include({ identifier: 77 });
              if (reply?.sequence === reply?.sizeBytes) sizes.add(reply?.sizeBytes ?? 0);
            },
            closed: () => closed++,
          }),
        );
        const [source, destination] = [parseAddress(own), parseAddress(peer)];
        const token = new Uint8Array(16);
        for (const sizeBytes of [84, 1500, 1501, 1280]) {
          const packet = echoRequest({
            source,
            destination,
            identifier: 77,
            sequence: sizeBytes,
            token,
            sizeBytes,
          });
          socket.send(packet, destination, (reason) => refused.push(`${sizeBytes}: ${reason}`));
        }
        await until(() => sizes.size === 3 && refused.length === 1, {
          what: 'echo replies',
          deadlineMs: 10_000,
        });
      } finally {
        socket?.close();
      }
      expect([...sizes].sort((a, b) => a - b)).to.deep.equal([84, 1280, 1500]);
      expect(refused).to.deep.equal(['1501: Message too long']);
      expect(closed).to.equal(1);
    });
  }
});
