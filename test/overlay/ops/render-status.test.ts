import { expect } from 'chai';
import { duration, renderStatus } from '../../../overlay/ops/render-status.ts';
import type { PeerStatus } from '../../../overlay/ops/status.ts';
import { statusReport } from './status-report.ts';

const options = { maxRows: 20, now: new Date('2026-01-31T12:00:00.000Z') };

const peer = (number: number, missing: readonly string[] = []): PeerStatus => ({
  subnet: `10.244.${number}.0/24`,
  publicIP: `192.0.2.${number}`,
  vtepMAC: '02:00:00:00:00:02',
  programmed: missing.length === 0,
  missing,
});

describe('ops: the status for people', () => {
  it('says of a node where all is well that it is ready, and what it has', () => {
    expect(renderStatus(statusReport({ peers: [peer(7)] }), options)).to.equal(
      [
        'Ready.',
        '',
        'node      node-1, vtepd 0.1.0, up 2 h 0 min',
        'store     etcd, healthy, revision 42, answered 2 s ago',
        'lease     10.244.5.0/24 at 192.0.2.1, VTEP 02:00:00:00:00:01, expires in 23 h 0 min unless renewed',
        'underlay  eth0, MTU 1500 (has the ipv4 default route)',
        'overlay   vtep.1, VNI 1, UDP port 8472, MTU 1450, data path kernel',
        '          bridge vtep0, cluster network 10.244.0.0/16',
        'addresses 0 used, 253 free',
        'kernel    3 passes (the last 1 s ago), 0 repairs',
        '',
        'Peers (1)',
        'SUBNET         PUBLIC IP  VTEP MAC           PROGRAMMED',
        '10.244.7.0/24  192.0.2.7  02:00:00:00:00:02  yes',
        '',
        'Pods: none',
        '',
      ].join('\n'),
    );
  });

  it('tells how each peer is reached where some are routed directly, and names no tunnel where there is none', () => {
    const { overlay } = statusReport();
    if (overlay === null) throw new Error('unreachable');
    const mixed = renderStatus(
      statusReport({
        overlay: { ...overlay, directRouting: true },
        peers: [
          { ...peer(7), route: 'direct' },
          { ...peer(8), route: 'tunnel', routeIPv6: 'direct' },
        ],
      }),
      options,
    );
    expect(mixed).to.match(
      /PUBLIC IP +VTEP MAC +ROUTE +PROGRAMMED\n.* direct +yes\n.* tunnel, direct +yes\n/,
    );
    const plain = renderStatus(
      statusReport({
        overlay: { ...overlay, backend: 'host-gw', datapath: 'direct', device: null, vni: null, port: null },
        lease: { subnet: '10.244.5.0/24', publicIP: '192.0.2.1', expiresAt: null },
      }),
      options,
    );
    expect(plain).to.include('\noverlay   host-gw, MTU 1450, data path direct\n');
    expect(plain).to.include('\nlease     10.244.5.0/24 at 192.0.2.1, does not expire\n');
  });

  it('shows the tunnels in user space: why, what passed, what was dropped and what is wrong', () => {
    const { overlay } = statusReport();
    if (overlay === null) throw new Error('unreachable');
    const calls = (packets: number | null, count: number) => ({ packets, calls: count });
    const text = renderStatus(
      statusReport({
        overlay: { ...overlay, datapath: 'userspace', datapathReason: '--datapath userspace' },
        tunnels: [
          {
            device: 'vtep.1',
            family: 'ipv4',
            fault: 'its device is gone',
            resumed: false,
            workerRestarts: 2,
            sent: {
              packets: 90,
              bytes: 1_250_000,
              drops: { no_peer: 3, too_big: 1 },
              batches: [calls(1, 4), calls(64, 5), calls(null, 1)],
            },
            received: { packets: 0, bytes: 999, drops: {}, batches: [] },
            narrowPaths: [{ remote: '192.0.2.7', mtuBytes: 1400 }],
          },
        ],
      }),
      options,
    );
    for (const line of [
      '! data path: the tunnel on vtep.1 is down: its device is gone',
      '! data path: 2 threads of vtep.1 died and were started again',
      "! data path: 1 paths of vtep.1 carry less than the underlay's interface: 192.0.2.7 (1400 bytes)",
      '          in user space: --datapath userspace',
      'tunnel    vtep.1 sent 90 packets (1.3 MB, 9.0 a system call), dropped 3 no_peer, 1 too_big',
      '          vtep.1 received 0 packets (999 B)',
    ]) {
      expect(text).to.include(`${line}\n`);
    }
  });

  it('says what changes left behind, and what of the configuration is not in use', () => {
    const former = [
      { subnet: '10.96.5.0/24', pods: 3, problem: null },
      { subnet: '10.97.5.0/24', subnetIPv6: 'fd00::/64', pods: 1, problem: 'it is another node’s' },
    ];
    const { configuration } = statusReport();
    const text = renderStatus(
      statusReport({
        network: { problem: 'Backend.Type "ipip" is not one', former },
        configuration: { ...configuration, problem: 'ip-masq: what?', needRestart: ['bridge', 'store'] },
      }),
      options,
    );
    for (const line of [
      '! network: the stored configuration is not in use: Backend.Type "ipip" is not one',
      '! former lease 10.96.5.0/24: 3 in use',
      '! former lease 10.97.5.0/24, fd00::/64: 1 in use, and the store does not keep it: it is another node’s',
      '! configuration: what is in the file is not in use: ip-masq: what?',
      '! configuration: these changed and need a restart: bridge, store',
    ]) {
      expect(text).to.include(`${line}\n`);
    }
  });

  it('begins with everything that is wrong', () => {
    const report = statusReport({
      ready: false,
      reason: 'no lease yet',
      store: {
        ...statusReport().store,
        healthy: false,
        reason: 'connection refused',
        source: 'cache',
        revision: null,
        lastContactAt: null,
      },
      lease: null,
      underlay: null,
      overlay: null,
      peers: [peer(7), peer(8, ['route 10.244.8.0/24'])],
      skipped: [{ key: '10.244.9.0-24', reason: 'PublicIP is missing' }],
      addresses: { used: 253, free: 0 },
      reconcile: {
        passes: 1,
        repairs: 3,
        failing: 'EPERM',
        lastPassAt: null,
        lastRepair: { at: '2026-01-31T11:59:00.000Z', count: 3, objects: ['route 10.244.8.0/24'] },
      },
    });
    const text = renderStatus(report, options);
    expect(text.split('\n\n')[0]?.split('\n')).to.deep.equal([
      'NOT READY: no lease yet',
      '! store: connection refused',
      '! store: the leases are those last seen, from the cache on disk',
      '! kernel: the last pass failed: EPERM',
      '! peers: 1 of 2 not fully programmed',
      '! leases: 1 of others not used, see below',
      '! addresses: none is free for another pod',
    ]);
    expect(text).to.include('last repair 1 min 0 s ago, 3 objects: route 10.244.8.0/24, ...');
    // What is missing comes first in its table.
    expect(text.indexOf('10.244.8.0/24  192')).to.be.lessThan(text.indexOf('10.244.7.0/24  192'));
    expect(text).to.include('NO: missing route 10.244.8.0/24');
    expect(text).to.match(/Leases not used \(1\)\nLEASE +REASON\n10.244.9.0-24 +PublicIP is missing/);
  });

  it('names both devices of a dual-stack node, and the family that the underlay lacks', () => {
    const { overlay, underlay } = statusReport();
    if (overlay === null || underlay === null) throw new Error('the usual report has both');
    const dual = statusReport({ overlay: { ...overlay, deviceIPv6: 'vtep6.1' } });
    expect(renderStatus(dual, options)).to.include('overlay   vtep.1 and vtep6.1, VNI 1');
    const half = statusReport({ underlay: { ...underlay, lackingFamilies: ['ipv6'] } });
    expect(renderStatus(half, options)).to.include("no ipv6 address: this node's pods are without ipv6");
  });

  it('cuts long tables, and says so', () => {
    const peers = Array.from({ length: 10_000 }, (_, number) => peer(number % 250));
    const text = renderStatus(statusReport({ peers }), options);
    expect(text).to.include('... and 9980 more (--all)');
    expect(text.split('\n').length).to.be.lessThan(50);
    const whole = renderStatus(statusReport({ peers }), { ...options, maxRows: Number.POSITIVE_INFINITY });
    expect(whole.split('\n').length).to.be.greaterThan(10_000);
  });

  it('prints nothing that a terminal would obey', () => {
    const hostile = '\u001b[2J\nforged: line\u202e';
    const text = renderStatus(
      statusReport({
        skipped: [{ key: hostile, reason: hostile }],
        reason: hostile,
        attachments: [
          {
            containerID: hostile,
            ifname: hostile,
            ips: [hostile],
            mac: hostile,
            pod: hostile,
            hostInterface: hostile,
          },
        ],
      }),
      options,
    );
    for (const bad of ['\u001b', '\u202e', '\nforged']) expect(text).to.not.include(bad);
  });

  it('says of the underlay what is wrong with it, and nothing else', () => {
    const path = { reachable: true, rttMs: 0.4, mtuBytes: 1500, fullBytes: 1500, reason: null };
    const peers = [
      { ...peer(7), path },
      { ...peer(8), path: { ...path, mtuBytes: 1400 }, publicIPv6: '2001:db8::8', pathIPv6: path },
      { ...peer(9), path: { ...path, reachable: false, rttMs: null, reason: 'Network is unreachable' } },
      { ...peer(10), path: { ...path, reachable: null, rttMs: null, mtuBytes: null, reason: 'no answer' } },
    ];
    const text = renderStatus(statusReport({ peers }), options);
    expect(text.match(/^! .*$/gm)).to.deep.equal([
      '! underlay: 1 of 5 paths swallow large packets: 192.0.2.8 (1400 of 1500 bytes pass)',
      '! underlay: 1 of 5 paths no longer answer: 192.0.2.9 (Network is unreachable)',
    ]);
    expect(text).to.not.include('probed');
    const lacking = statusReport({ probe: { running: false, reason: 'raw-socket is not installed' } });
    expect(renderStatus(lacking, options)).to.include('          not probed: raw-socket is not installed\n');
  });

  it('lists pods as a runtime and Kubernetes call them', () => {
    const attachments = [
      {
        containerID: '0123456789abcdef0123',
        ifname: 'eth0',
        ips: ['10.244.5.2'],
        mac: '02:00:00:00:00:09',
        pod: 'default/web',
        hostInterface: 'vtp123',
      },
    ];
    expect(renderStatus(statusReport({ attachments }), options)).to.match(
      /Pods \(1\)\nADDRESS .*\n10.244.5.2 +eth0 +02:00:00:00:00:09 +vtp123 +0123456789ab +default\/web\n/,
    );
  });

  it('writes times with their two largest units', () => {
    expect([0, 59_400, 61_000, 3_661_000, 200_000_000, -5].map(duration)).to.deep.equal([
      '0 s',
      '59 s',
      '1 min 1 s',
      '1 h 1 min',
      '2 d 7 h',
      '0 s',
    ]);
  });
});
