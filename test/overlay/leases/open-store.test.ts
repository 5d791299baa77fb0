/** Opening the store that the settings name. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { openStore } from '../../../overlay/leases/open-store.ts';

describe('openStore', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vtepd-open-'));
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  const refusal = (netConfigPath?: string): Promise<unknown> =>
    openStore({ kind: 'embedded', path: join(directory, 'store'), netConfigPath }).then(
      (store) => store.close(),
      (error: unknown) => error,
    );

  it('seeds an embedded store once, and finds it again', async () => {
    const path = join(directory, 'store');
    const seed = join(directory, 'network.json');
    const never = new AbortController().signal;
    for (const network of ['10.244.0.0/16', '10.99.0.0/16']) {
      writeFileSync(seed, JSON.stringify({ Network: network, Backend: { Type: 'vxlan' } }));
      const store = await openStore({ kind: 'embedded', path, netConfigPath: seed });
      const config = await store.networkConfig(never);
      expect(config?.networks.ipv4?.network.address).to.equal('10.244.0.0');
      await store.close();
    }
  });

  it('refuses a seed that is missing or malformed, by its name', async () => {
    expect(await refusal('/nowhere'))
      .to.have.property('message')
      .that.matches(/--net-config-path: \/nowhere/);
    const seed = join(directory, 'network.json');
    writeFileSync(seed, '{"Network":"10.244.0.0/16","SubnetLen":"x"}');
    expect(await refusal(seed)).to.have.property('field', 'SubnetLen');
  });

  it('refuses a file that LMDB did not write, which would end the process', async () => {
    await refusal();
    for (const damage of ['x', 'x'.repeat(100_000)]) {
      writeFileSync(join(directory, 'store', 'data.mdb'), damage);
      expect(await refusal())
        .to.have.property('message')
        .that.matches(/no LMDB file, or damaged/);
    }
    writeFileSync(join(directory, 'store', 'data.mdb'), '');
    expect(await refusal(), 'an empty file is a new one').to.equal(undefined);
  });
});
