/** One packet of a known size through a path, caught on the underlay and held against the arithmetic. */
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

async function capturedFrame(path: DataPath, signal: AbortSignal): Promise<Uint8Array | undefined> {
  if (path.tap === undefined) return undefined;
  const { namespace, device, filter } = path.tap;
  const capture = await Capture.start(namespace, device, filter);
  let frames: Uint8Array[] = [];
  try {
    const size = `${INNER_BYTES - IPV4_AND_ICMP_BYTES}`;
    const argv = [
      'busybox',
      'ping',
      '-c',
      `${REQUESTS}`,
      '-i',
      '0.02',
      '-W',
      '1',
      '-s',
      size,
      path.to.address,
    ];
    const what = `${path.contestant.id}: overhead`;
    await path.from.run(argv, what, { signal, timeoutMs: SEEN_DEADLINE_MS, tolerant: true });
    // With their answers.
    await capture.untilCaptured(2 * REQUESTS, signal).catch(() => {});
    signal.throwIfAborted();
  } finally {
    frames = (await capture.stop()).map(({ bytes }) => bytes);
  }
  return commonestFrame(frames, INNER_BYTES + ETHERNET_HEADER_BYTES);
}

/**
 * Of the frames of at least so many bytes, the first of the size that most have: requests and answers are alike.
 * Keep-alives are smaller; probes of a path's MTU, as tinc sends them meanwhile, have any size.
 */
export function commonestFrame(frames: readonly Uint8Array[], leastBytes: number): Uint8Array | undefined {
  const bySize = new Map<number, Uint8Array[]>();
  for (const frame of frames) {
    if (frame.length >= leastBytes) bySize.set(frame.length, [...(bySize.get(frame.length) ?? []), frame]);
  }
  return [...bySize.values()].reduce<readonly Uint8Array[]>(
    (most, same) => (same.length > most.length ? same : most),
    [],
  )[0];
}
