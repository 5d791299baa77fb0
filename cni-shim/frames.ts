/**
 * What travels between vtepd-cni.c and the daemon, and what lies in the spool directory. All numbers are in
 * network byte order.
 *
 *     request  "VTPQ" | length of the rest | CNI_COMMAND 0 CNI_CONTAINERID 0 CNI_NETNS 0 CNI_IFNAME 0
 *              CNI_ARGS 0 CNI_PATH 0 | the network configuration
 *     answer   "VTPA" | length of the rest | exit status (4 bytes) | what to print
 *
 * Between the two, where the pod's namespace has IPv6 switched off:
 *
 *     wish     "VTP6" | 4 | 0            switch it on for CNI_IFNAME and the loopback
 *     report   "VTPR" | 4 | errno        0: it is on
 *
 * With the first bytes of a request come two descriptors: the pod's namespace and a netlink socket in it.
 */

export const FRAME_HEADER_BYTES = 8;
/** What the shim may send: 128 KiB of environment and 8 MiB of configuration. */
export const MAX_REQUEST_BYTES = 128 * 1024 + 8 * 1024 * 1024;

const REQUEST_MAGIC = 'VTPQ';
const ANSWER_MAGIC = 'VTPA';
const IPV6_WISH_MAGIC = 'VTP6';
const REPORT_MAGIC = 'VTPR';
const SHORT_FRAME_BYTES = 12;

/** As the runtime gave it, unchecked; an absent variable is empty. */
export interface RequestFrame {
  readonly command: string;
  readonly containerID: string;
  readonly netns: string;
  readonly ifname: string;
  readonly args: string;
  readonly path: string;
  readonly config: string;
}

/** The bytes are not a request of the shim. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
  readonly code = 'VTEPD_CNI_FRAME';
}

/** How long the whole frame is, undefined until its header is there. @throws FrameError */
export function requestLength(bytes: Buffer): number | undefined {
  if (bytes.length < FRAME_HEADER_BYTES) return undefined;
  if (bytes.toString('latin1', 0, 4) !== REQUEST_MAGIC) {
    throw new FrameError('the client is not vtepd-cni, or one of another version');
  }
  const length = bytes.readUInt32BE(4);
  if (length > MAX_REQUEST_BYTES) {
    throw new FrameError(`a request of ${length} bytes; ${MAX_REQUEST_BYTES} are allowed`);
  }
  return FRAME_HEADER_BYTES + length;
}

/** Reads one whole frame. @throws FrameError */
export function decodeRequest(bytes: Buffer): RequestFrame {
  if (requestLength(bytes) !== bytes.length) throw new FrameError('the request is cut short');
  const values: string[] = [];
  let start = FRAME_HEADER_BYTES;
  while (values.length < 6) {
    const end = bytes.indexOf(0, start);
    if (end < 0) throw new FrameError('the request lacks a part of its environment');
    values.push(bytes.toString('utf8', start, end));
    start = end + 1;
  }
  const [command = '', containerID = '', netns = '', ifname = '', args = '', path = ''] = values;
  return { command, containerID, netns, ifname, args, path, config: bytes.toString('utf8', start) };
}

export function encodeRequest(request: RequestFrame): Buffer {
  const { command, containerID, netns, ifname, args, path, config } = request;
  const rest = Buffer.from([command, containerID, netns, ifname, args, path, config].join('\0'));
  const header = Buffer.from(`${REQUEST_MAGIC}\0\0\0\0`, 'latin1');
  header.writeUInt32BE(rest.length, 4);
  return Buffer.concat([header, rest]);
}

/** @param text JSON, or nothing */
export function encodeAnswer(exitStatus: number, text: string): Buffer {
  const body = Buffer.from(text === '' ? '' : `${text}\n`);
  const header = Buffer.from(`${ANSWER_MAGIC}\0\0\0\0\0\0\0\0`, 'latin1');
  header.writeUInt32BE(4 + body.length, 4);
  header.writeUInt32BE(exitStatus, 8);
  return Buffer.concat([header, body]);
}

/** Asks the shim to switch IPv6 on for the interface that was made. */
export const encodeIpv6Wish = (): Buffer => shortFrame(IPV6_WISH_MAGIC, 0);

/** The shim's side, for tests. */
export const encodeReport = (errno: number): Buffer => shortFrame(REPORT_MAGIC, errno);

/** The errno, 0 for success; undefined until the whole report is there. @throws FrameError */
export function decodeReport(bytes: Buffer): number | undefined {
  if (bytes.length < SHORT_FRAME_BYTES) return undefined;
  const isReport = bytes.toString('latin1', 0, 4) === REPORT_MAGIC && bytes.readUInt32BE(4) === 4;
  if (!isReport || bytes.length > SHORT_FRAME_BYTES)
    throw new FrameError('the plugin answered with no report');
  return bytes.readUInt32BE(8);
}

function shortFrame(magic: string, value: number): Buffer {
  const frame = Buffer.from(`${magic}\0\0\0\x04\0\0\0\0`, 'latin1');
  frame.writeUInt32BE(value, 8);
  return frame;
}
