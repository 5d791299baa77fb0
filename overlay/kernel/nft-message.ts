/**
 * nf_tables' netlink messages (include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h): their header, the
 * batch that makes a transaction of several, the generation that counts transactions, and what the kernel
 * announces. Numbers inside are in network byte order, unlike rtnetlink's.
 */
import {
  attributes,
  type MessageWriter,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  readText,
} from './netlink-message.ts';
import { NetlinkError, type NetlinkSocket } from './netlink-socket.ts';

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
const NFNL_BATCH_GENID = 1;
const NFT_MSG_NEWGEN = 15;
const NFT_MSG_GETGEN = 16;
const NFTA_GEN_ID = 1;
/** The table's name has this number in the message of every kind of object. */
const NFTA_TABLE = 1;
const ERESTART = 85;

/** struct nfgenmsg: family, version, resource id */
const HEADER_BYTES = 4;

/** The multicast group in which every change of nftables is announced (`nft monitor`). */
export const NFNLGRP_NFTABLES = 7;

/** nftables' table families that vtepd has a table in. */
export type TableFamily = 'inet' | 'bridge';

const FAMILY_NUMBERS: Readonly<Record<TableFamily, number>> = { inet: 1, bridge: 7 };
const FAMILY_NAMES = ['unspec', 'inet', 'ip', 'arp', '4', 'netdev', '6', 'bridge', '8', '9', 'ip6'];

export const tableFamilyNumber = (family: TableFamily): number => FAMILY_NUMBERS[family];

/** As nft writes it; the number for a family that it has no name for. */
export const tableFamilyName = (number: number): string => FAMILY_NAMES[number] ?? String(number);

/** The netlink message type of an NFT_MSG. */
export const messageType = (nftMessage: number): number => (NFNL_SUBSYS_NFTABLES << 8) | nftMessage;

/** A request about an nf_tables object. `family` 0 asks about all. */
export function nftRequest(
  nftMessage: number,
  family: number,
  flags: number,
  write: (writer: MessageWriter) => void = () => {},
): NetlinkRequest {
  return {
    type: messageType(nftMessage),
    flags,
    write(w) {
      header(w, family, 0);
      write(w);
    },
  };
}

/** The attributes of an nf_tables message. */
export const nftAttributes = (message: NetlinkMessage): readonly (Buffer | undefined)[] =>
  attributes(message.body, HEADER_BYTES);

/** The family number of an nf_tables message. */
export const nftFamily = (message: NetlinkMessage): number => message.body[0] ?? 0;

export const readU32be = (value: Buffer | undefined): number | undefined =>
  value !== undefined && value.length >= 4 ? value.readUInt32BE(0) : undefined;

/** Somebody else's transaction came first: what this one was worked out from may be old. */
export class GenerationMovedError extends Error {
  override readonly name = 'GenerationMovedError';
  readonly code = 'VTEPD_NFT_GENERATION_MOVED';
  readonly retryable = true;
}

/**
 * How many transactions this network namespace has seen. Unchanged: nothing of nftables changed, whoever
 * might have. @throws NetlinkError where the kernel has no nf_tables, or without CAP_NET_ADMIN
 */
export function readGeneration(netlink: NetlinkSocket): number {
  const doing = 'read the generation of nftables';
  const generation = netlink.get(
    nftRequest(NFT_MSG_GETGEN, 0, 0),
    (message) => readU32be(nftAttributes(message)[NFTA_GEN_ID]),
    doing,
  );
  if (generation === undefined) throw new NetlinkError(2, 'the kernel named no generation', doing);
  return generation;
}

/** What the generation is after one more transaction; it is never 0. */
export const nextGeneration = (generation: number): number => (generation + 1) >>> 0 || 1;

/**
 * Carries requests out as one transaction: all of them or none.
 * @param generation where given, only if no other transaction happened since this one
 * @throws NetlinkError, GenerationMovedError
 */
export function transact(
  netlink: NetlinkSocket,
  requests: readonly NetlinkRequest[],
  doing: string,
  generation?: number,
): void {
  if (requests.length === 0) return;
  try {
    netlink.transact((writer, sequence) => {
      writer.message(batchMark(NFNL_MSG_BATCH_BEGIN, generation), 0, sequence());
      let last = 0;
      for (const [i, request] of requests.entries()) {
        last = sequence();
        writer.message(request, i === requests.length - 1 ? NLM_F_ACK : 0, last);
      }
      writer.message(batchMark(NFNL_MSG_BATCH_END), 0, sequence());
      return last;
    }, doing);
  } catch (error) {
    if (error instanceof NetlinkError && error.errno === ERESTART) {
      throw new GenerationMovedError(`${doing}: nftables changed meanwhile`, { cause: error });
    }
    throw error;
  }
}

/** The table that an announced change was made in; undefined for messages that concern none. */
export function changedTable(message: NetlinkMessage): { family: number; table: string } | undefined {
  if (message.type >>> 8 !== NFNL_SUBSYS_NFTABLES || message.type === messageType(NFT_MSG_NEWGEN))
    return undefined;
  // Everything begins with its table's name: the other attributes need no look.
  if (message.body.length < HEADER_BYTES + 4 || message.body.readUInt16LE(HEADER_BYTES + 2) !== NFTA_TABLE)
    return undefined;
  const end = HEADER_BYTES + message.body.readUInt16LE(HEADER_BYTES);
  const table = readText(message.body.subarray(HEADER_BYTES + 4, end));
  return table === undefined ? undefined : { family: nftFamily(message), table };
}

function batchMark(type: number, generation?: number): NetlinkRequest {
  return {
    type,
    flags: 0,
    write(w) {
      header(w, 0, NFNL_SUBSYS_NFTABLES);
      if (generation !== undefined) w.attributeU32be(NFNL_BATCH_GENID, generation);
    },
  };
}

function header(w: MessageWriter, family: number, resource: number): void {
  w.u8(family)
    .u8(0)
    .u8(resource >>> 8)
    .u8(resource & 0xff);
}
