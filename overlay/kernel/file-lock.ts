/** An advisory lock on a file (flock(2)), which ends with the process that holds it, however that ends. */
import { closeSync, constants, openSync } from 'node:fs';
import koffi from 'koffi';
import { checked } from './libc.ts';

const LOCK_EX_NB = 2 | 4;

const flock: (fd: number, operation: number) => number = koffi.load('libc.so.6').func('int flock(int, int)');

/** @throws SystemCallError with code EAGAIN (EWOULDBLOCK) when another process holds it */
export function lockFile(path: string): Disposable {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    checked(`lock ${path}`, flock(fd, LOCK_EX_NB));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let held = true;
  return {
    [Symbol.dispose]() {
      if (held) closeSync(fd);
      held = false;
    },
  };
}
