/**
 * `vtepd bench serve`: starts servers of iperf3, sockperf and our own for one client at a time, of those that
 * are allowed, and stops them when it goes.
 */

import { createServer, type Server as NetServer, type Socket } from 'node:net';
import { cpus, release } from 'node:os';
import { createInterface } from 'node:readline';
import type { Pod } from '../../overlay/lab/pod.ts';
import { packageVersion } from '../../overlay/ops/package.ts';
import { type Address, parseAddress, tryAddress } from '../../store/address.ts';
import { CommandLog } from '../engine/command-log.ts';
import { connectionsServer } from '../engine/connections.ts';
import { readCpuTimes } from '../engine/cpu.ts';
import { LocalEnd, type Server, type ServerProgram } from '../engine/end.ts';
import { iperf3Server } from '../engine/iperf3.ts';
import { sockperfServer } from '../engine/sockperf.ts';
import { bootId } from '../harness/machine.ts';
import { attachBenchPod, type PodFolders } from './bench-pod.ts';
import { type Answer, IDLE_MS, MAX_LINE_BYTES, type Request, requestSchema } from './protocol.ts';

export interface ServePlan {
  /** Undefined: every address. */
  readonly address: Address | undefined;
  /** 0: any that is free. */
  readonly port: number;
  readonly allowed: readonly Address[];
  readonly folders: PodFolders;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

/** More servers at once than a client needs. */
const MOST_SERVERS = 64;

/** Resolves when the signal aborts and everything is stopped. @throws an Error when it cannot listen */
export async function serve(plan: ServePlan): Promise<void> {
  const server = createServer();
  let session: Promise<void> | undefined;
  server.on('connection', (socket) => {
    const from = addressOf(socket.remoteAddress);
    if (from === undefined || !plan.allowed.includes(from)) {
      plan.log(`refused ${socket.remoteAddress}: not one of --allow`);
      socket.destroy();
      return;
    }
    if (session !== undefined) {
      socket.end(
        `${JSON.stringify({ error: 'somebody else is measuring to this machine' } satisfies Answer)}\n`,
      );
      return;
    }
    plan.log(`${from} has come`);
    session = new Session(socket, plan).run().finally(() => {
      session = undefined;
      plan.log(`${from} has gone; its servers are stopped`);
    });
  });
  await listening(server, plan);
  const at = server.address();
  plan.log(
    `waiting at ${typeof at === 'object' ? `${at?.address} port ${at?.port}` : at}, for ${plan.allowed.join(', ')}`,
  );
  await new Promise<void>((resolve) => {
    if (plan.signal.aborted) resolve();
    plan.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  server.close();
  await session;
}

function listening(server: NetServer, { address, port }: ServePlan): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, ...(address !== undefined && { host: address }) }, () => resolve());
  });
}

/** An IPv4 client of a socket for both families is `::ffff:192.0.2.1`. */
const addressOf = (text: string | undefined): Address | undefined =>
  tryAddress((text ?? '').replace(/^::ffff:(?=\d+\.)/, ''));

/** One client's; it owns what was started for it. */
class Session {
  private readonly socket: Socket;
  private readonly plan: ServePlan;
  private readonly servers = new Map<number, Server>();
  private readonly ended = new AbortController();
  private readonly commands = new CommandLog();
  private pod: Pod | undefined;
  private greeted = false;
  private nextId = 1;

  constructor(socket: Socket, plan: ServePlan) {
    this.socket = socket;
    this.plan = plan;
  }

  /** Never rejects. */
  async run(): Promise<void> {
    const { socket, plan } = this;
    const end = (): void => void socket.destroy();
    plan.signal.addEventListener('abort', end, { once: true });
    socket.setTimeout(IDLE_MS, end);
    socket.on('error', end);
    socket.once('close', () => this.ended.abort(new Error('the client has gone')));
    limitLines(socket, end);
    try {
      for await (const line of createInterface({ input: socket })) {
        socket.write(`${JSON.stringify(await this.answer(line))}\n`);
      }
    } catch {
      // A connection that breaks ends the session, which is all there is to do.
    } finally {
      plan.signal.removeEventListener('abort', end);
      end();
      await this.stopAll();
    }
  }

  private async answer(line: string): Promise<Answer> {
    try {
      const request = requestSchema.safeParse(JSON.parse(line));
      if (!request.success)
        return { error: 'it is no request of this version: use the same vtepd at both ends' };
      return await this.carryOut(request.data);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      return { error: text.slice(0, 1000) };
    }
  }

  private async carryOut(request: Request): Promise<Answer> {
    if (request.verb === 'hello') return this.hello(request.pod);
    if (!this.greeted) return { error: 'say hello first' };
    switch (request.verb) {
      case 'cpu':
        return { cpu: readCpuTimes() };
      case 'stop': {
        const server = this.servers.get(request.id);
        this.servers.delete(request.id);
        await server?.stop();
        return {};
      }
      case 'start': {
        if (this.servers.size >= MOST_SERVERS) return { error: 'too many servers at once' };
        const end = this.end(request.place);
        const program = programOf(request.name, end.address, request.port);
        const server = await end.serve(program, request.name, this.ended.signal);
        const id = this.nextId++;
        this.servers.set(id, server);
        return { id };
      }
    }
  }

  private async hello(withPod: boolean): Promise<Answer> {
    this.greeted = true;
    let pod: { readonly podAddress: string } | { readonly noPod: string } = { noPod: 'none was asked for' };
    if (withPod) {
      try {
        this.pod ??= await attachBenchPod(this.plan.folders);
        pod = { podAddress: this.pod.address };
      } catch (error) {
        pod = { noPod: error instanceof Error ? error.message : String(error) };
      }
    }
    const cores = cpus();
    const machine = {
      cores: cores.length,
      cpu: cores[0]?.model.trim() ?? 'unknown',
      kernel: release(),
      bootId: bootId(),
    };
    return { hello: { version: packageVersion, ...machine, ...pod } };
  }

  private end(place: 'host' | 'pod'): LocalEnd {
    if (place === 'pod') {
      if (this.pod === undefined) throw new Error('this end has no pod');
      return new LocalEnd(this.pod.namespace, this.pod.address, this.commands);
    }
    // What the client reached us by, so that servers listen there and nowhere else.
    return new LocalEnd(
      undefined,
      addressOf(this.socket.localAddress) ?? parseAddress('127.0.0.1'),
      this.commands,
    );
  }

  private async stopAll(): Promise<void> {
    this.ended.abort(new Error('the client has gone'));
    await Promise.allSettled([...this.servers.values()].map((server) => server.stop()));
    this.servers.clear();
    try {
      await this.pod?.detach();
    } catch (error) {
      this.plan.log(`the pod was not detached in order: ${error instanceof Error ? error.message : error}`);
    }
  }
}

/** Nothing of the client's but a checked number gets into a command. */
function programOf(name: ServerProgram['name'], address: Address, port: number): ServerProgram {
  switch (name) {
    case 'iperf3':
      return iperf3Server(port);
    case 'sockperf':
      return sockperfServer(address, port);
    case 'connections':
      return connectionsServer(address, port);
  }
}

/** readline would gather a line without an end for ever. */
function limitLines(socket: Socket, end: () => void): void {
  let sinceNewline = 0;
  socket.on('data', (chunk: Buffer) => {
    const newline = chunk.lastIndexOf(10);
    sinceNewline = newline < 0 ? sinceNewline + chunk.length : chunk.length - newline - 1;
    if (sinceNewline > MAX_LINE_BYTES) end();
  });
}
