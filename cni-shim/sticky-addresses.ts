/**
 * Which address a pod had that may come again: by its network, interface and name, so that a pod that is
 * started anew (a StatefulSet's, a container of the same name) gets its address back while that is free. One
 * small file, written at leisure; what a crash loses of it costs a pod its old address and nothing else.
 *
 * Bounded: of pods with ever new names only the last ones are remembered.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod/v3';
import type { Log } from '../overlay/ops/log.ts';
import { type Address, tryAddress } from '../store/address.ts';
import { hasCode } from './files.ts';

/** Of what the runtime says of a pod, what a name that comes again is made of. */
export interface StickyKey {
  readonly network: string;
  readonly ifname: string;
  /** Kubernetes' `namespace/name`, or what the configuration says. */
  readonly name: string;
}

/** Some nodes' pods ten times over; the file then has 100 KB. */
const MOST_REMEMBERED = 1024;
const SAVE_MS = 200;

const fileSchema = z.array(z.tuple([z.string(), z.array(z.string())]));

export class StickyAddresses {
  readonly #path: string;
  readonly #log: Log;
  /** The one that was used longest ago comes first. */
  readonly #remembered: Map<string, readonly Address[]>;
  #saving: NodeJS.Timeout | undefined;

  /** A file that cannot be read is none: it is replaced. */
  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
    this.#remembered = new Map(read(path, log));
  }

  /** The addresses it had last; they may be another's by now. */
  of(key: StickyKey | undefined): readonly Address[] {
    return (key && this.#remembered.get(textOf(key))) ?? [];
  }

  /** Every address that somebody may come back to. */
  all(): Address[] {
    return [...this.#remembered.values()].flat();
  }

  remember(key: StickyKey, addresses: readonly Address[]): void {
    const text = textOf(key);
    this.#remembered.delete(text);
    this.#remembered.set(text, addresses);
    for (const oldest of this.#remembered.keys()) {
      if (this.#remembered.size <= MOST_REMEMBERED) break;
      this.#remembered.delete(oldest);
    }
    this.#saving ??= setTimeout(() => this.#save(), SAVE_MS).unref();
  }

  /** Writes what has been waiting to be written. */
  close(): void {
    if (this.#saving !== undefined) this.#save();
  }

  #save(): void {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    try {
      writeFileSync(`${this.#path}.new`, JSON.stringify([...this.#remembered]), { mode: 0o600 });
      renameSync(`${this.#path}.new`, this.#path);
    } catch (error) {
      this.#log.warn('the addresses of former pods could not be noted', { path: this.#path, error });
    }
  }
}

/** No part of it can hold a line end: the network's name and the interface's are checked. */
const textOf = ({ network, ifname, name }: StickyKey): string => `${network}\n${ifname}\n${name}`;

function read(path: string, log: Log): [string, Address[]][] {
  try {
    const entries = fileSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
    return entries.map(([key, addresses]) => [key, addresses.flatMap((text) => tryAddress(text) ?? [])]);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) {
      log.warn('the addresses of former pods cannot be read; they get new ones', { path, error });
    }
    return [];
  }
}
