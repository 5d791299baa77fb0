/** One packet of a known size through a path, caught on the underlay and held against the arithmetic. */
import { setTimeout as delay } from 'node:timers/promises';
import { ETHERNET_HEADER_BYTES } from '../../encap/wire/ethernet.ts';
import { Capture } from '../../overlay/lab/capture.ts';
import type { Overhead } from '../report/schema.ts';
import type { DataPath } from './data-path.ts';
import { efficiency, layersOf, overheadBytes } from './overhead.ts';

/** A multiple of what WireGuard fills packets up to. */
const INNER_BYTES = 1024;
const IPV4_AND_ICMP_BYTES = 28;
const REQUESTS = 3;
/** Of the frame, for the report: its headers. */
const HEX_BYTES = 128;
const SEEN_DEADLINE_MS = 5000;
/** For what has passed to be seen, on a busy machine. */
const CAPTURED_MS = 2000;
const ATTEMPTS = 5;
const BETWEEN_MS = 1000;

/** Undefined for a path whose packets cannot be seen on an underlay. @throws the signal's reason */
export async function measureOverhead(path: DataPath, signal: AbortSignal): Promise<Overhead | undefined> {
  const { mtuBytes, id } = path.contestant;
  if (mtuBytes === undefined || path.tap === undefined) return undefined;
  const layers = layersOf(path.encapsulation, 'ipv4', mtuBytes);
  const computedBytes = overheadBytes(path.encapsulation, 'ipv4');
  const frame = await capturedFrame(path, signal);
  return {
    contestant: id,
    layers,
    computedBytes,
    innerMtuBytes: mtuBytes,
    efficiency: efficiency(layers),
    ...(frame !== undefined && { captured: describe(frame, computedBytes) }),
  };
}

function describe(frame: Uint8Array, computedBytes: number): NonNullable<Overhead['captured']> {
  const measured = frame.length - ETHERNET_HEADER_BYTES - INNER_BYTES;
  return {
    innerBytes: INNER_BYTES,
    frameBytes: frame.length,
    overheadBytes: measured,
    agrees: measured === computedBytes,
    hex: Buffer.from(frame.subarray(0, HEX_BYTES)).toString('hex'),
  };
}

/**
 * Tries again for a while: tinc carries packets by TCP until it has made sure of UDP, and then only its own probes
 * are seen. Undefined when the requests are not.
 */
async function capturedFrame(path: DataPath, signal: AbortSignal): Promise<Uint8Array | undefined> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) await delay(BETWEEN_MS, undefined, { signal });
    const frames = await capturedFrames(path, signal);
    // A probe and its answer are two; a size that more have than there were requests is that of requests and answers.
    const frame = commonestFrame(frames, INNER_BYTES + ETHERNET_HEADER_BYTES, REQUESTS + 1);
    if (frame !== undefined) return frame;
  }
  return undefined;
}

async function capturedFrames({ tap, from, to, contestant }: DataPath, signal: AbortSignal) {
  if (tap === undefined) return [];
  const capture = await Capture.start(tap.namespace, tap.device, tap.filter);
  let frames: Uint8Array[] = [];
  try {
    const size = `${INNER_BYTES - IPV4_AND_ICMP_BYTES}`;
    const timing = ['-c', `${REQUESTS}`, '-i', '0.02', '-W', '1'];
    const argv = ['busybox', 'ping', ...timing, '-s', size, to.address];
    const what = `${contestant.id}: overhead`;
    await from.run(argv, what, { signal, timeoutMs: SEEN_DEADLINE_MS, tolerant: true });
    // With their answers.
    const inTime = AbortSignal.any([signal, AbortSignal.timeout(CAPTURED_MS)]);
    await capture.untilCaptured(2 * REQUESTS, inTime).catch(() => {});
    signal.throwIfAborted();
  } finally {
    frames = (await capture.stop()).map(({ bytes }) => bytes);
  }
  return frames;
}

/**
 * Of the frames of at least so many bytes, the first of the size that most have, if so many have it: requests and
 * answers are alike. Keep-alives are smaller; probes of a path's MTU, as tinc sends them meanwhile, have any size.
 */
export function commonestFrame(
  frames: readonly Uint8Array[],
  leastBytes: number,
  leastFrames: number,
): Uint8Array | undefined {
  const bySize = new Map<number, Uint8Array[]>();
  for (const frame of frames) {
    if (frame.length >= leastBytes) bySize.set(frame.length, [...(bySize.get(frame.length) ?? []), frame]);
  }
  const most = [...bySize.values()].reduce<readonly Uint8Array[]>(
    (longest, same) => (same.length > longest.length ? same : longest),
    [],
  );
  return most.length >= leastFrames ? most[0] : undefined;
}
