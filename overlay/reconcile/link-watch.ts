/**
 * Follows the underlay's link for the sake of direct routes. When it goes down, loses its carrier or its last
 * address, the kernel takes nexthop objects and routes over it away, most of them without a word, and puts
 * none back when it returns.
 */
import { readLinkAddress } from '../kernel/address.ts';
import { findLink, type Link, readLink } from '../kernel/link.ts';
import type { NetlinkMessage } from '../kernel/netlink-message.ts';
import type { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { RTM_DELADDR, RTM_DELLINK, RTM_NEWLINK } from '../kernel/rtnetlink.ts';

export interface WatchedLink {
  readonly name: string;
  readonly index: number;
}

export class LinkWatch {
  #index: number | undefined;
  #running: boolean | undefined;

  /** @returns whether entries over the link may have gone, or can be put back */
  announced(message: NetlinkMessage, { index }: WatchedLink): boolean {
    switch (message.type) {
      case RTM_NEWLINK:
      case RTM_DELLINK: {
        const link = readLink(message);
        if (link?.index !== index) return false;
        const running = message.type === RTM_NEWLINK && carries(link);
        const known = this.#index === index ? this.#running : undefined;
        this.#index = index;
        this.#running = running;
        return running !== known;
      }
      case RTM_DELADDR:
        return readLinkAddress(message)?.linkIndex === index;
      default:
        return false;
    }
  }
}

/** Whether the kernel accepts entries over this link now. */
export function isRunning(netlink: NetlinkSocket, { name, index }: WatchedLink): boolean {
  const link = findLink(netlink, name);
  return link !== undefined && link.index === index && carries(link);
}

const carries = (link: Link): boolean => link.up && link.carrier;
