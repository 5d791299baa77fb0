/** What a report says of the machine and of the programs that measured. */
import { readFileSync } from 'node:fs';
import { run } from '../../overlay/lab/command.ts';
import { packageVersion } from '../../overlay/ops/package.ts';
import { type CpuTimes, cpuBetween, percentOf } from '../engine/cpu.ts';
import { describeMachine } from '../harness/machine.ts';
import { median } from '../harness/statistics.ts';
import type { ReportedMachine } from '../report/schema.ts';

/** How each tells its version: its arguments, and what stands before the number. */
const VERSIONS: Readonly<Record<string, { readonly args: readonly string[]; readonly pattern: RegExp }>> = {
  iperf3: { args: ['--version'], pattern: /iperf (\S+)/ },
  sockperf: { args: ['--version'], pattern: /version (\S+)/ },
  ethtool: { args: ['--version'], pattern: /version (\S+)/ },
  ip: { args: ['-V'], pattern: /iproute2-(\S+?),?\s/ },
  wg: { args: ['--version'], pattern: /wireguard-tools (\S+)/ },
  'wireguard-go': { args: ['--version'], pattern: /wireguard-go (\S+)/ },
  tincd: { args: ['--version'], pattern: /tinc version (\S+)/ },
  fastd: { args: ['--version'], pattern: /fastd (\S+)/ },
};

/** Versions of those of these programs that are installed and say one. */
async function versionsOf(programs: readonly string[]): Promise<Record<string, string>> {
  const versions: Record<string, string> = { vtepd: packageVersion };
  for (const program of programs) {
    const how = VERSIONS[program];
    if (how === undefined) continue;
    const said = await run(program, how.args, { tolerant: true }).catch(() => undefined);
    const version = how.pattern.exec(`${said?.stdout}${said?.stderr}`)?.[1];
    if (version !== undefined) versions[program] = version;
  }
  return versions;
}

export interface MachineReadings {
  /** At the run's begin and end. */
  readonly begin: CpuTimes;
  readonly end: CpuTimes;
  /** Between measurements: how busy others kept the processors; percent. */
  readonly background: readonly number[];
}

export async function reportedMachine(
  programs: readonly string[],
  { begin, end, background }: MachineReadings,
): Promise<ReportedMachine> {
  const passed = cpuBetween(begin, end);
  return {
    ...describeMachine(),
    governor: textOf('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'),
    stealPercent: percentOf(passed.steal, passed),
    backgroundPercent: background.length > 0 ? median(background) : null,
    tcpCongestionControl: textOf('/proc/sys/net/ipv4/tcp_congestion_control'),
    programs: await versionsOf(programs),
  };
}

function textOf(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return null;
  }
}
