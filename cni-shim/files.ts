/** What several files of this room do with files. */
import { unlink } from 'node:fs';
import { promisify } from 'node:util';

const unlinkOnThread = promisify(unlink);

/** unlink(2), on a thread of Node's pool: freeing a file's blocks takes up to a millisecond. Gone is fine too. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlinkOnThread(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
}

export const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code;
