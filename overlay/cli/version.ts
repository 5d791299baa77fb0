/** `vtepd version`: what to quote in a report. */
import { arch, release } from 'node:os';
import { packageVersion } from '../ops/package.ts';
import { isOn, JSON_FLAG, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';

export const command: Command = {
  name: 'version',
  summary: "Print the version, and Node's and the kernel's",
  usage: helpText({
    forms: ['vtepd version [--json]'],
    about: [
      "Prints vtepd's version, and the Node and the kernel that it runs on: what to quote in a report.",
    ],
    flags: [JSON_FLAG],
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [JSON_FLAG]);
    refusePositionals(given);
    const facts = {
      version: packageVersion,
      node: process.version,
      kernel: `${process.platform} ${release()} ${arch()}`,
    };
    io.out(
      isOn(given, 'json')
        ? `${JSON.stringify(facts)}\n`
        : `vtepd ${facts.version} (Node ${facts.node}, ${facts.kernel})\n`,
    );
    return EXIT_OK;
  },
};
