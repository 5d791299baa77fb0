/** How many TCP connections a second one client makes, one after the other, each with a byte there and back. */
import { join } from 'node:path';
import { CommandError } from '../../overlay/lab/command.ts';
import { EngineError, type FarEnd, type NearEnd, type Server, type ServerProgram } from './end.ts';

/** What the client prints. */
export interface ConnectionsRun {
  /** With an answer. */
  readonly made: number;
  readonly failed: number;
  readonly seconds: number;
}

const PROGRAM = join(import.meta.dirname, 'connections-program.js');
const GIVE_UP_MS = 20_000;

export const connectionsServer = (address: string, port: number): ServerProgram => ({
  name: 'connections',
  port,
  argv: [process.execPath, PROGRAM, 'serve', address, `${port}`],
  ready: /^ready$/m,
});

export interface Connections {
  readonly from: NearEnd;
  readonly to: FarEnd;
  readonly port: number;
  readonly seconds: number;
  readonly what: string;
  readonly signal: AbortSignal;
}

/** Connections a second. @throws EngineError, the signal's reason */
export async function connectionRate({
  from,
  to,
  port,
  seconds,
  what,
  signal,
}: Connections): Promise<number> {
  let server: Server | undefined;
  try {
    server = await to.serve(connectionsServer(to.address, port), what, signal);
    const argv = [process.execPath, PROGRAM, 'connect', to.address, `${port}`, `${seconds}`];
    const { stdout } = await from.run(argv, what, { signal, timeoutMs: GIVE_UP_MS });
    const { made, seconds: took } = JSON.parse(stdout) as ConnectionsRun;
    if (made === 0) throw new EngineError(`${what}: no connection was answered`);
    return made / took;
  } catch (error) {
    if (error instanceof CommandError) throw new EngineError(`${what}: ${error.message}`, { cause: error });
    throw error;
  } finally {
    await server?.stop();
  }
}
