import type { StatusReport } from '../../../overlay/ops/status.ts';

/** A report of a node where all is well; with what a test wants otherwise. */
export function statusReport(otherwise: Partial<StatusReport> = {}): StatusReport {
  return {
    node: 'node-1',
    version: '0.1.0',
    startedAt: '2026-01-31T10:00:00.000Z',
    ready: true,
    reason: null,
    store: {
      kind: 'etcd',
      healthy: true,
      revision: '42',
      reason: null,
      source: 'live',
      lastContactAt: '2026-01-31T11:59:58.000Z',
    },
    lease: {
      subnet: '10.244.5.0/24',
      publicIP: '192.0.2.1',
      vtepMAC: '02:00:00:00:00:01',
      expiresAt: '2026-02-01T11:00:00.000Z',
    },
    underlay: {
      device: 'eth0',
      mtuBytes: 1500,
      chosenBy: 'has the ipv4 default route',
      lackingFamilies: [],
    },
    overlay: {
      backend: 'vxlan',
      directRouting: false,
      device: 'vtep.1',
      vni: 1,
      port: 8472,
      mtuBytes: 1450,
      datapath: 'kernel',
      datapathReason: 'the kernel has vxlan',
      bridge: 'vtep0',
      networks: ['10.244.0.0/16'],
    },
    network: { problem: null, former: [] },
    tunnels: [],
    peers: [],
    probe: { running: true, reason: null },
    skipped: [],
    attachments: [],
    addresses: { used: 0, free: 253, ipv4: { used: 0, free: 253 } },
    firewall: { drops: {}, foreignDrops: [] },
    reconcile: {
      passes: 3,
      repairs: 0,
      lastRepair: null,
      lastPassAt: '2026-01-31T11:59:59.000Z',
      failing: null,
    },
    configuration: {
      file: '/etc/vtepd.yaml',
      appliedAt: '2026-01-31T10:00:00.000Z',
      problem: null,
      needRestart: [],
    },
    ...otherwise,
  };
}
