/** `vtepd bench`: what encapsulation costs, here. Its work is in bench/, and is loaded when it runs. */
import { DEFAULT_PORT, OWN_PATH_IDS, PATH_IDS, WORKLOAD_IDS } from '../../bench/run/names.ts';
import { type Flag, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_OK } from './command.ts';
import { helpText, section } from './help.ts';

export const LEAST_ROUNDS = 5;

export const RUN_FLAGS: readonly Flag[] = [
  { name: 'quick', placeholder: '', help: 'Less than a minute: one TCP stream and round trips, one way.' },
  {
    name: 'paths',
    placeholder: 'NAME,...',
    help: `Only these paths: ${PATH_IDS.join(', ')}.`,
    defaultText: `all; ${OWN_PATH_IDS.join(', ')} with --quick`,
  },
  {
    name: 'measure',
    placeholder: 'NAME,...',
    help: `Only these: ${WORKLOAD_IDS.join(', ')}.`,
    defaultText: 'all; tcp-1, latency with --quick',
  },
  {
    name: 'rounds',
    placeholder: 'N',
    help: 'How often everything is measured. With fewer than five, little can be told from chance.',
    defaultText: `${LEAST_ROUNDS}`,
  },
  { name: 'seed', placeholder: 'N', help: 'Of the order of the measurements.', defaultText: 'a new one' },
  {
    name: 'json',
    placeholder: '[FILE]',
    help: 'Write the report as JSON, for programs and for `compare`: to the file, or to standard output in place of the tables.',
  },
  { name: 'html', placeholder: 'FILE', help: 'Write the report as one page with plots and raw numbers.' },
];

export const TO_FLAGS: readonly Flag[] = [
  {
    name: 'to',
    placeholder: 'HOST[:PORT]',
    help: 'Measure between this machine and one on which `vtepd bench serve` runs.',
  },
];

export const POD_FLAGS: readonly Flag[] = [
  {
    name: 'cni-conf-dir',
    placeholder: 'DIR',
    help: 'With --to and serve: attach a pod by the first CNI configuration of this folder (needs root), and measure between pods too.',
    defaultText: 'no pod',
  },
  { name: 'cni-bin-dir', placeholder: 'DIR', help: 'Where that plugin is.', defaultText: '/opt/cni/bin' },
];

export const SERVE_FLAGS: readonly Flag[] = [
  {
    name: 'allow',
    placeholder: 'ADDRESS',
    help: 'Who may measure to this machine; can be given several times. Needed: it lets them start servers here.',
  },
  {
    name: 'listen',
    placeholder: 'ADDRESS:PORT',
    help: 'Where to wait for them.',
    defaultText: `every address, port ${DEFAULT_PORT}`,
  },
];

export const COMPARE_FLAGS: readonly Flag[] = [
  {
    name: 'threshold',
    placeholder: 'PERCENT',
    help: 'By how much something may have become worse before the exit code is 1.',
    defaultText: '5',
  },
  { name: 'json', placeholder: '', help: 'Print JSON, for programs.' },
];

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
      '`schema` prints the JSON schema of reports. `compare` says what changed between two reports, of this command or of the project’s own benchmarks (make bench), with their noise taken into account. Exit code 1: something became worse by more than the threshold.',
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
