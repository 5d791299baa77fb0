/** The decoders against Wireshark's: many random frames, one run of tshark. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { takeApart } from '../../../encap/wire/layers.ts';
import { run } from '../../../overlay/lab/command.ts';
import { addressFromBytes, macFromBytes } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';
import { encodeVxlanFrame, pcap, VXLAN_PORT, vxlanFrame } from './frames.ts';

const FIELDS = [
  'eth.src',
  'eth.dst',
  'ip.src',
  'ip.dst',
  'ip.ttl',
  'ip.dsfield.dscp',
  'ip.id',
  'udp.srcport',
];
const MORE = ['vxlan.vni', 'icmp.ident', 'icmp.seq', 'ip.checksum.status', 'icmp.checksum.status'];

describe('encap/wire against tshark', () => {
  it('reads what Wireshark reads', async function () {
    need(this, 'tshark');
    const frames = fc.sample(vxlanFrame, { numRuns: 200, seed: 7348 }).map(encodeVxlanFrame);
    const dir = await mkdtemp(join(tmpdir(), 'vtepd-wire-'));
    try {
      await writeFile(join(dir, 'frames.pcap'), pcap(frames));
      const { stdout } = await run('tshark', [
        ...['-n', '-r', join(dir, 'frames.pcap'), '-d', `udp.port==${VXLAN_PORT},vxlan`],
        ...['-o', 'ip.check_checksum:TRUE', '-T', 'fields', '-E', 'separator=;', '-E', 'occurrence=a'],
        ...[...FIELDS, ...MORE].flatMap((field) => ['-e', field]),
      ]);
      const lines = stdout.trimEnd().split('\n');
      expect(lines).to.have.length(frames.length);
      for (const [i, frame] of frames.entries()) expect(ours(frame)).to.equal(lines[i]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

/** What tshark prints of a frame: outer and inner values by a comma, fields by a semicolon. */
function ours(frame: Uint8Array): string {
  const values = new Map<string, string[]>();
  const add = (field: string, value: unknown) =>
    values.set(field, [...(values.get(field) ?? []), String(value)]);
  for (const layer of takeApart(frame, VXLAN_PORT)) {
    if (layer.kind === 'ethernet') {
      add('eth.src', macFromBytes(layer.header.source));
      add('eth.dst', macFromBytes(layer.header.destination));
    } else if (layer.kind === 'ipv4') {
      add('ip.src', addressFromBytes(layer.header.source));
      add('ip.dst', addressFromBytes(layer.header.destination));
      add('ip.ttl', layer.header.ttl);
      add('ip.dsfield.dscp', layer.header.dscp);
      add('ip.id', hex(layer.header.identification));
      add('ip.checksum.status', layer.header.checksumRight ? 1 : 0);
    } else if (layer.kind === 'udp') add('udp.srcport', layer.header.sourcePort);
    else if (layer.kind === 'vxlan') add('vxlan.vni', layer.header.vni);
    else if (layer.kind === 'icmp') {
      add('icmp.ident', layer.header.identifier);
      add('icmp.seq', layer.header.sequence);
      add('icmp.checksum.status', 1);
    }
  }
  return [...FIELDS, ...MORE].map((field) => (values.get(field) ?? []).join(',')).join(';');
}

const hex = (value: number): string => `0x${value.toString(16).padStart(4, '0')}`;
