/**
 * A program of its own, run at both ends by connections.ts: TCP connections one after the other, each with a
 * byte there and a byte back, as fast as they go. It calls the C library itself, without an event loop:
 * Node's sockets would be most of what is measured.
 *
 *   connections-program.js serve ADDRESS PORT
 *   connections-program.js connect ADDRESS PORT SECONDS
 *
 * The server prints `ready`; the client one line of JSON, a ConnectionsRun.
 */
import { endianness } from 'node:os';
import koffi from 'koffi';
import { addressBytes, familyOf, parseAddress } from '../../store/address.ts';
import type { ConnectionsRun } from './connections.ts';

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int, int, int)');
const bind = libc.func('int bind(int, const void *, unsigned int)');
const listen = libc.func('int listen(int, int)');
const accept = libc.func('int accept(int, void *, void *)');
const connect = libc.func('int connect(int, const void *, unsigned int)');
const send = libc.func('long send(int, const void *, size_t, int)');
const recv = libc.func('long recv(int, void *, size_t, int)');
const close = libc.func('int close(int)');
const setsockopt = libc.func('int setsockopt(int, int, int, const void *, unsigned int)');
const strerror = libc.func('const char *strerror(int)');

const [AF_INET, AF_INET6, SOCK_STREAM, SOL_SOCKET] = [2, 10, 1, 1];
const [SO_REUSEADDR, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO] = [2, 13, 20, 21];
const BACKLOG = 512;
/** A lost packet is sent again after a second; what takes longer is given up and counted. */
const TIMEOUT_S = 3;

/** sockaddr_in and sockaddr_in6. */
function socketAddress(text: string, port: number): { readonly family: number; readonly bytes: Buffer } {
  const address = parseAddress(text);
  const family = familyOf(address) === 'ipv6' ? AF_INET6 : AF_INET;
  const bytes = Buffer.alloc(family === AF_INET6 ? 28 : 16);
  if (endianness() === 'LE') bytes.writeUInt16LE(family, 0);
  else bytes.writeUInt16BE(family, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(addressBytes(address), family === AF_INET6 ? 8 : 4);
  return { family, bytes };
}

function words(...values: readonly number[]): Buffer {
  return Buffer.from(Int32Array.from(values).buffer);
}

function checked(doing: string, result: number): number {
  if (result >= 0) return result;
  throw new Error(`${doing}: ${strerror(koffi.errno())}`);
}

function limitTime(descriptor: number): void {
  // struct timeval has two longs.
  const timeout = Buffer.from(BigInt64Array.from([BigInt(TIMEOUT_S), 0n]).buffer);
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO]) setsockopt(descriptor, SOL_SOCKET, option, timeout, 16);
}

const byte = Buffer.alloc(1);

function serve(address: string, port: number): never {
  const { family, bytes } = socketAddress(address, port);
  const listener = checked('socket', socket(family, SOCK_STREAM, 0));
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, words(1), 4);
  checked(`bind to ${address}`, bind(listener, bytes, bytes.length));
  checked('listen', listen(listener, BACKLOG));
  process.stdout.write('ready\n');
  for (;;) {
    const descriptor: number = accept(listener, null, null);
    // A connection that was given up before it was accepted.
    if (descriptor < 0) continue;
    limitTime(descriptor);
    if (recv(descriptor, byte, 1, 0) === 1) send(descriptor, byte, 1, 0);
    close(descriptor);
  }
}

/**
 * A client that closes in order keeps its port for a minute, and there are 28,000 of them: it resets instead
 * (SO_LINGER with no time), after the answer is there.
 */
function connectAgain(address: string, port: number, seconds: number): ConnectionsRun {
  const { family, bytes } = socketAddress(address, port);
  let [made, failed] = [0, 0];
  const begin = performance.now();
  let now = begin;
  while (now - begin < seconds * 1000) {
    const descriptor = checked('socket', socket(family, SOCK_STREAM, 0));
    limitTime(descriptor);
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, words(1, 0), 8);
    const answered =
      connect(descriptor, bytes, bytes.length) === 0 &&
      send(descriptor, byte, 1, 0) === 1 &&
      recv(descriptor, byte, 1, 0) === 1;
    close(descriptor);
    if (answered) made++;
    else failed++;
    now = performance.now();
  }
  return { made, failed, seconds: (now - begin) / 1000 };
}

const [role, address = '', port, seconds] = process.argv.slice(2);
if (role === 'serve') serve(address, Number(port));
process.stdout.write(`${JSON.stringify(connectAgain(address, Number(port), Number(seconds)))}\n`);
