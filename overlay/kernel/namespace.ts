/**
 * Network namespaces. setns(2) moves the calling thread alone, so entering, doing and leaving is one
 * synchronous stretch on the main thread: nothing else of the process runs in between. What is opened
 * inside (a socket) stays in that namespace.
 */
import { closeSync, openSync } from 'node:fs';
import { checked, setns, unshare } from './libc.ts';

const CLONE_NEWNET = 0x40000000;
/** The calling thread's, not the process's: the two differ only inside `inNamespace`. */
const OWN_NAMESPACE = '/proc/thread-self/ns/net';

/**
 * Runs `inside` in another network namespace; it must not await.
 * @param namespace a path such as /run/netns/NAME or /proc/PID/ns/net
 * @throws SystemCallError, or what `inside` throws; the thread is back in its own namespace either way
 */
export function inNamespace<T>(namespace: string, inside: () => T): T {
  const home = openSync(OWN_NAMESPACE, 'r');
  try {
    const there = openSync(namespace, 'r');
    try {
      checked(`enter network namespace ${namespace}`, setns(there, CLONE_NEWNET));
    } finally {
      closeSync(there);
    }
    try {
      return inside();
    } finally {
      checked('return from a network namespace', setns(home, CLONE_NEWNET));
    }
  } finally {
    closeSync(home);
  }
}

/**
 * Runs `inside` in a network namespace that was made for it and that nobody else sees: devices made there are
 * gone with the last socket that was opened inside. It must not await. Needs CAP_SYS_ADMIN.
 * @throws SystemCallError, or what `inside` throws; the thread is back in its own namespace either way
 */
export function inNewNamespace<T>(inside: () => T): T {
  const home = openSync(OWN_NAMESPACE, 'r');
  try {
    checked('make a network namespace', unshare(CLONE_NEWNET));
    try {
      return inside();
    } finally {
      checked('return from a network namespace', setns(home, CLONE_NEWNET));
    }
  } finally {
    closeSync(home);
  }
}
