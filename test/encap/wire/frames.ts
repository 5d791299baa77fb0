/** Frames for tests: random well-formed ones, put together the slow and obvious way. */
import fc from 'fast-check';

export interface Ipv4Parts {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly ttl: number;
  readonly dscp: number;
  readonly identification: number;
}

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const unicastMac = bytes(6).map((mac) => mac.with(0, (mac[0] ?? 0) & 0xfc));
/** Addresses of 10.0.0.0/8: tshark prints any address, but multicast ones change what it takes apart. */
const address = bytes(4).map((octets) => octets.with(0, 10));

export const macs = fc.record({ source: unicastMac, destination: unicastMac });

export const ipv4Parts: fc.Arbitrary<Ipv4Parts> = fc.record({
  source: address,
  destination: address,
  ttl: fc.integer({ min: 1, max: 255 }),
  dscp: fc.integer({ min: 0, max: 63 }),
  identification: fc.integer({ min: 0, max: 65_535 }),
});

export const port = fc.integer({ min: 1024, max: 65_535 });
export const vni = fc.integer({ min: 0, max: 0xffffff });
export const payload = fc.uint8Array({ maxLength: 64 });

/** An echo request in Ethernet, in VXLAN, in UDP, in IPv4, in Ethernet. */
export const vxlanFrame = fc.record({
  outer: macs,
  outerIp: ipv4Parts,
  sourcePort: port,
  vni,
  inner: macs,
  innerIp: ipv4Parts,
  identifier: fc.integer({ min: 0, max: 65_535 }),
  sequence: fc.integer({ min: 0, max: 65_535 }),
  payload,
});
export type VxlanFrame = typeof vxlanFrame extends fc.Arbitrary<infer T> ? T : never;

export const VXLAN_PORT = 8472;

export function encodeVxlanFrame(frame: VxlanFrame): Uint8Array {
  const icmp = joined([8, 0, 0, 0], word(frame.identifier), word(frame.sequence), frame.payload);
  withChecksum(icmp, 2);
  const inner = ethernet(frame.inner, 0x0800, ipv4(frame.innerIp, 1, icmp));
  const vxlan = joined([8, 0, 0, 0], [frame.vni >> 16, (frame.vni >> 8) & 255, frame.vni & 255, 0], inner);
  const udp = joined(word(frame.sourcePort), word(VXLAN_PORT), word(vxlan.length + 8), word(0), vxlan);
  return ethernet(frame.outer, 0x0800, ipv4(frame.outerIp, 17, udp));
}

export const ethernet = (
  ends: { readonly source: Uint8Array; readonly destination: Uint8Array },
  etherType: number,
  content: Uint8Array,
): Uint8Array => joined(ends.destination, ends.source, word(etherType), content);

export function ipv4(parts: Ipv4Parts, protocol: number, content: Uint8Array): Uint8Array {
  const header = joined(
    [0x45, parts.dscp << 2],
    word(20 + content.length),
    word(parts.identification),
    [0x40, 0, parts.ttl, protocol, 0, 0],
    parts.source,
    parts.destination,
  );
  withChecksum(header, 10);
  return joined(header, content);
}

/** A capture file of these frames: big-endian, microseconds. */
export const pcap = (frames: readonly Uint8Array[]): Uint8Array =>
  joined(
    [0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1],
    ...frames.map((frame, i) =>
      joined(long(i), long(500_000), long(frame.length), long(frame.length), frame),
    ),
  );

export const word = (value: number): number[] => [value >> 8, value & 255];
const long = (value: number): number[] => [...word(value >>> 16), ...word(value & 0xffff)];

export const joined = (...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => Array.from(part)));

/** RFC 1071, word by word with a carry at every step. */
function withChecksum(data: Uint8Array, at: number): void {
  let sum = 0;
  for (let i = 0; i < data.length; i += 2) {
    sum += (data[i] ?? 0) * 256 + (data[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  data.set(word(0xffff - sum), at);
}
