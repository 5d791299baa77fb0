/** This installation: where it is and what it calls itself, whatever the build's folder is called. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The folder of package.json, above this module. */
export const packageRoot: string = above(import.meta.dirname);

/** vtepd's version, from package.json. */
export const packageVersion: string = versionOf(readFileSync(join(packageRoot, 'package.json'), 'utf8'));

function above(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error(`no package.json above ${import.meta.dirname}: the build was moved`);
  return above(parent);
}

function versionOf(packageJson: string): string {
  const parsed: unknown = JSON.parse(packageJson);
  const version =
    typeof parsed === 'object' && parsed !== null && 'version' in parsed ? parsed.version : undefined;
  return String(version);
}
