/** `vtepd bench serve`: the other end of a measurement between two machines. */
import { serve } from '../../bench/remote/serve.ts';
import { DEFAULT_PORT } from '../../bench/run/names.ts';
import { type Address, tryAddress } from '../../store/address.ts';
import { parseArguments, refusePositionals, UsageError } from './arguments.ts';
import { POD_FLAGS, SERVE_FLAGS } from './bench-flags.ts';
import type { CommandIo } from './command.ts';

/** Until it is interrupted, which is its ordinary end. @throws UsageError; an Error when it cannot listen */
export async function serveBench(argv: readonly string[], io: CommandIo): Promise<void> {
  const given = parseArguments(argv, [...SERVE_FLAGS, ...POD_FLAGS]);
  refusePositionals(given);
  const allowed = (given.flags.get('allow') ?? []).map((text) => addressIn(text, 'allow'));
  if (allowed.length === 0) {
    throw new UsageError('say who may measure to this machine: --allow ADDRESS');
  }
  const { address, port } = readListen(given.flags.get('listen')?.at(-1));
  await serve({
    address,
    port,
    allowed,
    folders: {
      confDir: given.flags.get('cni-conf-dir')?.at(-1),
      binDir: given.flags.get('cni-bin-dir')?.at(-1),
    },
    log: (line) => io.err(`vtepd bench serve: ${line}\n`),
    signal: io.signal,
  });
}

function addressIn(text: string, flag: string): Address {
  const address = tryAddress(text);
  if (address === undefined)
    throw new UsageError(`--${flag} takes an IP address; not "${text.slice(0, 64)}"`);
  return address;
}

/** `192.0.2.1`, `192.0.2.1:9473`, `[2001:db8::1]:9473`, `:9473` */
function readListen(text: string | undefined): {
  readonly address: Address | undefined;
  readonly port: number;
} {
  if (text === undefined) return { address: undefined, port: DEFAULT_PORT };
  const match = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(text);
  const host = match === null ? text : (match[1] ?? match[2] ?? '');
  const port = match?.[3] === undefined ? DEFAULT_PORT : Number(match[3]);
  if (port > 65_535) throw new UsageError('--listen: a port is a number up to 65535');
  return { address: host === '' ? undefined : addressIn(host, 'listen'), port };
}
