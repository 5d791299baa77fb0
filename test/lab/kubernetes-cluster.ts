/**
 * The rest of a Kubernetes cluster, beside its API server: kubelets that register Nodes, and the controller that
 * gives each new one its podCIDRs. It gives a Node those that it had before while they are free, as the
 * controllers of clouds do (a machine has its range), else random ones.
 */
import { FAMILIES, formatSubnet, type PerFamily, parseSubnet, type Subnet } from '../../store/address.ts';
import type { NetworkConfig } from '../../store/lease.ts';
import { fitsNetwork, SubnetPool } from '../../store/subnet-choice.ts';
import type { KubernetesApi } from './kubernetes-api.ts';
import { type JsonObject, objectOf } from './kubernetes-objects.ts';

export class KubernetesCluster {
  readonly api: KubernetesApi;
  /** Where podCIDRs are cut from; absent: the controller runs without --allocate-node-cidrs. */
  #network: NetworkConfig | undefined;
  readonly #before = new Map<string, PerFamily<Subnet>>();

  constructor(api: KubernetesApi) {
    this.api = api;
  }

  /** From now on, and for Nodes that wait. */
  allocateFrom(network: NetworkConfig | undefined): void {
    this.#network = network;
    this.#allocate();
  }

  /** A kubelet starts: its Node is there from then on, its heartbeat fresh, and the controller looks at it. */
  register(name: string, annotations: Readonly<Record<string, string>> = {}): void {
    const { objects } = this.api;
    const before = objects.find(name);
    if (before === undefined) objects.create(name, kubeletNode(name, annotations, undefined));
    const now = subnetsOf(objects.get(name));
    // Its network is another one now: an operator has deleted the Node, and its kubelet makes it anew.
    if (this.#network !== undefined && now !== undefined && !fitsNetwork(this.#network, now)) {
      objects.delete(name);
      objects.create(name, kubeletNode(name, annotations, undefined));
    }
    this.#allocate();
  }

  /** A Node as somebody made it, whatever it holds. */
  put(name: string, podCidrs: readonly string[], annotations: Readonly<Record<string, string>>): void {
    const { objects } = this.api;
    const node = kubeletNode(name, annotations, podCidrs);
    const before = objects.find(name);
    if (before === undefined) objects.create(name, node);
    else
      objects.replace(name, {
        ...before,
        ...node,
        metadata: { ...objectOf(before.metadata), ...objectOf(node.metadata) },
      });
  }

  /** The machine is gone, or its Node was deleted: its podCIDRs are free, and whoever waits gets one. */
  remove(name: string): void {
    this.api.objects.delete(name);
    this.#allocate();
  }

  /** As every kubelet does every few minutes, and whenever something changes: nothing that a lease is of. */
  heartbeat(name: string): void {
    const { objects } = this.api;
    const node = objects.get(name);
    const status = objectOf(node.status);
    objects.replace(name, { ...node, status: { ...status, heartbeat: objects.revision } });
  }

  /** The Node that has this podCIDR. */
  holderOf(podCidrs: readonly string[]): string | undefined {
    const { objects } = this.api;
    const text = JSON.stringify(podCidrs);
    return objects.names.find((name) => JSON.stringify(podCidrsOf(objects.get(name))) === text);
  }

  #allocate(): void {
    const network = this.#network;
    if (network === undefined) return;
    const { objects } = this.api;
    const nodes = objects.names.map((name) => ({ name, subnets: subnetsOf(objects.get(name)) }));
    const pool = new SubnetPool(network);
    for (const { subnets } of nodes) if (subnets !== undefined) pool.take(subnets);
    for (const { name } of nodes.filter(({ subnets }) => subnets === undefined)) {
      const before = this.#before.get(name);
      const chosen = before !== undefined && pool.isFree(before) ? before : chooseOne(pool);
      // As the controller: an event says so, and the Node waits.
      if (chosen === undefined) return;
      pool.take(chosen);
      this.#before.set(name, chosen);
      const cidrs = FAMILIES.flatMap((family) => chosen[family] ?? []).map(formatSubnet);
      const node = objects.get(name);
      objects.replace(name, { ...node, spec: { ...objectOf(node.spec), ...podCidrSpec(cidrs) } });
    }
  }
}

function chooseOne(pool: SubnetPool): PerFamily<Subnet> | undefined {
  try {
    return pool.choose(Math.random);
  } catch {
    return undefined;
  }
}

const podCidrSpec = (cidrs: readonly string[]): JsonObject =>
  cidrs.length === 0 ? {} : { podCIDR: cidrs[0] ?? '', podCIDRs: [...cidrs] };

export function podCidrsOf(node: JsonObject): string[] {
  const { podCIDRs } = objectOf(node.spec);
  return Array.isArray(podCIDRs) ? podCIDRs.map(String) : [];
}

function subnetsOf(node: JsonObject): PerFamily<Subnet> | undefined {
  const subnets: { ipv4?: Subnet; ipv6?: Subnet } = {};
  for (const text of podCidrsOf(node)) {
    try {
      const subnet = parseSubnet(text);
      subnets[subnet.family] = subnet;
    } catch {
      return {};
    }
  }
  return podCidrsOf(node).length === 0 ? undefined : subnets;
}

/** Of the size that Nodes have: the list of images is most of it. */
export function kubeletNode(
  name: string,
  annotations: Readonly<Record<string, string>>,
  podCidrs: readonly string[] | undefined,
  images = 2,
): JsonObject {
  const at = '2025-01-01T00:00:00Z';
  const condition = (type: string, status: string, reason: string) => ({
    type,
    status,
    reason,
    message: `kubelet has ${reason}`,
    lastHeartbeatTime: at,
    lastTransitionTime: at,
  });
  return {
    metadata: {
      name,
      uid: `uid-of-${name}`,
      labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' },
      annotations: { 'node.alpha.kubernetes.io/ttl': '0', ...annotations },
    },
    spec: podCidrSpec(podCidrs ?? []),
    status: {
      capacity: { cpu: '4', memory: '16384Mi', pods: '110' },
      conditions: [
        condition('MemoryPressure', 'False', 'KubeletHasSufficientMemory'),
        condition('Ready', 'True', 'KubeletReady'),
      ],
      addresses: [{ type: 'Hostname', address: name }],
      nodeInfo: { kubeletVersion: 'v1.34.1', operatingSystem: 'linux', architecture: 'amd64' },
      images: Array.from({ length: images }, (_, i) => ({
        names: [
          `registry.example/image-${i}@sha256:${'0123456789abcdef'.repeat(4)}`,
          `registry.example/image-${i}:1`,
        ],
        sizeBytes: 100_000_000 + i,
      })),
    },
  };
}
