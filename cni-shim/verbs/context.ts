/** What the verbs work with. They are plain functions over it. */
import type { PodNetwork } from '../../overlay/desired/pods.ts';
import type { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import type { Log } from '../../overlay/ops/log.ts';
import type { Clock, Sleep } from '../../store/backoff.ts';
import type { LinkReaper } from '../link-reaper.ts';
import type { AttachmentRegistry } from '../registry.ts';

/** Steps after which a crash must leave nothing wrong; named for the tests that crash there. */
export type Checkpoint =
  | 'add:reserved'
  | 'add:created'
  | 'add:configured'
  | 'add:settled'
  | 'add:answered'
  | 'add:confirmed'
  | 'del:leaving'
  | 'del:removed'
  | 'del:released';

export interface VerbContext {
  readonly network: PodNetwork;
  readonly registry: AttachmentRegistry;
  /** In the node's namespace. */
  readonly netlink: NetlinkSocket;
  readonly reaper: LinkReaper;
  readonly log: Log;
  readonly now: Clock;
  readonly sleep: Sleep;
  /** How long an ADD waits for the pod's interface to carry packets. */
  readonly carrierDeadlineMs: number;
  /** Called at each step; does nothing, except where a test wants it to. */
  readonly checkpoint: (step: Checkpoint) => void;
}

/** The pod's side of a request; the server owns and closes both. */
export interface PodHandles {
  readonly namespaceFd: number;
  readonly netlink: NetlinkSocket;
  /**
   * `sysctl -w net.ipv6.conf.IFNAME.disable_ipv6=0` in the pod, for the request's interface, which must stand,
   * and for `lo`. @throws an Error that says what the kernel refused
   */
  readonly switchIpv6On: (signal: AbortSignal) => Promise<void>;
}

/** Lets the overlay follow what has changed; whether it can is its own business, and its health's. */
export function followInBackground(context: VerbContext): void {
  context.network.settlePods().catch((error: unknown) => {
    context.log.debug('the overlay has not followed a change of the pods yet', { error });
  });
}
