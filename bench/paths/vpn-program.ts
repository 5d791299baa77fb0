/** What a tunnel's program has to offer to be compared. */
import type { Child } from '../../overlay/lab/command.ts';
import { start, stop } from '../../overlay/lab/command.ts';
import { inside } from '../../overlay/lab/namespace.ts';
import type { Address } from '../../store/address.ts';
import type { CommandLog } from '../engine/command-log.ts';
import { PathUnavailableError } from './data-path.ts';

export interface TunnelEnd {
  /** Letters and digits. */
  readonly name: string;
  readonly namespace: string;
  readonly underlay: Address;
  /** In the tunnel. */
  readonly address: Address;
  /** The name that its interface is to have. */
  readonly device: string;
  readonly port: number;
  /** What fits into the underlay's packets. */
  readonly mtuBytes: number;
}

export interface TunnelContext {
  /** Only root may read it; it goes with the lab. */
  readonly dir: string;
  readonly log: CommandLog;
  readonly signal: AbortSignal;
}

/** Its interfaces come up on their own; addresses and MTUs are the caller's. */
export interface Tunnel {
  /** Of its programs, in the order of the ends; none where the kernel does it. */
  readonly pids: readonly number[];
  /** For the title: ` (wireguard-go)`. */
  readonly variant: string;
  close(): Promise<void>;
}

export interface VpnProgram {
  open(ends: readonly [TunnelEnd, TunnelEnd], context: TunnelContext): Promise<Tunnel>;
}

/** Starts a daemon in the foreground at each end; one that ends at once is an error with what it said. */
export async function startAtEnds(
  ends: readonly TunnelEnd[],
  argvOf: (end: TunnelEnd) => readonly string[],
  { log }: TunnelContext,
  what: string,
): Promise<{ readonly pids: number[]; close(): Promise<void>; failed(): string | undefined }> {
  const children: Child[] = [];
  const said: string[] = [];
  let ended: string | undefined;
  const close = async (): Promise<void> => {
    await Promise.all(children.map((child) => stop(child, 'SIGTERM', 2000)));
  };
  try {
    for (const end of ends) {
      const [program, args] = inside(end.namespace, argvOf(end));
      log.add(`${what}: set up`, [program, ...args]);
      const child = await start(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      children.push(child);
      for (const stream of [child.process.stdout, child.process.stderr]) {
        stream?.on('data', (chunk) => {
          if (said.length < 20) said.push(String(chunk).slice(0, 500));
        });
      }
      child.exited.then(({ status }) => {
        ended ??= `${what} ended with status ${status}: ${said.join('').trim().slice(-500)}`;
      });
    }
    return { pids: children.map(({ pid }) => pid), close, failed: () => ended };
  } catch (error) {
    await close();
    throw new PathUnavailableError(`${what} could not be started`, { cause: error });
  }
}
