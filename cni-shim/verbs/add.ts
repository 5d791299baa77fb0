/**
 * ADD: gives a pod its interface.
 *
 * In this order, each step undone in reverse when a later one fails:
 * 1. addresses chosen, record and address files written (and on their way to the disk meanwhile);
 * 2. the veth created, its far end in the pod with its final name and MAC, its near end a port of the bridge;
 * 3. IPv6 switched on for it where it is off in the pod, the far end addressed, raised and routed;
 * 4. the overlay told, so that the pod filter knows the pod before its first packet;
 * 5. waited for until the kernel passes packets between the pod and the bridge;
 * 6. the answer delivered: only now does the runtime know of it, and only now is it `attached`.
 */
import type { PodNetworkFacts } from '../../overlay/desired/pods.ts';
import { findLink } from '../../overlay/kernel/link.ts';
import { NetlinkError } from '../../overlay/kernel/netlink-socket.ts';
import { isIpv6Disabled } from '../../overlay/kernel/sysctl.ts';
import { type Address, addressFromValue, FAMILIES, familyOf, subnetOf } from '../../store/address.ts';
import { type Attachment, attachmentText, hostInterfaceName, macOfAddress } from '../attachment.ts';
import { CNI_CODES, CniError } from '../cni-error.ts';
import { configurePodLink, createPodLink, idlePart } from '../pod-interface.ts';
import type { RegisteredAttachment } from '../registry.ts';
import { type AttachmentRequest, keyOf } from '../request.ts';
import { formatResult } from '../result.ts';
import { followInBackground, type PodHandles, type VerbContext } from './context.ts';

/** An ADD that is done but for the runtime's knowing. Exactly one of its two ends must be called. */
export interface PendingAdd {
  /** The CNI result. */
  readonly answer: string;
  /** The runtime has the answer. */
  confirm(): void;
  /** The runtime has gone without the answer: everything is undone. */
  withdraw(): Promise<void>;
}

/**
 * @param signal the client has gone or the daemon is stopping: what is half done is undone
 * @throws CniError; whatever it is, nothing is left of the attempt
 */
export async function add(
  context: VerbContext,
  request: AttachmentRequest,
  pod: PodHandles,
  signal: AbortSignal,
): Promise<PendingAdd> {
  const { registry, netlink, network } = context;
  signal.throwIfAborted();
  const facts = usableFacts(context, request);
  const preferred = await clearTheWay(context, request, pod);
  signal.throwIfAborted();

  let attachment = await reserve(context, request, facts, preferred);
  try {
    requireSameLease(context, facts);
    context.checkpoint('add:reserved');
    const onDisk = registry.flushed();
    // Awaited below; until then a failure is not unhandled.
    onDisk.catch(() => {});
    createPodLink(netlink, attachment, facts.bridgeIndex, pod.namespaceFd);
    context.checkpoint('add:created');
    await letIpv6In(context, attachment, pod, signal);
    attachment = { ...attachment, routes: configurePodLink(pod.netlink, attachment) };
    context.checkpoint('add:configured');
    registry.stands(attachment);
    // `stands` may have written once more.
    await unlessAborted(Promise.all([onDisk, registry.flushed(), network.settlePods()]), signal);
    await untilCarries(context, attachment, pod, signal);
    context.checkpoint('add:settled');
    const host = findLink(netlink, attachment.hostInterface);
    const bridge = findLink(netlink, facts.bridge);
    return {
      answer: formatResult(request.config.version, attachment, request.config.dns, bridge?.mac, host?.mac),
      confirm: () => registry.confirm(attachment),
      withdraw: () => undo(context, attachment),
    };
  } catch (error) {
    await undo(context, attachment);
    throw asCniError(error);
  }
}

/** The overlay's facts, if a pod attached now would work as the configuration wants it. */
function usableFacts({ network }: VerbContext, { config }: AttachmentRequest): PodNetworkFacts {
  const readiness = network.readiness();
  if (!readiness.ready)
    throw new CniError(CNI_CODES.tryAgainLater, `vtepd is not ready: ${readiness.reason}`);
  const facts = network.facts();
  if (facts === undefined) {
    throw new CniError(CNI_CODES.tryAgainLater, 'vtepd is not ready: it holds no lease yet');
  }
  if (config.bridge !== undefined && config.bridge !== facts.bridge) {
    throw new CniError(
      CNI_CODES.invalidConfig,
      `bridge: the pods of this node are on ${facts.bridge}, not ${config.bridge.slice(0, 15)}; leave the key out, or run vtepd with --bridge`,
    );
  }
  if (config.mtuBytes !== undefined && config.mtuBytes > facts.mtuBytes) {
    throw new CniError(
      CNI_CODES.invalidConfig,
      `mtu: ${config.mtuBytes} bytes do not fit; the overlay carries ${facts.mtuBytes}`,
    );
  }
  if (config.prevResult !== undefined) {
    throw new CniError(
      CNI_CODES.invalidConfig,
      'prevResult: vtepd-cni makes the interface, so it must be the first plugin of the list',
    );
  }
  return facts;
}

/** The lease may have been replaced while the way was cleared: the address would be of one that is given back. */
function requireSameLease({ network }: VerbContext, facts: PodNetworkFacts): void {
  const now = network.facts();
  const isSame = FAMILIES.every((family) => now?.gateways[family] === facts.gateways[family]);
  if (!isSame) throw new CniError(CNI_CODES.tryAgainLater, "vtepd's lease has changed just now");
}

/**
 * Refuses an attachment that stands, and an interface name that is taken; removes what an interrupted ADD
 * or a namespace that vanished without a DEL left behind.
 * @returns addresses to use again
 */
async function clearTheWay(
  context: VerbContext,
  request: AttachmentRequest,
  pod: PodHandles,
): Promise<Address[]> {
  const { registry, netlink, reaper, log } = context;
  const key = keyOf(request);
  const hostInterface = hostInterfaceName(key);
  const earlier: RegisteredAttachment | undefined = registry.find(key);
  const link = findLink(netlink, hostInterface);
  if (earlier?.phase === 'attached' && link !== undefined) {
    throw new CniError(
      CNI_CODES.alreadyAttached,
      `${request.ifname} of container ${request.containerID} is attached already; DEL it first`,
    );
  }
  if (link !== undefined) await reaper.remove(hostInterface);
  if (earlier !== undefined) {
    log.info('an earlier attempt to attach this pod is replaced', { attachment: attachmentText(key) });
    await registry.release(earlier.attachment);
  }
  if (findLink(pod.netlink, request.ifname) !== undefined) {
    throw new CniError(
      CNI_CODES.interfaceExists,
      `CNI_IFNAME: ${request.netns} has an interface ${request.ifname} already`,
    );
  }
  return earlier?.attachment.addresses.map(({ address }) => address) ?? [];
}

async function reserve(
  { registry }: VerbContext,
  request: AttachmentRequest,
  facts: PodNetworkFacts,
  preferred: readonly Address[],
): Promise<Attachment> {
  const { config, netns, pod, sticky } = request;
  const holder = keyOf(request);
  const { subnets, gateways } = facts;
  const wishes = {
    asked: config.addresses,
    preferred: [...preferred, ...registry.rememberedFor(holder, sticky)],
  };
  return registry.reserve({ holder, subnets, gateways, ...wishes }, (addresses) => {
    const [first] = addresses;
    if (first === undefined) {
      throw new CniError(CNI_CODES.tryAgainLater, 'vtepd is not ready: its lease has no subnet');
    }
    return {
      ...holder,
      hostInterface: hostInterfaceName(holder),
      mac: config.mac ?? macOfAddress(first.address),
      addresses,
      routes: podRoutes(facts, config.defaultRoute),
      bridge: facts.bridge,
      mtuBytes: config.mtuBytes ?? facts.mtuBytes,
      hairpin: config.hairpin,
      pod,
      sticky,
      netns,
    };
  });
}

/**
 * Docker and containerd make namespaces with IPv6 off, which refuse IPv6 addresses (EACCES). The pod is to have
 * one, so it is switched on, for the pod's interface alone.
 */
async function letIpv6In(
  { log }: VerbContext,
  attachment: Attachment,
  pod: PodHandles,
  signal: AbortSignal,
): Promise<void> {
  const wanted = attachment.addresses.some(({ address }) => familyOf(address) === 'ipv6');
  if (!wanted || !isIpv6Disabled(pod.netlink, attachment.ifname)) return;
  try {
    await pod.switchIpv6On(signal);
  } catch (error) {
    if (signal.aborted || !(error instanceof Error)) throw error;
    throw new CniError(
      CNI_CODES.kernelRefused,
      `IPv6 is off in the pod (net.ipv6.conf.${attachment.ifname}.disable_ipv6=1) and cannot be switched on: ${error.message}; make its namespace with IPv6 on, or run the plugin where /proc/sys can be written`,
      { cause: error },
    );
  }
  log.debug('IPv6 was off in the pod and is switched on for its interface', {
    attachment: attachmentText(attachment),
  });
}

const FIRST_LOOK_AGAIN_MS = 1;
const LAST_LOOK_AGAIN_MS = 20;

/** The pod's first packet is not to be lost: see overlay/kernel/link-state.ts. */
async function untilCarries(
  context: VerbContext,
  attachment: Attachment,
  pod: PodHandles,
  signal: AbortSignal,
): Promise<void> {
  const { netlink, now, sleep, carrierDeadlineMs } = context;
  const startedMs = now();
  let againMs = FIRST_LOOK_AGAIN_MS;
  for (;;) {
    const idle = idlePart(netlink, pod.netlink, attachment);
    if (idle === undefined) return;
    if (now() - startedMs > carrierDeadlineMs) {
      throw new CniError(
        CNI_CODES.tryAgainLater,
        `${idle}, ${carrierDeadlineMs} ms after all was made: packets of the pod would be lost; look at "bridge -d link" and "ip -d link show ${attachment.bridge}"`,
      );
    }
    await sleep(againMs, signal);
    againMs = Math.min(2 * againMs, LAST_LOOK_AGAIN_MS);
  }
}

/** The cluster's network, and everything, by the gateway. The first stays if another plugin takes the second. */
function podRoutes(facts: PodNetworkFacts, defaultRoute: boolean): Attachment['routes'] {
  return FAMILIES.flatMap((family) => {
    const gateway = facts.gateways[family];
    const cluster = facts.clusterNetworks[family];
    if (gateway === undefined || facts.subnets[family] === undefined) return [];
    const everything = subnetOf(addressFromValue(family, 0n), 0);
    return [
      ...(cluster === undefined ? [] : [{ destination: cluster, gateway }]),
      ...(defaultRoute ? [{ destination: everything, gateway }] : []),
    ];
  });
}

/** Leaves nothing; or, where the kernel keeps the link, the attachment for the next ADD or DEL to try again. */
async function undo(context: VerbContext, attachment: Attachment): Promise<void> {
  const { registry, reaper, log } = context;
  registry.leaves(attachment);
  try {
    await reaper.remove(attachment.hostInterface);
    await registry.release(attachment);
  } catch (error) {
    registry.remains(attachment);
    log.error('an ADD could not be undone; the next ADD or DEL of the pod tries again', {
      attachment: attachmentText(attachment),
      error,
    });
  }
  followInBackground(context);
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

function asCniError(error: unknown): Error {
  if (error instanceof CniError || !(error instanceof NetlinkError)) {
    return error instanceof Error ? error : new Error(String(error));
  }
  return new CniError(CNI_CODES.kernelRefused, error.message, { cause: error });
}
