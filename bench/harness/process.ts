/** What /proc says of a process: its processor time and its memory. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../../overlay/lab/wait.ts';

/** USER_HZ: the unit of times in /proc on every Linux that Node runs on. */
const TICK_MS = 10;

export interface CpuTime {
  readonly user: number;
  readonly system: number;
}

/** Milliseconds of processor time of all its threads until now: what a busy machine changes least. */
export function cpuMs(pid: number): CpuTime {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in brackets, may hold anything: count from behind it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { user: Number(fields[11]) * TICK_MS, system: Number(fields[12]) * TICK_MS };
}

/** What the main thread of a process did until now; milliseconds. */
export interface Scheduling {
  readonly ran: number;
  /** It could have run, and another had the processor: what a busy machine adds to every figure. */
  readonly waited: number;
}

export function scheduling(pid: number): Scheduling {
  const [ran, waited] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ');
  return { ran: Number(ran) / 1e6, waited: Number(waited) / 1e6 };
}

/** At rest: of this long a look, the main thread neither ran nor waited to run for more than a tenth. */
const LOOK_MS = 30;
const IDLE_DEADLINE_MS = 60_000;

/** Waits until the process has nothing to do. @throws DeadlineError, the signal's reason */
export async function untilIdle(pid: number, signal: AbortSignal): Promise<void> {
  const busyMs = (): number => {
    const { ran, waited } = scheduling(pid);
    return ran + waited;
  };
  const isIdle = async (): Promise<boolean> => {
    const before = busyMs();
    await delay(LOOK_MS, undefined, { signal });
    return busyMs() - before < LOOK_MS / 10;
  };
  await until(isIdle, { what: 'the daemon to be at rest', deadlineMs: IDLE_DEADLINE_MS, everyMs: 1, signal });
}

/** MiB, as proc_pid_status(5) has it. */
export interface Memory {
  /** Resident: what a container's limit and `ps` see. */
  readonly rss: number;
  /** Its greatest since the start. */
  readonly peak: number;
  /** Of the resident: heaps and stacks. */
  readonly anonymous: number;
  /** Of the resident: programs and libraries, shared with other processes of the same. */
  readonly file: number;
}

export function memoryMiB(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const of = (name: string): number => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1];
    if (kib === undefined) throw new Error(`/proc/${pid}/status has no ${name}: the process has ended`);
    return Number(kib) / 1024;
  };
  return {
    rss: of('VmRSS'),
    peak: of('VmHWM'),
    anonymous: of('RssAnon'),
    file: of('RssFile') + of('RssShmem'),
  };
}
