import { expect } from 'chai';
import fc from 'fast-check';
import {
  type Flag,
  isOn,
  parseArguments,
  refusePositionals,
  UsageError,
} from '../../../overlay/cli/arguments.ts';
import { helpText, wrapped } from '../../../overlay/cli/help.ts';
import { optionFlags } from '../../../overlay/cli/option-flags.ts';
import { OPTION_NAMES } from '../../../overlay/config/options.ts';

const FLAGS: readonly Flag[] = [
  { name: 'name', placeholder: 'TEXT', help: 'A value.' },
  { name: 'json', placeholder: '', help: 'A switch.' },
];

const parse = (...argv: string[]) => {
  const { flags, positionals } = parseArguments(argv, FLAGS);
  return { flags: Object.fromEntries(flags), positionals };
};

describe('cli: arguments', () => {
  it('reads values and switches in every way to write them', () => {
    expect(parse('--name', 'a', '--json')).to.deep.equal({
      flags: { name: ['a'], json: ['true'] },
      positionals: [],
    });
    expect(parse('--name=a=b', '--name=')).to.deep.equal({ flags: { name: ['a=b', ''] }, positionals: [] });
    expect(parse('--no-json')).to.deep.equal({ flags: { json: ['false'] }, positionals: [] });
    expect(parse('--json=false', 'x')).to.deep.equal({ flags: { json: ['false'] }, positionals: ['x'] });
    expect(parse('--name', '-x', '-')).to.deep.equal({ flags: { name: ['-x'] }, positionals: ['-'] });
    expect(parse('a', '--', '--json', '--', 'b')).to.deep.equal({
      flags: {},
      positionals: ['a', '--json', '--', 'b'],
    });
  });

  it('says what was probably meant', () => {
    const cases: readonly (readonly [string[], RegExp])[] = [
      [['--nam'], /unknown flag --nam; did you mean --name\?/],
      [['--unheard-of'], /unknown flag --unheard-of$/],
      [['-name', 'a'], /write --name with two dashes/],
      [['-x'], /unknown flag -x/],
      [['--name'], /--name needs a value: --name TEXT/],
      [['--name', '--json'], /--name needs a value/],
      [['--no-name'], /unknown flag --no-name/],
    ];
    for (const [argv, expected] of cases) expect(() => parse(...argv)).to.throw(UsageError, expected);
  });

  it('never repeats a value: it may be a secret', () => {
    expect(() => parse('--nane=hunter2'))
      .to.throw(UsageError)
      .with.property('message')
      .that.does.not.include('hunter2');
  });

  it('throws nothing but usage errors, and loses no word', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.string(), fc.constantFrom('--name', '--json', '--', '--no-json'))),
        (argv) => {
          try {
            const { flags, positionals } = parseArguments(argv, FLAGS);
            const words = [...flags.values()].flat().length + positionals.length;
            expect(words).to.be.at.most(argv.length);
            for (const word of positionals) expect(argv).to.include(word);
          } catch (error) {
            expect(error).to.be.instanceOf(UsageError);
          }
        },
      ),
    );
  });

  it('reads switches of its own', () => {
    const given = parseArguments(['--json', '--json=false'], FLAGS);
    expect(isOn(given, 'json')).to.equal(false);
    expect(() => isOn(parseArguments(['--json=maybe'], FLAGS), 'json')).to.throw(
      UsageError,
      /--json is a switch/,
    );
    expect(() => refusePositionals(parseArguments(['x'], FLAGS))).to.throw(UsageError, /"x" is not expected/);
  });

  it('gives no configuration option a name that another’s negation has', () => {
    const names = optionFlags(OPTION_NAMES).map((flag) => flag.name);
    for (const name of names) expect(names).to.not.include(`no-${name}`);
  });

  it('fills help to the width', () => {
    const text = helpText({ forms: ['x'], about: ['word '.repeat(60).trim()], flags: FLAGS });
    for (const line of text.split('\n')) expect(line.length).to.be.at.most(100);
    expect(wrapped('a b', '  ', 4)).to.equal('  a\n  b');
    expect(text)
      .to.match(/--name TEXT\n {6}A value\./)
      .and.match(/--help/);
  });
});
