/**
 * Listens to what the kernel announces (`ip monitor`, `bridge monitor`, `nft monitor`), and hands the
 * messages on one by one as they come.
 *
 * A lost message (ENOBUFS) cannot be known by itself, only that some were lost: the listener is told, and
 * must look at everything again. It is told when the socket has been read to its end: until then the kernel
 * goes on dropping what it announces, and says so only once. The wait is a poll(2) on one thread of Node's
 * pool; an event descriptor ends it.
 */
import { writeSync } from 'node:fs';
import { checked, close, eventfd, pollReadable } from './libc.ts';
import { messages, type NetlinkMessage } from './netlink-message.ts';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkError, NetlinkSocket } from './netlink-socket.ts';
import {
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_NETCONF,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  RTNLGRP_NEXTHOP,
} from './rtnetlink.ts';

const NFNLGRP_NFTABLES = 7;
const EFD_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000;
const FOREVER = -1;
const AT_ONCE = 0;
/** After this many datagrams in one go the event loop gets its turn. */
const DATAGRAMS_A_TURN = 256;

const ROUTE_GROUPS = [
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_NETCONF,
];

export interface MonitorListener {
  /** A routing message: a link, address, route, neighbour, nexthop object or setting. */
  routing(message: NetlinkMessage): void;
  /** A netfilter message: something of nftables. */
  netfilter(message: NetlinkMessage): void;
  /** Announcements were lost. */
  lost(): void;
}

export class KernelMonitor {
  readonly #listener: MonitorListener;
  readonly #routing: NetlinkSocket;
  readonly #netfilter: NetlinkSocket;
  readonly #wake: number;
  #closing = false;
  /** Of which messages were lost, and which are not read to their end yet. */
  readonly #overrun = new Set<NetlinkSocket>();
  readonly #ended: Promise<void>;

  /** Listens from now on, in the network namespace of the caller. @throws SystemCallError */
  constructor(listener: MonitorListener) {
    this.#listener = listener;
    this.#routing = openRouting();
    this.#netfilter = NetlinkSocket.open({ protocol: NETLINK_NETFILTER, groups: [NFNLGRP_NFTABLES] });
    this.#wake = checked('eventfd', eventfd(0, EFD_CLOEXEC_NONBLOCK));
    this.#ended = this.#listen();
  }

  /** Resolves once the waiting thread is back. */
  async close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      writeSync(this.#wake, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]));
    }
    await this.#ended;
  }

  async #listen(): Promise<void> {
    try {
      while (!this.#closing) {
        const ready = await pollReadable(
          [this.#routing.fd, this.#netfilter.fd, this.#wake],
          this.#overrun.size > 0 ? AT_ONCE : FOREVER,
        );
        const has = (place: number, socket: NetlinkSocket): boolean =>
          ready[place] === true || this.#overrun.has(socket);
        if (has(0, this.#routing)) this.#drain(this.#routing, (message) => this.#listener.routing(message));
        if (has(1, this.#netfilter))
          this.#drain(this.#netfilter, (message) => this.#listener.netfilter(message));
      }
    } finally {
      this.#routing.close();
      this.#netfilter.close();
      close(this.#wake);
    }
  }

  #drain(socket: NetlinkSocket, deliver: (message: NetlinkMessage) => void): void {
    for (let turn = 0; turn < DATAGRAMS_A_TURN; turn++) {
      try {
        const datagram = socket.receive();
        if (datagram === undefined) {
          if (this.#overrun.delete(socket)) this.#listener.lost();
          return;
        }
        for (const message of messages(datagram)) deliver(message);
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error;
        this.#overrun.add(socket);
      }
    }
  }
}

/** Kernels before 5.3 have no nexthop objects and no group to announce them. */
function openRouting(): NetlinkSocket {
  try {
    return NetlinkSocket.open({ protocol: NETLINK_ROUTE, groups: [...ROUTE_GROUPS, RTNLGRP_NEXTHOP] });
  } catch {
    return NetlinkSocket.open({ protocol: NETLINK_ROUTE, groups: ROUTE_GROUPS });
  }
}
