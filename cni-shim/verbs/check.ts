/** CHECK: whether a pod's network is still what ADD made it. */
import { attachmentText } from '../attachment.ts';
import { CNI_CODES, CniError } from '../cni-error.ts';
import { comparePodLink } from '../pod-interface.ts';
import { type AttachmentRequest, keyOf } from '../request.ts';
import { parsePreviousResult } from '../result.ts';
import type { PodHandles, VerbContext } from './context.ts';

/** @throws CniError 104, naming all that is wrong; 3, 7 or 11 where it cannot be told */
export function check(context: VerbContext, request: AttachmentRequest, pod: PodHandles): void {
  const { registry, netlink, network } = context;
  const key = keyOf(request);
  if (request.config.prevResult === undefined) {
    throw new CniError(CNI_CODES.invalidConfig, 'prevResult: CHECK needs the result of the ADD');
  }
  const expected = parsePreviousResult(request.config.prevResult, request.ifname);
  const attachment = registry.find(key)?.attachment;
  if (attachment === undefined) {
    throw new CniError(
      CNI_CODES.unknownContainer,
      `${attachmentText(key)} is not attached to ${key.network}`,
    );
  }
  const readiness = network.readiness();
  const facts = network.facts();
  if (!readiness.ready || facts === undefined) {
    const reason = readiness.ready ? 'it holds no lease' : readiness.reason;
    throw new CniError(CNI_CODES.tryAgainLater, `vtepd is not ready: ${reason}`);
  }
  const wrong = comparePodLink(netlink, pod.netlink, attachment, expected, facts.bridgeIndex);
  const held = new Set(attachment.addresses.map(({ address }) => address));
  for (const { address } of expected.addresses) {
    if (!held.has(address) || !registry.isReserved(attachment, address)) {
      wrong.push(`the address ${address} is not reserved for the pod`);
    }
  }
  if (wrong.length > 0) {
    throw new CniError(CNI_CODES.checkFailed, `${attachmentText(key)}: ${wrong[0]}`, {
      details: wrong.join('; '),
    });
  }
}
