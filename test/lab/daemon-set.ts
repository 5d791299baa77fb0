/**
 * The daemon as manifests/vtepd.yaml has Kubernetes run it: its container's arguments, variables, mounts, rights and
 * limits, as a kubelet hands them to a runtime. The node's folders are a lab's in the place of the machine's, and the
 * programs are this build's, mounted over an image that has none.
 */
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { NODE_FLAGS, VTEPD } from '../../overlay/lab/lab-daemon.ts';
import type { LabNode } from '../../overlay/lab/lab-node.ts';
import { packageRoot } from '../../overlay/ops/package.ts';
import type { PodPlan } from './cri.ts';
import type { KubernetesLabStore } from './kubernetes-lab-store.ts';

const MANIFEST = join(packageRoot, 'manifests/vtepd.yaml');

interface DaemonSet {
  readonly spec: {
    readonly template: {
      readonly spec: { readonly hostNetwork: boolean; readonly containers: readonly [Container] };
    };
  };
}
interface Container {
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly securityContext: SecurityContext;
  readonly resources: { readonly limits: { readonly memory: string } };
  readonly volumeMounts: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
  }[];
}
interface SecurityContext {
  readonly privileged: boolean;
  readonly allowPrivilegeEscalation: boolean;
  readonly readOnlyRootFilesystem: boolean;
  readonly runAsUser: number;
  readonly runAsGroup: number;
  readonly capabilities: { readonly drop: readonly string[]; readonly add: readonly string[] };
  readonly seccompProfile: { readonly type: string };
}

/** What a kubelet hides from containers, or makes read-only in them, that are not privileged. */
const MASKED = ['acpi', 'asound', 'kcore', 'keys', 'latency_stats', 'sched_debug', 'scsi', 'timer_list'].map(
  (name) => `/proc/${name}`,
);
const READ_ONLY = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'].map((name) => `/proc/${name}`);
const RUNTIME_DEFAULT = 0;

/** @param name the pod's */
export async function daemonSetPod(name: string, node: LabNode, store: KubernetesLabStore): Promise<PodPlan> {
  const objects = parseAllDocuments(await readFile(MANIFEST, 'utf8')).map((document) => document.toJS());
  const { spec }: DaemonSet['spec']['template'] = objects.find(({ kind }) => kind === 'DaemonSet').spec
    .template;
  const [container] = spec.containers;
  if (container.command.join(' ') !== 'vtepd run') throw new Error('the container runs something else');
  const config = join(node.dir, 'config-map');
  await mkdir(config);
  const { data } = objects.find(({ kind }) => kind === 'ConfigMap');
  await writeFile(join(config, 'cni-conf.json'), data['cni-conf.json']);
  await copyFile(store.networkFile, join(config, 'net-conf.json'));
  const cniData = join(node.dir, 'cni-data');
  await mkdir(cniData);
  const lock = join(node.dir, 'xtables.lock');
  await writeFile(lock, '');
  const hostPaths: Readonly<Record<string, string>> = {
    config,
    'cni-conf': node.cni.confDir,
    'cni-bin': node.cni.binDir,
    run: node.runDir,
    state: node.stateDir,
    'cni-data': cniData,
    'xtables-lock': lock,
    sysctls: '/proc/sys/net',
    tun: existsSync('/dev/net') ? '/dev/net' : cniData,
  };
  const mounts = container.volumeMounts.map(({ name: volume, mountPath, readOnly = false }) => ({
    container_path: mountPath,
    host_path: hostPaths[volume] ?? fail(`no place in a lab for the volume ${volume}`),
    readonly: readOnly,
  }));
  const programs = [packageRoot, dirname(process.execPath), '/usr', '/lib', '/lib64'].filter((path) =>
    existsSync(path),
  );
  return {
    name,
    hostNetwork: spec.hostNetwork,
    command: [process.execPath, ...NODE_FLAGS, VTEPD, 'run', ...container.args],
    env: {
      NODE_NAME: node.name,
      VTEPD_KUBE_API_URL: store.url,
      // The plugin gets the socket's path from in there, and opens it out here.
      VTEPD_RUN_DIR: node.runDir,
    },
    mounts: [
      ...mounts,
      { container_path: node.runDir, host_path: node.runDir },
      ...programs.map((path) => ({ container_path: path, host_path: path, readonly: true })),
    ],
    securityContext: criSecurityContext(container.securityContext),
    memoryLimitBytes: mebibytes(container.resources.limits.memory) * 1024 * 1024,
  };
}

function criSecurityContext(context: SecurityContext): object {
  const { capabilities, seccompProfile, privileged } = context;
  if (seccompProfile.type !== 'RuntimeDefault') throw new Error(`seccomp ${seccompProfile.type}`);
  return {
    privileged,
    capabilities: { add_capabilities: capabilities.add, drop_capabilities: capabilities.drop },
    run_as_user: { value: context.runAsUser },
    run_as_group: { value: context.runAsGroup },
    readonly_rootfs: context.readOnlyRootFilesystem,
    no_new_privs: !context.allowPrivilegeEscalation,
    seccomp: { profile_type: RUNTIME_DEFAULT },
    masked_paths: MASKED,
    readonly_paths: READ_ONLY,
  };
}

const mebibytes = (text: string): number =>
  Number(/^(\d+)Mi$/.exec(text)?.[1] ?? fail(`"${text}" is no size in Mi`));

function fail(message: string): never {
  throw new Error(message);
}
