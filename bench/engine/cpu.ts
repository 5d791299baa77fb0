/**
 * Processor time of the whole machine, from /proc/stat (proc_stat(5)): a tunnel's work is done by whoever
 * has the processor when a packet comes, so no process' own time would tell it.
 */
import { readFileSync } from 'node:fs';

/** USER_HZ: the unit of /proc/stat on every Linux that Node runs on. */
const TICK_S = 0.01;

/** Seconds since boot, of all processors together. */
export interface CpuTimes {
  /** Programs, also those with a low priority. */
  readonly user: number;
  readonly system: number;
  /** Interrupts, soft and hard: where the kernel handles packets that come. */
  readonly softirq: number;
  /** Nothing to do, or waiting for a disk. */
  readonly idle: number;
  /** What a hypervisor gave to other machines: nobody's here. */
  readonly steal: number;
}

/** The first line of /proc/stat. Time of a guest is in `user` already. */
export function parseCpuTimes(stat: string): CpuTimes {
  const line = /^cpu +(.*)$/m.exec(stat)?.[1];
  const fields = (line ?? '').split(' ').map((field) => Number(field) * TICK_S);
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = fields;
  if (line === undefined || fields.some(Number.isNaN))
    throw new Error('/proc/stat has no line for all processors');
  return { user: user + nice, system, softirq: softirq + irq, idle: idle + iowait, steal };
}

export const readCpuTimes = (): CpuTimes => parseCpuTimes(readFileSync('/proc/stat', 'utf8'));

/** What passed between two readings. */
export const cpuBetween = (before: CpuTimes, after: CpuTimes): CpuTimes => ({
  user: after.user - before.user,
  system: after.system - before.system,
  softirq: after.softirq - before.softirq,
  // An idle processor's time is estimated by the kernel and may go back by a tick.
  idle: Math.max(0, after.idle - before.idle),
  steal: after.steal - before.steal,
});

/** Of two machines that took part. */
export const cpuSum = (a: CpuTimes, b: CpuTimes): CpuTimes => ({
  user: a.user + b.user,
  system: a.system + b.system,
  softirq: a.softirq + b.softirq,
  idle: a.idle + b.idle,
  steal: a.steal + b.steal,
});

/** Seconds in which processors worked. */
export const busy = ({ user, system, softirq }: CpuTimes): number => user + system + softirq;

/** Of all the time there was, including what a hypervisor took: 0 to 100. */
export function percentOf(part: number, { user, system, softirq, idle, steal }: CpuTimes): number {
  const whole = user + system + softirq + idle + steal;
  return whole > 0 ? (100 * part) / whole : 0;
}

/** The same work's share of processor time: for each of `amount` units (gigabits, packets). */
export interface CpuCost {
  readonly total: number;
  readonly user: number;
  readonly system: number;
  readonly softirq: number;
}

/** Undefined when nothing was carried: there is no cost of nothing. */
export function costPer(times: CpuTimes, amount: number): CpuCost | undefined {
  if (!(amount > 0)) return undefined;
  const { user, system, softirq } = times;
  return {
    total: busy(times) / amount,
    user: user / amount,
    system: system / amount,
    softirq: softirq / amount,
  };
}
