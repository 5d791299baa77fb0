/** Other programs of this machine, as /proc and the control groups show them. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/**
 * A process of this name, or of the systemd service of that name, that shares our network namespace: its number.
 * One whose namespace we may not ask for counts as sharing the machine's own. What a container or a service's
 * ProtectProc hides is not found by its name; a service's control group shows it all the same.
 */
export function processInOurNetwork(name: string): number | undefined {
  const pids = readdirSync('/proc').map(Number).filter(Number.isInteger);
  const named = pids.filter((pid) => pid !== process.pid && textOf(`/proc/${pid}/comm`)?.trim() === name);
  return (
    named.find((pid) => sharesOurNetwork(pid) ?? false) ??
    processesOfService(name).find((pid) => sharesOurNetwork(pid) ?? isOurMachine())
  );
}

/** `systemctl show -P MainPID NAME`, of either version of control groups; none where the service is our own. */
function processesOfService(name: string): number[] {
  const pids = ['/sys/fs/cgroup', '/sys/fs/cgroup/systemd'].flatMap((root) => {
    const text = textOf(`${root}/system.slice/${name}.service/cgroup.procs`) ?? '';
    return text.split('\n').filter(Boolean).map(Number);
  });
  return pids.includes(process.pid) ? [] : pids;
}

/** Undefined: there is no such process any more, or it is hidden from us. */
function sharesOurNetwork(pid: number): boolean | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync('/proc/self/ns/net');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // One with more rights than ours may not be asked.
    return code === 'EACCES' || code === 'EPERM' ? isOurMachine() : undefined;
  }
}

/** Not a namespace of a lab: that of the machine itself, or one that cannot be told from it. */
function isOurMachine(): boolean {
  try {
    return readlinkSync('/proc/1/ns/net') === readlinkSync('/proc/self/ns/net');
  } catch {
    return true;
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
