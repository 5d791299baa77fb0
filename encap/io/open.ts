/** A tunnel's device and sockets: those of an earlier tunnel, out of its holder, or new ones. */
import { readFileSync } from 'node:fs';
import { close } from '../../overlay/kernel/libc.ts';
import { socketAddress } from '../../overlay/kernel/socket-address.ts';
import type { Address } from '../../store/address.ts';
import type { TunnelOptions } from '../tunnel-types.ts';
import { type HeldDescriptors, takeOver } from './holder.ts';
import {
  adoptReceivers,
  boundTo,
  closeSockets,
  markOf,
  openSockets,
  type SocketParameters,
  type TunnelSockets,
} from './sockets.ts';
import { adoptTap, openTap, type Tap, tapOf } from './tap.ts';

export interface OpenedTunnel {
  readonly tap: Tap;
  readonly sockets: TunnelSockets;
  readonly resumed: boolean;
}

/** @throws TunnelError: nothing is left open */
export function openTunnel(options: TunnelOptions, queueCount: number): OpenedTunnel {
  const parameters = socketParameters(options, options.local);
  return resume(options, parameters) ?? openFresh(options, parameters, queueCount);
}

export const socketParameters = (options: TunnelOptions, local: Address): SocketParameters => ({
  local,
  port: options.port,
  mark: options.mark,
});

function openFresh(options: TunnelOptions, parameters: SocketParameters, queueCount: number): OpenedTunnel {
  const sockets = openSockets(parameters, queueCount);
  try {
    return { tap: openTap(options.device, queueCount), sockets, resumed: false };
  } catch (error) {
    closeSockets(sockets);
    throw error;
  }
}

/** What a holder has, if it is of this device, address and port. A holder of something else is ended. */
function resume(options: TunnelOptions, parameters: SocketParameters): OpenedTunnel | undefined {
  if (options.holderFile === undefined) return undefined;
  const held = takeOver(options.holderFile);
  if (held === undefined) return undefined;
  const isOurs = fits(held, options.device, parameters);
  const isHolder = held.queues.every((queue) => tapOf(queue) !== undefined);
  try {
    if (!isOurs) return undefined;
    const tap = adoptTap(options.device, held.queues);
    const sockets = adoptReceivers(parameters, held.receivers);
    return { tap, sockets, resumed: true };
  } catch (error) {
    options.log.warn('what the last daemon left cannot be used, so the data path starts afresh', {
      device: options.device,
      error,
    });
    closeAll(held);
    return undefined;
  } finally {
    if (!isOurs) closeAll(held);
    held.release({ isHolder });
  }
}

function fits(held: HeldDescriptors, device: string, parameters: SocketParameters): boolean {
  const bound = socketAddress(parameters.local, parameters.port);
  return (
    held.queues.length === held.receivers.length &&
    held.queues.every((queue) => tapOf(queue) === device) &&
    held.receivers.every((fd) => boundTo(fd)?.equals(bound) === true && markOf(fd) === parameters.mark)
  );
}

function closeAll(held: HeldDescriptors): void {
  for (const fd of [...held.queues, ...held.receivers]) close(fd);
}

/**
 * Frames for a device of this process's network namespace that its queues had no room for, since the device was made:
 * `ip -s link show NAME`.
 */
export function deviceDrops(device: string): number {
  const line = readFileSync('/proc/self/net/dev', 'latin1')
    .split('\n')
    .find((each) => each.trimStart().startsWith(`${device}:`));
  // Eight numbers of what it received, then bytes, packets, errors and drops of what it sent.
  const numbers = line
    ?.slice(line.indexOf(':') + 1)
    .trim()
    .split(/\s+/);
  return Number(numbers?.[11] ?? 0);
}
