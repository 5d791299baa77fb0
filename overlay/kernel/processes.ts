/** Other programs of this machine, as /proc shows them. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/**
 * `pgrep -x NAME --ns $$ --nslist net`: a process of this name that shares our network namespace; its number.
 * In a container only its own processes are seen, unless it shares the host's (hostPID).
 */
export function processInOurNetwork(name: string): number | undefined {
  const ours = readlinkSync('/proc/self/ns/net');
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== name) continue;
      if (readlinkSync(`/proc/${pid}/ns/net`) === ours) return pid;
    } catch {
      // It has ended, or is nobody's that we may look into.
    }
  }
  return undefined;
}
