/**
 * Capture files as libpcap writes them (the format before pcapng: draft-ietf-opsawg-pcap), of either byte
 * order, with timestamps in micro- or nanoseconds.
 *
 *   file:    magic(4) major(2) minor(2) reserved(8) snaplen(4) linktype(4)
 *   packet:  seconds(4) fraction(4) captured length(4) original length(4), then the captured bytes
 */

export interface PcapPacket {
  readonly timeSeconds: number;
  readonly bytes: Uint8Array;
  /** More than `bytes.length` when the capture cut the packet short. */
  readonly originalBytes: number;
}

const FILE_HEADER_BYTES = 24;
const PACKET_HEADER_BYTES = 16;
const MICROSECONDS = 0xa1b2c3d4;
const NANOSECONDS = 0xa1b23c4d;
/** LINKTYPE_ETHERNET; the upper bits of the field say other things. */
const ETHERNET = 1;

/** The packets of an Ethernet capture; a last one that was not written to its end is left out. */
export function decodePcap(file: Uint8Array): PcapPacket[] {
  if (file.length < FILE_HEADER_BYTES) return [];
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const isMagic = (magic: number) => magic === MICROSECONDS || magic === NANOSECONDS;
  const littleEndian = isMagic(view.getUint32(0, true));
  const magic = view.getUint32(0, littleEndian);
  if (!isMagic(magic) || (view.getUint32(20, littleEndian) & 0xffff) !== ETHERNET) return [];
  const fractionsPerSecond = magic === NANOSECONDS ? 1e9 : 1e6;
  const packets: PcapPacket[] = [];
  for (let at = FILE_HEADER_BYTES; at + PACKET_HEADER_BYTES <= file.length; ) {
    const start = at + PACKET_HEADER_BYTES;
    const end = start + view.getUint32(at + 8, littleEndian);
    if (end > file.length) break;
    packets.push({
      timeSeconds:
        view.getUint32(at, littleEndian) + view.getUint32(at + 4, littleEndian) / fractionsPerSecond,
      bytes: file.subarray(start, end),
      originalBytes: view.getUint32(at + 12, littleEndian),
    });
    at = end;
  }
  return packets;
}
