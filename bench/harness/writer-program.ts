/**
 * A program of its own, run beside the node by store-writer.ts: other nodes' leases, written straight into
 * the store as the nodes themselves would have.
 *
 *   writer-program.js --store embedded --embedded-path PATH --families ipv4|ipv6|dual
 *   writer-program.js --store etcd --etcd-endpoints URL --etcd-prefix PREFIX --families ...
 *
 * Reads requests, one JSON object a line; answers each with a line: when the write began and returned.
 */
import { createInterface } from 'node:readline';
import { Etcd3 } from 'etcd3';
import { EmbeddedDatabase } from '../../store/embedded/database.ts';
import { oneOfFamilies } from './families.ts';
import { monotonicMs } from './machine.ts';
import { leaseText, numberedPeer } from './peers.ts';
import type { WriteAnswer, WriteRequest } from './store-writer.ts';

interface Writer {
  put(key: string, text: string): Promise<void>;
  remove(key: string): Promise<void>;
  putMany(leases: readonly (readonly [string, string])[]): Promise<void>;
  close(): Promise<void>;
}

/** The store's own default. */
const HISTORY_LENGTH = 10_000;
/** etcd takes 128 operations a transaction unless told otherwise. */
const ETCD_OPERATIONS = 128;

function embedded(path: string): Writer {
  const database = new EmbeddedDatabase(path, HISTORY_LENGTH);
  return {
    async put(key, text) {
      database.write(() => database.put(`subnets/${key}`, text));
    },
    async remove(key) {
      database.write(() => database.remove(`subnets/${key}`));
    },
    async putMany(leases) {
      database.write(() => {
        for (const [key, text] of leases) database.put(`subnets/${key}`, text);
      });
    },
    close: () => database.close(),
  };
}

function etcd(url: string, prefix: string): Writer {
  const client = new Etcd3({ hosts: url });
  const path = (key: string): string => `${prefix}/subnets/${key}`;
  return {
    async put(key, text) {
      await client.put(path(key)).value(text);
    },
    async remove(key) {
      await client.delete().key(path(key));
    },
    async putMany(leases) {
      for (let start = 0; start < leases.length; start += ETCD_OPERATIONS) {
        const piece = leases.slice(start, start + ETCD_OPERATIONS);
        const puts = piece.map(([key, text]) => client.put(path(key)).value(text));
        // An operation without a condition still has to be asked for with one.
        await client
          .if(`${prefix}/none`, 'Version', '==', 0)
          .then(...puts)
          .commit();
      }
    },
    close: async () => client.close(),
  };
}

const flag = (name: string): string => process.argv[process.argv.indexOf(`--${name}`) + 1] ?? '';
const families = oneOfFamilies(flag('families'));

function open(): Writer {
  if (flag('store') === 'etcd') return etcd(flag('etcd-endpoints'), flag('etcd-prefix'));
  return embedded(flag('embedded-path'));
}

async function carryOut(writer: Writer, request: WriteRequest): Promise<void> {
  if (request.verb === 'fill') {
    const leases: [string, string][] = [];
    for (let number = 0; number < request.count; number++) {
      const peer = numberedPeer(number, families);
      leases.push([peer.lease.key, leaseText(peer)]);
    }
    await writer.putMany(leases);
    return;
  }
  const peer = numberedPeer(request.number, families);
  if (request.verb === 'put') await writer.put(peer.lease.key, leaseText(peer));
  else await writer.remove(peer.lease.key);
}

const writer = open();
process.stdout.write('{"ready":true}\n');
for await (const line of createInterface({ input: process.stdin })) {
  const begunMs = monotonicMs();
  await carryOut(writer, JSON.parse(line) as WriteRequest);
  const answer: WriteAnswer = { begunMs, returnedMs: monotonicMs() };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await writer.close();
