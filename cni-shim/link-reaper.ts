/**
 * Removes pod interfaces. Each removal waits about 20 ms for the kernel, unless they share the wait: what is
 * asked for while batches are under way becomes the next batch, its links are put in one group and the
 * group is deleted (50 links: 40 ms instead of 1 s). The waiting is a pool thread's, never the event loop's.
 */
import { deleteLink, deleteLinkGroup, findLink, setLink } from '../overlay/kernel/link.ts';
import type { NetlinkRequest } from '../overlay/kernel/netlink-message.ts';
import type { NetlinkError, NetlinkSocket } from '../overlay/kernel/netlink-socket.ts';
import { executeSlowly } from '../overlay/kernel/slow-netlink.ts';

/** "vtpx", "vtpy": groups that nobody else uses, for links that are about to go. One a lane. */
const DOOMED_GROUPS = [0x76747078, 0x76747079] as const;

interface Removal {
  readonly name: string;
  readonly resolve: (existed: boolean) => void;
  readonly reject: (error: Error) => void;
}

interface Lane {
  readonly netlink: NetlinkSocket;
  readonly group: number;
  running: Promise<void> | undefined;
}

export class LinkReaper {
  /** Two, because waits overlap; not more, because each takes one of the four threads of Node's pool. */
  readonly #lanes: readonly Lane[];
  #waiting: Removal[] = [];

  /** @param openNetlink opens a socket in the node's namespace; what it opens is closed by close() */
  constructor(openNetlink: () => NetlinkSocket) {
    this.#lanes = DOOMED_GROUPS.map((group) => ({ netlink: openNetlink(), group, running: undefined }));
  }

  /** Resolves when the link and its far end are gone: with false when there was none. @throws NetlinkError */
  remove(name: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ name, resolve, reject });
      const idle = this.#lanes.find((lane) => lane.running === undefined);
      if (idle !== undefined) idle.running = this.#run(idle);
    });
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    for (const lane of this.#lanes) {
      await lane.running;
      lane.netlink.close();
    }
  }

  async #run(lane: Lane): Promise<void> {
    // What else is asked for in this turn of the event loop comes along.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      await removeAll(lane, batch);
    }
    lane.running = undefined;
  }
}

async function removeAll({ netlink, group }: Lane, batch: readonly Removal[]): Promise<void> {
  try {
    const found = batch.flatMap((removal) => {
      const link = findLink(netlink, removal.name);
      return link === undefined ? [] : [{ removal, index: link.index }];
    });
    const failed = new Map<Removal, NetlinkError>();
    if (found.length > 0) {
      const requests = removalRequests(
        found.map(({ index }) => index),
        group,
      );
      for (const { index, error } of await executeSlowly(netlink, requests, () => 'remove pod interfaces')) {
        // Gone by itself in the meantime, as a pod's namespace goes.
        if (error.code === 'ENODEV') continue;
        const one = found[index];
        for (const { removal } of one === undefined ? found : [one]) failed.set(removal, error);
      }
    }
    for (const removal of batch) {
      const error = failed.get(removal);
      if (error === undefined) removal.resolve(found.some((one) => one.removal === removal));
      else removal.reject(error);
    }
  } catch (error) {
    for (const removal of batch) removal.reject(error instanceof Error ? error : new Error(String(error)));
  }
}

/** The group's deletion comes last: its place is beyond the links'. */
function removalRequests(indexes: readonly number[], group: number): NetlinkRequest[] {
  const [first] = indexes;
  if (indexes.length === 1 && first !== undefined) return [deleteLink(first)];
  return [...indexes.map((index) => setLink(index, { group })), deleteLinkGroup(group)];
}
