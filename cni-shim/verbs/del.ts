/**
 * DEL: takes a pod's interface away. Nothing that is missing is an error: the namespace, the interface, the
 * record, all of them. The address is free again only when the link is gone.
 */
import { findLink } from '../../overlay/kernel/link.ts';
import { type Attachment, type AttachmentKey, attachmentText, hostInterfaceName } from '../attachment.ts';
import { CNI_CODES, CniError } from '../cni-error.ts';
import { removePodLink } from '../pod-interface.ts';
import { type AttachmentRequest, keyOf } from '../request.ts';
import { followInBackground, type PodHandles, type VerbContext } from './context.ts';

/** @param pod absent when the namespace is gone @throws CniError 11 when the kernel keeps the interface */
export async function del(
  context: VerbContext,
  request: AttachmentRequest,
  pod: PodHandles | undefined,
): Promise<void> {
  await detach(context, keyOf(request), pod);
}

/** Removes one attachment; the caller has its turn (see keyed-queue.ts). */
export async function detach(
  context: VerbContext,
  key: AttachmentKey,
  pod: PodHandles | undefined,
): Promise<void> {
  const { registry, reaper, log } = context;
  const attachment = registry.find(key)?.attachment;
  if (attachment !== undefined) registry.leaves(attachment);
  context.checkpoint('del:leaving');
  try {
    const existed = await reaper.remove(hostInterfaceName(key));
    if (!existed && pod !== undefined && attachment !== undefined) await removeLeftEnd(pod, attachment);
  } catch (cause) {
    if (attachment !== undefined) registry.remains(attachment);
    throw new CniError(
      CNI_CODES.tryAgainLater,
      `the interface of ${attachmentText(key)} could not be removed: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  context.checkpoint('del:removed');
  if (attachment !== undefined) {
    await registry.release(attachment);
    log.info('pod detached', { attachment: attachmentText(key), pod: attachment.pod });
  }
  // A pod of the plugin that was here before us, or one whose record cannot be read.
  await registry.releaseForeign(
    key.network,
    (holder) =>
      holder.containerID === key.containerID && (holder.ifname === key.ifname || holder.ifname === ''),
  );
  context.checkpoint('del:released');
  followInBackground(context);
}

/** Somebody renamed the node's end, so it was not found: the pod's end, known by its MAC, would keep the address. */
async function removeLeftEnd(pod: PodHandles, attachment: Attachment): Promise<void> {
  const link = findLink(pod.netlink, attachment.ifname);
  if (link?.kind === 'veth' && link.mac === attachment.mac) await removePodLink(pod.netlink, link);
}
