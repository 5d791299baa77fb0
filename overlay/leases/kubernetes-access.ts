/**
 * Who we are to the Kubernetes API, and where it is: from a kubeconfig file, else from the service account that
 * Kubernetes puts into a pod. Its token is bound to the pod and replaced every hour or so: it is read anew every
 * minute, and at once when it is refused.
 */
import { readFile } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod/v3';
import { CredentialsError } from '../../store/kubernetes/transport.ts';
import type { KubernetesSettings } from '../config/settings.ts';
import type { KubernetesAccess } from './kubernetes-http.ts';

/** Nothing says where the API is or who we are. */
export class NoKubernetesError extends Error {
  override readonly name = 'NoKubernetesError';
  readonly code = 'VTEPD_NO_KUBERNETES';
}

export interface AccessSources {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where Kubernetes mounts the service account's token and authority. */
  readonly accountDir: string;
  /** Monotonic milliseconds. */
  readonly clock: () => number;
}

export const ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';
/** As client-go does: a token is replaced when a fifth of its time is left, which is minutes. */
const TOKEN_LIFE_MS = 60_000;

/** @throws NoKubernetesError, CredentialsError */
export async function kubernetesAccess(
  settings: KubernetesSettings,
  sources: AccessSources,
): Promise<KubernetesAccess> {
  if (settings.kubeconfigFile !== undefined)
    return kubeconfigAccess(settings.kubeconfigFile, settings.apiUrl);
  const inCluster = serviceUrl(sources.environment);
  const server = settings.apiUrl ?? inCluster;
  if (server === undefined) {
    throw new NoKubernetesError(
      'this is no pod of a Kubernetes cluster (there is no KUBERNETES_SERVICE_HOST): give --kubeconfig-file',
    );
  }
  // Neither is shown to whoever listens on a line that is not secret.
  if (server.startsWith('http:')) return { server, credentials: async () => ({}) };
  return accountAccess(server, sources, inCluster !== undefined);
}

function serviceUrl({
  KUBERNETES_SERVICE_HOST: host,
  KUBERNETES_SERVICE_PORT: port,
}: AccessSources['environment']) {
  if (host === undefined || host === '') return undefined;
  return `https://${host.includes(':') ? `[${host}]` : host}:${port ?? '443'}`;
}

/** @param isPod without a service account there is no access; elsewhere there may be, without credentials */
function accountAccess(
  server: string,
  { accountDir, clock }: AccessSources,
  isPod: boolean,
): KubernetesAccess {
  const [tokenFile, caFile] = [`${accountDir}/token`, `${accountDir}/ca.crt`];
  let known: { readonly options: RequestOptions; readonly readAtMs: number } | undefined;
  const read = async (path: string): Promise<string | undefined> => {
    try {
      return (await readFile(path, 'utf8')).trim();
    } catch (error) {
      if (!isPod) return undefined;
      const remedy = 'the pod needs a service account (automountServiceAccountToken must not be false)';
      throw new CredentialsError(`${path} cannot be read: ${remedy}`, { cause: error });
    }
  };
  return {
    server,
    async credentials(isRenewed) {
      if (known !== undefined && !isRenewed && clock() - known.readAtMs < TOKEN_LIFE_MS) return known.options;
      const [token, ca] = await Promise.all([read(tokenFile), read(caFile)]);
      const options = {
        ...(token !== undefined && { headers: { authorization: `Bearer ${token}` } }),
        ...(ca !== undefined && { ca }),
      };
      known = { options, readAtMs: clock() };
      return options;
    },
  };
}

/**
 * Whatever a kubeconfig may hold: certificates, tokens and their files, helper programs, other authorities. The
 * library that reads it takes 0.6 s and 80 MB to load, so nobody else does.
 */
async function kubeconfigAccess(path: string, apiUrl: string | undefined): Promise<KubernetesAccess> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  const load = (): void => {
    try {
      config.loadFromFile(path);
    } catch (error) {
      const message = `--kubeconfig-file: ${path} cannot be read: ${messageOf(error)}`;
      throw new CredentialsError(message, { cause: error });
    }
  };
  load();
  const tokenFile = await tokenFileOf(path, config.getCurrentUser()?.name);
  const server = apiUrl ?? config.getCurrentCluster()?.server;
  if (server === undefined || !URL.canParse(server)) {
    throw new CredentialsError(`--kubeconfig-file: ${path} names no server in its current context`);
  }
  return {
    server,
    async credentials(isRenewed) {
      const options: RequestOptions = {};
      if (isRenewed) load();
      try {
        // Reads files and runs helpers as they are needed, tokens that have expired among it.
        await config.applyToHTTPSOptions(options);
        if (tokenFile !== undefined) {
          const token = (await readFile(tokenFile, 'utf8')).trim();
          options.headers = { ...options.headers, authorization: `Bearer ${token}` };
        }
      } catch (error) {
        throw new CredentialsError(`--kubeconfig-file: ${path}: ${messageOf(error)}`, { cause: error });
      }
      const cluster = config.getCurrentCluster();
      // Its agent is for one request; ours keeps connections. Only through a proxy its own knows the way.
      if (cluster?.proxyUrl !== undefined) return options;
      const { agent: _, ...rest } = options;
      return {
        ...rest,
        ...(cluster?.skipTLSVerify === true && { rejectUnauthorized: false }),
        ...(cluster?.tlsServerName !== undefined && { servername: cluster.tlsServerName }),
      };
    },
  };
}

const kubeconfigSchema = z.object({
  users: z.array(
    z.object({ name: z.string(), user: z.object({ tokenFile: z.string().optional() }).nullish() }),
  ),
});

/** The library does not know `tokenFile`, which is how a token that is replaced stands in a kubeconfig. */
async function tokenFileOf(path: string, user: string | undefined): Promise<string | undefined> {
  const read = kubeconfigSchema.safeParse(parse(await readFile(path, 'utf8')));
  const found = read.data?.users.find(({ name }) => name === user)?.user?.tokenFile;
  return found === undefined ? undefined : resolve(dirname(path), found);
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
