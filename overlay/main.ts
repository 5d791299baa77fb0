/**
 * The composition root. Above the banner the configuration is read and checked; below it the machine is
 * touched: every part is made once, gets all it needs, and is closed in reverse order.
 */
import { randomBytes, randomFillSync } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { AttachmentRegistry } from '../cni-shim/registry.ts';
import { createCniServer } from '../cni-shim/server.ts';
import { delay } from '../store/backoff.ts';
import { SwitchableStore } from '../store/switchable-store.ts';
import { ReadyAnnouncer } from './announce.ts';
import { checkFiles } from './config/check-files.ts';
import { isDeviceName, type Settings } from './config/settings.ts';
import { ENCAPSULATED_MARK } from './desired/firewall.ts';
import { POD_INTERFACE_PREFIX, type PodNetwork, type Readiness } from './desired/pods.ts';
import { openEchoSocket } from './kernel/echo-socket.ts';
import { Firewall } from './kernel/firewall.ts';
import { KernelMonitor } from './kernel/monitor.ts';
import { NetlinkSocket } from './kernel/netlink-socket.ts';
import { NftablesUnavailableError } from './kernel/nftables.ts';
import { OrphanReaper } from './kernel/orphans.ts';
import { listNexthops } from './kernel/route.ts';
import { concernsUnderlay, readUnderlayFacts } from './kernel/underlay-facts.ts';
import { NodeMemory } from './leases/node-memory.ts';
import { openStore, storeIdentity } from './leases/open-store.ts';
import { ReadyAnnouncement } from './leases/ready-announcement.ts';
import { SnapshotCache } from './leases/snapshot-cache.ts';
import { liveSettings } from './live-settings.ts';
import { FlannelRemains } from './migrate/flannel-remains.ts';
import { OverlayNode } from './node.ts';
import type { HttpSources } from './ops/http.ts';
import { HttpEndpoint } from './ops/http-endpoint.ts';
import type { Log } from './ops/log.ts';
import { createMetrics } from './ops/metrics.ts';
import { packageRoot } from './ops/package.ts';
import type { ServiceEnvironment } from './ops/sd-notify.ts';
import { UnderlayProbe } from './probe/underlay-probe.ts';
import { FirewallPass } from './reconcile/firewall-pass.ts';
import { Reconciler } from './reconcile/reconciler.ts';
import { Tunnels } from './reconcile/tunnels.ts';
import { ConfigReloader, type ConfigurationSource } from './reload.ts';
import { statusReport, updateGauges } from './report.ts';
import { openNotifier } from './service-manager.ts';

/** A pass over 50,000 peers takes two seconds; one that takes as long as this waits for what does not come. */
const STALLED_PASS_MS = 60_000;

/**
 * Runs the daemon until the signal aborts. The data path and, unless told otherwise, the lease stay.
 * @param service the manager that started us and wants to hear how it goes
 */
export async function startDaemon(
  source: ConfigurationSource,
  log: Log,
  signal: AbortSignal,
  service?: ServiceEnvironment,
): Promise<void> {
  const { settings } = source.loaded;
  const startedAt = new Date();
  const { stateDir, runDir, socket } = settings.files;
  const { overlay } = settings;
  const monotonic = (): number => performance.now();
  const isOwnDevice = (name: string): boolean =>
    isDeviceName(overlay, name) || name.startsWith(POD_INTERFACE_PREFIX);

  // ------------------------------------------------------------------- from here on the machine is touched

  const opened: (() => unknown)[] = [];
  const owned = <T>(part: T, close: (part: T) => unknown): T => {
    opened.push(() => close(part));
    return part;
  };
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    mkdirSync(runDir, { recursive: true, mode: 0o755 });
    const metrics = createMetrics();
    // Its lock keeps a second daemon off this state directory, so it comes before everything that is written.
    const registry = owned(await AttachmentRegistry.open({ stateDir, log }), (part) => part.close());
    const memory = new NodeMemory(stateDir, randomFillSync, log);
    const store = owned(new SwitchableStore(await openStore(settings.store)), (part) => part.close());
    const cache = new SnapshotCache(stateDir, storeIdentity(settings.store), log);
    const netlink = owned(NetlinkSocket.open(), (part) => part.close());
    const firewall = owned(openFirewall(settings, log), (part) => part?.close());
    const shimPath = join(packageRoot, 'build', 'vtepd-cni');
    const announcement = owned(
      new ReadyAnnouncement({ store, log, sleep: delay, random: Math.random }),
      (part) => part.close(),
    );
    const announcer = owned(
      new ReadyAnnouncer(settings, shimPath, log, () => {
        announcement.ready();
        manager?.notifier.look();
        if (reconciler.wanted !== undefined) remains?.ready(reconciler.wanted);
      }),
      (part) => part.close(),
    );

    const remains =
      source.takenOver &&
      owned(
        new FlannelRemains({
          record: source.takenOver,
          netlink,
          ...settings.cni,
          hold: (reserved) => registry.hold(reserved),
          log,
        }),
        (part) => part.close(),
      );
    const firewallPass = new FirewallPass(firewall, overlay);
    const probe: UnderlayProbe | undefined =
      settings.probe &&
      owned(
        new UnderlayProbe({
          intervalMs: settings.probe.intervalMs,
          log,
          clock: monotonic,
          sleep: delay,
          random: Math.random,
          randomBytes,
          openSocket: openEchoSocket,
          pathMtu: (family, remote, mtuBytes) => reconciler.setPathMtu(family, remote, mtuBytes),
        }),
        (part) => part.close(),
      );
    const tunnels = owned(
      new Tunnels({
        // A node with the kernel's vxlan has no use for the rest of it.
        open: async (options) => (await import('../encap/tunnel.ts')).UserSpaceTunnel.open(options),
        endHolder: async (file) => (await import('../encap/tunnel.ts')).endHolder(file),
        runDir,
        mark: ENCAPSULATED_MARK,
        log,
        onFault: () => reconciler.lookAgain(),
      }),
      (part) => part.close(),
    );
    const reconciler: Reconciler = owned(
      new Reconciler({
        netlink,
        tunnels,
        firewall: firewallPass,
        pods: registry,
        log,
        metrics,
        resyncIntervalMs: overlay.resyncIntervalMs,
        withNexthops: listNexthops(netlink) !== undefined,
        onPeerAddress: (family, remote, present) => probe?.peerTouched(family, remote, present),
        onPass() {
          const { wanted } = reconciler;
          if (wanted !== undefined) probe?.follow(wanted);
          const ready = readiness().ready;
          metrics.ready(ready);
          if (ready && wanted !== undefined) {
            announcer.ready(wanted);
            if (announcer.announced) remains?.ready(wanted);
          }
          manager?.notifier.look();
        },
      }),
      (part) => part.close(),
    );
    const node = new OverlayNode({
      settings,
      log,
      metrics,
      store,
      memory,
      cache,
      reconciler,
      pods: registry,
      readUnderlay: (wishes) => readUnderlayFacts(netlink, wishes, isOwnDevice),
      clock: monotonic,
      sleep: delay,
      random: Math.random,
      signal,
    });
    owned(
      new KernelMonitor({
        routing(message) {
          reconciler.announced(message);
          if (concernsUnderlay(message, isOwnDevice)) node.underlayAnnounced();
        },
        netfilter(message) {
          if (firewall?.concerns(message) === true) reconciler.firewallAnnounced();
        },
        lost() {
          log.debug('announcements of the kernel were lost; looking at everything');
          reconciler.lookAgain();
          node.underlayAnnounced();
        },
      }),
      (part) => part.close(),
    );

    const readiness = (): Readiness => {
      if (!node.readiness.ready) return node.readiness;
      const reason = reconciler.fault;
      return reason === undefined ? { ready: true } : { ready: false, reason };
    };
    const stall = (): string | undefined => {
      const { passRunningMs = 0 } = reconciler;
      if (passRunningMs < STALLED_PASS_MS) return undefined;
      return `the kernel has been worked on for ${Math.round(passRunningMs / 1000)} s without an end`;
    };
    if (process.pid === 1) owned(new OrphanReaper(), (part) => part[Symbol.dispose]());
    const told = {
      readiness(): Readiness {
        const now = readiness();
        const { pending } = announcer;
        return now.ready && pending !== undefined ? { ready: false, reason: pending } : now;
      },
      stall,
      summary: () => `${node.lease?.key ?? 'no lease'}, ${reconciler.peers.size} peers`,
    };
    const manager = owned(openNotifier(service, told, log, signal), (part) => part?.close());
    const podNetwork: PodNetwork = {
      readiness,
      facts: () => reconciler.podFacts(),
      settlePods() {
        node.podsChanged();
        return reconciler.settlePods();
      },
    };
    owned(
      await createCniServer({
        socketPath: socket,
        network: podNetwork,
        registry,
        log,
        now: monotonic,
        observer: {
          onVerb: ({ verb, result, code, durationMs }) => {
            if (verb === 'unknown') return;
            metrics.verb({ verb, result: result === 'success' ? 'ok' : String(code), durationMs });
          },
        },
      }),
      (part) => part.close(),
    );

    const sources = {
      nodeName: settings.nodeName,
      startedAt,
      storeKind: store.kind,
      node,
      reconciler,
      registry,
      firewall,
      probe,
      readiness,
      configuration: () => reloader.state,
    };
    const served: HttpSources = {
      health() {
        const reason = stall();
        return reason === undefined ? { healthy: true } : { healthy: false, reason };
      },
      readiness,
      status: () => statusReport(sources),
      metrics() {
        updateGauges(sources, metrics);
        return metrics.text();
      },
      metricsType: metrics.contentType,
    };
    const http = owned(new HttpEndpoint(served, log, signal), (part) => part.close());
    const healthz = owned(new HttpEndpoint({ ...served, only: '/healthz' }, log, signal), (part) =>
      part.close(),
    );
    const reloader: ConfigReloader = owned(
      new ConfigReloader({
        source,
        log,
        checkFiles,
        apply: liveSettings({
          settings,
          source,
          log,
          store,
          node,
          reconciler,
          firewallPass,
          hasFirewall: firewall !== undefined,
          announcer,
          probe,
          serveAt: (address) => http.serveAt(address),
        }),
        onReload: (state) => {
          if (state === 'begins') manager?.notifier.reloading();
          else manager?.notifier.reloaded();
        },
      }),
      (part) => part.close(),
    );
    await http.serveAt(settings.http);
    await healthz.serveAt(settings.healthz);
    await node.run();
  } finally {
    for (const close of opened.toReversed()) {
      try {
        await close();
      } catch (error) {
        log.error('a part of the daemon did not close cleanly', { error });
      }
    }
    log.info('vtepd ended');
  }
}

/** Without nftables the daemon works when everything that needs it is switched off. */
function openFirewall({ overlay }: Settings, log: Log): Firewall | undefined {
  try {
    return Firewall.open();
  } catch (error) {
    if (!(error instanceof NftablesUnavailableError)) throw error;
    if (overlay.masquerade || overlay.peerFilter || overlay.podFilter) throw error;
    log.warn('nftables cannot be used; there is no masquerading and no filter, as configured', { error });
    return undefined;
  }
}
