/** A captured packet as the demo shows it: a name, a size and the fields of each layer. */
import { type Layer, takeApart } from '../../encap/wire/layers.ts';
import { addressFromBytes, macFromBytes } from '../../store/address.ts';
import type { DemoLayer, DemoPacket } from './demo-report.ts';

const ECHO_REQUEST = 8;

/** The first echo request inside a tunnel among these frames; undefined if there is none. */
export function findTunnelled(
  frames: readonly Uint8Array[],
  port: number,
  where: { readonly node: string; readonly device: string },
): DemoPacket | undefined {
  for (const frame of frames) {
    const layers = takeApart(frame, port);
    if (!layers.some((layer) => layer.depth > 0 && isEchoRequest(layer))) continue;
    const outer = layers.filter(({ kind, depth }) => depth === 0 || (depth === 1 && kind === 'ethernet'));
    return {
      ...where,
      bytes: frame.length,
      // The underlay's own Ethernet header is there with or without a tunnel.
      overheadBytes: sizeOf(outer) - sizeOf(outer.slice(0, 1)),
      layers: layers.map(describe),
      hex: Buffer.from(frame).toString('hex'),
    };
  }
  return undefined;
}

const isEchoRequest = (layer: Layer): boolean => layer.kind === 'icmp' && layer.header.type === ECHO_REQUEST;

const sizeOf = (layers: readonly Layer[]): number =>
  layers.reduce((sum, layer) => sum + layer.bytes.length, 0);

function describe(layer: Layer): DemoLayer {
  const { depth, bytes } = layer;
  return { name: NAMES[layer.kind], bytes: bytes.length, depth, fields: fieldsOf(layer) };
}

const NAMES: Readonly<Record<Layer['kind'], string>> = {
  ethernet: 'Ethernet',
  ipv4: 'IPv4',
  ipv6: 'IPv6',
  udp: 'UDP',
  vxlan: 'VXLAN',
  icmp: 'ICMP',
  icmpv6: 'ICMPv6',
  data: 'data',
  broken: 'broken',
};

function fieldsOf(layer: Layer): DemoLayer['fields'] {
  switch (layer.kind) {
    case 'ethernet': {
      const { source, destination, etherType } = layer.header;
      return {
        source: macFromBytes(source),
        destination: macFromBytes(destination),
        type: `0x${etherType.toString(16).padStart(4, '0')}`,
      };
    }
    case 'ipv4': {
      const { source, destination, ttl, protocol, dontFragment, totalBytes } = layer.header;
      const ends = { source: addressFromBytes(source), destination: addressFromBytes(destination) };
      return { ...ends, ttl, protocol, totalBytes, dontFragment };
    }
    case 'ipv6': {
      const { source, destination, hopLimit, nextHeader, payloadBytes } = layer.header;
      const ends = { source: addressFromBytes(source), destination: addressFromBytes(destination) };
      return { ...ends, hopLimit, nextHeader, payloadBytes };
    }
    case 'udp': {
      const { sourcePort, destinationPort, lengthBytes, checksum } = layer.header;
      return { sourcePort, destinationPort, lengthBytes, checksum };
    }
    case 'vxlan':
      return { vni: layer.header.vni, flags: layer.header.flags };
    case 'icmp':
    case 'icmpv6': {
      const { type, code, identifier, sequence } = layer.header;
      return { type, code, identifier, sequence };
    }
    case 'broken':
      return { expected: layer.expected, fault: layer.fault };
    case 'data':
      return {};
  }
}
