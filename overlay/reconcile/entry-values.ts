/** The peers' entries as text, the form in which EntryTable compares them and logs name them. */
import { type Address, formatSubnet, type Mac, parseSubnet, type Subnet } from '../../store/address.ts';
import type { NewRoute, Nexthop, Route } from '../kernel/route.ts';

export const neighbourValue = ({ mac, permanent }: { mac: Mac | undefined; permanent: boolean }): string =>
  permanent ? `${mac}` : `${mac} not permanent`;

export const fdbValue = ({ remote, permanent }: { remote: Address; permanent: boolean }): string =>
  permanent ? remote : `${remote} not permanent`;

/** Where a route or a nexthop object leads, and how large its packets may be. */
export type Target = Pick<NewRoute, 'nexthopId' | 'gateway' | 'linkIndex' | 'mtuBytes'>;

/** `nhid 7`, `nhid 7 mtu 1350`, `via 10.1.5.0 dev 4`, `dev 4` */
export function targetText({ nexthopId, gateway, linkIndex, mtuBytes }: Target): string {
  const mtu = mtuBytes === undefined ? '' : ` mtu ${mtuBytes}`;
  if (nexthopId !== undefined) return `nhid ${nexthopId}${mtu}`;
  return `${gateway === undefined ? '' : `via ${gateway} `}dev ${linkIndex ?? 'unknown'}${mtu}`;
}

/** The reverse of targetText; a device that was not told is left out. */
export function parseTarget(text: string): Target {
  const words = text.split(' ');
  const after = (word: string): string | undefined => {
    const place = words.indexOf(word);
    return place < 0 ? undefined : words[place + 1];
  };
  const [nexthopId, mtu] = [after('nhid'), after('mtu')];
  const mtuBytes = mtu === undefined ? undefined : Number(mtu);
  if (nexthopId !== undefined) return { nexthopId: Number(nexthopId), mtuBytes };
  const linkIndex = Number(after('dev'));
  return { gateway: after('via') as Address | undefined, mtuBytes, ...(linkIndex > 0 && { linkIndex }) };
}

/**
 * The kernel takes a route over a nexthop object that says nothing of its MTU for the one there is already over
 * that object, MTU included (fib_find_info_nh): one that shall have none beside such a one has to say so.
 */
export const explicitMtu = (value: string, before: string | undefined): Pick<Target, 'mtuBytes'> =>
  before === undefined || parseTarget(before).mtuBytes === undefined
    ? {}
    : { mtuBytes: parseTarget(value).mtuBytes ?? 0 };

/** Whether two targets differ in their MTU at most. */
export const leadsAlike = (a: string, b: string): boolean =>
  targetText({ ...parseTarget(a), mtuBytes: undefined }) ===
  targetText({ ...parseTarget(b), mtuBytes: undefined });

export const nexthopValue = (nexthop: Nexthop, ourProtocol: number): string =>
  `${targetText({ gateway: nexthop.gateway, linkIndex: nexthop.linkIndex })}${
    nexthop.protocol === ourProtocol ? '' : ` proto ${nexthop.protocol}`
  }`;

/** A route of ours with another metric is none that this version writes: its key is never wanted. */
export const routeKey = ({ destination, metric }: Route, ourMetric: number | undefined): string =>
  metric === ourMetric ? formatSubnet(destination) : `${formatSubnet(destination)} metric ${metric ?? 0}`;

/** The reverse of routeKey. */
export function parseRouteKey(
  key: string,
  ourMetric: number | undefined,
): { destination: Subnet; metric: number | undefined } {
  const [subnet = '', other] = key.split(' metric ');
  return { destination: parseSubnet(subnet), metric: other === undefined ? ourMetric : Number(other) };
}
