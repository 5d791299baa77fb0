/** What the container runtime finds: the configurations in its folder, in its order, and the plugin. */
import { constants } from 'node:fs';
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod/v3';
import { PLUGIN_NAME } from './conflist.ts';
import { hasCode } from './files.ts';

/** As libcni looks for them; the first by name is the one that counts. */
const CONFIGURATION_NAME = /\.(conf|conflist|json)$/;

export interface InstalledConfiguration {
  readonly file: string;
  /** Types of its plugins, in order; empty with a `fault`. */
  readonly plugins: readonly string[];
  /** The daemon's socket, where our plugin is in it. */
  readonly socket?: string | undefined;
  /** Why a runtime cannot use it. */
  readonly fault?: string | undefined;
}

export interface InstalledPlugin {
  readonly path: string;
  readonly state: 'there' | 'missing' | 'not executable';
  /** It is what this vtepd would install; undefined: that one is not there to compare with. */
  readonly current?: boolean | undefined;
}

export interface InstalledCni {
  readonly confDir: string;
  /** By name; undefined: there is no such folder. */
  readonly configurations?: readonly InstalledConfiguration[] | undefined;
  readonly plugin: InstalledPlugin;
}

const pluginSchema = z.object({ type: z.string(), socket: z.string().optional() }).passthrough();
/** A list, or a single plugin's configuration. */
const fileSchema = z.union([z.object({ plugins: z.array(pluginSchema) }).passthrough(), pluginSchema]);

/** @param shimPath the plugin as it was built @throws NodeJS.ErrnoException */
export async function readInstalledCni(
  confDir: string,
  binDir: string,
  shimPath: string,
): Promise<InstalledCni> {
  const path = join(binDir, PLUGIN_NAME);
  return {
    confDir,
    configurations: await readConfigurations(confDir),
    plugin: { path, state: await stateOf(path), current: await sameFile(path, shimPath) },
  };
}

async function readConfigurations(confDir: string): Promise<InstalledConfiguration[] | undefined> {
  let names: string[];
  try {
    names = await readdir(confDir);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
  const files = names.filter((name) => CONFIGURATION_NAME.test(name)).sort();
  return Promise.all(files.map((name) => readConfiguration(join(confDir, name))));
}

async function readConfiguration(file: string): Promise<InstalledConfiguration> {
  try {
    const parsed = fileSchema.parse(JSON.parse(await readFile(file, 'utf8')));
    const plugins = 'plugins' in parsed ? (parsed.plugins as z.infer<typeof pluginSchema>[]) : [parsed];
    const ours = plugins.find(({ type }) => type === PLUGIN_NAME);
    return { file, plugins: plugins.map(({ type }) => type), socket: ours?.socket };
  } catch (error) {
    const [first] = error instanceof z.ZodError ? error.issues : [];
    const fault = first?.message ?? (error instanceof Error ? error.message : String(error));
    return { file, plugins: [], fault };
  }
}

async function stateOf(path: string): Promise<InstalledPlugin['state']> {
  try {
    await access(path, constants.X_OK);
    return 'there';
  } catch (error) {
    return hasCode(error, 'EACCES') ? 'not executable' : 'missing';
  }
}

async function sameFile(one: string, other: string): Promise<boolean | undefined> {
  const [ours, theirs] = await Promise.all([one, other].map((path) => readFile(path).catch(() => undefined)));
  return ours === undefined || theirs === undefined ? undefined : ours.equals(theirs);
}
