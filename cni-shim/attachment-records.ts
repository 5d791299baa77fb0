/**
 * The attachments' records on disk, one file an attachment: `attachments/<host interface>.adding.json` until
 * the runtime has the answer to its ADD, then `attachments/<host interface>.json`.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type Attachment, formatRecord, parseRecord } from './attachment.ts';
import type { DurableFiles } from './durable-files.ts';
import { removeFile } from './files.ts';

/** Whether the runtime has the answer to the ADD. */
export type AttachmentProgress = 'adding' | 'attached';

export interface StoredAttachment {
  readonly attachment: Attachment;
  readonly progress: AttachmentProgress;
}

const NAME = /^([a-z0-9]+)(\.adding)?\.json$/;

export class AttachmentRecords {
  readonly #root: string;
  readonly #files: DurableFiles;

  constructor(root: string, files: DurableFiles) {
    this.#root = root;
    this.#files = files;
    mkdirSync(root, { recursive: true, mode: 0o700 });
  }

  /** @returns what could be read, and for each that could not, why; an empty one is none (durable-files.ts) */
  load(): { readonly stored: StoredAttachment[]; readonly malformed: { path: string; error: unknown }[] } {
    const stored: StoredAttachment[] = [];
    const malformed: { path: string; error: unknown }[] = [];
    for (const name of readdirSync(this.#root)) {
      const [, hostInterface, adding] = NAME.exec(name) ?? [];
      if (hostInterface === undefined) continue;
      const path = join(this.#root, name);
      try {
        const text = readFileSync(path, 'utf8');
        if (text === '') {
          unlinkSync(path);
          continue;
        }
        const attachment = parseRecord(text);
        if (hostInterface !== attachment.hostInterface) throw new Error('it is under another name');
        stored.push({ attachment, progress: adding === undefined ? 'attached' : 'adding' });
      } catch (error) {
        malformed.push({ path, error });
      }
    }
    return { stored, malformed };
  }

  /** Writes or rewrites the record of an attachment that is being added. */
  write(attachment: Attachment): void {
    this.#files.replace(this.#path(attachment.hostInterface, 'adding'), formatRecord(attachment));
  }

  /** Marks the attachment as attached. Lost with the machine's power, as are all attachments. */
  confirm(hostInterface: string): void {
    renameSync(this.#path(hostInterface, 'adding'), this.#path(hostInterface, 'attached'));
  }

  async remove(hostInterface: string): Promise<void> {
    const both = (['attached', 'adding'] as const).map((progress) => this.#path(hostInterface, progress));
    await Promise.all(both.map((path) => removeFile(path)));
  }

  #path = (hostInterface: string, progress: AttachmentProgress): string =>
    join(this.#root, progress === 'adding' ? `${hostInterface}.adding.json` : `${hostInterface}.json`);
}
