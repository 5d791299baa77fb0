/** What the node keeps on disk: its memory and the cached view, whole or not at all. */
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { NodeMemory } from '../../../overlay/leases/node-memory.ts';
import { SnapshotCache } from '../../../overlay/leases/snapshot-cache.ts';
import { recordingLog, silentLog } from '../../../overlay/ops/log.ts';
import type { Lease } from '../../../store/lease.ts';
import { decodeLease, isMalformed } from '../../../store/lease-codec.ts';
import { LiveView } from '../../../store/lease-view.ts';
import { parseNetworkConfig } from '../../../store/network-config.ts';

const VALUE =
  '{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}';

function lease(key: string): Lease {
  const decoded = decodeLease(key, VALUE);
  if (isMalformed(decoded)) throw new Error(decoded.reason);
  return decoded;
}

describe('state directory', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vtepd-state-'));
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it('remembers MACs and lease, for root alone', () => {
    const first = new NodeMemory(directory, randomFillSync, silentLog);
    first.rememberLease(lease('10.244.5.0-24'));
    const second = new NodeMemory(directory, randomFillSync, silentLog);
    expect(second.identity).to.deep.equal(first.identity);
    expect(second.lease).to.deep.equal(lease('10.244.5.0-24'));
    expect(statSync(join(directory, 'node.json')).mode & 0o777).to.equal(0o600);
    second.rememberLease(undefined);
    expect(new NodeMemory(directory, randomFillSync, silentLog).lease).to.equal(undefined);
  });

  it('starts with new MACs when its memory cannot be read, and says so', () => {
    const { identity } = new NodeMemory(directory, randomFillSync, silentLog);
    for (const damage of ['', '{', '{"vtepMAC":{"ipv4":"ff:ff:ff:ff:ff:ff"}}']) {
      writeFileSync(join(directory, 'node.json'), damage);
      const log = recordingLog();
      expect(new NodeMemory(directory, randomFillSync, log).identity).not.to.deep.equal(identity);
      expect(log.entries.map(({ level }) => level)).to.deep.equal(['error']);
    }
  });

  it('gives the cached view back, for the store it is of', () => {
    const view = new LiveView();
    view.revision = '42';
    view.network = {
      config: parseNetworkConfig('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}'),
    };
    view.leases.set('10.244.5.0-24', lease('10.244.5.0-24'));
    const cache = new SnapshotCache(directory, 'etcd /a', silentLog);
    cache.changed(view);
    cache.flush();
    const read = new SnapshotCache(directory, 'etcd /a', silentLog).read();
    expect(read?.revision).to.equal('42');
    expect([...(read?.leases.values() ?? [])]).to.deep.equal([lease('10.244.5.0-24')]);
    expect(read?.network).to.deep.equal(view.network);
    expect(new SnapshotCache(directory, 'etcd /b', silentLog).read()).to.equal(undefined);
  });

  it('does without a cache that is missing or damaged', () => {
    const log = recordingLog();
    expect(new SnapshotCache(directory, 'etcd /a', log).read()).to.equal(undefined);
    expect(log.entries).to.deep.equal([]);
    writeFileSync(join(directory, 'leases.json'), '{"store":"etcd /a","revision":4');
    expect(new SnapshotCache(directory, 'etcd /a', log).read()).to.equal(undefined);
    expect(log.entries.map(({ level }) => level)).to.deep.equal(['warn']);
  });

  it('keeps a cached lease that is malformed apart from the others', () => {
    const file = {
      store: 'etcd /a',
      revision: '4',
      leases: [
        ['10.244.5.0-24', VALUE],
        ['10.244.6.0-24', '{'],
      ],
    };
    writeFileSync(join(directory, 'leases.json'), JSON.stringify(file));
    const read = new SnapshotCache(directory, 'etcd /a', silentLog).read();
    expect([...(read?.leases.keys() ?? [])]).to.deep.equal(['10.244.5.0-24']);
    expect(read?.malformed.map(({ key }) => key)).to.deep.equal(['10.244.6.0-24']);
    expect(readFileSync(join(directory, 'leases.json'), 'utf8')).to.contain('10.244.6.0-24');
  });
});
