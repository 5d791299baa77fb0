/** TCP to 127.0.0.1 of another network namespace, without a process inside. */
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { parseAddress } from '../../store/address.ts';
import { checked, close, connect, lastErrno, SystemCallError, socket } from './libc.ts';
import { inNamespace } from './namespace.ts';
import { AF_INET, socketAddress } from './socket-address.ts';

const LOOPBACK = parseAddress('127.0.0.1');
const SOCK_STREAM_CLOEXEC_NONBLOCK = 1 | 0o2000000 | 0o4000;

/**
 * As `net.connect` does it, the socket says by an `error` that there is no such namespace or that nobody listens.
 * @param namespace a path such as /run/netns/NAME
 */
export function connectLoopback(namespace: string, port: number): Socket {
  try {
    return new Socket({ fd: connectedDescriptor(namespace, port), readable: true, writable: true });
  } catch (error) {
    return new Socket().destroy(error as Error);
  }
}

/** It may still be connecting: what is written waits until it is. @throws SystemCallError */
function connectedDescriptor(namespace: string, port: number): number {
  const fd = inNamespace(namespace, () =>
    checked('open a TCP socket', socket(AF_INET, SOCK_STREAM_CLOEXEC_NONBLOCK, 0)),
  );
  const address = socketAddress(LOOPBACK, port);
  if (connect(fd, address, address.length) === 0) return fd;
  const errno = lastErrno();
  if (errno === constants.errno.EINPROGRESS) return fd;
  close(fd);
  throw new SystemCallError(`connect to 127.0.0.1:${port}`, errno);
}
