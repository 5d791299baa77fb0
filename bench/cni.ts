/**
 * CNI: our plugin with its daemon beside Debian's reference plugins bridge and host-local, ADD and DEL, one
 * by one and 50 at once, call by call in turns.
 *
 *   node 1: vtepd                       node 2: no daemon, ref0
 *   pods RUN-o0 ... RUN-o49             pods RUN-r0 ... RUN-r49
 *
 * The reference does less: it neither masquerades nor filters nor journals here. What starting a program
 * that does nothing takes is measured beside them; it is in all figures.
 */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../overlay/lab/command.ts';
import type { Lab } from '../overlay/lab/lab.ts';
import { addNamespace, namespacePath } from '../overlay/lab/namespace.ts';
import { installedConfiguration } from '../overlay/lab/pod.ts';
import { type Aim, type Bench, runBench } from './harness/bench.ts';
import { launchAll, type Program } from './harness/launch.ts';
import { benchLab, timedStart } from './harness/node-run.ts';
import {
  type Distribution,
  distribution,
  inTurns,
  median,
  pairedRatio,
  type Spread,
  spread,
} from './harness/statistics.ts';

const REFERENCE_FOLDERS = ['/usr/lib/cni', '/opt/cni/bin'];
const AT_ONCE = 50;
/** Calls one by one in a round. */
const ONE_BY_ONE = 100;
const QUICK_ONE_BY_ONE = 40;
/** Not counted: code that is not compiled yet, a bridge that is not there yet. */
const WARM_UP = 10;

interface Contestant {
  readonly name: 'vtepd' | 'reference';
  readonly hostNamespace: string;
  /** The plugin, called for pod `number` of its own. */
  readonly program: (verb: 'ADD' | 'DEL', number: number) => Program;
  readonly oneAdd: number[];
  readonly oneDel: number[];
  readonly manyAdd: number[];
  readonly manyDel: number[];
}

interface CniFigures {
  readonly addMs: Distribution;
  readonly delMs: Distribution;
  readonly add50Ms: Spread;
  readonly del50Ms: Spread;
}

const bench: Bench = {
  name: 'cni',
  about: [
    'ADD and DEL through the real plugin against Debian’s reference bridge + host-local, in turns: one by one, and 50 at once until the last has ended.',
    'Namespaces of pods are made beforehand. The reference runs without masquerade, which would cost it more.',
  ],
  rounds: 5,
  quickRounds: 2,
  async run(io) {
    await using lab = await benchLab('embedded', 2, io.signal);
    await timedStart(lab.node(1), io.signal);
    await lab.node(1).untilReady(io.signal);
    const contestants = [await ours(lab), await reference(lab)] as const;
    for (const { name } of contestants) {
      for (let number = 0; number < AT_ONCE; number++) await addNamespace(podNamespace(lab, name, number));
    }
    const nothing: number[] = [];
    const oneByOne = io.quick ? QUICK_ONE_BY_ONE : ONE_BY_ONE;
    for (let call = 0; call < WARM_UP; call++) for (const one of contestants) callOnce(one, call, false);
    for (let round = 0; round < io.rounds; round++) {
      for (let call = 0; call < oneByOne; call++) {
        io.signal.throwIfAborted();
        for (const one of inTurns(contestants, call)) callOnce(one, call, true);
        nothing.push(launchAll(namespacePath(lab.node(1).namespace), [doNothing]));
        await turn();
      }
      for (const one of inTurns(contestants, round)) {
        callAll(one);
        await turn();
        io.progress(
          `round ${round + 1} of ${io.rounds}, ${one.name}: ADD ${median(one.oneAdd).toFixed(2)}, DEL ${median(one.oneDel).toFixed(2)}, 50 ADDs ${median(one.manyAdd).toFixed(1)}, 50 DELs ${median(one.manyDel).toFixed(1)} ms`,
        );
      }
    }
    return outcome(...contestants, nothing, await versionOf());
  },
};

/** Lets signals and the daemon's log in. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const podNamespace = (lab: Lab, name: Contestant['name'], number: number): string =>
  `${lab.run}-${name === 'vtepd' ? 'o' : 'r'}${number}`;

async function ours(lab: Lab): Promise<Contestant> {
  const node = lab.node(1);
  const configuration = await installedConfiguration(node.cni.confDir);
  if (configuration === undefined) throw new Error('the daemon installed no CNI configuration');
  const path = join(node.cni.binDir, configuration.type);
  return contestant(lab, 'vtepd', node.namespace, path, configuration);
}

/** What most clusters without a network of their own run. */
async function reference(lab: Lab): Promise<Contestant> {
  const node = lab.node(2);
  const folder = REFERENCE_FOLDERS.find((each) => existsSync(join(each, 'bridge')));
  if (folder === undefined)
    throw new Error('the reference plugins are missing: apt-get install containernetworking-plugins');
  return contestant(lab, 'reference', node.namespace, join(folder, 'bridge'), {
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
  name: Contestant['name'],
  hostNamespace: string,
  path: string,
  configuration: object,
): Promise<Contestant> {
  const folder = join(lab.dir, name);
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
      CNI_NETNS: namespacePath(podNamespace(lab, name, number)),
      CNI_IFNAME: 'eth0',
      CNI_PATH: path.slice(0, path.lastIndexOf('/')),
    },
  });
  return { name, hostNamespace, program, oneAdd: [], oneDel: [], manyAdd: [], manyDel: [] };
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
  if (verb === 'ADD') for (const { output } of programs) requireAddress(output);
  return tookMs;
}

/** An ADD that gave no address would be no ADD. */
function requireAddress(file: string): void {
  const answer = readFileSync(file, 'utf8');
  const result = JSON.parse(answer) as { readonly ips?: readonly unknown[] };
  if (result.ips?.length !== 1) throw new Error(`an ADD answered without an address: ${answer}`);
}

const doNothing: Program = { path: '/bin/true', input: '/dev/null', output: '/dev/null', environment: {} };

async function versionOf(): Promise<string> {
  const { stdout } = await run('dpkg-query', ['-W', 'containernetworking-plugins'], { tolerant: true });
  return stdout.trim().replace('\t', ' ');
}

function outcome(vtepd: Contestant, other: Contestant, nothing: readonly number[], version: string) {
  const figures = {
    vtepd: figuresOf(vtepd),
    reference: { ...figuresOf(other), version },
    aProgramThatDoesNothingMs: distribution(nothing),
    ratio: {
      addP50: median(vtepd.oneAdd) / median(other.oneAdd),
      delP50: median(vtepd.oneDel) / median(other.oneDel),
      add50: pairedRatio(vtepd.manyAdd, other.manyAdd),
      del50: pairedRatio(vtepd.manyDel, other.manyDel),
    },
  };
  const aims: Aim[] = [
    { what: 'CNI ADD, p50 ms', atMost: 5, measured: figures.vtepd.addMs.p50 },
    { what: 'CNI ADD, p50 against the reference, times', atMost: 0.5, measured: figures.ratio.addP50 },
    {
      what: '50 ADDs at once against the reference, times',
      atMost: 0.5,
      measured: figures.ratio.add50.median,
    },
    {
      what: '50 DELs at once against the reference, times',
      atMost: 0.2,
      measured: figures.ratio.del50.median,
    },
  ];
  return { figures, aims };
}

const figuresOf = ({ oneAdd, oneDel, manyAdd, manyDel }: Contestant): CniFigures => ({
  addMs: distribution(oneAdd),
  delMs: distribution(oneDel),
  add50Ms: spread(manyAdd),
  del50Ms: spread(manyDel),
});

await runBench(bench);
