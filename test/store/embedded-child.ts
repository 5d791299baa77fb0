/**
 * Another process on an embedded store, for embedded.test.ts: `node embedded-child.js PATH FIRST COUNT`
 * claims for the nodes FIRST.. and prints their keys as JSON; with COUNT 0 it prints `busy`, then claims and
 * releases for FIRST until it is killed.
 */
import { openEmbeddedStore } from '../../store/embedded/embedded-store.ts';
import { never, node, TTL_MS } from './store-lab.ts';

const [path = '', first = 0, count = 0] = process.argv
  .slice(2)
  .map((arg, i) => (i === 0 ? arg : Number(arg))) as [string, number, number];
const store = openEmbeddedStore({ path, now: Date.now, random: Math.random });
const network = await store.networkConfig(never);
if (network === undefined) throw new Error('no network configuration');
const claim = (n: number) => store.claim({ network, attributes: node(n), ttlMs: TTL_MS }, never);

if (count === 0) {
  process.stdout.write('busy\n');
  for (;;) {
    await store.release(await claim(first), never);
    await new Promise(setImmediate);
  }
}
const keys: string[] = [];
for (let i = 0; i < count; i++) {
  keys.push((await claim(first + i)).lease.key);
  // Let the other processes in between.
  await new Promise(setImmediate);
}
process.stdout.write(JSON.stringify(keys));
await store.close();
