/** The peers' entries as text, the form in which EntryTable compares them and logs name them. */
import { type Address, formatSubnet, type Mac, parseSubnet, type Subnet } from '../../store/address.ts';
import type { NewRoute, Nexthop, Route } from '../kernel/route.ts';

export const neighbourValue = ({ mac, permanent }: { mac: Mac | undefined; permanent: boolean }): string =>
  permanent ? `${mac}` : `${mac} not permanent`;

export const fdbValue = ({ remote, permanent }: { remote: Address; permanent: boolean }): string =>
  permanent ? remote : `${remote} not permanent`;

/** Where a route or a nexthop object leads. */
export type Target = Pick<NewRoute, 'nexthopId' | 'gateway' | 'linkIndex'>;

/** `nhid 7`, `via 10.1.5.0 dev 4`, `dev 4` */
export function targetText({ nexthopId, gateway, linkIndex }: Target): string {
  if (nexthopId !== undefined) return `nhid ${nexthopId}`;
  return `${gateway === undefined ? '' : `via ${gateway} `}dev ${linkIndex ?? 'unknown'}`;
}

/** The reverse of targetText; a device that was not told is left out. */
export function parseTarget(text: string): Target {
  const words = text.split(' ');
  const after = (word: string): string | undefined => {
    const place = words.indexOf(word);
    return place < 0 ? undefined : words[place + 1];
  };
  const nexthopId = after('nhid');
  if (nexthopId !== undefined) return { nexthopId: Number(nexthopId) };
  const linkIndex = Number(after('dev'));
  return { gateway: after('via') as Address | undefined, ...(linkIndex > 0 && { linkIndex }) };
}

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
