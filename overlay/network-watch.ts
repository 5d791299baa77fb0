/**
 * The cluster's network configuration as the store has it, and what is made of it: taken up when it can be
 * used, else the one in use stays, which is logged once and told for as long as it is so.
 */
import { FAMILIES, formatSubnet } from '../store/address.ts';
import type { NetworkConfig } from '../store/lease.ts';
import type { LeaseView } from '../store/lease-view.ts';
import type { StoreSettings } from './config/settings.ts';
import { carriedNetwork } from './desired/data-path.ts';
import type { Log } from './ops/log.ts';

export interface NetworkWatchOptions {
  readonly store: StoreSettings;
  /** What of a well-formed configuration cannot be done here; undefined: nothing. */
  readonly unsupported: (network: NetworkConfig) => string | undefined;
  readonly log: Log;
  readonly onChange: (now: NetworkConfig, before: NetworkConfig | undefined) => void;
}

export class NetworkWatch {
  readonly #options: NetworkWatchOptions;
  #network: NetworkConfig | undefined;
  #problem: string | undefined;

  constructor(options: NetworkWatchOptions) {
    this.#options = options;
  }

  /** The one in use. */
  get network(): NetworkConfig | undefined {
    return this.#network;
  }

  /** What is wrong with the stored one, whether or not another is in use. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Called with every view of the store; cheap while nothing changes. */
  delivered({ network: record, source }: LeaseView): void {
    if (record === undefined) {
      if (source === 'store') this.#refuse(missing(this.#options.store), 'warn');
      return;
    }
    const config = 'config' in record ? carriedNetwork(record.config) : undefined;
    const problem = 'fault' in record ? record.fault.message : config && this.#options.unsupported(config);
    if (problem !== undefined) this.#refuse(problem, 'error');
    else if (config !== undefined) this.#accept(config);
  }

  #accept(config: NetworkConfig): void {
    const { log, onChange } = this.#options;
    const before = this.#network;
    if (this.#problem !== undefined && before !== undefined) {
      log.info('the stored network configuration can be used again');
    }
    this.#problem = undefined;
    if (before === config || JSON.stringify(before) === JSON.stringify(config)) return;
    this.#network = config;
    if (before === undefined) log.info('network configuration', { network: describeNetwork(config) });
    else {
      log.info('the network configuration changed; following it', {
        network: describeNetwork(config),
        before: describeNetwork(before),
      });
    }
    if (config.backend.datapath !== undefined && before?.backend.datapath === undefined) {
      log.warn(
        'the network’s backend is "udp": vtepd carries it in user space, in the wire format of VXLAN (RFC 7348), ' +
          'which vtepd and flannel nodes with the vxlan backend speak; flannel’s own udp format is another',
        { port: config.backend.port },
      );
    }
    onChange(config, before);
  }

  #refuse(problem: string, level: 'warn' | 'error'): void {
    if (this.#problem === problem) return;
    this.#problem = problem;
    const consequence = this.#network === undefined ? 'waiting for a usable one' : 'the one in use stays';
    this.#options.log[level](`the network configuration cannot be used; ${consequence}`, { reason: problem });
  }
}

function missing(store: StoreSettings): string {
  const example = `'{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'`;
  if (store.kind === 'kubernetes') {
    const remedy =
      'mount the ConfigMap with net-conf.json there, or name another file with --net-config-path';
    return `there is no network configuration at ${store.netConfigPath}: ${remedy}; it holds ${example}`;
  }
  const remedy =
    store.kind === 'etcd'
      ? `etcdctl put ${store.prefix}/config ${example}`
      : `start with --net-config-path naming a file that holds ${example}`;
  return `the ${store.kind} store has no network configuration: ${remedy}`;
}

/** In one line, with what else than the networks may have changed. */
function describeNetwork({ networks, backend }: NetworkConfig): string {
  const parts = FAMILIES.flatMap((family) => {
    const cut = networks[family];
    if (cut === undefined) return [];
    return [`${formatSubnet(cut.network)} (${cut.subnetMin} to ${cut.subnetMax}, /${cut.subnetLength})`];
  });
  const mtu = backend.mtuBytes === undefined ? '' : ` mtu ${backend.mtuBytes}`;
  const type = backend.datapath === undefined ? backend.type : `${backend.type} in user space`;
  return `${parts.join(' ')} ${type} vni ${backend.vni} port ${backend.port}${mtu}`;
}
