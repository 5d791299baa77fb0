/** GC: takes away every attachment of a network that the runtime does not know (any more). */
import { attachmentText } from '../attachment.ts';
import { CNI_CODES, CniError } from '../cni-error.ts';
import type { KeyedQueue } from '../keyed-queue.ts';
import type { NetworkRequest } from '../request.ts';
import type { VerbContext } from './context.ts';
import { detach } from './del.ts';

/**
 * Attachments whose ADD is under way are left alone: the runtime may have drawn its list up before.
 * @throws CniError 7 without the list, since an empty one means "none is valid"; 11 when some remain
 */
export async function gc(context: VerbContext, request: NetworkRequest, turns: KeyedQueue): Promise<void> {
  const { registry, log } = context;
  const { name: network, validAttachments } = request.config;
  if (validAttachments === undefined) {
    throw new CniError(CNI_CODES.invalidConfig, 'cni.dev/valid-attachments: GC needs the list');
  }
  const key = (one: { readonly containerID: string; readonly ifname: string }): string =>
    `${one.containerID}\n${one.ifname}`;
  const valid = new Set(validAttachments.map(key));
  const stale = registry
    .all()
    .map(({ attachment }) => attachment)
    .filter((one) => one.network === network && !valid.has(key(one)) && !turns.isBusy(one.hostInterface));
  const outcomes = await Promise.allSettled(
    stale.map((attachment) =>
      turns.run(attachment.hostInterface, async () => {
        // Unless it was detached, or detached and attached anew, while this waited for its turn.
        if (registry.find(attachment)?.attachment === attachment)
          await detach(context, attachment, undefined);
      }),
    ),
  );
  const released = await registry.releaseForeign(
    network,
    (holder) => !valid.has(key(holder)) && registry.find(holder) === undefined,
  );
  const failed = outcomes.filter((outcome) => outcome.status === 'rejected');
  if (stale.length + released.length > 0) {
    log.info('attachments that the runtime does not know were removed', {
      verb: 'GC',
      count: stale.length - failed.length + released.length,
      attachments: stale.map(attachmentText),
    });
  }
  if (failed.length > 0) {
    throw new CniError(
      CNI_CODES.tryAgainLater,
      `${failed.length} of ${stale.length} stale attachments could not be removed`,
      { details: failed.map((outcome) => String(outcome.reason)).join('; ') },
    );
  }
}
