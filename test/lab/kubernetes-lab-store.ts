/**
 * A lab's leases on Kubernetes: the API server's double, in this process, with its socket in the underlay's
 * namespace at the gateway's address. The lab's nodes are its Nodes, registered and with podCIDRs.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inNamespace } from '../../overlay/kernel/namespace.ts';
import type { ForeignLabStore, LabStoreMaker, LabStorePlan } from '../../overlay/lab/lab-store.ts';
import { familyOf } from '../../store/address.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import type { Cluster } from './cluster.ts';
import { KubernetesApi } from './kubernetes-api.ts';
import { KubernetesCluster } from './kubernetes-cluster.ts';

const PORT = 6443;

export class KubernetesLabStore implements ForeignLabStore {
  readonly kind = 'kubernetes';
  readonly arguments: readonly string[];
  /** As nodes reach it. */
  readonly url: string;
  readonly cluster: KubernetesCluster;
  /** What a ConfigMap would hold. */
  readonly networkFile: string;
  readonly #namespace: string;
  #api: KubernetesApi;

  private constructor({ dir, namespace, at }: LabStorePlan, api: KubernetesApi) {
    this.#api = api;
    this.#namespace = namespace;
    this.cluster = new KubernetesCluster(api);
    this.networkFile = join(dir, 'net-conf.json');
    const host = familyOf(at) === 'ipv6' ? `[${at}]` : at;
    this.url = `http://${host}:${PORT}`;
    this.arguments = [
      ...['--store', 'kubernetes', '--kube-api-url', this.url],
      ...['--net-config-path', this.networkFile],
    ];
  }

  /** @param nodes how many of the lab's are registered: `node-1` and so on */
  static maker(nodes: number): LabStoreMaker {
    return async (plan) => {
      const store = new KubernetesLabStore(plan, new KubernetesApi());
      if (plan.networkConfig !== undefined) await store.setNetwork(plan.networkConfig);
      for (let number = 1; number <= nodes; number++) store.cluster.register(`node-${number}`);
      await store.start();
      return store;
    };
  }

  get api(): KubernetesApi {
    return this.#api;
  }

  /** Serves, on the data it had. */
  async start(): Promise<void> {
    // Without a host, listening is done when the call returns: in the namespace that it is made in.
    inNamespace(`/run/netns/${this.#namespace}`, () => this.#api.listen(PORT));
    await this.#api.listening();
  }

  /** Ends the server; its data stay for `start`. */
  async close(): Promise<void> {
    await this.#api.close();
  }

  /** It lives in this process, and ends with it. */
  abandon(): void {}

  /** Written anew as Kubernetes does it with a ConfigMap's files: another one is put in its place. */
  async setNetwork(text: string): Promise<void> {
    await writeFile(`${this.networkFile}.new`, text);
    await rename(`${this.networkFile}.new`, this.networkFile);
    this.cluster.allocateFrom(parseNetworkConfig(text));
  }

  async network(): Promise<Record<string, unknown>> {
    return JSON.parse(await readFile(this.networkFile, 'utf8'));
  }
}

/** The store of a cluster on Kubernetes. */
export function kubernetesOf({ lab: { store } }: Cluster): KubernetesLabStore {
  if (!(store instanceof KubernetesLabStore)) throw new Error('this cluster has no Kubernetes');
  return store;
}
