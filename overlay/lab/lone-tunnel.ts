/**
 * A user-space tunnel by itself in a network namespace, without a daemon: what encap's tests and benchmarks compare with
 * kernel vxlan. The device gets its addresses here; the tunnel runs in a process of its own.
 */
import { dirname, extname, join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { TunnelCommand, TunnelProgramOptions } from '../../encap/tunnel-program.ts';
import type { TunnelStats } from '../../encap/tunnel-types.ts';
import type { Address, Mac } from '../../store/address.ts';
import { type Child, CommandError, start, stop } from './command.ts';
import { inside, ipBatch } from './namespace.ts';

const HERE = fileURLToPath(import.meta.url);
const PROGRAM = join(dirname(HERE), '..', '..', 'encap', `tunnel-program${extname(HERE)}`);

/** Starting Node and two threads, on a machine that does much else. */
const ANSWER_DEADLINE_MS = 20_000;

export interface LoneTunnelOptions {
  readonly namespace: string;
  readonly tunnel: Omit<TunnelProgramOptions, 'mac'> & { readonly mac: Mac };
  readonly mtuBytes: number;
  /** Each with its prefix length. */
  readonly addresses: readonly string[];
  readonly peers?: readonly (readonly [mac: Mac, remote: Address])[];
}

export class LoneTunnel {
  readonly #child: Child;
  readonly #lines: Interface;
  readonly #answers: ((answer: unknown) => void)[] = [];
  #said = '';

  /** @throws CommandError with what the program said */
  static async start(options: LoneTunnelOptions): Promise<LoneTunnel> {
    const [program, args] = inside(options.namespace, [process.execPath, PROGRAM]);
    const tunnel = new LoneTunnel(await start(program, args, { stdio: ['pipe', 'pipe', 'pipe'] }));
    try {
      tunnel.resumed = ((await tunnel.#ask(options.tunnel)) as { resumed: boolean }).resumed;
      const { device, mac } = options.tunnel;
      await ipBatch(options.namespace, [
        // A multicast listener's reports would be counted among the packets.
        `link set dev ${device} address ${mac} mtu ${options.mtuBytes} multicast off`,
        ...options.addresses.map((address) => {
          const isIpv6 = address.includes(':');
          return `addr replace ${address} dev ${device}${isIpv6 ? ' nodad' : ''}`;
        }),
        `link set dev ${device} up`,
      ]);
      if (options.peers !== undefined) await tunnel.ask({ peers: options.peers });
      return tunnel;
    } catch (error) {
      await tunnel.close('SIGKILL');
      throw error;
    }
  }

  /** Whether it took over what an earlier one left. */
  resumed = false;

  private constructor(child: Child) {
    this.#child = child;
    if (child.process.stdout === null) throw new CommandError('the tunnel has no output');
    this.#lines = createInterface({ input: child.process.stdout });
    this.#lines.on('line', (line) => this.#answers.shift()?.(JSON.parse(line)));
    child.process.stderr?.on('data', (chunk) => {
      this.#said = `${this.#said}${chunk}`.slice(-2000);
    });
    child.process.stdin?.on('error', () => {});
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** What it logged, the last of it. */
  get log(): string {
    return this.#said;
  }

  ask(command: TunnelCommand): Promise<unknown> {
    return this.#ask(command);
  }

  async stats(): Promise<TunnelStats> {
    return (await this.#ask({ stats: true } satisfies TunnelCommand)) as TunnelStats;
  }

  /** Ends it by a signal, SIGTERM unless told. */
  async close(how: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await stop(this.#child, how);
    this.#lines.close();
  }

  #ask(question: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new CommandError(`the tunnel does not answer: ${this.#said}`)),
        ANSWER_DEADLINE_MS,
      );
      this.#answers.push((answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.#child.exited.then(({ status }) => {
        clearTimeout(timer);
        reject(new CommandError(`the tunnel ended with status ${status}: ${this.#said}`));
      });
      this.#child.process.stdin?.write(`${JSON.stringify(question)}\n`);
    });
  }
}
