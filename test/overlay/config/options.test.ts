/** The table of options is the one source: these tests hold everything that is made from it together. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse as parseYaml } from 'yaml';
import { optionFlags, optionSections } from '../../../overlay/cli/option-flags.ts';
import { parseConfigFile } from '../../../overlay/config/config-file.ts';
import { effectiveText, exampleText, fileSchema } from '../../../overlay/config/example.ts';
import { loadSettings } from '../../../overlay/config/load-settings.ts';
import { environmentName, isSwitch, OPTION_NAMES, optionOf } from '../../../overlay/config/options.ts';
import { packageRoot } from '../../../overlay/ops/package.ts';

const nothing = { flags: new Map<string, readonly string[]>(), environment: {} };
const fileOptions = OPTION_NAMES.filter((name) => name !== 'config');

/** The example with every option's line made to count. */
const uncommented = (text: string): string => text.replace(/^#(?=[a-z])/gm, '');

describe('config: the table of options', () => {
  it('has flannel’s names for what flannel has a flag for, and ours', () => {
    expect(OPTION_NAMES).to.include.members([
      ...['etcd-endpoints', 'etcd-prefix', 'etcd-cafile', 'etcd-certfile', 'etcd-keyfile', 'etcd-username'],
      ...[
        'etcd-password',
        'iface',
        'iface-regex',
        'iface-can-reach',
        'public-ip',
        'public-ipv6',
        'subnet-file',
      ],
      ...['ip-masq', 'subnet-lease-renew-margin', 'net-config-path'],
      ...['config', 'store', 'embedded-path', 'datapath', 'device', 'bridge', 'state-dir', 'run-dir'],
      ...['cni-conf-dir', 'cni-bin-dir', 'http', 'log-level', 'log-format'],
    ]);
  });

  it('gives each option a help sentence, and a default or a word on what holds without it', () => {
    for (const name of OPTION_NAMES) {
      const { help, defaultText, defaultNote, kind } = optionOf(name);
      expect(help, name).to.match(/[^.].*(\.|\))$/);
      expect(
        [defaultText, defaultNote].filter((text) => text !== undefined),
        name,
      ).to.have.length(1);
      if (defaultText !== undefined) expect(kind.schema.safeParse(defaultText).success, name).to.equal(true);
    }
  });

  it('lists every option in the help', () => {
    const help = optionSections(OPTION_NAMES).join('\n');
    for (const { name, environment } of optionFlags(OPTION_NAMES)) {
      expect(help).to.match(new RegExp(`^  --${name}( |$)`, 'm'));
      expect(help).to.include(`[${environment}]`);
    }
  });

  it('is printed whole as manifests/vtepd-config.example.yaml', () => {
    expect(readFileSync(join(packageRoot, 'manifests/vtepd-config.example.yaml'), 'utf8')).to.equal(
      exampleText(),
      'run: node dist/overlay/cli/vtepd.js config example > manifests/vtepd-config.example.yaml',
    );
  });

  it('has an example that sets nothing as it stands', async () => {
    const { entries, problems } = await parseConfigFile(exampleText(), 'example');
    expect([entries.size, problems]).to.deep.equal([0, []]);
  });

  it('has an example whose every line can be used, with the default where there is one', async () => {
    const { entries, problems } = await parseConfigFile(uncommented(exampleText()), 'example');
    expect(problems).to.deep.equal([]);
    expect([...entries.keys()]).to.have.members(fileOptions);
    for (const [name, { texts }] of entries) {
      const { defaultText, kind } = optionOf(name);
      expect(kind.schema.safeParse(texts[0]).success, `${name}: ${texts[0]}`).to.equal(true);
      if (defaultText !== undefined) expect(texts, name).to.deep.equal([defaultText]);
      expect(exampleText()).to.include(environmentName(name));
    }
  });

  it('has a JSON schema with every option of the file', () => {
    const schema = fileSchema() as { properties: Record<string, { default?: unknown; type?: unknown }> };
    expect(Object.keys(schema.properties)).to.have.members(fileOptions);
    for (const name of fileOptions) {
      if (isSwitch(optionOf(name))) expect(schema.properties[name]?.type, name).to.equal('boolean');
    }
  });

  it('prints the effective configuration as a file that has the same effect', async () => {
    const flags = new Map([
      ['http', ['[::1]:9999']],
      ['iface-regex', ["^en|it's, [x]", '^eth']],
      ['node-name', ['0123']],
      ['ip-masq', ['false']],
    ]);
    const { settings, origins } = await loadSettings({ ...nothing, flags });
    const printed = effectiveText(origins);
    expect(parseYaml(printed)).to.include({ store: 'etcd', 'ip-masq': false });
    const { entries, problems } = await parseConfigFile(printed, 'printed');
    expect(problems).to.deep.equal([]);
    const again = new Map([...entries].map(([name, { texts }]) => [name as string, texts]));
    // Empty sequences come back as no flag at all.
    for (const [name, texts] of again) if (texts.length === 0) again.delete(name);
    const reread = await loadSettings({ ...nothing, flags: again });
    expect(reread.settings).to.deep.equal(settings);
  });
});
