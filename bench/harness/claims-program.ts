/**
 * A program of its own, run in the underlay's namespace by claims.ts: so many nodes that claim a subnet at
 * the same moment, through some stores of one process.
 *
 *   claims-program.js COUNT --store embedded --embedded-path PATH ...
 *   claims-program.js COUNT --store etcd --etcd-endpoints URL --etcd-prefix PREFIX
 *
 * Prints one line of JSON, a ClaimsRun, when every claim has its own subnet.
 */
import { openEmbeddedStore } from '../../store/embedded/embedded-store.ts';
import { openEtcdStore } from '../../store/etcd/etcd-store.ts';
import type { LeaseStore } from '../../store/lease-store.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { networkConfig, numberedPeer } from './peers.ts';

export interface ClaimsRun {
  /** From the first claim's begin to the last one's end. */
  readonly totalMs: number;
  /** Of each claim, from its begin. */
  readonly claimMs: readonly number[];
}

/** One process is many nodes here: it keeps itself waiting, which is not the store's failure. */
const CALL_TIMEOUT_MS = 60_000;
const TTL_MS = 3_600_000;
/** Connections to etcd, as of so many nodes; the others share them. */
const STORES = 20;

function open(argv: readonly string[]): LeaseStore[] {
  const flag = (name: string): string => argv[argv.indexOf(`--${name}`) + 1] ?? '';
  const [random, now] = [Math.random, Date.now];
  if (flag('store') === 'embedded') return [openEmbeddedStore({ path: flag('embedded-path'), random, now })];
  const options = { endpoints: [flag('etcd-endpoints')], prefix: flag('etcd-prefix'), random, now };
  return Array.from({ length: STORES }, () => openEtcdStore({ ...options, callTimeoutMs: CALL_TIMEOUT_MS }));
}

async function claimAll(count: number, stores: readonly LeaseStore[]): Promise<ClaimsRun> {
  const network = parseNetworkConfig(networkConfig('ipv4'));
  const signal = new AbortController().signal;
  const begin = performance.now();
  const claims = Array.from({ length: count }, async (_, number) => {
    const { attributes } = numberedPeer(number).lease;
    const held = await stores[number % stores.length]?.claim({ network, attributes, ttlMs: TTL_MS }, signal);
    return { key: held?.lease.key, ms: performance.now() - begin };
  });
  const done = await Promise.all(claims);
  const totalMs = performance.now() - begin;
  const subnets = new Set(done.map(({ key }) => key));
  if (subnets.size !== count) throw new Error(`${count} claims got ${subnets.size} subnets`);
  return { totalMs, claimMs: done.map(({ ms }) => ms) };
}

const [count, ...rest] = process.argv.slice(2);
const stores = open(rest);
try {
  process.stdout.write(`${JSON.stringify(await claimAll(Number(count), stores))}\n`);
} finally {
  await Promise.all(stores.map((store) => store.close()));
}
