/** tinc 1.0, without cipher, digest and compression: what it costs to carry packets through its process. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../overlay/lab/command.ts';
import { startAtEnds, type TunnelEnd, type VpnProgram } from './vpn-program.ts';

const KEY_BITS = 1024;
/** Looking for two primes takes a moment. */
const KEY_TIMEOUT_MS = 30_000;

export const tinc: VpnProgram = {
  async open(ends, context) {
    const folder = ({ name }: TunnelEnd): string => join(context.dir, `tinc-${name}`);
    const [one, two] = ends;
    for (const end of ends) {
      await mkdir(join(folder(end), 'hosts'), { recursive: true, mode: 0o700 });
      const lines = [
        `Name = ${end.name}`,
        `Interface = ${end.device}`,
        'DeviceType = tun',
        'AddressFamily = ipv4',
      ];
      // One end calls the other.
      if (end === one) lines.push(`ConnectTo = ${two.name}`);
      await writeFile(join(folder(end), 'tinc.conf'), `${lines.join('\n')}\n`);
      await writeFile(join(folder(end), 'hosts', end.name), hostFile(end));
      // It asks where to put each half, and takes the proposal when nobody answers.
      await run('tincd', ['-c', folder(end), '-K', `${KEY_BITS}`], { timeoutMs: KEY_TIMEOUT_MS });
    }
    await exchange(folder(one), folder(two), two.name);
    await exchange(folder(two), folder(one), one.name);
    const started = await startAtEnds(
      ends,
      (end) => ['tincd', '-c', folder(end), '-D', `--pidfile=${join(folder(end), 'pid')}`],
      context,
      'tinc',
    );
    return { ...started, variant: '' };
  },
};

const hostFile = ({ underlay, port, address }: TunnelEnd): string =>
  [
    ...[`Address = ${underlay}`, `Port = ${port}`, `Subnet = ${address}/32`],
    ...['Cipher = none', 'Digest = none', 'Compression = 0'],
  ]
    .map((line) => `${line}\n`)
    .join('');

/** Each end needs the other's host file, with the public key that stands in it by now. */
async function exchange(to: string, from: string, name: string): Promise<void> {
  await run('cp', [join(from, 'hosts', name), join(to, 'hosts', name)]);
}
