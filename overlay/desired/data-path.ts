/**
 * What carries the packets of the tunnel: the kernel's vxlan, or this program (encap/). Pure: what was asked for.
 * What comes of it, the kernel has a say in: reconcile/tunnels.ts.
 *
 * Both write the same packets, so this is each node's own business: leases, peers and the network configuration
 * know nothing of it. One exception is flannel's `udp` backend, its own way through user space: it selects ours.
 */
import type { NetworkConfig } from '../../store/lease.ts';

export type DataPath = 'kernel' | 'userspace';

/** `auto`: the kernel's, unless it refuses the device. */
export type DataPathChoice = 'auto' | DataPath;

export interface DataPathWish {
  readonly path: DataPathChoice;
  /** Who asked for it, for people. */
  readonly why: string;
}

/**
 * The network as this version carries it out: a backend of type `udp` is a vxlan in user space. flannel's own
 * format for it cannot carry what vxlan's can, and no kernel speaks it; leases say `vxlan`, as all peers expect.
 */
export function carriedNetwork(network: NetworkConfig): NetworkConfig {
  if (network.backend.type !== 'udp') return network;
  return { ...network, backend: { ...network.backend, type: 'vxlan', datapath: 'userspace' } };
}

/** @param choice the operator's (`--datapath`) */
export function wantDataPath(choice: DataPathChoice, { backend }: NetworkConfig): DataPathWish {
  if (choice !== 'auto') return { path: choice, why: `--datapath ${choice}` };
  if (backend.datapath === 'userspace') {
    return { path: 'userspace', why: 'the network’s Backend.Type is "udp"' };
  }
  return { path: 'auto', why: 'the kernel has vxlan' };
}
