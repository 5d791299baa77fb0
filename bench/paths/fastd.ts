/** fastd with its method "null": no encryption, no authentication of packets. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../overlay/lab/command.ts';
import { PathUnavailableError } from './data-path.ts';
import { startAtEnds, type TunnelEnd, type VpnProgram } from './vpn-program.ts';

export const fastd: VpnProgram = {
  async open(ends, context) {
    const keys = new Map<TunnelEnd, { readonly secret: string; readonly public: string }>();
    for (const end of ends) {
      const { stdout, stderr } = await run('fastd', ['--generate-key']);
      const [secret, publicKey] = ['Secret', 'Public'].map(
        (name) => new RegExp(`^${name}: ([0-9a-f]+)$`, 'm').exec(`${stdout}${stderr}`)?.[1],
      );
      if (secret === undefined || publicKey === undefined) {
        throw new PathUnavailableError('fastd --generate-key printed no key');
      }
      keys.set(end, { secret, public: publicKey });
    }
    const file = ({ name }: TunnelEnd): string => join(context.dir, `fastd-${name}.conf`);
    for (const [at, end] of ends.entries()) {
      const other = ends[1 - at] ?? end;
      const text = [
        ...['log level warn;', 'mode tun;', `interface "${end.device}";`, 'method "null";'],
        ...[
          `bind ${end.underlay}:${end.port};`,
          `mtu ${end.mtuBytes};`,
          `secret "${keys.get(end)?.secret}";`,
        ],
        `peer "${other.name}" { key "${keys.get(other)?.public}"; remote ${other.underlay}:${other.port}; }`,
      ];
      await writeFile(file(end), `${text.join('\n')}\n`, { mode: 0o600 });
    }
    const started = await startAtEnds(ends, (end) => ['fastd', '--config', file(end)], context, 'fastd');
    return { ...started, variant: '' };
  },
};
