/**
 * The netlink wire format (RFC 3549; include/uapi/linux/netlink.h): messages of a 16-byte header and a
 * body, padded to four bytes; attributes of a 4-byte header and a value, padded likewise, and nested.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------------------------------------------------------+
 *     |                 length (header and body)                      |
 *     +-------------------------------+-------------------------------+
 *     |             type              |             flags             |
 *     +-------------------------------+-------------------------------+
 *     |                        sequence number                        |
 *     +---------------------------------------------------------------+
 *     |                  port id of the sending socket                |
 *     +---------------------------------------------------------------+
 *
 * Numbers are in the host's byte order, which is little-endian on every platform this runs on.
 */

export const HEADER_BYTES = 16;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

/** A request as data: what it is and how its body is written. */
export interface NetlinkRequest {
  readonly type: number;
  /** Beside NLM_F_REQUEST, which every request has. */
  readonly flags: number;
  readonly write: (writer: MessageWriter) => void;
}

/** One received message; `body` is valid only until the next receive. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly body: Buffer;
}

const padded = (length: number): number => (length + 3) & ~3;

/** Writes messages one behind the other into a buffer that grows and is used again. */
export class MessageWriter {
  #buffer = Buffer.alloc(4096);
  #position = 0;
  #messageStart = 0;

  /** The bytes written; valid until the next write. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#position);
  }

  get length(): number {
    return this.#position;
  }

  reset(): void {
    this.#position = 0;
  }

  message(request: NetlinkRequest, extraFlags: number, sequence: number): void {
    this.#messageStart = this.#position;
    this.u32(0);
    this.u16(request.type);
    this.u16(NLM_F_REQUEST | request.flags | extraFlags);
    this.u32(sequence);
    this.u32(0);
    request.write(this);
    this.#buffer.writeUInt32LE(this.#position - this.#messageStart, this.#messageStart);
    this.#pad();
  }

  u8(value: number): this {
    this.#reserve(1);
    this.#buffer[this.#position++] = value;
    return this;
  }

  u16(value: number): this {
    this.#reserve(2);
    this.#position = this.#buffer.writeUInt16LE(value, this.#position);
    return this;
  }

  u32(value: number): this {
    this.#reserve(4);
    this.#position = this.#buffer.writeUInt32LE(value >>> 0, this.#position);
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#position);
    this.#position += bytes.length;
    return this;
  }

  attribute(type: number, value: Uint8Array): this {
    this.u16(value.length + 4)
      .u16(type)
      .raw(value);
    return this.#pad();
  }

  attributeU8(type: number, value: number): this {
    this.u16(5).u16(type).u8(value);
    return this.#pad();
  }

  attributeU16(type: number, value: number): this {
    this.u16(6).u16(type).u16(value);
    return this.#pad();
  }

  /** Network byte order, as ports are. */
  attributeU16be(type: number, value: number): this {
    return this.attributeU16(type, ((value & 0xff) << 8) | (value >>> 8));
  }

  attributeU32(type: number, value: number): this {
    return this.u16(8).u16(type).u32(value);
  }

  attributeU32be(type: number, value: number): this {
    this.u16(8).u16(type);
    this.#reserve(4);
    this.#position = this.#buffer.writeUInt32BE(value >>> 0, this.#position);
    return this;
  }

  /** A string with its terminating zero, as every kernel reader accepts. */
  attributeText(type: number, text: string): this {
    const bytes = Buffer.byteLength(text);
    this.u16(bytes + 5).u16(type);
    this.#reserve(bytes + 1);
    this.#buffer.write(text, this.#position);
    this.#buffer[this.#position + bytes] = 0;
    this.#position += bytes + 1;
    return this.#pad();
  }

  nest(type: number, write: () => void): this {
    const start = this.#position;
    this.u16(0).u16(type | NLA_F_NESTED);
    write();
    this.#buffer.writeUInt16LE(this.#position - start, start);
    return this;
  }

  #pad(): this {
    while (this.#position % 4 !== 0) this.u8(0);
    return this;
  }

  #reserve(bytes: number): void {
    if (this.#position + bytes <= this.#buffer.length) return;
    const larger = Buffer.alloc(Math.max(2 * this.#buffer.length, this.#position + bytes));
    this.#buffer.copy(larger);
    this.#buffer = larger;
  }
}

/** The messages of one datagram. A message that claims more than there is ends the walk. */
export function* messages(datagram: Buffer): Generator<NetlinkMessage> {
  let start = 0;
  while (start + HEADER_BYTES <= datagram.length) {
    const length = datagram.readUInt32LE(start);
    if (length < HEADER_BYTES || start + length > datagram.length) return;
    yield {
      type: datagram.readUInt16LE(start + 4),
      flags: datagram.readUInt16LE(start + 6),
      sequence: datagram.readUInt32LE(start + 8),
      portId: datagram.readUInt32LE(start + 12),
      body: datagram.subarray(start + HEADER_BYTES, start + length),
    };
    start += padded(length);
  }
}

/** Attribute values by type; a type that occurs twice keeps its last value. */
export type Attributes = readonly (Buffer | undefined)[];

/** The attributes from `offset` to the end of the bytes. One that claims more than there is ends the walk. */
export function attributes(bytes: Buffer, offset = 0): Attributes {
  const found: (Buffer | undefined)[] = [];
  for (const [type, value] of attributeList(bytes, offset)) found[type] = value;
  return found;
}

/** As `attributes`, in order and with repeated types, as lists are encoded. */
export function* attributeList(bytes: Buffer, offset = 0): Generator<readonly [number, Buffer]> {
  let start = offset;
  while (start + 4 <= bytes.length) {
    const length = bytes.readUInt16LE(start);
    if (length < 4 || start + length > bytes.length) return;
    yield [bytes.readUInt16LE(start + 2) & NLA_TYPE_MASK, bytes.subarray(start + 4, start + length)];
    start += padded(length);
  }
}

export const readU8 = (value: Buffer | undefined): number | undefined =>
  value !== undefined && value.length >= 1 ? value[0] : undefined;

export const readU16be = (value: Buffer | undefined): number | undefined =>
  value !== undefined && value.length >= 2 ? value.readUInt16BE(0) : undefined;

export const readU32 = (value: Buffer | undefined): number | undefined =>
  value !== undefined && value.length >= 4 ? value.readUInt32LE(0) : undefined;

/** Text up to its first zero byte. */
export function readText(value: Buffer | undefined): string | undefined {
  if (value === undefined) return undefined;
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}
