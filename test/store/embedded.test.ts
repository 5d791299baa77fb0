import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { EmbeddedDatabase } from '../../store/embedded/database.ts';
import { type EmbeddedStore, openEmbeddedStore } from '../../store/embedded/embedded-store.ts';
import { NetworkConfigError, StoreUnavailableError } from '../../store/errors.ts';
import { parseNetworkConfig } from '../../store/network-config.ts';
import { describeLeaseStore } from './conformance.ts';
import { failure, NETWORK, never, node, type StoreLab, TTL_MS, told, watchUntil } from './store-lab.ts';

const HISTORY_LENGTH = 100;

class EmbeddedLab implements StoreLab {
  readonly path = mkdtempSync(join(tmpdir(), 'vtepd-embedded-'));
  /** How far the stores' clock is ahead of the machine's. */
  aheadMs = 0;
  readonly database = new EmbeddedDatabase(this.path, HISTORY_LENGTH);
  readonly #stores: EmbeddedStore[] = [];

  async open(): Promise<EmbeddedStore> {
    const store = openEmbeddedStore({
      path: this.path,
      now: () => Date.now() + this.aheadMs,
      random: Math.random,
      pollIntervalMs: 2,
      historyLength: HISTORY_LENGTH,
    });
    this.#stores.push(store);
    return store;
  }

  async put(key: string, text: string): Promise<void> {
    this.database.write(() => {
      this.database.put(key, text);
      this.database.setExpiry(key, undefined);
    });
  }

  async remove(key: string): Promise<void> {
    this.database.write(() => this.database.remove(key));
  }

  async get(key: string): Promise<string | undefined> {
    this.database.refresh();
    return this.database.get(key)?.text;
  }

  async expire(key: string): Promise<void> {
    this.database.write(() => this.database.setExpiry(`subnets/${key}`, 1));
    await (await this.open()).snapshot(never);
  }

  async expires(key: string): Promise<boolean> {
    this.database.refresh();
    return this.database.expiresAt(`subnets/${key}`) !== undefined;
  }

  async forgetHistory(): Promise<void> {
    for (let i = 0; i < HISTORY_LENGTH; i++) await this.put('unrelated', String(i));
  }

  async close(): Promise<void> {
    for (const store of this.#stores) await store.close();
    await this.database.close();
    rmSync(this.path, { recursive: true, force: true });
  }
}

describeLeaseStore('store/embedded', async () => new EmbeddedLab());

describe('store/embedded', () => {
  let lab: EmbeddedLab;
  let store: EmbeddedStore;
  const children: ChildProcess[] = [];
  const network = parseNetworkConfig(NETWORK);

  beforeEach(async () => {
    lab = new EmbeddedLab();
    store = await lab.open();
    await store.setNetworkConfig(NETWORK);
  });

  afterEach(async () => {
    for (const child of children.splice(0)) if (child.exitCode === null) child.kill('SIGKILL');
    await lab.close();
  });

  function startChild(...args: (string | number)[]): ChildProcess {
    const script = join(import.meta.dirname, 'embedded-child.js');
    const child = spawn(process.execPath, [script, lab.path, ...args.map(String)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    return child;
  }

  async function output(child: ChildProcess): Promise<string> {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await once(child, 'close');
    return text;
  }

  it('is claimed from several processes at once without a duplicate', async () => {
    const outputs = [startChild(1, 40), startChild(101, 40)].map(output);
    const own: string[] = [];
    for (let i = 0; i < 40; i++) {
      const held = await store.claim({ network, attributes: node(201 + i), ttlMs: TTL_MS }, never);
      own.push(held.lease.key);
      await new Promise(setImmediate);
    }
    const others = (await Promise.all(outputs)).map((text) => JSON.parse(text) as string[]);
    const all = [own, ...others].flat();
    expect(new Set(all).size).to.equal(120);
    const { leases } = await (await lab.open()).snapshot(never);
    expect([...leases.keys()].sort()).to.deep.equal(all.sort());
  });

  it('tells this process what another has written', async () => {
    const { revision } = await store.snapshot(never);
    const child = startChild(7, 1);
    const text = output(child);
    const batches = await watchUntil(store, revision, (all) => told(all).length > 0);
    const [key] = JSON.parse(await text) as string[];
    expect(told(batches)).to.deep.equal([`+${key} 192.0.2.7`]);
  });

  it('outlives a process that is killed while it writes', async () => {
    for (let round = 0; round < 3; round++) {
      const child = startChild(9, 0);
      await once(child.stdout ?? child, 'data');
      child.kill('SIGKILL');
      await once(child, 'close');
      const held = await store.claim({ network, attributes: node(1), ttlMs: TTL_MS }, never);
      await store.release(held, never);
    }
  });

  it('removes leases whose time is over: a watch by itself, a claim and a snapshot before they look', async () => {
    const claim = (n: number) => store.claim({ network, attributes: node(n), ttlMs: TTL_MS }, never);
    const first = await claim(1);
    const { revision } = await store.snapshot(never);
    const second = { key: '' };
    const batches = await watchUntil(
      await lab.open(),
      revision,
      (all) => told(all).includes(`-${first.lease.key}`) && told(all).includes(`-${second.key}`),
      async () => {
        lab.aheadMs = TTL_MS / 2;
        second.key = (await claim(2)).lease.key;
        lab.aheadMs = TTL_MS;
        const seen = await watchUntil(store, revision, (all) => told(all).includes(`-${first.lease.key}`));
        expect(told(seen)).to.include(`+${second.key} 192.0.2.2`);
        lab.aheadMs = 2 * TTL_MS;
      },
    );
    expect(told(batches).filter((what) => what.startsWith('-'))).to.have.members([
      `-${first.lease.key}`,
      `-${second.key}`,
    ]);
    const third = await claim(3);
    lab.aheadMs += TTL_MS - 1000;
    const renewed = await store.renew(third, node(3), never);
    expect((renewed.expiresAt ?? 0) - (third.expiresAt ?? 0)).to.be.at.least(TTL_MS - 1000);
    lab.aheadMs += 2000;
    expect([...(await store.snapshot(never)).leases.keys()]).to.deep.equal([third.lease.key]);
    lab.aheadMs += TTL_MS;
    expect((await store.snapshot(never)).leases.size).to.equal(0);
  });

  it('is seeded with a network configuration once, and only with one that can be used', async () => {
    const other = '{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan"}}';
    expect(await store.setNetworkConfig(other, { ifAbsent: true })).to.equal(false);
    expect(await store.networkConfig(never)).to.deep.equal(network);
    expect(await store.setNetworkConfig(other)).to.equal(true);
    expect(await store.networkConfig(never)).to.deep.equal(parseNetworkConfig(other));
    await lab.remove('config');
    expect(await store.setNetworkConfig(NETWORK, { ifAbsent: true })).to.equal(true);
    expect(await failure(store.setNetworkConfig('{"Network":"x"}'))).to.be.instanceOf(NetworkConfigError);
  });

  it('says which directory it cannot open, and what to look at', () => {
    const file = join(lab.path, 'file');
    writeFileSync(file, 'not a directory');
    for (const path of [file, join(file, 'below')]) {
      expect(() => openEmbeddedStore({ path, now: Date.now, random: Math.random })).to.throw(
        StoreUnavailableError,
        `embedded store ${path} cannot be opened: `,
      );
    }
  });
});
