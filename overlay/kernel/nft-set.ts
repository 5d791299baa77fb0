/**
 * Elements of nftables sets, in batches of our own: libnftables takes 60 µs an element, which is 0.6 s for
 * 10,000 peers; so it is 1 µs each.
 *
 * An element is known by its text as nft prints it, without quotes: `192.0.2.7`, and for a concatenation
 * `vtp0a1b2c3d . 02:00:00:00:00:01 . 10.244.1.5`. So it is a map key, compares by `===`, and needs no
 * conversion where it is only compared. In the kernel a concatenation's fields stand one behind the other,
 * each padded to four bytes; a name has its full 16.
 *
 *     +--- ifname: 16 ---+--- ether_addr: 6 + 2 ---+--- ipv4_addr: 4, ipv6_addr: 16 ---+
 */
import {
  type Address,
  addressBytes,
  addressFromBytes,
  type Mac,
  macBytes,
  macFromBytes,
} from '../../store/address.ts';
import {
  attributeList,
  attributes,
  type MessageWriter,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_CREATE,
  readText,
} from './netlink-message.ts';
import { NetlinkError, type NetlinkSocket } from './netlink-socket.ts';
import {
  GenerationMovedError,
  nextGeneration,
  nftAttributes,
  nftRequest,
  readU32be,
  type TableFamily,
  tableFamilyNumber,
  transact,
} from './nft-message.ts';

const NFT_MSG_NEWSETELEM = 12;
const NFT_MSG_GETSETELEM = 13;
const NFT_MSG_DELSETELEM = 14;

const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_LIST_ELEM = 1;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_FLAGS = 3;
const NFTA_DATA_VALUE = 1;
const NFT_SET_ELEM_CATCHALL = 2;
const NESTED = 0x8000;

/** An attribute's length has 16 bits: the elements of one message must fit into it. */
const ELEMENTS_BYTES = 60_000;
/** What one element takes beside its key: the headers of three attributes. */
const ELEMENT_OVERHEAD_BYTES = 12;
/** Messages that go into one transaction; more elements take several. Half of the socket's send buffer. */
const MESSAGES_A_TRANSACTION = 8;
/** How often a deletion is tried again because an element had gone in the meantime. */
const DELETE_ATTEMPTS = 5;

/** Between the fields of a concatenation, in our texts as in nft's. */
export const SEPARATOR = ' . ';
/** The element that stands for every value (`*`): never ours, but somebody may have put it there. */
const CATCH_ALL = '*';

/** nftables' data types, as far as they are used here. */
export type FieldType = 'ifname' | 'ether_addr' | 'ipv4_addr' | 'ipv6_addr';

const FIELD_BYTES: Readonly<Record<FieldType, number>> = {
  ifname: 16,
  ether_addr: 6,
  ipv4_addr: 4,
  ipv6_addr: 16,
};

export interface NftSet {
  readonly family: TableFamily;
  readonly table: string;
  readonly name: string;
  readonly fields: readonly FieldType[];
}

export interface ElementChanges {
  readonly set: NftSet;
  readonly add: readonly string[];
  readonly remove: readonly string[];
}

const padded = (bytes: number): number => (bytes + 3) & ~3;

/** The kernel's key of an element. The fields' values must be of their types. */
export function encodeElement(fields: readonly FieldType[], element: string): Uint8Array {
  const key = new Uint8Array(keyBytes(fields));
  const only = fields[0];
  if (fields.length === 1 && only !== undefined) {
    writeField(key, 0, only, element);
    return key;
  }
  const values = element.split(SEPARATOR);
  let offset = 0;
  for (const [i, field] of fields.entries()) {
    writeField(key, offset, field, values[i] ?? '');
    offset += padded(FIELD_BYTES[field]);
  }
  return key;
}

/** The text of a kernel's key; its bytes in hexadecimal if it is of another length than the fields say. */
export function decodeElement(fields: readonly FieldType[], key: Buffer): string {
  if (key.length !== keyBytes(fields)) return `0x${key.toString('hex')}`;
  let offset = 0;
  let text = '';
  for (const field of fields) {
    text += (offset === 0 ? '' : SEPARATOR) + fieldText(field, key, offset);
    offset += padded(FIELD_BYTES[field]);
  }
  return text;
}

/** `nft list set FAMILY TABLE NAME`, the elements alone. @throws NetlinkError, DumpInterruptedError */
export function listElements(netlink: NetlinkSocket, set: NftSet): Set<string> {
  const request = nftRequest(NFT_MSG_GETSETELEM, tableFamilyNumber(set.family), 0, (w) => setName(w, set));
  const chunks = netlink.dump(request, (message) => readElements(set, message), `list set ${set.name}`);
  return new Set(chunks.flat());
}

/**
 * `nft add element` and `nft delete element`, all in one transaction while they fit into one. Adding what is
 * there and deleting what is not changes nothing.
 * @param generation where given, only if nothing of nftables changed since this generation
 * @returns how many transactions were carried out, each a generation
 * @throws NetlinkError (ENOENT: no such table or set), GenerationMovedError
 */
export function changeElements(
  netlink: NetlinkSocket,
  changes: readonly ElementChanges[],
  generation?: number,
): number {
  const requests = changes.flatMap(({ set, add, remove }) => [
    ...elementRequests(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, add),
    ...elementRequests(NFT_MSG_DELSETELEM, 0, set, remove),
  ]);
  const doing = `change elements of ${changes.map(({ set }) => set.name).join(', ')}`;
  try {
    return inTransactions(netlink, requests, doing, generation);
  } catch (error) {
    // An element to be deleted was absent (or its set): then the kernel did nothing of the transaction.
    if (!(error instanceof NetlinkError && error.code === 'ENOENT')) throw error;
    if (generation !== undefined)
      throw new GenerationMovedError(`${doing}: an element had gone`, { cause: error });
    return changeWhatIsThere(netlink, changes, doing);
  }
}

/** As nft does it since `destroy element`, but on kernels before 6.3 as well: look, then delete. */
function changeWhatIsThere(
  netlink: NetlinkSocket,
  changes: readonly ElementChanges[],
  doing: string,
): number {
  for (let attempt = 1; ; attempt++) {
    const requests = changes.flatMap(({ set, add, remove }) => {
      const held = remove.length === 0 ? undefined : listElements(netlink, set);
      const present = remove.filter((element) => held?.has(element));
      return [
        ...elementRequests(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, add),
        ...elementRequests(NFT_MSG_DELSETELEM, 0, set, present),
      ];
    });
    try {
      return inTransactions(netlink, requests, doing, undefined);
    } catch (error) {
      const gone = error instanceof NetlinkError && error.code === 'ENOENT';
      if (!gone || attempt === DELETE_ATTEMPTS) throw error;
    }
  }
}

/** @returns how many it took */
function inTransactions(
  netlink: NetlinkSocket,
  requests: readonly NetlinkRequest[],
  doing: string,
  generation: number | undefined,
): number {
  let transactions = 0;
  let expected = generation;
  for (let start = 0; start < requests.length; start += MESSAGES_A_TRANSACTION) {
    transact(netlink, requests.slice(start, start + MESSAGES_A_TRANSACTION), doing, expected);
    if (expected !== undefined) expected = nextGeneration(expected);
    transactions++;
  }
  return transactions;
}

/** The fewest messages that hold all the elements. */
function elementRequests(
  nftMessage: number,
  flags: number,
  set: NftSet,
  elements: readonly string[],
): NetlinkRequest[] {
  const most = Math.floor(ELEMENTS_BYTES / (ELEMENT_OVERHEAD_BYTES + keyBytes(set.fields)));
  const requests: NetlinkRequest[] = [];
  for (let start = 0; start < elements.length; start += most) {
    const part = elements.slice(start, start + most);
    requests.push(
      nftRequest(nftMessage, tableFamilyNumber(set.family), flags, (w) => {
        setName(w, set);
        w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, () => {
          for (const element of part) writeElement(w, set, element);
        });
      }),
    );
  }
  return requests;
}

/** The lengths of an element with a key are known: written flat, for there are many. */
function writeElement(w: MessageWriter, set: NftSet, element: string): void {
  if (element === CATCH_ALL) {
    w.nest(NFTA_LIST_ELEM, () => w.attributeU32be(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_CATCHALL));
    return;
  }
  const key = encodeElement(set.fields, element);
  w.u16(key.length + 12).u16(NESTED | NFTA_LIST_ELEM);
  w.u16(key.length + 8).u16(NESTED | NFTA_SET_ELEM_KEY);
  w.u16(key.length + 4)
    .u16(NFTA_DATA_VALUE)
    .raw(key);
}

function setName(w: MessageWriter, set: NftSet): void {
  w.attributeText(NFTA_SET_ELEM_LIST_TABLE, set.table).attributeText(NFTA_SET_ELEM_LIST_SET, set.name);
}

function readElements(set: NftSet, message: NetlinkMessage): string[] {
  const list = nftAttributes(message)[NFTA_SET_ELEM_LIST_ELEMENTS];
  if (list === undefined) return [];
  const elements: string[] = [];
  for (const [, bytes] of attributeList(list)) {
    const element = attributes(bytes);
    const key = element[NFTA_SET_ELEM_KEY];
    // A nest around one value: its four bytes of header are skipped, not walked.
    if (key !== undefined && key.length >= 4) elements.push(decodeElement(set.fields, key.subarray(4)));
    else if (((readU32be(element[NFTA_SET_ELEM_FLAGS]) ?? 0) & NFT_SET_ELEM_CATCHALL) !== 0)
      elements.push(CATCH_ALL);
  }
  return elements;
}

function keyBytes(fields: readonly FieldType[]): number {
  let bytes = 0;
  for (const field of fields) bytes += padded(FIELD_BYTES[field]);
  return bytes;
}

function writeField(key: Uint8Array, offset: number, field: FieldType, value: string): void {
  switch (field) {
    case 'ifname':
      // Zeros to the end: the kernel compares all 16 bytes.
      key.set(Buffer.from(value).subarray(0, FIELD_BYTES.ifname - 1), offset);
      break;
    case 'ether_addr':
      key.set(macBytes(value as Mac), offset);
      break;
    default:
      key.set(addressBytes(value as Address), offset);
  }
}

function fieldText(field: FieldType, key: Buffer, offset: number): string {
  switch (field) {
    case 'ifname':
      return readText(key.subarray(offset, offset + FIELD_BYTES.ifname)) ?? '';
    case 'ether_addr':
      return macFromBytes(key.subarray(offset, offset + FIELD_BYTES.ether_addr));
    case 'ipv4_addr':
      return `${key[offset]}.${key[offset + 1]}.${key[offset + 2]}.${key[offset + 3]}`;
    default:
      return addressFromBytes(key.subarray(offset, offset + FIELD_BYTES.ipv6_addr));
  }
}
