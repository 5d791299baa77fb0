/** Where the parts of this installation are, whatever the build's folder is called. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The folder of package.json, above this module. */
export const packageRoot: string = above(import.meta.dirname);

/** The CNI plugin, as `make build` leaves it. */
export const shimPath: string = join(packageRoot, 'build', 'vtepd-cni');

/** The command line's entry of this very build. */
export const vtepdPath: string = join(import.meta.dirname, '..', 'cli', 'vtepd.js');

function above(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error(`no package.json above ${import.meta.dirname}: the build was moved`);
  return above(parent);
}
