/** Looks at the files that the settings name, without changing anything: for `vtepd config check`. */
import { X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { completedConflist } from '../../cni-shim/conflist.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { messageWithCauses } from '../ops/log.ts';
import type { EtcdSettings, Settings } from './settings.ts';
import type { SettingsProblem } from './settings-error.ts';

export interface CheckedFiles {
  readonly problems: readonly SettingsProblem[];
  readonly warnings: readonly string[];
}

export async function checkFiles(settings: Settings): Promise<CheckedFiles> {
  const problems: SettingsProblem[] = [];
  const warnings: string[] = [];
  const { store, files } = settings;
  if (store.kind === 'etcd') await checkCertificates(store, problems, warnings);
  else if (store.kind === 'embedded') await checkFolder('--embedded-path', store.path, problems);
  else await contentOf('--kubeconfig-file', store.kubeconfigFile, problems);
  if (store.kind !== 'etcd' && store.netConfigPath !== undefined) {
    await checkNetConfig(store.netConfigPath, problems);
  }
  if (settings.cni.confFile !== undefined) await checkConflist(settings, settings.cni.confFile, problems);
  await checkFolder('--state-dir', files.stateDir, problems);
  await checkFolder('--run-dir', files.runDir, problems);
  return { problems, warnings };
}

async function checkCertificates(
  store: EtcdSettings,
  problems: SettingsProblem[],
  warnings: string[],
): Promise<void> {
  const { certFile, keyFile } = store.clientCertificate ?? {};
  const ca = await contentOf('--etcd-cafile', store.caFile, problems);
  const cert = await contentOf('--etcd-certfile', certFile, problems);
  const key = await contentOf('--etcd-keyfile', keyFile, problems);
  if (keyFile !== undefined && key !== undefined && ((await stat(keyFile)).mode & 0o077) !== 0) {
    warnings.push(`others than its owner may read the key ${keyFile}: chmod 600 ${keyFile}`);
  }
  // A secure context would take an authority's file without a certificate in it, and trust nobody.
  if (ca !== undefined) attempt('--etcd-cafile', () => new X509Certificate(ca), problems);
  if (cert !== undefined && key !== undefined) {
    attempt('--etcd-certfile, --etcd-keyfile', () => createSecureContext({ cert, key }), problems);
  }
}

function attempt(where: string, use: () => unknown, problems: SettingsProblem[]): void {
  try {
    use();
  } catch (error) {
    problems.push({ where, problem: `cannot be used: ${messageWithCauses(error)}` });
  }
}

async function checkNetConfig(path: string, problems: SettingsProblem[]): Promise<void> {
  const content = await contentOf('--net-config-path', path, problems);
  try {
    if (content !== undefined) parseNetworkConfig(content);
  } catch (error) {
    problems.push({ where: '--net-config-path', problem: `${path}: ${messageWithCauses(error)}` });
  }
}

async function checkConflist(
  { files, overlay }: Settings,
  path: string,
  problems: SettingsProblem[],
): Promise<void> {
  const content = await contentOf('--cni-conf-file', path, problems);
  try {
    const ours = { socketPath: files.socket, bridge: overlay.bridge };
    if (content !== undefined) completedConflist(content.toString(), ours);
  } catch (error) {
    problems.push({ where: '--cni-conf-file', problem: `${path}: ${messageWithCauses(error)}` });
  }
}

async function contentOf(
  where: string,
  path: string | undefined,
  problems: SettingsProblem[],
): Promise<Buffer | undefined> {
  try {
    return path === undefined ? undefined : await readFile(path);
  } catch (error) {
    problems.push({ where, problem: `${path} cannot be read: ${messageWithCauses(error)}` });
    return undefined;
  }
}

/** It need not be there yet; what is there must be a directory. */
async function checkFolder(where: string, path: string, problems: SettingsProblem[]): Promise<void> {
  try {
    if (!(await stat(path)).isDirectory())
      problems.push({ where, problem: `${path} is there, and is no directory` });
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (!isMissing) problems.push({ where, problem: `${path}: ${messageWithCauses(error)}` });
  }
}
