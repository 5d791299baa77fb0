/** A pod for a measurement on a real node: attached as a runtime would, by the node's own CNI configuration. */
import { randomBytes } from 'node:crypto';
import { run } from '../../overlay/lab/command.ts';
import { Pod } from '../../overlay/lab/pod.ts';
import { PathUnavailableError } from '../paths/data-path.ts';

export interface PodFolders {
  readonly confDir: string | undefined;
  readonly binDir: string | undefined;
}

const BIN_DIR = '/opt/cni/bin';

/** Its owner detaches it. @throws PathUnavailableError, CniError */
export async function attachBenchPod({ confDir, binDir = BIN_DIR }: PodFolders): Promise<Pod> {
  if (confDir === undefined) throw new PathUnavailableError('no --cni-conf-dir was given');
  if (process.getuid?.() !== 0) throw new PathUnavailableError('attaching a pod needs root');
  const name = `vtbench-${randomBytes(3).toString('hex')}`;
  return Pod.attach({ name, folders: { confDir, binDir }, pod: `vtepd-bench/${name}` });
}

/** An interface's MTU, in a namespace or outside of any; undefined where it cannot be read. */
export async function mtuOf(namespace: string | undefined, device: string): Promise<number | undefined> {
  const where = namespace === undefined ? [] : ['-n', namespace];
  const { stdout } = await run('ip', [...where, 'link', 'show', device], { tolerant: true });
  const mtu = /\bmtu (\d+)/.exec(stdout)?.[1];
  return mtu === undefined ? undefined : Number(mtu);
}

/** The interface by which this machine reaches an address (`ip route get`); undefined where none is known. */
export async function deviceTo(address: string): Promise<string | undefined> {
  const { stdout } = await run('ip', ['route', 'get', address], { tolerant: true }).catch(() => ({
    stdout: '',
  }));
  return /\bdev (\S+)/.exec(stdout)?.[1];
}
