/**
 * One tunnel by itself, without a daemon: what benchmarks and tests run in a network namespace.
 *
 *     node encap/tunnel-program.js
 *
 * reads one JSON object a line from standard input and answers each with one on standard output. The first is the
 * tunnel's options, as in TunnelOptions, answered by `{"ready": true, "resumed": false}`. MAC address, MTU, addresses and
 * "up" are the caller's to set on the device then. Later ones, each answered when it is done:
 *
 *     {"peers": [["02:00:00:00:00:02", "192.0.2.2"]]}      the whole table
 *     {"local": "192.0.2.9"}   {"underlayMtuBytes": 1400}   changes
 *     {"failQueue": 0}                                     its thread dies
 *     {"stats": true}                                      TunnelStats
 *
 * SIGTERM, SIGINT and the end of standard input close the tunnel and remove the device; after `{"keep": true}`, they
 * leave it for the next.
 */
import { createInterface } from 'node:readline';
import { logOver } from '../overlay/ops/log.ts';
import { parseAddress, parseMac } from '../store/address.ts';
import { type TunnelOptions, UserSpaceTunnel } from './tunnel.ts';

/** TunnelOptions as JSON has them. */
export type TunnelProgramOptions = Omit<TunnelOptions, 'mac' | 'local' | 'log' | 'onFault'> & {
  readonly mac: string;
  readonly local: string;
};

export interface TunnelCommand {
  readonly peers?: readonly (readonly [mac: string, remote: string])[];
  readonly local?: string;
  readonly underlayMtuBytes?: number;
  readonly failQueue?: number;
  readonly keep?: boolean;
  readonly stats?: true;
}

const say = (answer: unknown): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);

const log = logOver(({ level, message, fields }) => {
  const { error, ...others } = fields;
  process.stderr.write(`${level} ${message} ${JSON.stringify(others)} ${error ?? ''}\n`);
});

let keep = false;

function obey(tunnel: UserSpaceTunnel, command: TunnelCommand): unknown {
  if (command.stats === true) return tunnel.stats();
  if (command.peers !== undefined) {
    tunnel.replacePeers(command.peers.map(([mac, remote]) => [parseMac(mac), parseAddress(remote)] as const));
  }
  if (command.local !== undefined) tunnel.setLocal(parseAddress(command.local));
  if (command.underlayMtuBytes !== undefined) tunnel.setUnderlayMtu(command.underlayMtuBytes);
  if (command.failQueue !== undefined) tunnel.failWorker(command.failQueue);
  if (command.keep !== undefined) keep = command.keep;
  return { done: true };
}

async function run(): Promise<void> {
  const input = createInterface({ input: process.stdin });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => input.close());
  let tunnel: UserSpaceTunnel | undefined;
  try {
    for await (const line of input) {
      if (tunnel === undefined) {
        const options = JSON.parse(line) as TunnelProgramOptions;
        tunnel = await UserSpaceTunnel.open({
          ...options,
          mac: parseMac(options.mac),
          local: parseAddress(options.local),
          log,
          onFault: (fault) => log.error('the tunnel cannot go on', { error: fault }),
        });
        say({ ready: true, resumed: tunnel.resumed });
      } else {
        say(obey(tunnel, JSON.parse(line) as TunnelCommand));
      }
    }
  } finally {
    await tunnel?.close({ keep });
    process.stdin.destroy();
  }
}

try {
  await run();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
