/** Packets as they pass an interface of a lab, by tcpdump. */
import type { Readable } from 'node:stream';
import { decodePcap, type PcapPacket } from '../../encap/wire/pcap.ts';
import { type Child, CommandError, start, stop } from './command.ts';
import { inside } from './namespace.ts';

export class Capture {
  private readonly child: Child;
  private readonly bytes: Promise<Uint8Array>;

  private constructor(child: Child, bytes: Promise<Uint8Array>) {
    this.child = child;
    this.bytes = bytes;
  }

  /** Captures from now on what matches the filter (pcap-filter). The owner stops it. @throws CommandError */
  static async start(namespace: string, device: string, filter: string): Promise<Capture> {
    // -U and --immediate-mode: a packet is written when it passes, not when a buffer is full.
    const options = ['-i', device, '-w', '-', '-U', '--immediate-mode', '-n', '-s', '0'];
    const child = await start(...inside(namespace, ['tcpdump', ...options, filter]), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = child.process;
    if (stdout === null || stderr === null) throw new Error('tcpdump was started without its pipes');
    const bytes = collect(stdout);
    if (!(await announced(stderr))) {
      await stop(child);
      throw new CommandError(`tcpdump does not listen on ${device} (is it installed?)`);
    }
    return new Capture(child, bytes);
  }

  /** Ends the capture and gives its packets, in order. */
  async stop(): Promise<PcapPacket[]> {
    await stop(this.child, 'SIGINT');
    return decodePcap(await this.bytes);
  }
}

/** tcpdump says "listening on" once it is; resolves false when it ends without. */
async function announced(stderr: Readable): Promise<boolean> {
  let text = '';
  const found = await new Promise<boolean>((resolve) => {
    stderr.on('data', (chunk) => {
      text += String(chunk);
      if (text.includes('listening on')) resolve(true);
    });
    stderr.once('close', () => resolve(false));
  });
  return found;
}

async function collect(stream: Readable): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
