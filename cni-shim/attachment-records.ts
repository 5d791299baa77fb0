/** The attachments' records on disk: `attachments/<host interface>.json`, one file an attachment. */
import { mkdirSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { hasCode } from './address-store.ts';
import { type Attachment, type AttachmentProgress, formatRecord, parseRecord } from './attachment.ts';
import type { DurableFiles } from './durable-files.ts';

export interface StoredAttachment {
  readonly attachment: Attachment;
  readonly progress: AttachmentProgress;
}

export class AttachmentRecords {
  readonly #root: string;
  readonly #files: DurableFiles;

  constructor(root: string, files: DurableFiles) {
    this.#root = root;
    this.#files = files;
    mkdirSync(root, { recursive: true, mode: 0o700 });
  }

  /** @returns what could be read, and for each that could not, why */
  load(): { readonly stored: StoredAttachment[]; readonly malformed: { path: string; error: unknown }[] } {
    const stored: StoredAttachment[] = [];
    const malformed: { path: string; error: unknown }[] = [];
    for (const name of readdirSync(this.#root)) {
      if (!name.endsWith('.json')) continue;
      const path = join(this.#root, name);
      try {
        const record = parseRecord(readFileSync(path, 'utf8'));
        if (name !== `${record.attachment.hostInterface}.json`) throw new Error('it is under another name');
        stored.push(record);
      } catch (error) {
        malformed.push({ path, error });
      }
    }
    return { stored, malformed };
  }

  /** The first record of an attachment must reach the disk before the ADD is answered; a later one need not. */
  write(attachment: Attachment, progress: AttachmentProgress): void {
    this.#files.replace(this.#path(attachment.hostInterface), formatRecord(attachment, progress), {
      sync: progress === 'adding',
    });
  }

  remove(hostInterface: string): void {
    try {
      unlinkSync(this.#path(hostInterface));
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
    }
  }

  #path = (hostInterface: string): string => join(this.#root, `${hostInterface}.json`);
}
