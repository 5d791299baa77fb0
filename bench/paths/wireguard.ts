/** WireGuard: the kernel's, else wireguard-go, which speaks the same. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled, run } from '../../overlay/lab/command.ts';
import { runInside } from '../../overlay/lab/namespace.ts';
import { until } from '../../overlay/lab/wait.ts';
import { PathUnavailableError } from './data-path.ts';
import {
  startAtEnds,
  type Tunnel,
  type TunnelContext,
  type TunnelEnd,
  type VpnProgram,
} from './vpn-program.ts';

/** Of wireguard-go: where `wg` finds it, whatever the namespace. */
const SOCKETS = '/var/run/wireguard';
const SOCKET_DEADLINE_MS = 5000;

export const wireguard: VpnProgram = {
  async open(ends, context) {
    const inKernel = await addToKernel(ends);
    const tunnel = inKernel ? KERNEL : await inUserSpace(ends, context);
    try {
      await configure(ends, context);
      return tunnel;
    } catch (error) {
      await tunnel.close();
      throw error;
    }
  },
};

/** Its interfaces go with their namespaces. */
const KERNEL: Tunnel = { pids: [], variant: ' (kernel)', close: async () => {} };

async function addToKernel(ends: readonly TunnelEnd[]): Promise<boolean> {
  for (const { namespace, device } of ends) {
    const add = ['ip', 'link', 'add', device, 'type', 'wireguard'];
    if ((await runInside(namespace, add, { tolerant: true })).status !== 0) return false;
  }
  return true;
}

async function inUserSpace(ends: readonly TunnelEnd[], context: TunnelContext): Promise<Tunnel> {
  if (!isInstalled('wireguard-go')) {
    throw new PathUnavailableError(
      'this kernel has no WireGuard, and wireguard-go is not installed: apt-get install wireguard-go',
    );
  }
  const started = await startAtEnds(
    ends,
    // It would go to the background else.
    ({ device }) => ['env', 'WG_PROCESS_FOREGROUND=1', 'wireguard-go', '-f', device],
    context,
    'wireguard-go',
  );
  const close = async (): Promise<void> => {
    await started.close();
    for (const { device } of ends) await rm(join(SOCKETS, `${device}.sock`), { force: true });
  };
  try {
    for (const { device } of ends) {
      const answers = async () => {
        const failure = started.failed();
        if (failure !== undefined) throw new PathUnavailableError(failure);
        return (await run('wg', ['show', device], { tolerant: true })).status === 0;
      };
      const what = `wireguard-go on ${device}`;
      await until(answers, { what, deadlineMs: SOCKET_DEADLINE_MS, signal: context.signal });
    }
    return { pids: started.pids, variant: ' (wireguard-go)', close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** `wg set` at each end, with a key of this run. */
async function configure(ends: readonly [TunnelEnd, TunnelEnd], { dir, log }: TunnelContext): Promise<void> {
  const publicKeys: string[] = [];
  for (const end of ends) {
    const { stdout: secret } = await run('wg', ['genkey']);
    await writeFile(keyFile(dir, end), secret, { mode: 0o600 });
    publicKeys.push((await run('wg', ['pubkey'], { input: secret })).stdout.trim());
  }
  for (const [at, end] of ends.entries()) {
    const other = ends[1 - at] ?? end;
    const argv = [
      ...['wg', 'set', end.device, 'listen-port', `${end.port}`, 'private-key', keyFile(dir, end)],
      ...['peer', publicKeys[1 - at] ?? '', 'endpoint', `${other.underlay}:${other.port}`],
      ...['allowed-ips', `${other.address}/32`],
    ];
    log.add('wireguard: set up', argv);
    await runInside(end.namespace, argv);
  }
}

const keyFile = (dir: string, { name }: TunnelEnd): string => join(dir, `wireguard-${name}.key`);
