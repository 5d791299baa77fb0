/** A container image made here, for nothing can be pulled: busybox and a page, as `docker save` writes images. */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../overlay/lab/command.ts';

export const IMAGE = 'docker.io/library/vtepd-lab:1';

/** Applets by name, as commands in tests have them. */
const APPLETS = ['sh', 'sleep', 'httpd', 'wget', 'ip', 'cat'];

/**
 * Writes the archive, and what it is made of, into a folder that is not there yet.
 * @param page what /www/index.html has
 * @returns the archive's path
 */
export async function makeImage(dir: string, page: string): Promise<string> {
  const rootfs = join(dir, 'rootfs');
  for (const folder of ['bin', 'www', 'tmp', 'etc', 'proc', 'sys', 'dev']) {
    await mkdir(join(rootfs, folder), { recursive: true });
  }
  const { stdout } = await run('sh', ['-c', 'command -v busybox']);
  await copyFile(stdout.trim(), join(rootfs, 'bin', 'busybox'));
  for (const applet of APPLETS) await symlink('busybox', join(rootfs, 'bin', applet));
  await writeFile(join(rootfs, 'www', 'index.html'), page);
  await run('tar', ['-cf', join(dir, 'layer.tar'), '-C', rootfs, '.']);
  const digest = createHash('sha256')
    .update(await readFile(join(dir, 'layer.tar')))
    .digest('hex');
  const config = {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    // Without an entry point: podman would put that before every command. Where there is no other (a pod's sandbox), it
    // waits, with a handler, for the first process of a container gets those signals only that it has one for.
    config: { Cmd: ['/bin/sh', '-c', 'trap "exit 0" TERM; sleep 1000000 & wait'], Env: ['PATH=/bin'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  };
  const manifest = [{ Config: 'config.json', RepoTags: [IMAGE], Layers: ['layer.tar'] }];
  await writeFile(join(dir, 'config.json'), JSON.stringify(config));
  await writeFile(join(dir, 'manifest.json'), JSON.stringify(manifest));
  const archive = join(dir, 'image.tar');
  await run('tar', ['-cf', archive, '-C', dir, 'manifest.json', 'config.json', 'layer.tar']);
  return archive;
}

/** Serves the page on port 80, and ends when it is asked to. */
export const SERVE: readonly string[] = [
  '/bin/sh',
  '-c',
  'trap "exit 0" TERM; httpd -f -p 80 -h /www & wait',
];
