/** The daemon itself, its peers, and what the container runtime finds of it. Pure. */
import { PLUGIN_NAME } from '../../cni-shim/conflist.ts';
import type { DoctorFacts } from './facts.ts';
import { found, plural, several, statusOf } from './network.ts';
import { type Finding, failed, type Outcome, warning } from './report.ts';

export function checkDaemon(facts: DoctorFacts): Outcome {
  const { daemon, socketAnswers, settings, version } = facts;
  if (daemon === undefined) {
    return socketAnswers
      ? { unknown: '--http is off: the daemon runs, and says nothing of itself' }
      : { seen: '', findings: [notRunning(`nobody answers at ${settings.files.socket}`)] };
  }
  if ('fault' in daemon) {
    if (!socketAnswers) return { seen: '', findings: [notRunning(daemon.fault.message)] };
    const remedy = 'give this command the --http that the daemon has';
    return {
      seen: '',
      findings: [failed('daemon-elsewhere', `${daemon.fault.message}; its socket answers`, remedy)],
    };
  }
  const status = daemon.found;
  const findings: Finding[] = [];
  if (!status.ready) {
    const remedy = 'the checks below name what it lacks; its log has the details';
    findings.push(failed('not-ready', `it is not ready: ${status.reason ?? 'no reason given'}`, remedy));
  }
  if (!status.store.healthy) {
    const remedy = 'what is programmed stays; see the check of the store, and the daemon’s log';
    findings.push(
      warning('daemon-store', `it lost the store: ${status.store.reason ?? 'no reason given'}`, remedy),
    );
  }
  if (status.reconcile.failing !== null) {
    const remedy = 'the kernel refuses what the leases ask for: its words are in the cause';
    findings.push(failed('kernel-refuses', `its last pass failed: ${status.reconcile.failing}`, remedy));
  }
  const { problem, needRestart } = status.configuration;
  if (problem !== null) {
    const remedy = 'correct the file (vtepd config check FILE): it is taken up when it changes';
    findings.push(
      warning('configuration-not-in-use', `its configuration file is not in use: ${problem}`, remedy),
    );
  }
  if (needRestart.length > 0) {
    const remedy = 'restart the daemon when it suits: pods keep their network';
    findings.push(
      warning('needs-restart', `options changed that need a restart: ${needRestart.join(', ')}`, remedy),
    );
  }
  if (status.version !== version) {
    const cause = `the daemon is vtepd ${status.version}, this command ${version}`;
    findings.push(warning('other-version', cause, 'restart the daemon to run what is installed'));
  }
  if (status.addresses?.free === 0) {
    const remedy = 'remove pods, or give the network larger subnets (SubnetLen)';
    findings.push(warning('no-address', 'no address is free for another pod', remedy));
  }
  const { lastPassAt, repairs } = status.reconcile;
  const pass = lastPassAt === null ? 'no pass yet' : `last pass ${lastPassAt}`;
  return { seen: `vtepd ${status.version}, ready, ${pass}, ${plural(repairs, 'repair')}`, findings };
}

const notRunning = (cause: string): Finding =>
  failed(
    'daemon-down',
    cause,
    'start it (vtepd run, or its service) and read its log; running pods keep their network meanwhile',
  );

export function checkPeers(facts: DoctorFacts): Outcome {
  const status = statusOf(facts);
  if (status === undefined) return { unknown: 'the daemon does not answer' };
  const { peers, probe } = status;
  const addressOf = ({ publicIP, publicIPv6 }: (typeof peers)[number]): string =>
    publicIP ?? publicIPv6 ?? '';
  const findings: Finding[] = [];
  const incomplete = peers.filter(({ programmed }) => !programmed);
  if (incomplete.length > 0) {
    const missing = several(incomplete.map((peer) => `${addressOf(peer)} (${several(peer.missing)})`));
    const cause = `the kernel lacks entries of ${plural(incomplete.length, 'peer')}: ${missing}`;
    findings.push(failed('peers-incomplete', cause, 'the daemon’s log says why the kernel refused them'));
  }
  const gone = peers.filter(({ path, pathIPv6 }) =>
    [path, pathIPv6].some((each) => each?.reachable === false),
  );
  if (gone.length > 0) {
    findings.push(
      failed(
        'peers-unreachable',
        `${plural(gone.length, 'peer')} of ${peers.length} no longer answer: ${several(gone.map(addressOf))}`,
        'is the node down? else look at the way there: ping, ip route get, and UDP of the tunnel between the nodes; a lease of a node that is gone expires, or can be deleted',
      ),
    );
  }
  const trials = found(facts.tunnel) ?? [];
  const silent = trials.filter(({ answered }) => !answered);
  if (silent.length > 0) {
    const port = status.overlay?.port ?? 'of the tunnel';
    const those = several(silent.map(({ peer }) => peer));
    findings.push(
      failed(
        'tunnel-blocked',
        `no answer comes through the tunnel from ${those}${silent.length < trials.length ? `, but from ${several(trials.flatMap(({ peer, answered }) => (answered ? [peer] : [])))} it does` : ''}: something drops UDP port ${port} there, on the way, or here`,
        `open UDP port ${port} both ways: rules that drop it on both nodes (nft list ruleset, iptables-save), security groups between them; tcpdump -ni INTERFACE udp port ${port} on both shows how far it gets, and vtepd doctor there whether that node is well`,
      ),
    );
  }
  const asked =
    probe === null ? 'not probed' : probe.running ? 'probed' : `not probed: ${probe.reason ?? ''}`;
  const through =
    facts.tunnel !== undefined && 'fault' in facts.tunnel
      ? `; not asked through the tunnel: ${facts.tunnel.fault.message}`
      : trials.length === 0
        ? ''
        : `; ${trials.length === peers.length ? 'all' : trials.length} answer through the tunnel`;
  return { seen: `${plural(peers.length, 'peer')}, all programmed, ${asked}${through}`, findings };
}

export function checkCni(facts: DoctorFacts): Outcome {
  const { cni, settings } = facts;
  if (cni === undefined)
    return { unknown: 'no --cni-conf-dir is given, and no configuration of ours is installed' };
  if ('fault' in cni) return { unknown: cni.fault.message };
  const { confDir, configurations, plugin } = cni.found;
  const install = `vtepd cni install --cni-conf-dir ${confDir} --cni-bin-dir ${settings.cni.binDir}`;
  const findings: Finding[] = [];
  const ours = (configurations ?? []).find(({ plugins }) => plugins.includes(PLUGIN_NAME));
  if (ours === undefined) {
    const remedy = `the daemon writes it once it is ready (--cni-conf-dir); by hand: ${install}`;
    const cause = `${confDir} has no configuration with the plugin ${PLUGIN_NAME}: the runtime cannot attach pods to vtepd`;
    findings.push(failed('cni-not-installed', cause, remedy));
  }
  const first = (configurations ?? [])[0];
  if (ours !== undefined && first !== undefined && first !== ours) {
    const what = first.fault === undefined ? `(${first.plugins.join(', ')})` : `(unreadable: ${first.fault})`;
    findings.push(
      failed(
        'cni-other-first',
        `${first.file} ${what} sorts before ${ours.file}: the runtime uses that one, and pods get another network`,
        `remove or rename ${first.file}`,
      ),
    );
  }
  if (ours?.socket !== undefined && ours.socket !== settings.files.socket) {
    findings.push(
      failed(
        'cni-other-socket',
        `${ours.file} names the socket ${ours.socket}, but the daemon's is ${settings.files.socket}`,
        `${install}, with the --run-dir of the daemon`,
      ),
    );
  }
  if (plugin.state !== 'there') {
    const cause = `the plugin ${plugin.path} is ${plugin.state}: the runtime cannot call it`;
    findings.push(failed('plugin-missing', cause, install));
  } else if (plugin.current === false) {
    const cause = `the plugin ${plugin.path} is not that of this vtepd`;
    findings.push(
      warning('plugin-differs', cause, `the daemon replaces it at its start; by hand: ${install}`),
    );
  }
  return { seen: `${ours?.file ?? confDir} comes first, ${plugin.path} is there`, findings };
}
