/** Puts the CNI plugin and its configuration where the container runtime looks, and takes them away again. */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, copyFile, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  CONFLIST_NAME,
  ConflistError,
  type ConflistSettings,
  completedConflist,
  conflistText,
  PLUGIN_NAME,
} from './conflist.ts';
import { hasCode } from './files.ts';

export interface CniFolders {
  readonly confDir: string;
  readonly binDir: string;
}

export interface InstallOptions extends CniFolders, ConflistSettings {
  /** The plugin as it was built: `build/vtepd-cni`. */
  readonly shimPath: string;
  /** An operator's configuration list, to install in the place of ours. */
  readonly confFile?: string | undefined;
}

/** @throws ConflistError where an operator's list cannot be read or used */
export async function conflistToInstall(
  options: ConflistSettings & Pick<InstallOptions, 'confFile'>,
): Promise<string> {
  const { confFile } = options;
  if (confFile === undefined) return conflistText(options);
  try {
    return completedConflist(await readFile(confFile, 'utf8'), options);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConflistError(`${confFile} cannot be used as a CNI configuration list: ${reason}`, {
      cause: error,
    });
  }
}

/** The plugin has not been built. */
export class ShimMissingError extends Error {
  override readonly name = 'ShimMissingError';
  readonly code = 'VTEPD_SHIM_MISSING';
}

/**
 * Installs the plugin (0755), then its configuration (0600): a runtime that sees the configuration finds the
 * plugin. Each file appears whole or not at all, and replaces an older one.
 * @returns the paths written @throws ShimMissingError, ConflistError, NodeJS.ErrnoException
 */
export async function installCni(options: InstallOptions): Promise<string[]> {
  try {
    await access(options.shimPath, constants.R_OK);
  } catch (cause) {
    throw new ShimMissingError(`the CNI plugin is not at ${options.shimPath}; "make build" builds it`, {
      cause,
    });
  }
  const text = await conflistToInstall(options);
  const plugin = join(options.binDir, PLUGIN_NAME);
  const conflist = join(options.confDir, CONFLIST_NAME);
  await placeFile(plugin, 0o755, (path) => copyFile(options.shimPath, path));
  await placeFile(conflist, 0o600, async (path) => {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(text);
    } finally {
      await file.close();
    }
  });
  return [plugin, conflist];
}

/**
 * Removes the configuration, then the plugin. Pods that are attached stay, and a runtime that removes one of
 * them needs the plugin: so leave it (`keepPlugin`) while there are any.
 * @returns the paths removed
 */
export async function removeCni(
  { confDir, binDir }: CniFolders,
  { keepPlugin = false }: { readonly keepPlugin?: boolean } = {},
): Promise<string[]> {
  const removed: string[] = [];
  for (const path of [join(confDir, CONFLIST_NAME), ...(keepPlugin ? [] : [join(binDir, PLUGIN_NAME)])]) {
    try {
      await rm(path);
      removed.push(path);
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
    }
  }
  return removed;
}

/** Writes a file beside its place under a name that no runtime reads, syncs it and renames it. */
async function placeFile(
  path: string,
  mode: number,
  write: (scratch: string) => Promise<void>,
): Promise<void> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true });
  const scratch = join(folder, `.vtepd-${randomUUID()}`);
  try {
    await write(scratch);
    const file = await open(scratch, 'r');
    try {
      await file.chmod(mode);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(scratch, path);
  } finally {
    await rm(scratch, { force: true });
  }
  await syncFolder(folder);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
