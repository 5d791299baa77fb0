/**
 * CNI: our plugin with its daemon beside Debian's reference plugins bridge and host-local, ADD and DEL, one
 * by one and 50 at once, call by call in turns.
 *
 *   node 1: vtepd                       node 2: no daemon, ref0 (in the IPv4 cluster only)
 *   pods RUN-o0 ... RUN-o49             pods RUN-r0 ... RUN-r49
 *
 * In a cluster for each family, all of them running at the same time.
 *
 * The reference does less: it neither masquerades nor filters nor journals here. What starting a program
 * that does nothing takes is measured beside them; it is in all figures.
 */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '../overlay/lab/command.ts';
import type { Lab } from '../overlay/lab/lab.ts';
import { familiesOf, type LabFamilies } from '../overlay/lab/lab-network.ts';
import { addNamespace, namespacePath } from '../overlay/lab/namespace.ts';
import { installedConfiguration } from '../overlay/lab/pod.ts';
import { type Aim, type Bench, type Outcome, runBench } from './harness/bench.ts';
import { aimsAgainstIpv4, FAMILIES_FLAG, familiesGiven } from './harness/families.ts';
import { launchAll, type Program } from './harness/launch.ts';
import { BenchLabs, timedStart } from './harness/node-run.ts';
import { inTurns, median, pairedRatio } from './harness/statistics.ts';
import type { OwnQuantity, Recorder } from './run/recorder.ts';

const REFERENCE_FOLDERS = ['/usr/lib/cni', '/opt/cni/bin'];
const OURS = 'vtepd';
const REFERENCE = 'reference';
const AT_ONCE = 50;
/** Before 50 at once: the kernel is done with the 50 interfaces that went before (the reference's take half of it). */
const SETTLE_MS = 500;
/** Calls one by one in a round. */
const ONE_BY_ONE = 100;
const QUICK_ONE_BY_ONE = 40;
/** Not counted: code that is not compiled yet, a bridge that is not there yet. */
const WARM_UP = 10;

interface Contestant {
  /** `vtepd, ipv6` or `reference`. */
  readonly name: string;
  readonly families: LabFamilies;
  /** Of its pods' namespaces; each has its own. */
  readonly podPrefix: string;
  readonly hostNamespace: string;
  /** The plugin, called for pod `number` of its own. */
  readonly program: (verb: 'ADD' | 'DEL', number: number) => Program;
  readonly oneAdd: number[];
  readonly oneDel: number[];
  readonly manyAdd: number[];
  readonly manyDel: number[];
}

const ADD: OwnQuantity = { id: 'add', title: 'CNI ADD, one by one', unit: 's' };
const DEL: OwnQuantity = { id: 'del', title: 'CNI DEL, one by one', unit: 's' };
const ADD_50: OwnQuantity = {
  id: 'add-50',
  title: `${AT_ONCE} ADDs at once, until the last has ended`,
  unit: 's',
};
const DEL_50: OwnQuantity = {
  id: 'del-50',
  title: `${AT_ONCE} DELs at once, until the last has ended`,
  unit: 's',
};
const NOTHING: OwnQuantity = { id: 'nothing', title: 'starting a program that does nothing', unit: 's' };

const bench: Bench = {
  name: 'cni',
  about: [
    'ADD and DEL through the real plugin against Debian’s reference bridge + host-local, in turns: one by one, and 50 at once until the last has ended.',
    'Namespaces of pods are made beforehand. The reference runs without masquerade, which would cost it more, and in IPv4 only: in IPv6 it waits more than a second in each ADD for duplicate address detection.',
  ],
  rounds: 5,
  quickRounds: 2,
  flags: [FAMILIES_FLAG],
  baseline: REFERENCE,
  async run(io) {
    await using labs = new BenchLabs();
    const contestants: Contestant[] = [];
    for (const families of familiesGiven(io.given)) {
      const withReference = families === 'ipv4';
      const lab = await labs.add('embedded', withReference ? 2 : 1, io.signal, families);
      await timedStart(lab.node(1), io.signal);
      await lab.node(1).untilReady(io.signal);
      contestants.push(await ours(lab, families));
      if (withReference) contestants.push(await reference(lab));
    }
    for (const { podPrefix } of contestants) {
      for (let number = 0; number < AT_ONCE; number++) await addNamespace(`${podPrefix}${number}`);
    }
    const host = contestants[0]?.hostNamespace ?? '';
    const version = await versionOf();
    for (const { name } of contestants)
      io.recorder.describe(name, name === REFERENCE ? version : 'vtepd-cni');
    const oneByOne = io.quick ? QUICK_ONE_BY_ONE : ONE_BY_ONE;
    for (let call = 0; call < WARM_UP; call++) for (const one of contestants) callOnce(one, call, false);
    for (let round = 0; round < io.rounds; round++) {
      const nothing: number[] = [];
      for (let call = 0; call < oneByOne; call++) {
        io.signal.throwIfAborted();
        for (const one of forthAndBack(contestants, call)) callOnce(one, call, true);
        nothing.push(launchAll(namespacePath(host), [doNothing]) / 1000);
        await turn();
      }
      io.recorder.recordSamples('a program that does nothing', NOTHING, { round }, nothing);
      for (const one of forthAndBack(contestants, round)) {
        await delay(SETTLE_MS, undefined, { signal: io.signal });
        callAll(one);
        recordRound(io.recorder, one, round, oneByOne);
        await turn();
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${one.name}: ADD ${median(one.oneAdd).toFixed(2)}, DEL ${median(one.oneDel).toFixed(2)}, 50 ADDs ${median(one.manyAdd).toFixed(1)}, 50 DELs ${median(one.manyDel).toFixed(1)} ms`,
        );
      }
    }
    return outcome(contestants);
  },
};

/**
 * By turns in both directions: an interface that goes leaves the kernel work, which in one direction would always
 * be the same neighbour's loss.
 */
function forthAndBack(contestants: readonly Contestant[], turn: number): Contestant[] {
  const order = inTurns(contestants, turn);
  return turn % 2 === 0 ? order : order.reverse();
}

/** Lets signals and the daemon's log in. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function ours(lab: Lab, families: LabFamilies): Promise<Contestant> {
  const node = lab.node(1);
  const configuration = await installedConfiguration(node.cni.confDir);
  if (configuration === undefined) throw new Error('the daemon installed no CNI configuration');
  const path = join(node.cni.binDir, configuration.type);
  return contestant(lab, OURS, families, node.namespace, path, configuration);
}

/** What most clusters without a network of their own run. */
async function reference(lab: Lab): Promise<Contestant> {
  const node = lab.node(2);
  const folder = REFERENCE_FOLDERS.find((each) => existsSync(join(each, 'bridge')));
  if (folder === undefined)
    throw new Error('the reference plugins are missing: apt-get install containernetworking-plugins');
  return contestant(lab, REFERENCE, 'ipv4', node.namespace, join(folder, 'bridge'), {
    cniVersion: '1.0.0',
    name: 'reference',
    type: 'bridge',
    bridge: 'ref0',
    isGateway: true,
    hairpinMode: true,
    mtu: 1450,
    ipam: {
      type: 'host-local',
      dataDir: join(node.dir, 'host-local'),
      ranges: [[{ subnet: '10.99.0.0/24' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
  });
}

async function contestant(
  lab: Lab,
  who: typeof OURS | typeof REFERENCE,
  families: LabFamilies,
  hostNamespace: string,
  path: string,
  configuration: object,
): Promise<Contestant> {
  const podPrefix = `${lab.run}-${who[0]}`;
  const folder = join(lab.dir, who);
  await mkdir(folder);
  const input = join(folder, 'configuration.json');
  await writeFile(input, JSON.stringify(configuration));
  const program = (verb: 'ADD' | 'DEL', number: number): Program => ({
    path,
    input,
    output: join(folder, `answer-${number}`),
    environment: {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: `bench-${number}`,
      CNI_NETNS: namespacePath(`${podPrefix}${number}`),
      CNI_IFNAME: 'eth0',
      CNI_PATH: path.slice(0, path.lastIndexOf('/')),
    },
  });
  const name = who === OURS ? `${who}, ${families}` : who;
  return {
    name,
    families,
    podPrefix,
    hostNamespace,
    program,
    oneAdd: [],
    oneDel: [],
    manyAdd: [],
    manyDel: [],
  };
}

/** A pod comes and goes. */
function callOnce(one: Contestant, call: number, counted: boolean): void {
  const number = call % AT_ONCE;
  const addMs = callPlugins(one, 'ADD', [number]);
  const delMs = callPlugins(one, 'DEL', [number]);
  if (!counted) return;
  one.oneAdd.push(addMs);
  one.oneDel.push(delMs);
}

function callAll(one: Contestant): void {
  const numbers = Array.from({ length: AT_ONCE }, (_, number) => number);
  one.manyAdd.push(callPlugins(one, 'ADD', numbers));
  one.manyDel.push(callPlugins(one, 'DEL', numbers));
}

function callPlugins(one: Contestant, verb: 'ADD' | 'DEL', numbers: readonly number[]): number {
  const programs = numbers.map((number) => one.program(verb, number));
  const tookMs = launchAll(namespacePath(one.hostNamespace), programs);
  const addresses = familiesOf(one.families).length;
  if (verb === 'ADD') for (const { output } of programs) requireAddresses(output, addresses);
  return tookMs;
}

/** An ADD that gave no address would be no ADD. */
function requireAddresses(file: string, count: number): void {
  const answer = readFileSync(file, 'utf8');
  const result = JSON.parse(answer) as { readonly ips?: readonly unknown[] };
  if (result.ips?.length !== count) throw new Error(`an ADD answered without its addresses: ${answer}`);
}

const doNothing: Program = { path: '/bin/true', input: '/dev/null', output: '/dev/null', environment: {} };

async function versionOf(): Promise<string> {
  const { stdout } = await run('dpkg-query', ['-W', 'containernetworking-plugins'], { tolerant: true });
  return stdout.trim().replace('\t', ' ');
}

/** What the round added: its calls one by one, and the last of those at once. */
function recordRound(recorder: Recorder, one: Contestant, round: number, calls: number): void {
  const ofRound = (values: readonly number[]): number[] => values.slice(-calls).map((ms) => ms / 1000);
  recorder.recordSamples(one.name, ADD, { round }, ofRound(one.oneAdd));
  recorder.recordSamples(one.name, DEL, { round }, ofRound(one.oneDel));
  recorder.record(one.name, ADD_50, { round }, (one.manyAdd.at(-1) ?? 0) / 1000);
  recorder.record(one.name, DEL_50, { round }, (one.manyDel.at(-1) ?? 0) / 1000);
}

function outcome(contestants: readonly Contestant[]): Outcome {
  const own = new Map(contestants.filter(({ name }) => name !== REFERENCE).map((one) => [one.families, one]));
  const aims: Aim[] = Array.from(own.values(), (one) => ({
    what: `CNI ADD (${one.families}), p50 ms`,
    atMost: 5,
    measured: median(one.oneAdd),
  }));
  const other = contestants.find(({ name }) => name === REFERENCE);
  const ipv4 = own.get('ipv4');
  if (ipv4 !== undefined && other !== undefined) {
    const against = 'against the reference, times';
    const addP50 = median(ipv4.oneAdd) / median(other.oneAdd);
    const add50 = pairedRatio(ipv4.manyAdd, other.manyAdd).median;
    const del50 = pairedRatio(ipv4.manyDel, other.manyDel).median;
    aims.push({ what: `CNI ADD, p50 ${against}`, atMost: 0.5, measured: addP50 });
    aims.push({ what: `50 ADDs at once ${against}`, atMost: 0.5, measured: add50 });
    aims.push({ what: `50 DELs at once ${against}`, atMost: 0.2, measured: del50 });
  }
  for (const [what, of] of COMPARED) {
    const values = new Map(Array.from(own, ([families, one]) => [families, of(one)]));
    aims.push(...aimsAgainstIpv4(what, values));
  }
  return { aims };
}

/** What the families are compared by; one by one, the middle of all calls. */
const COMPARED: readonly (readonly [string, (one: Contestant) => readonly number[]])[] = [
  ['CNI ADD, p50', ({ oneAdd }) => [median(oneAdd)]],
  ['CNI DEL, p50', ({ oneDel }) => [median(oneDel)]],
  ['50 ADDs at once', ({ manyAdd }) => manyAdd],
  ['50 DELs at once', ({ manyDel }) => manyDel],
];

await runBench(bench);
