/**
 * What taking flannel's node over means, decided from facts alone: what becomes of its devices, its bridge, its
 * pods and addresses, or why nothing can. Pure; carried out by take-over.ts.
 *
 * The devices keep their names and MACs. So no peer has to learn anything, no packet is lost, what other
 * programs have said of `cni0` stays true, and the way back is short.
 */

import type { ReservedAddress } from '../../cni-shim/address-store.ts';
import { type Attachment, attachmentText, hostInterfaceName } from '../../cni-shim/attachment.ts';
import { NETWORK_NAME } from '../../cni-shim/conflist.ts';
import {
  type Address,
  addressAt,
  FAMILIES,
  type Family,
  familyOf,
  formatSubnet,
  type Mac,
  type PerFamily,
  type Subnet,
  subnetContains,
  subnetOf,
} from '../../store/address.ts';
import type { Lease, NetworkConfig, Vtep } from '../../store/lease.ts';
import { encodeLeaseKey } from '../../store/lease-codec.ts';
import { type OverlaySettings, VNI_PLACE } from '../config/settings.ts';
import { LINK_ALIAS } from '../reconcile/own-links.ts';
import type { FlannelFacts, FlannelPod } from './flannel-facts.ts';
import type { TakenOver } from './taken-over.ts';

export interface TakeOverPlan {
  readonly record: TakenOver;
  /** The peers know this node by these. */
  readonly vtepMac: PerFamily<Mac>;
  readonly bridgeMac: Mac | undefined;
  /** What flannel held, so that we claim the same; undefined where its public address is not known. */
  readonly lease: Lease | undefined;
  readonly pods: readonly AdoptedPod[];
  /** Addresses of pods whose interface is not to be found: given to nobody until a DEL frees them. */
  readonly kept: readonly ReservedAddress[];
  readonly steps: readonly Step[];
}

export interface AdoptedPod {
  readonly attachment: Attachment;
  /** The index and the name of the port that becomes the attachment's. */
  readonly portIndex: number;
  readonly was: string;
}

/** For people, and in JSON for programs. */
export interface Step {
  readonly kind: 'device' | 'bridge' | 'lease' | 'pod' | 'address' | 'later';
  readonly what: string;
}

/** `none`: there is no flannel of this network; the others are in the way of taking it over. */
export interface Refusal {
  readonly kind: 'none' | 'running' | 'names';
  readonly reason: string;
}

export type TakeOverWishes = Pick<OverlaySettings, 'device' | 'bridge' | 'takeOver'>;

export const FLANNEL_DEVICE = `flannel.${VNI_PLACE}`;
const OUR_BRIDGE = 'vtep0';

/** @param earlier ports that an interrupted run has renamed already, perhaps */
export function planTakeOver(
  facts: FlannelFacts,
  config: NetworkConfig,
  wishes: TakeOverWishes,
  earlier: TakenOver['ports'] = [],
): TakeOverPlan | Refusal {
  const stranger = strangerReason(facts, config);
  if (stranger !== undefined) return { kind: 'none', reason: stranger };
  if (facts.pid !== undefined) {
    return {
      kind: 'running',
      reason: `flanneld runs here (process ${facts.pid}): stop it, and keep it from starting again, before vtepd takes its node over`,
    };
  }
  const conflict = nameConflict(facts, wishes);
  if (conflict !== undefined) return { kind: 'names', reason: conflict };
  const subnets = subnetsOf(facts, config);
  const withPods = wishes.takeOver !== 'devices';
  const ours = (address: Address): boolean => {
    const subnet = subnets[familyOf(address)];
    return subnet !== undefined && subnetContains(subnet, address);
  };
  const network = networkName(facts, ours);
  const pods = withPods
    ? facts.pods
        .filter(({ addresses }) => addresses.some(ours))
        .map((pod) => adopt({ ...pod, addresses: pod.addresses.filter(ours) }, facts, subnets))
    : [];
  const adopted = new Set(
    pods.flatMap(({ attachment }) => attachment.addresses.map(({ address }) => address)),
  );
  const kept = withPods
    ? facts.reservations.filter(({ address }) => ours(address) && !adopted.has(address))
    : [];
  const lease = leaseOf(facts, config, subnets);
  const plan = {
    record: {
      from: 'flannel' as const,
      device: isTunnelled(config) ? FLANNEL_DEVICE : undefined,
      bridge: facts.bridgeName,
      network,
      conflist: facts.conflist?.path,
      pods: withPods,
      ports: pods.map(({ attachment: { hostInterface }, was }) => {
        const known = earlier.find((port) => port.hostInterface === hostInterface);
        return { hostInterface, was: was === hostInterface ? (known?.was ?? was) : was };
      }),
      complete: false,
    },
    vtepMac: { ipv4: facts.devices.ipv4?.mac, ipv6: facts.devices.ipv6?.mac },
    bridgeMac: facts.bridge?.mac,
    lease,
    pods,
    kept,
  };
  return { ...plan, steps: stepsOf(plan, facts, subnets) };
}

export const isRefusal = (plan: TakeOverPlan | Refusal): plan is Refusal => 'reason' in plan;

const isTunnelled = ({ backend }: NetworkConfig): boolean => backend.type === 'vxlan';

/** Why what is here is not a flannel of our network. */
function strangerReason({ devices, bridge, addresses, conflist }: FlannelFacts, config: NetworkConfig) {
  const { vni, port } = config.backend;
  const found = FAMILIES.flatMap((family) => devices[family] ?? []);
  if (isTunnelled(config)) {
    if (found.length === 0) return 'there is no device of flannel';
    const taken = found.filter(({ alias }) => alias === LINK_ALIAS);
    if (taken.length === found.length) return `${taken[0]?.name} is vtepd's already`;
    const other = found.find(({ vxlan }) => vxlan?.vni !== vni || vxlan.port !== port);
    if (other === undefined) return undefined;
    return (
      `${other.name} has VNI ${other.vxlan?.vni} on port ${other.vxlan?.port}, this network VNI ${vni} on ` +
      `port ${port}: it is left alone`
    );
  }
  if (config.backend.type !== 'host-gw') return `nothing of the ${config.backend.type} backend is taken over`;
  if (conflist === undefined || bridge === undefined)
    return 'there is no CNI configuration of flannel with a bridge';
  if (bridge.alias === LINK_ALIAS) return `${bridge.name} is vtepd's already`;
  const inNetwork = addresses.some(({ address }) => {
    const network = config.networks[familyOf(address)]?.network;
    return network !== undefined && subnetContains(network, address);
  });
  return inNetwork ? undefined : `${bridge.name} has no address of this network: it is left alone`;
}

function nameConflict({ bridgeName, devices }: FlannelFacts, { device, bridge }: TakeOverWishes) {
  const flannels = [FLANNEL_DEVICE, devices.ipv4?.name];
  const wrong =
    device !== undefined && !flannels.includes(device)
      ? `--device ${device}`
      : bridge !== OUR_BRIDGE && bridge !== bridgeName
        ? `--bridge ${bridge}`
        : undefined;
  if (wrong === undefined) return undefined;
  return (
    `flannel's devices keep their names (${FAMILIES.flatMap((family) => devices[family]?.name ?? []).join(', ')}, ` +
    `${bridgeName}), but ${wrong} was given: leave it away, or say --take-over none and remove flannel's devices`
  );
}

/** By the bridge's address, which says the length too, else by the device's. */
function subnetsOf({ addresses, bridge, devices }: FlannelFacts, config: NetworkConfig): PerFamily<Subnet> {
  const of = (family: Family): Subnet | undefined => {
    const cut = config.networks[family];
    const inNetwork = addresses.filter(
      (each) => each.family === family && cut !== undefined && subnetContains(cut.network, each.address),
    );
    const onBridge = inNetwork.find(({ linkIndex }) => linkIndex === bridge?.index);
    if (onBridge !== undefined) return subnetOf(onBridge.address, onBridge.prefixLength);
    const onDevice = inNetwork.find(({ linkIndex }) => linkIndex === devices[family]?.index);
    return onDevice && cut && subnetOf(onDevice.address, cut.subnetLength);
  };
  const [ipv4, ipv6] = [of('ipv4'), of('ipv6')];
  return { ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }) };
}

/** The configuration's, else that under which most addresses are reserved, else ours. */
function networkName({ conflist, reservations }: FlannelFacts, ours: (address: Address) => boolean): string {
  if (conflist !== undefined) return conflist.name;
  const counts = new Map<string, number>();
  for (const { address, holder } of reservations) {
    if (ours(address)) counts.set(holder.network, (counts.get(holder.network) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? NETWORK_NAME;
}

function adopt(
  pod: FlannelPod,
  { bridge, bridgeName }: FlannelFacts,
  subnets: PerFamily<Subnet>,
): AdoptedPod {
  const { network, containerID, ifname, port, mac, cached } = pod;
  const key = { network, containerID, ifname };
  const addresses = pod.addresses.flatMap((address) => {
    const subnet = subnets[familyOf(address)];
    const known = cached?.addresses.find((each) => each.address === address);
    if (subnet === undefined) return [];
    const { prefixLength } = known ?? subnet;
    return [{ address, prefixLength, gateway: known?.gateway ?? addressAt(subnet, 1) }];
  });
  const attachment: Attachment = {
    ...key,
    hostInterface: hostInterfaceName(key),
    mac,
    addresses,
    routes: cached?.routes ?? [],
    bridge: bridgeName,
    mtuBytes: port.mtuBytes || bridge?.mtuBytes || 0,
    hairpin: port.hairpin,
    pod: cached?.pod,
    ...(cached?.pod !== undefined && { sticky: `pod ${cached.pod}` }),
    netns: cached?.netns ?? '',
  };
  return { attachment, portIndex: port.index, was: port.name };
}

function leaseOf(
  { devices }: FlannelFacts,
  { backend }: NetworkConfig,
  subnets: PerFamily<Subnet>,
): Lease | undefined {
  const publicAddress: { [F in Family]?: Address } = {};
  const vtep: { [F in Family]?: Vtep } = {};
  const held: { [F in Family]?: Subnet } = {};
  for (const family of FAMILIES) {
    const { vxlan, mac } = devices[family] ?? {};
    const subnet = subnets[family];
    if (vxlan === undefined || mac === undefined || subnet === undefined) continue;
    publicAddress[family] = vxlan.local;
    vtep[family] = { vni: vxlan.vni, mac };
    held[family] = subnet;
  }
  if (held.ipv4 === undefined && held.ipv6 === undefined) return undefined;
  return {
    key: encodeLeaseKey(held),
    subnets: held,
    attributes: { publicAddress, backend: backend.type, vtep },
  };
}

function stepsOf(
  plan: Omit<TakeOverPlan, 'steps'>,
  { devices, bridge, bridgeName, conflist }: FlannelFacts,
  subnets: PerFamily<Subnet>,
): Step[] {
  const steps: Step[] = [];
  const step = (kind: Step['kind'], what: string): void => {
    steps.push({ kind, what });
  };
  for (const family of FAMILIES) {
    const { name, vxlan, mac } = devices[family] ?? {};
    if (vxlan === undefined || plan.record.device === undefined) continue;
    step('device', `${name} (VNI ${vxlan.vni}, port ${vxlan.port}) is vtepd's, with its VTEP MAC ${mac}`);
  }
  step(
    'bridge',
    bridge === undefined ? `${bridgeName} will be made` : `${bridgeName} is vtepd's, with its ports`,
  );
  for (const family of FAMILIES) {
    const subnet = subnets[family];
    if (subnet !== undefined) step('lease', `${formatSubnet(subnet)} is asked for, as it was flannel's here`);
  }
  for (const { attachment, was } of plan.pods) {
    const addresses = attachment.addresses.map(({ address }) => address).join(' ');
    const name = attachment.pod === undefined ? '' : ` (${attachment.pod})`;
    step(
      'pod',
      `${attachmentText(attachment)}${name} ${addresses}: ${was} becomes ${attachment.hostInterface}`,
    );
  }
  for (const { address, holder } of plan.kept) {
    step('address', `${address} stays reserved for ${holder.containerID}, whose interface is not found`);
  }
  step('later', "once vtepd's stand: flannel's routes, iptables rules and nftables tables are removed");
  if (conflist !== undefined && plan.record.pods) step('later', `once ready: ${conflist.path} is set aside`);
  return steps;
}
