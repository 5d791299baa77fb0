/** vtepd.yaml and the chart: right by the API's schemas, of one mind, and made of options that there are. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseAllDocuments } from 'yaml';
import { completedConflist, conflistText } from '../../cni-shim/conflist.ts';
import { loadSettings } from '../../overlay/config/load-settings.ts';
import { OPTIONS } from '../../overlay/config/options.ts';
import { run } from '../../overlay/lab/command.ts';
import { packageRoot, packageVersion } from '../../overlay/ops/package.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { need } from '../lab/capability.ts';
import { type KubernetesObject, problemsOf } from './kubernetes-schema.ts';

const MANIFEST = join(packageRoot, 'manifests/vtepd.yaml');
const CHART = join(packageRoot, 'manifests/helm/vtepd');
/** What Helm says of itself in every object's labels, and a plain manifest does not. */
const HELM_LABELS = ['helm.sh/chart', 'app.kubernetes.io/version', 'app.kubernetes.io/managed-by'];

interface DaemonSet extends KubernetesObject {
  readonly spec: { readonly template: { readonly spec: PodSpec } };
}
interface PodSpec {
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string; readonly hostPath?: { readonly path: string } }[];
}
interface Container {
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
}

function objectsOf(text: string): KubernetesObject[] {
  return parseAllDocuments(text).map((document) => {
    expect(document.errors).to.deep.equal([]);
    return document.toJS();
  });
}

/** By kind and name; the ConfigMap's JSON documents as what they say. */
function comparable(objects: readonly KubernetesObject[]): Map<string, unknown> {
  return new Map(
    objects.map((object) => {
      const copy = JSON.parse(JSON.stringify(object));
      for (const label of HELM_LABELS) delete copy.metadata.labels[label];
      if (copy.kind === 'ConfigMap') {
        for (const [name, text] of Object.entries(copy.data)) copy.data[name] = JSON.parse(String(text));
      }
      return [`${object.kind} ${object.metadata.name}`, copy];
    }),
  );
}

function daemonSetOf(objects: readonly KubernetesObject[]): { pod: PodSpec; container: Container } {
  const found = objects.find((object): object is DaemonSet => object.kind === 'DaemonSet');
  const [container] = found?.spec.template.spec.containers ?? [];
  if (found === undefined || container === undefined) return expect.fail('no DaemonSet with a container');
  return { pod: found.spec.template.spec, container };
}

/** `--name=value` as the command line has it. */
function settingsOf(args: readonly string[]) {
  const flags = args.map((arg): [string, string[]] => {
    const [, name = '', value = ''] =
      /^--([a-z-]+)=(.*)$/.exec(arg) ?? expect.fail(`"${arg}" is no --name=value`);
    expect(OPTIONS).to.have.property(name);
    return [name, [value]];
  });
  return loadSettings({ flags: new Map(flags), environment: { NODE_NAME: 'worker-1' } });
}

describe('manifests: kubectl', () => {
  let objects: readonly KubernetesObject[] = [];
  before(async () => {
    objects = objectsOf(await readFile(MANIFEST, 'utf8'));
  });
  const dataOf = (name: string): string => {
    const map = objects.find(({ kind }) => kind === 'ConfigMap') as
      | { data?: Record<string, string> }
      | undefined;
    return map?.data?.[name] ?? expect.fail(`no ${name}`);
  };

  it('is right by the schemas of the API, in every object, in the order in which they need each other', () => {
    expect(objects.flatMap(problemsOf)).to.deep.equal([]);
    expect(objects.map(({ kind }) => kind)).to.deep.equal([
      ...['Namespace', 'ServiceAccount', 'ClusterRole', 'ClusterRoleBinding', 'ConfigMap', 'DaemonSet'],
    ]);
  });

  it('would be refused with a field misspelt, of the wrong kind or left out', () => {
    const broken = (from: string, to: string) => {
      const text = JSON.stringify(objects.find(({ kind }) => kind === 'DaemonSet'));
      expect(text).to.include(from);
      return problemsOf(JSON.parse(text.replace(from, to))).join('\n');
    };
    expect(broken('"readinessProbe"', '"readynessProbe"')).to.match(
      /containers\[0\]\.readynessProbe: .* no such field/,
    );
    expect(broken('"hostNetwork":true', '"hostNetwork":"yes"')).to.match(/hostNetwork must be boolean/);
    expect(broken('"selector":{', '"x":{')).to.match(/must have required property selector/);
  });

  it('runs the daemon with options that it takes, on folders that are the node’s', async () => {
    const { pod, container } = daemonSetOf(objects);
    expect(container.command).to.deep.equal(['vtepd', 'run']);
    const { settings, warnings } = await settingsOf(container.args);
    expect(warnings).to.deep.equal([]);
    expect(settings.nodeName).to.equal('worker-1');
    const hostPaths = new Map(pod.volumes.map(({ name, hostPath }) => [name, hostPath?.path]));
    const onNode = new Map(
      container.volumeMounts.map(({ name, mountPath }) => [mountPath, hostPaths.get(name)]),
    );
    // The plugin gets the socket's path from in here and opens it out there.
    for (const path of [
      settings.files.runDir,
      settings.files.stateDir,
      settings.cni.confDir,
      settings.cni.binDir,
    ]) {
      expect(onNode.get(path ?? ''), path).to.equal(path);
    }
    expect(onNode.get('/host/proc/sys/net')).to.equal('/proc/sys/net');
    expect(container.image).to.equal(`vtepd:${packageVersion}`);
  });

  it('has a network and a CNI configuration that the daemon takes: the one that it has itself', () => {
    expect(parseNetworkConfig(Buffer.from(dataOf('net-conf.json')))).to.deep.nested.include({
      'backend.type': 'vxlan',
    });
    const ours = { socketPath: '/run/vtepd/vtepd.sock', bridge: 'vtep0' };
    const installed = JSON.parse(completedConflist(dataOf('cni-conf.json'), ours));
    const own = JSON.parse(conflistText(ours), (key, value) => (key === '_comment' ? undefined : value));
    expect(installed).to.deep.equal(own);
  });

  it('lets the daemon do with Node objects what it does with them, and nothing else', () => {
    const role = objects.find(({ kind }) => kind === 'ClusterRole');
    expect(role?.rules).to.deep.equal([
      { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch', 'patch'] },
      { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
    ]);
  });
});

describe('manifests: the Helm chart', function () {
  this.timeout(60_000);
  /** The one that `make test` installs. */
  const ownHelm = join(packageRoot, 'build/helm/helm');
  const helm = existsSync(ownHelm) ? ownHelm : 'helm';
  let folder = '';
  before(async function () {
    if (helm !== ownHelm) need(this, helm);
    folder = await mkdtemp(join(tmpdir(), 'vtepd-helm-'));
  });
  after(async () => {
    if (folder !== '') await rm(folder, { recursive: true, force: true });
  });

  async function call(args: readonly string[]): Promise<string> {
    const env = { ...process.env, HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder };
    return (await run(helm, args, { env })).stdout;
  }
  const render = async (...args: readonly string[]) =>
    objectsOf(await call(['template', 'vtepd', CHART, '--namespace', 'vtepd', ...args]));

  it('has nothing that helm lint finds fault with', async () => {
    expect(await call(['lint', '--strict', '--quiet', CHART])).to.equal('');
  });

  it('renders to what kubectl is given', async () => {
    const rendered = comparable(await render('--set', 'namespace.create=true'));
    expect(rendered).to.deep.equal(comparable(objectsOf(await readFile(MANIFEST, 'utf8'))));
  });

  it('has the version of what it installs', async () => {
    const chart = await call(['show', 'chart', CHART]);
    expect(chart).to.match(new RegExp(`^version: ${packageVersion}$`, 'm'));
    expect(chart).to.match(new RegExp(`^appVersion: ${packageVersion}$`, 'm'));
  });

  it('takes every value there is, and is right by the schemas with it', async () => {
    const values = {
      image: {
        repository: 'registry.example:5000/vtepd',
        tag: 'v2',
        pullPolicy: 'Always',
        pullSecrets: [{ name: 'x' }],
      },
      network: {
        EnableIPv6: true,
        Network: '10.0.0.0/8',
        IPv6Network: 'fd00::/48',
        Backend: { Type: 'vxlan', DirectRouting: true },
      },
      cni: { confDir: '/etc/k3s/net.d', binDir: '/opt/k3s/bin' },
      http: { host: '::', port: 9999 },
      extraArgs: ['--log-format=json', '--iface=eth1'],
      extraEnv: [{ name: 'VTEPD_LOG_LEVEL', value: 'debug' }],
      stateDir: '/data/vtepd',
      resources: { limits: { cpu: '1' } },
      priorityClassName: '',
      nodeSelector: { role: 'worker' },
      tolerations: [{ key: 'only', effect: 'NoSchedule' }],
      affinity: { nodeAffinity: {} },
      podAnnotations: { a: 'b' },
      updateStrategy: { type: 'OnDelete' },
      seLinuxOptions: null,
    };
    const args = Object.entries(values).flatMap(([name, value]) => [
      '--set-json',
      `${name}=${JSON.stringify(value)}`,
    ]);
    const objects = await render(...args);
    expect(objects.flatMap(problemsOf)).to.deep.equal([]);
    expect(objects.map(({ kind }) => kind)).to.not.include('Namespace');
    const { container } = daemonSetOf(objects);
    expect(container.image).to.equal('registry.example:5000/vtepd:v2');
    const { settings } = await settingsOf(container.args);
    expect(settings.http).to.deep.equal({ host: '::', port: 9999 });
    expect(settings.cni).to.include({ confDir: '/etc/k3s/net.d', binDir: '/opt/k3s/bin' });
    expect(settings.log.format).to.equal('json');
    const text = JSON.stringify(objects);
    for (const part of ['"host":"::1"', '"path":"/data/vtepd"', '"OnDelete"', '"nodeAffinity"', '"a":"b"']) {
      expect(text).to.include(part);
    }
    for (const part of ['priorityClassName', 'spc_t', 'seLinuxOptions']) expect(text).to.not.include(part);
  });

  it('refuses a value that it does not know, by its name', async () => {
    const failure = await render('--set', 'image.repo=x').catch((error: unknown) => String(error));
    expect(failure).to.match(/image/).and.to.match(/repo/);
  });
});
