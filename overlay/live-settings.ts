/**
 * What of changed settings takes effect in a running daemon, and how: each part that reads a live option is told
 * here. Which options those are, the table says (`live` in config/options.ts).
 */
import type { LeaseStore } from '../store/lease-store.ts';
import type { SwitchableStore } from '../store/switchable-store.ts';
import type { ReadyAnnouncer } from './announce.ts';
import { storeFingerprint } from './config/fingerprint.ts';
import type { OptionName } from './config/options.ts';
import type { HttpAddress, Settings, StoreSettings } from './config/settings.ts';
import type { SettingsProblem } from './config/settings-error.ts';
import { openStore } from './leases/open-store.ts';
import type { OverlayNode } from './node.ts';
import { type Log, messageWithCauses } from './ops/log.ts';
import type { UnderlayProbe } from './probe/underlay-probe.ts';
import type { FirewallPass } from './reconcile/firewall-pass.ts';
import type { Reconciler } from './reconcile/reconciler.ts';
import type { ConfigurationSource, ReloadOptions } from './reload.ts';

export interface LiveParts {
  /** What the daemon was started with. */
  readonly settings: Settings;
  readonly source: ConfigurationSource;
  readonly log: Log;
  readonly store: SwitchableStore;
  readonly node: OverlayNode;
  readonly reconciler: Reconciler;
  readonly firewallPass: FirewallPass;
  /** nftables can be used here. */
  readonly hasFirewall: boolean;
  readonly announcer: ReadyAnnouncer;
  /** Absent where the underlay is not to be probed. */
  readonly probe: UnderlayProbe | undefined;
  readonly serveAt: (address: HttpAddress | undefined) => Promise<void>;
}

/** One of its parts cannot be applied; the others are all the same. */
export function liveSettings(parts: LiveParts): ReloadOptions['apply'] {
  let opened = storeFingerprint(parts.settings.store);
  return async (settings, changed) => {
    const problems: SettingsProblem[] = [];
    const attempt = async (where: string, apply: () => unknown): Promise<void> => {
      try {
        await apply();
      } catch (error) {
        problems.push({ where, problem: messageWithCauses(error) });
      }
    };
    const has = (...names: OptionName[]): boolean => names.some((name) => changed.includes(name));
    if (has('log-level', 'log-format')) parts.source.setLog(settings.log);
    await attempt('--ip-masq, --peer-filter, --pod-filter', () => {
      requireFirewall(parts, settings);
      if (has('ip-masq', 'peer-filter', 'pod-filter')) applyFilters(parts, settings);
    });
    if (has('resync-interval')) parts.reconciler.setResyncInterval(settings.overlay.resyncIntervalMs);
    if (has('probe-interval') && settings.probe !== undefined) {
      parts.probe?.setInterval(settings.probe.intervalMs);
    }
    await attempt('the store', async () => {
      const wished = storeAsStarted(parts.settings.store, settings.store);
      const fingerprint = wished && storeFingerprint(wished);
      if (wished === undefined || fingerprint === undefined || fingerprint === opened) return;
      const next: LeaseStore = await openStore(wished);
      opened = fingerprint;
      // Closing the old one may take a call's time; nobody waits for it but the end of the daemon.
      parts.store.switchTo(next).catch((error: unknown) => {
        parts.log.warn('the store that was in use before did not close cleanly', { error });
      });
      parts.node.storeOpened();
    });
    // A lease's times, and the underlay's choice.
    parts.node.reconfigure(settings);
    await attempt('--http', () => parts.serveAt(settings.http));
    return problems;
  };
}

function requireFirewall({ hasFirewall }: LiveParts, { overlay }: Settings): void {
  if (hasFirewall || !(overlay.masquerade || overlay.peerFilter || overlay.podFilter)) return;
  throw new Error('nftables cannot be used here, so these stay off; install libnftables1 and restart vtepd');
}

function applyFilters({ firewallPass, announcer, reconciler }: LiveParts, { overlay }: Settings): void {
  firewallPass.setSwitches(overlay);
  announcer.setMasquerade(overlay.masquerade);
  reconciler.lookAgain();
}

/** Another kind of store, or another place in it, is another cluster: that needs a restart. */
function storeAsStarted(started: StoreSettings, now: StoreSettings): StoreSettings | undefined {
  if (started.kind !== 'etcd' || now.kind !== 'etcd') return undefined;
  return { ...now, prefix: started.prefix };
}
