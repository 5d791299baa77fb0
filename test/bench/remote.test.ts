/** The other machine of a measurement when it does not do what it should: messages say what to look at. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { expect } from 'chai';
import { RemoteMachine } from '../../bench/remote/client.ts';

describe('bench: the far machine', () => {
  const says: readonly [string, (socket: Socket) => void, RegExp][] = [
    ['refuses in order', (socket) => socket.end(), /is this machine one of its --allow/],
    // It closed with our request unread.
    ['resets the connection', (socket) => socket.resetAndDestroy(), /is this machine one of its --allow/],
    ['says why not', (socket) => socket.end('{"error": "somebody else is measuring"}\n'), /somebody else/],
    ['is another program', (socket) => socket.end('SSH-2.0\n'), /does not speak as vtepd does/],
    ['is another version', (socket) => socket.end('{"hullo": 1}\n'), /use the same vtepd there/],
  ];
  for (const [what, answer, message] of says) {
    it(`${what}: the error says so`, async () => {
      const server = createServer((socket) => {
        socket.on('error', () => {});
        socket.once('data', () => answer(socket));
      });
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const { port } = server.address() as AddressInfo;
      const machine = await RemoteMachine.connect('127.0.0.1', port, new AbortController().signal);
      try {
        const failure = await machine.hello(false).catch((error: unknown) => error);
        expect(failure).to.have.property('code', 'VTEPD_BENCH_REMOTE');
        expect(String(failure)).to.match(message);
      } finally {
        machine.close();
        server.close();
      }
    });
  }
});
