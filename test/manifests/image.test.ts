/**
 * The Dockerfile, without a registry to build it with: what it copies is what `make install` puts there, what it links
 * and starts is in it, and what the manifest runs is found.
 */
import { constants, existsSync } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { expect } from 'chai';
import { run } from '../../overlay/lab/command.ts';
import { packageRoot, packageVersion } from '../../overlay/ops/package.ts';
import { need } from '../lab/capability.ts';
import { type Installation, install } from '../lab/installed.ts';

interface Instruction {
  readonly name: string;
  readonly text: string;
}

/** By stage, in order: comments left out, continued lines as one. */
function stagesOf(text: string): Instruction[][] {
  const lines = text
    .replaceAll(/^\s*#.*\n/gm, '')
    .replaceAll(/\\\n/g, ' ')
    .split('\n')
    .filter(Boolean);
  const instructions = lines.map((line): Instruction => {
    const [, name = '', rest = ''] =
      /^([A-Z]+)\s+(.*)$/.exec(line) ?? expect.fail(`"${line}" is no instruction`);
    return { name, text: rest.replaceAll(/\s+/g, ' ').trim() };
  });
  const stages: Instruction[][] = [];
  for (const instruction of instructions) {
    if (instruction.name === 'FROM') stages.push([instruction]);
    else stages.at(-1)?.push(instruction);
  }
  return stages;
}

const textsOf = (stage: readonly Instruction[], name: string): string[] =>
  stage.filter((each) => each.name === name).map(({ text }) => text);

/** What a stage installs of Debian. */
const packagesOf = (stage: readonly Instruction[]): string[] =>
  textsOf(stage, 'RUN').flatMap((text) => {
    const [, words = ''] = /apt-get install ([^&]*)/.exec(text) ?? [];
    return words.split(' ').filter((word) => /^[a-z]/.test(word));
  });

describe('manifests: the image', function () {
  this.timeout(60_000);
  let installed: Installation;
  let built: Instruction[] = [];
  let image: Instruction[] = [];
  before(async function () {
    need(this, 'make');
    const [first, second, ...more] = stagesOf(
      await readFile(join(packageRoot, 'manifests/Dockerfile'), 'utf8'),
    );
    [built, image] = [first ?? [], second ?? []];
    expect(more).to.deep.equal([]);
    installed = await install();
  });
  after(() => installed?.remove());

  /** The image's file as `make install` made it; undefined for one that comes from elsewhere. */
  const inImage = (path: string): string | undefined => {
    const copied = copies().find(({ to }) => path === to || path.startsWith(`${to}/`));
    return copied?.from.startsWith('/out/') === true ? join(installed.root, path) : undefined;
  };
  const copies = () =>
    textsOf(image, 'COPY').map((text) => {
      const [, from = '', to = ''] = /^--from=build (\S+) (\S+)$/.exec(text) ?? expect.fail(`COPY ${text}`);
      return { from, to };
    });

  it('has what `make install` puts in place, where it puts it, and the Node that it was built with', () => {
    expect(textsOf(built, 'RUN').at(-1)).to.equal('make install DESTDIR=/out');
    expect(textsOf(built, 'FROM')[0]).to.match(/ AS build$/);
    for (const { from, to } of copies()) {
      if (from === '/usr/local/bin/node') continue;
      expect(from).to.equal(`/out${to}`);
      expect(existsSync(join(installed.root, to)), to).to.equal(true);
    }
    expect(copies().map(({ to }) => to)).to.include('/usr/local/bin/node');
  });

  it('starts vtepd, and flanneld in flannel’s place, by programs that run', async () => {
    const [entry = ''] = JSON.parse(textsOf(image, 'ENTRYPOINT')[0] ?? '[]') as string[];
    expect(entry).to.equal('/usr/local/bin/vtepd');
    const [, target = '', link = ''] = / ln -s (\S+) (\S+)$/.exec(textsOf(image, 'RUN').at(-1) ?? '') ?? [];
    expect(link).to.equal('/opt/bin/flanneld');
    const versions = [
      [inImage(entry), ['version'], 'stdout'],
      [inImage(target), ['--version'], 'stderr'],
    ] as const;
    for (const [path, args, stream] of versions) {
      if (path === undefined) return expect.fail('not of `make install`');
      await access(path, constants.X_OK);
      expect((await run(path, args))[stream]).to.match(new RegExp(`^vtepd ${packageVersion}`));
    }
    // The plugin, which the daemon copies to the node.
    expect(existsSync(inImage('/usr/local/lib/vtepd/build/vtepd-cni') ?? '')).to.equal(true);
  });

  it('has the packages that the daemon calls for, and what compiles the optional one', () => {
    expect(packagesOf(image)).to.include.members(['iproute2', 'iptables', 'libnftables1', 'nftables']);
    expect(packagesOf(built)).to.include.members(['g++', 'make', 'python3']);
    // No lists of packages, and no compiler, stay in it.
    expect(textsOf(image, 'RUN')[0]).to.match(/ rm -rf \/var\/lib\/apt\/lists\/\*$/);
    expect(packagesOf(image)).to.not.include.members(['g++']);
  });

  it('is built from what a clone has', async () => {
    const ignored = (await readFile(join(packageRoot, '.dockerignore'), 'utf8')).split('\n');
    expect(ignored).to.include.members(['node_modules', 'dist', 'build', '.git']);
    expect(textsOf(built, 'COPY')).to.deep.equal(['. .']);
    // Relative links of what is copied stay within it.
    const target = await readFile(join(packageRoot, 'Makefile'), 'utf8');
    const [, link = ''] = /ln -s (\S+vtepd\.js) /.exec(target) ?? [];
    expect(inImage(resolve(dirname('/usr/local/bin/vtepd'), link))).to.not.equal(undefined);
  });
});
