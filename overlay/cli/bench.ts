/** `vtepd bench`: what encapsulation costs, here. Its work is in bench/, and is loaded when it runs. */
import { parseArguments, refusePositionals } from './arguments.ts';
import { COMPARE_FLAGS, POD_FLAGS, RUN_FLAGS, SERVE_FLAGS, TO_FLAGS } from './bench-flags.ts';
import { type Command, EXIT_OK } from './command.ts';
import { helpText, section } from './help.ts';

export const command: Command = {
  name: 'bench',
  summary: 'Measure what encapsulation costs, on this machine or between two; compare two such reports',
  usage: helpText({
    forms: [
      'vtepd bench [--quick] [--paths NAMES] [--measure NAMES] [--json [FILE]] [--html FILE]',
      'vtepd bench serve --allow ADDRESS [--listen ADDRESS:PORT] [--cni-conf-dir DIR]',
      'vtepd bench --to HOST[:PORT] [--cni-conf-dir DIR] [the flags above]',
      'vtepd bench compare BEFORE.json AFTER.json [--threshold PERCENT] [--json]',
      'vtepd bench schema',
    ],
    about: [
      'Builds two nodes out of network namespaces, with real daemons and pods, and compares what goes from one to the other: over the bare underlay, from pod to pod through the kernel’s vxlan, through the user-space data path, by direct routes, on one node’s bridge; and, where their programs are installed, through WireGuard, tinc and fastd. TCP and UDP by iperf3, round trips by sockperf, connections a second, processor time of the whole machine for each gigabit and packet, memory, and bytes on the wire, computed and captured.',
      'All paths are measured in turns within each of five rounds. Every figure is a median with its interval; where the noise is larger than the difference, it says that no difference can be seen. It takes less than ten minutes, with --quick less than one. Ctrl-C prints what has been measured, and nothing is left behind.',
      'It needs root for its namespaces, iproute2, busybox-static, nftables, tcpdump, iperf3 and sockperf. `compare`, and `serve` and `--to` without pods, need no root.',
      '`schema` prints the JSON schema of reports. `compare` says what changed between two reports, of this command or of the project’s own benchmarks (make bench), with their noise taken into account. Exit code 1: something became worse by more than the threshold, and not only as what it is compared with did.',
    ],
    flags: [...RUN_FLAGS, ...TO_FLAGS, ...POD_FLAGS],
    sections: [section('Flags of serve', SERVE_FLAGS), section('Flags of compare', COMPARE_FLAGS)],
    notes: [
      'Exit codes: 0 measured, 1 failed or interrupted, 2 usage; for compare 1 also means: worse than the threshold.',
    ],
  }),
  async run(argv, io) {
    const [first, ...rest] = argv;
    if (first === 'compare') return (await import('./bench-compare.ts')).compareFiles(rest, io);
    if (first === 'serve') {
      await (await import('./bench-serve.ts')).serveBench(rest, io);
      return EXIT_OK;
    }
    if (first === 'schema') {
      refusePositionals(parseArguments(rest, []));
      const { reportJsonSchema } = await import('../../bench/report/schema.ts');
      io.out(`${JSON.stringify(reportJsonSchema(), null, 2)}\n`);
      return EXIT_OK;
    }
    return (await import('./bench-run.ts')).runBench(argv, io);
  },
};
