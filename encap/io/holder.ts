/**
 * What keeps a tunnel's queues and sockets open while no daemon runs: a shell that does nothing else. It is given the
 * descriptors when the tunnel is opened, and waits for the end of its standard input, which is a pipe from the daemon:
 * the daemon's death, in whatever way, ends it. From then on it sleeps for HOLD_SECONDS and is gone.
 *
 * Meanwhile the kernel goes on filling the device's queues (1,000 frames each) and the sockets' buffers, and the device
 * keeps its carrier, without which the kernel would take away the nexthops on it. The next daemon fetches the descriptors
 * out of the holder (pidfd_getfd(2), Linux 5.6) and goes on where the last one stopped. Where it may not (Yama without
 * CAP_SYS_PTRACE, an older kernel), it opens fresh ones, and what waited is lost.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { close } from '../../overlay/kernel/libc.ts';
import { type EndHolder, HOLD_SECONDS } from '../tunnel-types.ts';
import { POLLIN, poll, SYS_PIDFD_GETFD, SYS_PIDFD_OPEN, SYS_PIDFD_SEND_SIGNAL, systemCall } from './calls.ts';
import { MappedMemory } from './memory-map.ts';

/** Of the holder: after its standard input, output and error. */
const FIRST_DESCRIPTOR = 3;
const SCRIPT = `read -r _; exec sleep ${HOLD_SECONDS}`;

const { SIGKILL } = constants.signals;
/** A killed process that did nothing but wait is gone at once. */
const END_DEADLINE_MS = 1000;
const POLL_ENTRY = new MappedMemory(8);

/** The file: which process, and how many descriptors of each kind. */
interface HolderRecord {
  readonly pid: number;
  readonly queues: number;
  readonly receivers: number;
}

/** Descriptors that a holder had, now ours as well. */
export interface HeldDescriptors {
  readonly queues: readonly number[];
  readonly receivers: readonly number[];
  /** Ends that holder, where it turned out to be one: what the caller got is what a holder has. */
  readonly release: (how: { readonly isHolder: boolean }) => void;
}

/** A holder that was started: it goes on until `release`, or for HOLD_SECONDS after `leave` or our death. */
export interface Holder {
  /** We no longer need it: it ends at once. */
  release(): void;
  /** It is to hold on for the next one. */
  leave(): void;
}

/**
 * @param file is written for `takeOver`, as soon as the holder has the descriptors
 * @throws Error of the file's: there is no holder then
 */
export function startHolder(
  file: string,
  queues: readonly number[],
  receivers: readonly number[],
): Holder | undefined {
  const child = spawn('/bin/sh', ['-c', SCRIPT], {
    // Nothing of ours: neither a folder that somebody wants to unmount, nor what is in our environment.
    cwd: '/',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore', ...queues, ...receivers],
  });
  // Without a shell there is no holder, and a restart loses packets; nothing else.
  child.on('error', () => {});
  if (child.pid === undefined) return undefined;
  child.unref();
  unrefPipe(child);
  const record: HolderRecord = { pid: child.pid, queues: queues.length, receivers: receivers.length };
  try {
    writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return {
    release: () => {
      child.kill('SIGKILL');
      child.stdin?.destroy();
      removeRecord(file, record.pid);
    },
    leave: () => child.stdin?.destroy(),
  };
}

/** A pipe's handle would keep the event loop going. */
function unrefPipe(child: ChildProcess): void {
  const pipe = child.stdin;
  if (pipe !== null && 'unref' in pipe && typeof pipe.unref === 'function') pipe.unref();
  pipe?.on('error', () => {});
}

/**
 * Fetches what the holder named in the file has; the caller judges whether it is what it wants. A holder that we may not
 * fetch from is ended, for what gets into its queues would be lost.
 */
export function takeOver(file: string): HeldDescriptors | undefined {
  const record = readRecord(file);
  if (record === undefined) return undefined;
  const process = systemCall(SYS_PIDFD_OPEN, record.pid, 0, 0, 0);
  if (process < 0) return undefined;
  const fetched: number[] = [];
  const count = record.queues + record.receivers;
  for (let i = 0; i < count; i++) {
    const fd = systemCall(SYS_PIDFD_GETFD, process, FIRST_DESCRIPTOR + i, 0, 0);
    if (fd < 0) {
      if (isHolderByName(record.pid)) end(process);
      for (const mine of [...fetched, process]) close(mine);
      return undefined;
    }
    fetched.push(fd);
  }
  return {
    queues: fetched.slice(0, record.queues),
    receivers: fetched.slice(record.queues),
    release: ({ isHolder }) => {
      if (isHolder) end(process);
      close(process);
    },
  };
}

/** Kills a process and waits until what it had is closed: a port is free only then. @returns whether there was one */
function end(process: number): boolean {
  if (systemCall(SYS_PIDFD_SEND_SIGNAL, process, SIGKILL, 0, 0) !== 0) return false;
  const { view } = POLL_ENTRY.memory;
  view.setInt32(0, process, true);
  view.setInt32(4, POLLIN, true);
  poll(POLL_ENTRY.address, 1, END_DEADLINE_MS);
  return true;
}

/** By its command line: the number may have become another process's since the file was written. */
function isHolderByName(pid: number): boolean {
  try {
    const [program, ...rest] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return (program === 'sleep' && rest[0] === String(HOLD_SECONDS)) || rest[1] === SCRIPT;
  } catch {
    return false;
  }
}

/** Undefined for no file, or one that was cut short by a crash. */
function readRecord(file: string): HolderRecord | undefined {
  try {
    const { pid, queues, receivers } = JSON.parse(readFileSync(file, 'utf8')) as Partial<HolderRecord>;
    const isRight = [pid, queues, receivers].every(
      (n) => Number.isInteger(n) && (n ?? 0) > 0 && (n ?? 0) < 2 ** 31,
    );
    if (!isRight || pid === undefined || queues === undefined || receivers === undefined) return undefined;
    return queues + receivers <= 256 ? { pid, queues, receivers } : undefined;
  } catch {
    return undefined;
  }
}

/** Unless it names another one by now. */
function removeRecord(file: string, pid: number): void {
  if (readRecord(file)?.pid === pid) rmSync(file, { force: true });
}

/** See EndHolder in tunnel-types.ts. */
export const endHolder: EndHolder = async (file) => {
  const record = readRecord(file);
  rmSync(file, { force: true });
  if (record === undefined) return false;
  const process = systemCall(SYS_PIDFD_OPEN, record.pid, 0, 0, 0);
  if (process < 0) return false;
  try {
    // Looked at with the process held fast: what the number means can change no more.
    if (!isHolderByName(record.pid)) return false;
    return end(process);
  } finally {
    close(process);
  }
};
