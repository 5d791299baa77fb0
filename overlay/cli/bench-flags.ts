/** The flags of `vtepd bench` and of its parts. */
import { DEFAULT_PORT, OWN_PATH_IDS, PATH_IDS, WORKLOAD_IDS } from '../../bench/run/names.ts';
import type { Flag } from './arguments.ts';

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
  {
    name: 'seconds',
    placeholder: 'S',
    help: 'How long each measurement takes at most, round trips aside; shorter where the time is short.',
    defaultText: '1',
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
