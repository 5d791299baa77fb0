/**
 * What people read and copy: every flag in it is there, each command line has flags of its command, and what it says
 * to write is what the daemon, etcd and systemd take.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { command as bench } from '../../overlay/cli/bench.ts';
import { command as cleanup } from '../../overlay/cli/cleanup.ts';
import { command as cni } from '../../overlay/cli/cni.ts';
import type { Command } from '../../overlay/cli/command.ts';
import { command as config } from '../../overlay/cli/config.ts';
import { command as demo } from '../../overlay/cli/demo.ts';
import { command as doctor } from '../../overlay/cli/doctor.ts';
import { command as flanneld } from '../../overlay/cli/flannel-daemon.ts';
import { command as leases } from '../../overlay/cli/leases.ts';
import { command as migrate } from '../../overlay/cli/migrate.ts';
import { command as daemon } from '../../overlay/cli/run.ts';
import { command as status } from '../../overlay/cli/status.ts';
import { command as version } from '../../overlay/cli/version.ts';
import { parseConfigFile } from '../../overlay/config/config-file.ts';
import { environmentName, isOptionName, OPTION_NAMES } from '../../overlay/config/options.ts';
import { run } from '../../overlay/lab/command.ts';
import { packageRoot } from '../../overlay/ops/package.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { need } from '../lab/capability.ts';

const COMMANDS: readonly Command[] = [
  ...[bench, cleanup, cni, config, demo, doctor, flanneld, leases, migrate, daemon, status, version],
];
const DOCUMENTS = [
  ...['README.md', 'manifests/flannel.md', 'manifests/Dockerfile', 'manifests/vtepd.yaml'],
  ...['manifests/helm/vtepd/values.yaml', 'manifests/helm/vtepd/templates/NOTES.txt'],
  ...['manifests/systemd/vtepd.service', 'manifests/systemd/journald-vtepd.conf'],
  ...['manifests/etcd/etcd.conf.yaml', 'manifests/etcd/etcd.service', 'manifests/vtepd-config.example.yaml'],
];
/** Of other programs, where a document names them. */
const OTHERS: Readonly<Record<string, readonly string[]>> = {
  'kube-controller-manager': ['allocate-node-cidrs', 'cluster-cidr'],
  'ctr run': ['cni'],
  podman: ['network', 'publish', 'cap-drop', 'cap-add', 'read-only', 'device'],
  Dockerfile: ['no-install-recommends'],
  COPY: ['from'],
  systemctl: ['now'],
  etcdctl: ['prefix'],
  helm: ['namespace', 'set'],
  etcd: ['config-file'],
  // How the example says that a key is a flag.
  any: ['name'],
};

const flagsIn = (text: string): string[] =>
  [...text.matchAll(/(?<![\w-])--([a-z][a-z0-9_-]*[a-z0-9])/g)].map(([, name = '']) => name);
const textOf = (path: string): Promise<string> => readFile(join(packageRoot, path), 'utf8');
/** What a comment has, without its sign. */
const uncommented = (text: string): string => text.replaceAll(/^# ?/gm, '');

describe('manifests: documents', () => {
  it('name flags that there are, and every command line those of its command', async () => {
    const others = Object.values(OTHERS).flat();
    const used = new Set<string>();
    let lines = 0;
    for (const path of DOCUMENTS) {
      const text = await textOf(path);
      const ours = new Set(COMMANDS.flatMap(({ usage }) => flagsIn(usage)));
      for (const flag of flagsIn(text)) {
        used.add(flag);
        expect(ours.has(flag) || others.includes(flag), `--${flag} in ${path}`).to.equal(true);
      }
      // Continued lines are one; what follows a pipe or a `#` is another matter.
      for (const [, name, rest = ''] of uncommented(text.replaceAll(/\\\n\s*/g, ' ')).matchAll(
        /^(?:\S*\$ )?vtepd ([a-z]+)([^\n#|]*)/gm,
      )) {
        const command = COMMANDS.find((each) => each.name === name);
        lines++;
        for (const flag of flagsIn(rest)) {
          expect(flagsIn(command?.usage ?? ''), `vtepd ${name} ... in ${path}`).to.include(flag);
        }
      }
    }
    expect(lines, 'command lines of vtepd').to.be.at.least(10);
    expect(
      others.filter((flag) => !used.has(flag)),
      'named by nobody',
    ).to.deep.equal([]);
  });

  it('name variables that there are', async () => {
    const known = OPTION_NAMES.map(environmentName);
    // An argument of CNI, which a runtime hands over for a pod.
    known.push('VTEPD_STICKY');
    for (const path of DOCUMENTS) {
      for (const [name] of (await textOf(path)).matchAll(/\bVTEPD_[A-Z][A-Z_]*[A-Z]\b/g)) {
        expect(known, path).to.include(name);
      }
    }
  });

  it('have network configurations that are taken', async () => {
    const found: string[] = [];
    for (const path of DOCUMENTS) {
      for (const [, json = ''] of (await textOf(path)).matchAll(
        /etcdctl put \/coreos\.com\/network\/config '(.*)'/g,
      )) {
        found.push(json);
        expect(parseNetworkConfig(json).backend.type, path).to.equal('vxlan');
      }
    }
    expect(found).to.have.length.greaterThan(1);
  });

  describe('etcd on bare metal', () => {
    const FILE = 'manifests/etcd/etcd.conf.yaml';

    it('is configured by fields that etcd knows, and the daemon by options that it knows', async function () {
      need(this, 'etcd');
      const text = await textOf(FILE);
      const { stdout, stderr } = await run('etcd', ['--help']);
      const known = flagsIn(stdout + stderr);
      const { 'client-transport-security': client, 'peer-transport-security': peer, ...fields } = parse(text);
      for (const name of Object.keys(fields)) expect(known, name).to.include(name);
      // Of these etcd's flags are `--peer-cert-file` and so on.
      for (const name of Object.keys(client)) expect(known, name).to.include(name);
      for (const name of Object.keys(peer)) {
        expect(known, name).to.include(
          name === 'client-cert-auth' ? 'peer-client-cert-auth' : `peer-${name}`,
        );
      }
      const lines = uncommented(text).split('\n');
      const ours = lines.filter((line) => isOptionName(/^ {2}([a-z-]+): /.exec(line)?.[1] ?? ''));
      expect(ours).to.have.length(4);
      const { entries, problems } = await parseConfigFile(ours.map((line) => line.trim()).join('\n'), FILE);
      expect(problems).to.deep.equal([]);
      expect(entries.get('etcd-endpoints')?.texts).to.have.length(3);
    });

    it('has a unit that is sound to systemd-analyze verify', async function () {
      need(this, 'etcd', 'systemd-analyze');
      const { stdout: where } = await run('sh', ['-c', 'command -v etcd']);
      const dir = (await run('mktemp', ['-d', '/tmp/vtepd-unit-XXXXXX'])).stdout.trim();
      try {
        const unit = join(dir, 'etcd.service');
        const text = await textOf('manifests/etcd/etcd.service');
        await writeFile(unit, text.replace('/usr/bin/etcd', where.trim()));
        const verified = await run('systemd-analyze', ['verify', '--man=no', unit], { tolerant: true });
        const about = verified.stderr.split('\n').filter((line) => line.includes('etcd.service'));
        expect([verified.status, about]).to.deep.equal([0, []]);
      } finally {
        await run('rm', ['-r', dir]);
      }
    });
  });

  it('bound the journal by settings that journald knows', async function () {
    need(this, 'systemctl');
    const program = await readFile('/lib/systemd/systemd-journald', 'latin1');
    const text = await textOf('manifests/systemd/journald-vtepd.conf');
    const names = [...text.matchAll(/^([A-Za-z]+)=/gm)].map(([, name = '']) => name);
    expect(names).to.include.members(['Storage', 'SystemMaxUse', 'MaxRetentionSec', 'RateLimitBurst']);
    // Its table of settings has them by section and name.
    for (const name of names) expect(program.includes(`Journal.${name}\0`), name).to.equal(true);
  });
});
