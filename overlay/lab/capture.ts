/** Packets as they pass an interface of a lab, by tcpdump. */
import type { Readable } from 'node:stream';
import { decodePcap, type PcapPacket } from '../../encap/wire/pcap.ts';
import { type Child, CommandError, start, stop } from './command.ts';
import { inside } from './namespace.ts';
import { until } from './wait.ts';

const SEEN_DEADLINE_MS = 10_000;

export class Capture {
  private readonly child: Child;
  private readonly chunks: Buffer[] = [];
  private readonly ended: Promise<void>;

  private constructor(child: Child, stdout: Readable) {
    this.child = child;
    stdout.on('data', (chunk) => this.chunks.push(Buffer.from(chunk)));
    this.ended = new Promise((resolve) => {
      stdout.once('close', resolve);
    });
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
    const capture = new Capture(child, stdout);
    if (!(await announced(stderr))) {
      await stop(child);
      throw new CommandError(`tcpdump does not listen on ${device} (is it installed?)`);
    }
    return capture;
  }

  /**
   * Waits for this many packets: one that has passed is seen a moment later, and one that is not seen by the
   * time of `stop` is lost. @throws DeadlineError
   */
  async untilCaptured(count: number, signal?: AbortSignal): Promise<void> {
    const what = `${count} packets in a capture`;
    await until(() => this.packets().length >= count, { what, deadlineMs: SEEN_DEADLINE_MS, signal });
  }

  /** Ends the capture and gives its packets, in order. */
  async stop(): Promise<PcapPacket[]> {
    await stop(this.child, 'SIGINT');
    await this.ended;
    return this.packets();
  }

  /** Everything so far, as a capture file. */
  get pcap(): Buffer {
    return Buffer.concat(this.chunks);
  }

  private packets(): PcapPacket[] {
    return decodePcap(this.pcap);
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
