/**
 * Takes over what flannel left, before the daemon starts on it: once, or again from the beginning where it was
 * interrupted. Everything that runs goes on running; what flannel needs to come back stays where it is.
 *
 *     record (taken-over.json) --> MACs, lease (node.json) --> attachments, addresses --> ports renamed --> done
 *
 * The attachments are on disk before the ports have their names, by which the registry finds them. What is
 * flannel's in routes, rules and CNI configuration goes later, when ours stands: flannel-remains.ts.
 */
import { randomFillSync } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { AddressStore } from '../../cni-shim/address-store.ts';
import { AttachmentRecords } from '../../cni-shim/attachment-records.ts';
import { DurableFiles } from '../../cni-shim/durable-files.ts';
import { StateInUseError } from '../../cni-shim/registry.ts';
import { FAMILIES, tryAddress } from '../../store/address.ts';
import { Backoff, delay } from '../../store/backoff.ts';
import type { NetworkConfig } from '../../store/lease.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import type { Settings } from '../config/settings.ts';
import { lockFile } from '../kernel/file-lock.ts';
import { readFileIfThere } from '../kernel/files.ts';
import { setLink } from '../kernel/link.ts';
import { NetlinkSocket } from '../kernel/netlink-socket.ts';
import { processInOurNetwork } from '../kernel/processes.ts';
import { NodeMemory } from '../leases/node-memory.ts';
import { openStore } from '../leases/open-store.ts';
import type { Log } from '../ops/log.ts';
import { FLANNEL_DAEMON, type FlannelPlaces, hasFlannelTraces, observeFlannel } from './flannel-facts.ts';
import { isRefusal, planTakeOver, type Refusal, type TakeOverPlan } from './take-over-plan.ts';
import { readTakenOver, type TakenOver, writeTakenOver } from './taken-over.ts';

/** flannel is here and in the way; the message says what to do. */
export class TakeOverRefusedError extends Error {
  override readonly name = 'TakeOverRefusedError';
  readonly code = 'VTEPD_TAKE_OVER_REFUSED';
}

export interface TakeOverOptions {
  /** How long the store may be away; as long as it likes unless told. */
  readonly patienceMs?: number | undefined;
  readonly settings: Settings;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Where runtimes look for configurations unless they are told otherwise. */
const DEFAULT_CONF_DIR = '/etc/cni/net.d';
const STORE_BACKOFF = { minMs: 200, maxMs: 5000 };

export const flannelPlaces = ({ cni }: Pick<Settings, 'cni'>): FlannelPlaces => ({
  confDir: cni.confDir ?? DEFAULT_CONF_DIR,
  dataDir: cni.dataDir,
});

/**
 * For the daemon's start: what was taken over, now or before; undefined where nothing was, which costs one dump
 * of links. Where flannel may have been, the store's network configuration is waited for.
 * @throws TakeOverRefusedError, StateInUseError, NetlinkError, the signal's reason
 */
export async function settleTakeOver(options: TakeOverOptions): Promise<TakenOver | undefined> {
  const { settings, log } = options;
  const before = readTakenOver(settings.files.stateDir);
  if (before?.complete === true) {
    const pid = processInOurNetwork(FLANNEL_DAEMON);
    if (pid !== undefined) {
      log.warn(
        'flanneld runs on a node that vtepd has taken over: stop it, and keep it from starting again',
        {
          pid,
        },
      );
    }
    return before;
  }
  using netlink = NetlinkSocket.open();
  if (before === undefined) {
    if (settings.overlay.takeOver === 'none') return undefined;
    if (!hasFlannelTraces(netlink, flannelPlaces(settings))) return undefined;
  }
  log.info('flannel was here; looking at what it left');
  const plan = await makePlan(netlink, options);
  if (!isRefusal(plan)) return await carryOut(netlink, plan, options);
  if (plan.kind !== 'none') throw new TakeOverRefusedError(plan.reason);
  log.info('nothing is taken over from flannel', { reason: plan.reason });
  return before;
}

/** What there is to do, or why nothing can be done. Changes nothing. */
export async function makePlan(
  netlink: NetlinkSocket,
  options: TakeOverOptions,
): Promise<TakeOverPlan | Refusal> {
  const config = await networkOf(options);
  const facts = await observeFlannel(netlink, flannelPlaces(options.settings));
  const { files, overlay } = options.settings;
  return planTakeOver(facts, config, overlay, readTakenOver(files.stateDir)?.ports);
}

/** @throws StateInUseError, NetlinkError, NodeJS.ErrnoException */
export async function carryOut(
  netlink: NetlinkSocket,
  plan: TakeOverPlan,
  { settings, log }: TakeOverOptions,
): Promise<TakenOver> {
  const { stateDir } = settings.files;
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  using _lock = lockState(stateDir);
  writeTakenOver(stateDir, plan.record);
  new NodeMemory(stateDir, randomFillSync, log).takeOver(plan, plan.lease);
  await importPods(plan, settings);
  for (const { attachment, portIndex, was } of plan.pods) {
    if (was !== attachment.hostInterface) renameLink(netlink, portIndex, was, attachment.hostInterface);
  }
  for (const { kind, what } of plan.steps) log.info('taken over from flannel', { kind, what });
  const done = { ...plan.record, complete: true };
  writeTakenOver(stateDir, done);
  return done;
}

/** Those that an interrupted run has imported already stay as they are. */
async function importPods({ pods, kept, record }: TakeOverPlan, settings: Settings): Promise<void> {
  const { stateDir } = settings.files;
  const files = new DurableFiles(join(stateDir, 'scratch'));
  try {
    const records = new AttachmentRecords(join(stateDir, 'attachments'), files);
    const addresses = new AddressStore(join(stateDir, 'networks'), files);
    for (const { attachment } of pods) {
      records.write(attachment);
      records.confirm(attachment.hostInterface);
      for (const { address } of attachment.addresses) addresses.reserve(address, attachment);
    }
    for (const { address, holder } of kept) addresses.reserve(address, holder);
    for (const [index, family] of FAMILIES.entries()) {
      // host-local's round goes on where it was.
      const path = join(settings.cni.dataDir, 'networks', record.network, `last_reserved_ip.${index}`);
      const last = tryAddress(readFileIfThere(path)?.trim() ?? '');
      if (last !== undefined && record.pods) {
        mkdirSync(join(stateDir, 'networks', record.network), { recursive: true, mode: 0o700 });
        addresses.rememberLast(record.network, family, last);
      }
    }
    await files.flushed();
  } finally {
    await files.close();
  }
}

/**
 * `ip link set INDEX name NAME`. Kernels before 6.2 rename nothing that is up: there the port goes down for the
 * moment, and its pod misses what a cable pulled as briefly would. One whose pod has just ended is gone.
 * @throws NetlinkError
 */
export function renameLink(netlink: NetlinkSocket, index: number, from: string, to: string): void {
  const what = (): string => `rename ${from} to ${to}`;
  const [refused] = netlink.execute([setLink(index, { name: to })], what);
  if (refused === undefined || refused.error.code === 'ENODEV') return;
  if (refused.error.code !== 'EBUSY') throw refused.error;
  const steps = [setLink(index, { up: false }), setLink(index, { name: to }), setLink(index, { up: true })];
  const [failure] = netlink.execute(steps, what);
  if (failure !== undefined && failure.error.code !== 'ENODEV') throw failure.error;
}

/** Waits for the store: without the network nothing here can be told apart. */
async function networkOf({ settings, log, signal, patienceMs }: TakeOverOptions): Promise<NetworkConfig> {
  const deadline = patienceMs === undefined ? undefined : performance.now() + patienceMs;
  const isOver = (): boolean => deadline !== undefined && performance.now() > deadline;
  const store: LeaseStore = await openStore(settings.store);
  const backoff = new Backoff({ ...STORE_BACKOFF, random: Math.random });
  try {
    for (let tries = 1; ; tries++) {
      try {
        const config = await store.networkConfig(signal);
        if (config !== undefined) return config;
        if (isOver()) throw new TakeOverRefusedError('the store has no network configuration');
        if (tries === 1) log.warn('the store has no network configuration; waiting for it');
      } catch (error) {
        signal.throwIfAborted();
        if (isOver()) throw error;
        if (tries === 1) log.warn('the network configuration cannot be read; trying again', { error });
      }
      await delay(backoff.next(), signal);
    }
  } finally {
    await store.close();
  }
}

export function lockState(stateDir: string): Disposable {
  try {
    return lockFile(join(stateDir, 'lock'));
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'EAGAIN')) throw cause;
    throw new StateInUseError(`a vtepd uses ${stateDir}: stop it first`, { cause });
  }
}
