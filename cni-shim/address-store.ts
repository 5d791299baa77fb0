/**
 * Reserved addresses on disk, in the layout of the reference plugin host-local, so that a node's addresses
 * can be taken over from it and people find what they know:
 *
 *     networks/<network>/10.244.5.17          "<container id>\r\n<interface>"
 *     networks/<network>/last_reserved_ip.0   the last IPv4 address given (.1: IPv6)
 *
 * An address's file is created exclusively: whoever else writes here, an address has one holder. host-local
 * keeps a `lock` file here too; exclusive creation makes it needless, and it is left alone.
 */
import { mkdirSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Address, type Family, tryAddress } from '../store/address.ts';
import type { AttachmentKey } from './attachment.ts';
import type { DurableFiles } from './durable-files.ts';
import { hasCode, removeFile } from './files.ts';

export interface ReservedAddress {
  readonly address: Address;
  /** `ifname` is empty in files of an early host-local. */
  readonly holder: AttachmentKey;
}

export class AddressStore {
  readonly #root: string;
  readonly #files: DurableFiles;

  constructor(root: string, files: DurableFiles) {
    this.#root = root;
    this.#files = files;
    mkdirSync(root, { recursive: true, mode: 0o700 });
  }

  /** Every reserved address of every network, ours and strangers'. */
  list(): ReservedAddress[] {
    return listReserved(this.#root);
  }

  /** @returns false when the address has a file already */
  reserve(address: Address, holder: AttachmentKey): boolean {
    const path = this.#path(holder.network, address);
    try {
      this.#files.create(path, content(holder));
      return true;
    } catch (error) {
      if (hasCode(error, 'EEXIST')) return false;
      if (!hasCode(error, 'ENOENT')) throw error;
    }
    // The network's first address.
    mkdirSync(join(this.#root, holder.network), { recursive: true, mode: 0o700 });
    this.#files.create(path, content(holder));
    return true;
  }

  /** Removes the address's file if it is this holder's. */
  async release(address: Address, holder: AttachmentKey): Promise<void> {
    const found = this.#read(holder.network, address)?.trim();
    // An early host-local wrote the container id alone.
    if (found !== content(holder).trim() && found !== holder.containerID) return;
    await removeFile(this.#path(holder.network, address));
  }

  /** Removes a file that a crash left empty. */
  discard(address: Address, network: string): void {
    unlinkSync(this.#path(network, address));
  }

  /** Where the next round of this family begins; lost with the machine's power, which costs nothing. */
  rememberLast(network: string, family: Family, address: Address): void {
    writeFileSync(this.#lastPath(network, family), address);
  }

  /** The last address given of a family, by any network that satisfies the test. */
  lastGiven(family: Family, test: (address: Address) => boolean): Address | undefined {
    for (const network of readdirSync(this.#root)) {
      let text = '';
      try {
        text = readFileSync(this.#lastPath(network, family), 'latin1').trim();
      } catch (error) {
        if (!hasCode(error, 'ENOENT') && !hasCode(error, 'ENOTDIR')) throw error;
      }
      const address = tryAddress(text);
      if (address !== undefined && test(address)) return address;
    }
    return undefined;
  }

  #read = (network: string, name: string): string | undefined => readIfThere(join(this.#root, network, name));

  #path = (network: string, address: Address): string => join(this.#root, network, address);
  #lastPath = (network: string, family: Family): string =>
    join(this.#root, network, `last_reserved_ip.${family === 'ipv4' ? 0 : 1}`);
}

/** What lies under `networks/`, ours or host-local's own. */
export function listReserved(root: string): ReservedAddress[] {
  const found: ReservedAddress[] = [];
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const network = entry.name;
    for (const name of readdirSync(join(root, network))) {
      const address = tryAddress(name);
      const content = address === undefined ? undefined : readIfThere(join(root, network, name));
      if (address === undefined || content === undefined) continue;
      const [containerID = '', ifname = ''] = content.trim().split(/\r?\n/);
      found.push({ address, holder: { network, containerID, ifname } });
    }
  }
  return found;
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

const content = (holder: AttachmentKey): string => `${holder.containerID}\r\n${holder.ifname}`;
