/**
 * A program of its own, run inside namespaces by tcp.ts: one TCP connection's end.
 *
 *   tcp-program.js sink PORT                    accepts one connection, reads it to its end
 *   tcp-program.js source ADDRESS PORT PAUSE    writes without a rest (PAUSE 0) or a line every PAUSE
 *                                               milliseconds, until SIGINT
 *
 * Each prints `ready` when it listens or is connected, and one line of JSON (an EndReport) at the end.
 */
import { createConnection, createServer, type Socket } from 'node:net';
import type { EndReport } from './tcp.ts';

const CHUNK = Buffer.alloc(128 * 1024, 'vtepd ');
const LINE = CHUNK.subarray(0, 100);

function report(end: EndReport): void {
  process.stdout.write(`${JSON.stringify(end)}\n`);
}

function sink(port: number): void {
  const server = createServer((socket) => {
    server.close();
    receive(socket);
  });
  server.listen(port, () => process.stdout.write('ready\n'));
}

function receive(socket: Socket): void {
  const begin = performance.now();
  let bytes = 0;
  let last = begin;
  let longestGapMs = 0;
  let fault: string | undefined;
  socket.on('data', (chunk) => {
    const now = performance.now();
    longestGapMs = Math.max(longestGapMs, now - last);
    last = now;
    bytes += chunk.length;
  });
  socket.on('error', (error) => {
    fault = error.message;
  });
  socket.on('close', () => report({ bytes, durationMs: last - begin, longestGapMs, fault }));
}

function source(address: string, port: number, pauseMs: number): void {
  const begin = performance.now();
  let bytes = 0;
  let fault: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  const socket = createConnection(port, address, () => {
    process.stdout.write('ready\n');
    if (pauseMs > 0) timer = setInterval(() => write(LINE), pauseMs);
    else flood();
  });
  const write = (chunk: Buffer): boolean => {
    bytes += chunk.length;
    return socket.write(chunk);
  };
  const flood = () => {
    while (!socket.writableEnded && write(CHUNK));
  };
  socket.on('drain', () => pauseMs === 0 && flood());
  socket.on('error', (error) => {
    fault = error.message;
  });
  socket.on('close', () => {
    clearInterval(timer);
    report({ bytes, durationMs: performance.now() - begin, longestGapMs: 0, fault });
  });
  process.once('SIGINT', () => {
    clearInterval(timer);
    socket.end();
  });
}

const [role, ...rest] = process.argv.slice(2);
if (role === 'sink') sink(Number(rest[0]));
else source(rest[0] ?? '', Number(rest[1]), Number(rest[2]));
