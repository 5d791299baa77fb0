/** The course of a demo: build, show, say what was found, remove. */
import { formatSubnet, parseSubnet } from '../../store/address.ts';
import { LAB_NETWORK, Lab, type LabDataPath } from '../lab/lab.ts';
import { VTEPD } from '../lab/lab-daemon.ts';
import type { LabStoreKind } from '../lab/lab-store.ts';
import { UNDERLAY_IPV4 } from '../lab/underlay.ts';
import { packageVersion } from '../ops/package.ts';
import type { CommandIo } from './command.ts';
import { printKept, printPacket, printPings, printTcp, printVerdict } from './demo-print.ts';
import { ANSI_PAINT, NO_PAINT, type Progress, printedProgress, silentProgress } from './demo-progress.ts';
import type { DemoReport } from './demo-report.ts';
import {
  attachPods,
  capturePacket,
  type DemoPlan,
  describeNodes,
  detachPods,
  guardProblems,
  measureTcp,
  meetPeers,
  pingAll,
  proveGuard,
  startDaemons,
} from './demo-steps.ts';

export interface DemoWish {
  readonly nodes: number;
  readonly pods: number;
  readonly store: LabStoreKind;
  readonly datapath: LabDataPath;
  /** Leave it up. */
  readonly keep: boolean;
  /** Print the report as JSON, and nothing else. */
  readonly json: boolean;
}

const DATA_PATH_WORDS: Readonly<Record<LabDataPath, string>> = {
  kernel: '',
  userspace: ', packets carried in user space',
  mixed: ', packets carried in user space on every other node',
};

/**
 * Runs the demo and prints it. Resolves true when everything worked. Whatever happens, the lab is removed,
 * unless it is to be kept and came as far as its report.
 * @throws DaemonEndedError, DeadlineError, CommandError, CniError; the signal's reason
 */
export async function demonstrate(wish: DemoWish, io: CommandIo): Promise<boolean> {
  const paint = io.isTerminal && !io.environment.NO_COLOR ? ANSI_PAINT : NO_PAINT;
  const out = wish.json ? () => {} : io.out;
  const progress = wish.json ? silentProgress : printedProgress(io.out, paint, io.isTerminal);
  const where = wish.store === 'etcd' ? 'etcd' : 'the embedded store';
  const pods = wish.pods === 1 ? 'a pod' : `${wish.pods} pods`;
  const what = `${wish.nodes} nodes with ${pods} each, leases in ${where}${DATA_PATH_WORDS[wish.datapath]}`;
  out(`\n${paint.bold(`vtepd ${packageVersion} demo`)}: ${what}\n\n`);

  const plan = { podsPerNode: wish.pods, networks: [parseSubnet(LAB_NETWORK)], signal: io.signal };
  const begin = performance.now();
  const lab = await createLab(wish, plan, progress);
  let kept = false;
  try {
    const report = await perform(lab, wish, plan, progress, begin);
    out(`\n${printPings(report, paint)}\n`);
    if (report.packet !== null) out(`${printPacket(report.packet, paint)}\n`);
    out(`${printTcp(report.tcp, paint)}\n`);
    if (wish.keep) {
      out(printKept(report, lab.dir, `${process.execPath} ${VTEPD}`));
      kept = true;
    } else {
      await detachPods(lab, progress);
      await removeLab(lab, progress);
    }
    out(`\n${printVerdict(report, paint)}\n`);
    if (wish.json) io.out(`${JSON.stringify(report, undefined, 2)}\n`);
    return report.ok;
  } finally {
    if (kept) lab.abandon();
    else await lab.close();
  }
}

function createLab(wish: DemoWish, plan: DemoPlan, progress: Progress): Promise<Lab> {
  return progress.step('underlay', 'making namespaces', async () => {
    const { nodes, store: kind, datapath } = wish;
    const value = await Lab.create({ nodes, store: kind, datapath, signal: plan.signal });
    await value.underlay.refuse(plan.networks);
    const store = wish.store === 'etcd' ? ', etcd on it' : '';
    const underlay = `${formatSubnet(UNDERLAY_IPV4)}${store}`;
    const said = `run ${value.run}: ${underlay}; drops what bears an address of ${LAB_NETWORK}`;
    return { value, said };
  });
}

async function perform(
  lab: Lab,
  wish: DemoWish,
  plan: DemoPlan,
  progress: Progress,
  begin: number,
): Promise<DemoReport> {
  const readyMs = await startDaemons(lab, plan, progress);
  const statuses = await meetPeers(lab, plan, progress);
  await attachPods(lab, plan, progress);
  const pings = await pingAll(lab, plan, progress);
  const guard = await proveGuard(lab, plan, progress);
  const packet = await capturePacket(lab, plan, statuses[0]?.overlay?.port ?? 0, progress);
  const tcp = await measureTcp(lab, plan, progress);
  const problems = [
    ...pings
      .filter(({ lost }) => lost > 0)
      .map((ping) => `${ping.from} to ${ping.to}: ${ping.lost} of ${ping.sent} pings lost`),
    ...guardProblems(guard),
    ...(packet === null ? ['no tunnelled packet was seen on the underlay'] : []),
  ];
  return {
    run: lab.run,
    version: packageVersion,
    store: wish.store,
    ok: problems.length === 0,
    problems,
    nodes: describeNodes(lab, statuses, readyMs),
    pings,
    guard,
    packet,
    tcp,
    durationMs: Math.round(performance.now() - begin),
  };
}

function removeLab(lab: Lab, progress: Progress): Promise<void> {
  return progress.step('clean', 'removing everything', async () => {
    await lab.close();
    return { value: undefined, said: `every namespace, process and file of ${lab.run} is gone` };
  });
}
