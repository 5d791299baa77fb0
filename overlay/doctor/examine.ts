/** From what is known of a node to what is wrong with it: the checks, in the order in which things depend. Pure. */
import { checkCni, checkDaemon, checkPeers } from './daemon-checks.ts';
import type { DoctorFacts } from './facts.ts';
import { checkFolders, checkKernel, checkRights, checkSettings } from './kernel-checks.ts';
import { checkFirewall, checkMtu, checkPort, checkRoutes, checkUnderlay } from './network-checks.ts';
import type { CheckReport, DoctorReport, Outcome } from './report.ts';
import { checkLease, checkLeases, checkNetwork, checkStore } from './store-checks.ts';

interface Check {
  readonly id: string;
  readonly title: string;
  readonly run: (facts: DoctorFacts) => Outcome;
}

export const CHECKS: readonly Check[] = [
  { id: 'rights', title: 'rights', run: checkRights },
  { id: 'kernel', title: 'kernel', run: checkKernel },
  { id: 'folders', title: 'folders', run: checkFolders },
  { id: 'daemon', title: 'daemon', run: checkDaemon },
  { id: 'store', title: 'store', run: checkStore },
  { id: 'network', title: 'network', run: checkNetwork },
  { id: 'underlay', title: 'underlay', run: checkUnderlay },
  { id: 'port', title: 'VXLAN', run: checkPort },
  { id: 'mtu', title: 'MTU', run: checkMtu },
  { id: 'lease', title: 'lease', run: checkLease },
  { id: 'leases', title: 'all leases', run: checkLeases },
  { id: 'routes', title: 'routes', run: checkRoutes },
  { id: 'settings', title: 'settings', run: checkSettings },
  { id: 'firewall', title: 'firewall', run: checkFirewall },
  { id: 'peers', title: 'peers', run: checkPeers },
  { id: 'cni', title: 'CNI', run: checkCni },
];

export function examine(facts: DoctorFacts): DoctorReport {
  const checks = CHECKS.map(({ id, title, run }) => reported(id, title, run(facts)));
  return {
    healthy: !checks.some(({ state }) => state === 'failed'),
    node: facts.settings.nodeName,
    version: facts.version,
    checks,
  };
}

function reported(id: string, title: string, outcome: Outcome): CheckReport {
  if ('unknown' in outcome) return { id, title, state: 'unknown', seen: outcome.unknown, findings: [] };
  const { seen, findings } = outcome;
  const worst = findings.some(({ severity }) => severity === 'failed') ? 'failed' : 'warning';
  return { id, title, state: findings.length === 0 ? 'ok' : worst, seen, findings };
}
