/** The far machine as a client sees it: servers that can be started there, and its processor time. */
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Address } from '../../store/address.ts';
import type { CpuTimes } from '../engine/cpu.ts';
import { EngineError, type FarEnd, type Server, type ServerProgram } from '../engine/end.ts';
import { type Answer, answerSchema, type Place, PROTOCOL, type Request } from './protocol.ts';

/** The far machine does not answer, or not as it should. The message says what to do. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError';
  readonly code = 'VTEPD_BENCH_REMOTE';
}

const CONNECT_DEADLINE_MS = 10_000;
/** A server that starts on a machine under load. */
const ANSWER_DEADLINE_MS = 30_000;

export class RemoteMachine {
  readonly localAddress: string;
  readonly remoteAddress: string;
  private readonly socket: Socket;
  private readonly lines: AsyncIterator<string>;
  private turn: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    this.socket = socket;
    this.localAddress = socket.localAddress ?? '';
    this.remoteAddress = socket.remoteAddress ?? '';
    this.lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    // The next read says what is wrong.
    socket.on('error', () => {});
  }

  /** @throws RemoteError, the signal's reason */
  static async connect(host: string, port: number, signal: AbortSignal): Promise<RemoteMachine> {
    signal.throwIfAborted();
    const socket = createConnection({ host, port });
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('it did not answer')), CONNECT_DEADLINE_MS);
        const aborted = (): void => reject(signal.reason);
        signal.addEventListener('abort', aborted, { once: true });
        const done = (then: () => void) => () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', aborted);
          then();
        };
        socket.once('connect', done(resolve));
        socket.once('error', (error) => done(() => reject(error))());
      });
      return new RemoteMachine(socket);
    } catch (error) {
      socket.destroy();
      signal.throwIfAborted();
      const why = error instanceof Error ? error.message : String(error);
      throw new RemoteError(
        `${host} port ${port} cannot be reached: ${why}; run \`vtepd bench serve --allow THIS-MACHINE\` there`,
        { cause: error },
      );
    }
  }

  /** @throws RemoteError when it refuses */
  async hello(pod: boolean): Promise<NonNullable<Answer['hello']>> {
    const { hello } = await this.ask({ verb: 'hello', protocol: PROTOCOL, pod });
    if (hello === undefined) throw new RemoteError('the far end did not introduce itself');
    return hello;
  }

  async cpu(): Promise<CpuTimes> {
    const { cpu } = await this.ask({ verb: 'cpu' });
    if (cpu === undefined) throw new RemoteError('the far end told no processor time');
    return cpu;
  }

  async start(program: ServerProgram, place: Place): Promise<Server> {
    const { name, port } = program;
    const { id } = await this.ask({ verb: 'start', name, place, port });
    if (id === undefined) throw new RemoteError('the far end started nothing');
    return { stop: async () => void (await this.ask({ verb: 'stop', id })) };
  }

  close(): void {
    this.socket.destroy();
  }

  /** @throws RemoteError when there is none */
  private async nextLine(): Promise<string> {
    let cause: unknown;
    try {
      const line = await this.lines.next();
      if (line.done !== true) return line.value;
    } catch (error) {
      // A connection that is closed with a request unread is reset.
      cause = error;
    }
    const message =
      'the far end closed the connection: is this machine one of its --allow, and does it still run?';
    throw new RemoteError(message, { cause });
  }

  /** One request at a time. @throws RemoteError with what the far end said */
  private ask(request: Request): Promise<Answer> {
    const answer = this.turn.then(() => this.askNow(request));
    this.turn = answer.catch(() => {});
    return answer;
  }

  private async askNow(request: Request): Promise<Answer> {
    this.socket.write(`${JSON.stringify(request)}\n`);
    const timer = setTimeout(() => this.socket.destroy(), ANSWER_DEADLINE_MS);
    try {
      const line = await this.nextLine();
      const answer = answerSchema.safeParse(JSON.parse(line));
      if (!answer.success)
        throw new RemoteError('the far end speaks another version: use the same vtepd there');
      if (answer.data.error !== undefined) throw new RemoteError(`the far end: ${answer.data.error}`);
      return answer.data;
    } catch (error) {
      if (error instanceof RemoteError) throw error;
      throw new RemoteError('the far end does not speak as vtepd does', { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }
}

const NO_TIME: CpuTimes = { user: 0, system: 0, softirq: 0, idle: 0, steal: 0 };

/** Its host, or its pod: an end that serves, and sends nothing by itself. */
export class RemoteEnd implements FarEnd {
  readonly id: string;
  readonly address: Address;
  private readonly machine: RemoteMachine;
  private readonly place: Place;
  private readonly isNear: boolean;

  /** @param isNear it is another namespace of this machine, whose processor time the near end tells */
  constructor(machine: RemoteMachine, place: Place, address: Address, isNear: boolean) {
    this.machine = machine;
    this.place = place;
    this.isNear = isNear;
    this.id = `far ${place}`;
    this.address = address;
  }

  async serve(program: ServerProgram, _what: string, signal: AbortSignal): Promise<Server> {
    signal.throwIfAborted();
    try {
      return await this.machine.start(program, this.place);
    } catch (error) {
      signal.throwIfAborted();
      throw new EngineError(`the ${program.name} server did not start`, { cause: error });
    }
  }

  async cpu(): Promise<CpuTimes> {
    return this.isNear ? NO_TIME : this.machine.cpu();
  }
}
